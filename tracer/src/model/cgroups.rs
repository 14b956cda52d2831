//! The tree of memory cgroups: what each holds, how fast it changes, when it went.

use std::{
    collections::{HashMap, VecDeque},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::host::{effective_limit::effective_limit, escape};

use super::{
    history::History,
    snapshot::{
        CgroupSnapshot, EffectiveLimit, HeapTotals, LifecycleTotals, MemoryReading,
        ProcessSnapshot, Rates, ReclaimTotals,
    },
};

/// Longest path shown, characters.
const PATH_CHARS: usize = 512;

/// One memory cgroup.
#[derive(Debug)]
pub struct Cgroup {
    pub id: u64,
    /// From the root of the hierarchy, raw, with a leading `/`.
    pub path: PathBuf,
    /// The same for people.
    pub display: Arc<str>,
    /// When counting began here.
    pub since: SystemTime,
    /// Seconds since memtrace started at which it was removed.
    removed_at: Option<Duration>,
    pub memory: MemoryReading,
    pub effective_limit: Option<EffectiveLimit>,
    pub heap: HeapTotals,
    pub reclaim: Option<Box<ReclaimTotals>>,
    pub lifecycle: LifecycleTotals,
    sampled_faults: u64,
    pub rates: Rates,
    /// `usage_bytes`, one value an interval.
    pub usage_history: History,
    before: Option<Before>,
    /// Something changed since it was last told.
    changed: bool,
}

/// What rates are computed against.
#[derive(Debug, Clone, Copy)]
struct Before {
    at: Duration,
    memory: MemoryReading,
    mapped_bytes: u64,
}

/// What one interval found out about a cgroup.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counted {
    pub heap: HeapTotals,
    pub lifecycle: LifecycleTotals,
    /// Faults that the samples taken here stand for.
    pub sampled_faults: u64,
}

/// All cgroups, live and lately removed.
#[derive(Debug)]
pub struct Cgroups {
    by_id: HashMap<u64, Cgroup>,
    by_path: HashMap<PathBuf, u64>,
    /// Removed cgroups that are still kept, oldest first.
    removed: VecDeque<u64>,
    /// Forgotten since the last eviction because there were too many removed ones.
    crowded_out: Vec<u64>,
    /// Most live cgroups, and most removed ones, that are kept.
    most: usize,
    /// Cgroups whose numbers were not told because there were too many.
    pub overflow: u64,
    grace: Duration,
    pub machine_bytes: Option<u64>,
    /// A limit changed or a cgroup came: effective limits are to be found anew.
    limits_changed: bool,
}

impl Cgroups {
    pub fn new(most: usize, grace: Duration) -> Self {
        Self {
            by_id: HashMap::new(),
            by_path: HashMap::new(),
            removed: VecDeque::new(),
            crowded_out: Vec::new(),
            most,
            overflow: 0,
            grace,
            machine_bytes: None,
            limits_changed: true,
        }
    }

    /// A cgroup exists. Known ones keep their numbers. `false` if there is no room.
    pub fn made(&mut self, id: u64, path: &Path, since: SystemTime) -> bool {
        if self.by_id.contains_key(&id) {
            return true;
        }
        if self.by_id.len() - self.removed.len() >= self.most {
            return false;
        }
        let path = if path.is_absolute() {
            path.to_owned()
        } else {
            Path::new("/").join(path)
        };
        let display = escape::display(path.as_os_str().as_encoded_bytes(), PATH_CHARS).into();
        self.by_path.insert(path.clone(), id);
        self.limits_changed = true;
        self.by_id.insert(
            id,
            Cgroup {
                id,
                path,
                display,
                since,
                removed_at: None,
                memory: MemoryReading::default(),
                effective_limit: None,
                heap: HeapTotals::default(),
                reclaim: None,
                lifecycle: LifecycleTotals::default(),
                sampled_faults: 0,
                rates: Rates::default(),
                usage_history: History::default(),
                before: None,
                changed: true,
            },
        );
        true
    }

    /// A cgroup is gone; its last numbers stay for the grace period.
    pub fn removed(&mut self, id: u64, now: Duration) {
        if let Some(cgroup) = self.by_id.get_mut(&id) {
            if cgroup.removed_at.is_none() {
                cgroup.removed_at = Some(now);
                cgroup.rates = Rates::default();
                cgroup.changed = true;
                self.removed.push_back(id);
            }
            if self.by_path.get(&cgroup.path) == Some(&id) {
                self.by_path.remove(&cgroup.path);
            }
        }
        if self.removed.len() > self.most
            && let Some(oldest) = self.removed.pop_front()
        {
            let untold = self
                .by_id
                .remove(&oldest)
                .is_some_and(|cgroup| cgroup.changed);
            self.overflow += u64::from(untold);
            self.crowded_out.push(oldest);
        }
    }

    /// Forgets what was removed longer ago than the grace period; hands out their ids.
    pub fn evict(&mut self, now: Duration) -> Vec<u64> {
        let mut evicted = std::mem::take(&mut self.crowded_out);
        while let Some(&oldest) = self.removed.front() {
            let since = self.by_id.get(&oldest).and_then(|cgroup| cgroup.removed_at);
            if since.is_some_and(|at| now.saturating_sub(at) <= self.grace) {
                break;
            }
            self.removed.pop_front();
            self.by_id.remove(&oldest);
            evicted.push(oldest);
        }
        evicted
    }

    /// A reading of the cgroup's files.
    pub fn read(&mut self, id: u64, memory: MemoryReading) {
        if let Some(cgroup) = self.by_id.get_mut(&id) {
            cgroup.changed |= cgroup.memory != memory;
            self.limits_changed |= cgroup.memory.limit != memory.limit;
            cgroup.memory = memory;
        }
    }

    /// Totals of the BPF programs. Whether anything happened since the last ones;
    /// `None` if the cgroup is not known.
    pub fn counted(&mut self, id: u64, counted: Counted) -> Option<bool> {
        let cgroup = self.by_id.get_mut(&id)?;
        let told = cgroup.heap != counted.heap || cgroup.lifecycle != counted.lifecycle;
        let sampled = cgroup.sampled_faults != counted.sampled_faults;
        cgroup.changed |= told;
        cgroup.heap = counted.heap;
        cgroup.lifecycle = counted.lifecycle;
        cgroup.sampled_faults = counted.sampled_faults;
        Some(told || sampled)
    }

    /// Reclaim totals of the BPF programs.
    pub fn reclaimed(&mut self, id: u64, totals: ReclaimTotals) {
        if let Some(cgroup) = self.by_id.get_mut(&id)
            && cgroup.reclaim.as_deref() != Some(&totals)
        {
            cgroup.reclaim = Some(Box::new(totals));
            cgroup.changed = true;
        }
    }

    /// Ends an interval at `now` (since start): rates, history, effective limits.
    pub fn close_interval(&mut self, now: Duration) {
        if std::mem::take(&mut self.limits_changed) {
            self.find_effective_limits();
        }
        for cgroup in self.by_id.values_mut() {
            if cgroup.removed_at.is_none() {
                cgroup.close_interval(now);
            }
        }
    }

    fn find_effective_limits(&mut self) {
        let limits: Vec<(u64, Option<EffectiveLimit>)> = self
            .live()
            .map(|cgroup| (cgroup.id, self.limit_of(cgroup)))
            .collect();
        for (id, limit) in limits {
            if let Some(cgroup) = self.by_id.get_mut(&id) {
                cgroup.changed |= cgroup.effective_limit != limit;
                cgroup.effective_limit = limit;
            }
        }
    }

    fn limit_of(&self, cgroup: &Cgroup) -> Option<EffectiveLimit> {
        let ancestors = cgroup.path.ancestors().filter_map(|path| {
            let cgroup = self.by_id.get(self.by_path.get(path)?)?;
            Some((&*cgroup.display, cgroup.memory.limit))
        });
        effective_limit(ancestors, self.machine_bytes)
    }

    /// Cgroups that changed since the last call, removed ones once.
    pub fn take_changed(&mut self) -> impl Iterator<Item = &Cgroup> {
        self.by_id
            .values_mut()
            .filter_map(|cgroup| std::mem::take(&mut cgroup.changed).then_some(&*cgroup))
    }

    pub fn get(&self, id: u64) -> Option<&Cgroup> {
        self.by_id.get(&id)
    }

    /// Cgroups that exist.
    pub fn live(&self) -> impl Iterator<Item = &Cgroup> {
        self.by_id
            .values()
            .filter(|cgroup| cgroup.removed_at.is_none())
    }

    /// Cgroups that exist, and those removed after `since`.
    pub fn live_since(&self, since: Duration) -> impl Iterator<Item = &Cgroup> {
        self.by_id
            .values()
            .filter(move |cgroup| cgroup.removed_at.is_none_or(|at| at >= since))
    }

    /// Ids of the cgroups that exist.
    pub fn live_ids(&self) -> Vec<u64> {
        self.live().map(|cgroup| cgroup.id).collect()
    }
}

/// Which families count; the others' numbers are unknown, not 0.
#[derive(Debug, Clone, Copy)]
pub struct Serving {
    pub heap: bool,
    pub reclaim: bool,
    pub lifecycle: bool,
}

impl Cgroup {
    pub fn is_removed(&self) -> bool {
        self.removed_at.is_some()
    }

    fn close_interval(&mut self, now: Duration) {
        if let Some(usage) = self.memory.usage_bytes {
            self.usage_history.push(usage);
        }
        let mapped_bytes = self
            .heap
            .mmap_bytes
            .saturating_add(self.heap.brk_grow_bytes);
        if let Some(before) = self.before {
            let seconds = now.saturating_sub(before.at).as_secs_f64();
            if seconds > 0.0 {
                let change = |now: Option<u64>, before: Option<u64>| {
                    Some((now? as f64 - before? as f64) / seconds)
                };
                // A counter that fell was reset: its rate is unknown.
                let rate = |now: Option<u64>, before: Option<u64>| {
                    change(now, before).filter(|rate| *rate >= 0.0)
                };
                self.rates = Rates {
                    growth_bytes_per_second: change(
                        self.memory.usage_bytes,
                        before.memory.usage_bytes,
                    ),
                    anon_growth_bytes_per_second: change(
                        self.memory.anon_bytes,
                        before.memory.anon_bytes,
                    ),
                    faults_per_second: rate(self.memory.faults, before.memory.faults),
                    major_faults_per_second: rate(
                        self.memory.major_faults,
                        before.memory.major_faults,
                    ),
                    mapped_bytes_per_second: rate(Some(mapped_bytes), Some(before.mapped_bytes)),
                };
            }
        }
        self.before = Some(Before {
            at: now,
            memory: self.memory,
            mapped_bytes,
        });
    }

    /// The cgroup as outputs see it.
    pub fn snapshot(&self, serving: Serving, processes: Vec<ProcessSnapshot>) -> CgroupSnapshot {
        CgroupSnapshot {
            cgroup_id: self.id,
            cgroup: self.display.to_string(),
            since: self.since,
            removed: self.is_removed(),
            memory: self.memory,
            effective_limit: self.effective_limit.clone(),
            heap: serving.heap.then_some(self.heap),
            reclaim: serving
                .reclaim
                .then(|| self.reclaim.as_deref().cloned().unwrap_or_default()),
            lifecycle: serving.lifecycle.then_some(self.lifecycle),
            rates: self.rates,
            processes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::snapshot::Limit;

    fn reading(usage: u64, limit: Limit) -> MemoryReading {
        MemoryReading {
            usage_bytes: Some(usage),
            limit: Some(limit),
            ..MemoryReading::default()
        }
    }

    fn tree() -> Cgroups {
        let mut cgroups = Cgroups::new(8, Duration::from_secs(10));
        cgroups.machine_bytes = Some(1 << 30);
        for (id, path) in [(1, "/"), (2, "/a"), (3, "/a/b")] {
            assert!(cgroups.made(id, Path::new(path), SystemTime::UNIX_EPOCH));
        }
        cgroups
    }

    #[test]
    fn the_effective_limit_is_an_ancestors_when_that_is_smaller() {
        let mut cgroups = tree();
        cgroups.read(1, reading(5, Limit::Unlimited));
        cgroups.read(2, reading(5, Limit::Bytes(100)));
        cgroups.read(3, reading(5, Limit::Bytes(200)));
        cgroups.close_interval(Duration::from_secs(1));
        let limit = cgroups.get(3).unwrap().effective_limit.clone().unwrap();
        assert_eq!((limit.bytes, limit.cgroup.as_deref()), (100, Some("/a")));
    }

    #[test]
    fn growth_is_the_change_of_usage_over_the_time_that_passed() {
        let mut cgroups = tree();
        cgroups.read(2, reading(1000, Limit::Unlimited));
        cgroups.close_interval(Duration::from_secs(1));
        assert_eq!(cgroups.get(2).unwrap().rates.growth_bytes_per_second, None);
        cgroups.read(2, reading(3000, Limit::Unlimited));
        cgroups.close_interval(Duration::from_secs(5));
        assert_eq!(
            cgroups.get(2).unwrap().rates.growth_bytes_per_second,
            Some(500.0)
        );
    }

    #[test]
    fn a_removed_cgroup_is_told_once_and_kept_for_the_grace_period() {
        let mut cgroups = tree();
        assert_eq!(cgroups.take_changed().count(), 3);
        cgroups.removed(3, Duration::from_secs(5));
        let told: Vec<bool> = cgroups.take_changed().map(Cgroup::is_removed).collect();
        assert_eq!(told, [true]);
        assert_eq!(cgroups.take_changed().count(), 0);
        assert!(cgroups.evict(Duration::from_secs(15)).is_empty());
        assert_eq!(cgroups.evict(Duration::from_secs(16)), [3]);
        assert!(cgroups.get(3).is_none());
    }

    #[test]
    fn the_tree_never_outgrows_its_bound_and_removed_cgroups_make_room() {
        let mut cgroups = tree();
        let made =
            |cgroups: &mut Cgroups, id| cgroups.made(id, Path::new("/x"), SystemTime::UNIX_EPOCH);
        let kept = (10..30).filter(|&id| made(&mut cgroups, id)).count();
        assert_eq!((kept, cgroups.by_id.len()), (5, 8));
        for id in 100..200 {
            cgroups.removed(cgroups.live_ids()[0], Duration::ZERO);
            assert!(made(&mut cgroups, id));
        }
        assert_eq!(cgroups.live().count(), 8);
        assert!(cgroups.by_id.len() <= 16);
        // Nobody was told of the 92 that were crowded out; their BPF counts go too.
        assert_eq!(cgroups.overflow, 92);
        assert_eq!(cgroups.evict(Duration::ZERO).len(), 92);
    }
}
