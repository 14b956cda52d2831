//! The tree of memory cgroups: what each holds, how fast it changes, when it went.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    host::effective_limit::effective_limit,
    identity::{facts::Container, names::Names},
};

use super::{
    cgroup::{Cgroup, Counted},
    history::SAMPLES,
    snapshot::{
        EffectiveLimit, LeakSnapshot, Limit, MemoryReading, OomKillCount, Rates, ReclaimTotals,
    },
};

use shares::Shares;

mod crowding;
mod renamed;
mod shares;

/// Whoever may make cgroups decides how many are removed, and each costs as much as a live one.
const LIVE_PER_REMOVED: usize = 4;

/// All cgroups, live and lately removed.
#[derive(Debug)]
pub struct Cgroups {
    by_id: HashMap<u64, Cgroup>,
    by_path: HashMap<PathBuf, u64>,
    /// Removed cgroups that are still kept, oldest first, and since when they are kept.
    removed: VecDeque<(u64, Option<Duration>)>,
    /// Forgotten since the last eviction because there were too many.
    crowded_out: Vec<u64>,
    /// Live ones that gave way since they were last asked for.
    displaced: Vec<u64>,
    /// Who holds how many places; kept while there are too few.
    shares: Option<Shares>,
    /// Most live cgroups that are kept, and of removed ones one for each [`LIVE_PER_REMOVED`].
    most: usize,
    /// Cgroups whose numbers were not told because there were too many.
    pub overflow: u64,
    grace: Duration,
    pub machine_bytes: Option<u64>,
    /// A limit changed or a cgroup came: effective limits are to be found anew.
    limits_changed: bool,
    limit_changes: Vec<(u64, Limit, Limit)>,
    /// Made or renamed since names were last given.
    unnamed: Vec<u64>,
    /// See [`Cgroups::take_path_taken`].
    path_taken: bool,
    /// A cgroup came or went: who has children is to be found anew.
    tree_changed: bool,
    /// When the last intervals ended, newest first.
    interval_ends: VecDeque<Duration>,
}

impl Cgroups {
    pub fn new(most: usize, grace: Duration) -> Self {
        Self {
            by_id: HashMap::new(),
            by_path: HashMap::new(),
            removed: VecDeque::new(),
            crowded_out: Vec::new(),
            displaced: Vec::new(),
            shares: None,
            most,
            overflow: 0,
            grace,
            machine_bytes: None,
            limits_changed: true,
            limit_changes: Vec::new(),
            unnamed: Vec::new(),
            path_taken: false,
            tree_changed: true,
            interval_ends: VecDeque::new(),
        }
    }

    /// A cgroup exists. Known ones keep their numbers. `false` if there is no room, and nobody who has
    /// to give way (see [`Shares`]).
    pub fn made(&mut self, id: u64, path: &Path, since: SystemTime) -> bool {
        if self.by_id.contains_key(&id) {
            return true;
        }
        let path = renamed::absolute(path);
        if self.is_full() && !self.make_room(&path) {
            return false;
        }
        self.takes_place(&path, id);
        self.path_taken |= self.by_path.insert(path.clone(), id).is_some();
        self.limits_changed = true;
        self.tree_changed = true;
        self.by_id.insert(id, Cgroup::new(id, path, since));
        self.unnamed.push(id);
        true
    }

    /// The kernel told of its birth. One that was known before keeps what it has.
    pub fn born(&mut self, id: u64, at: Duration) {
        if let Some(cgroup) = self.by_id.get_mut(&id) {
            cgroup.born_at.get_or_insert(at);
        }
    }

    /// Cgroups that came since the last call.
    pub fn take_unnamed(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.unnamed)
    }

    /// Who a cgroup is, and the container that it is.
    pub fn named(&mut self, id: u64, names: Arc<Names>, container: Option<Arc<Container>>) {
        if let Some(cgroup) = self.by_id.get_mut(&id)
            && (cgroup.names != names || cgroup.container != container)
        {
            cgroup.names = names;
            cgroup.container = container;
            cgroup.changed = true;
        }
    }

    /// A cgroup is gone; its last numbers stay for the grace period (see [`Cgroups::evict`]).
    pub fn removed(&mut self, id: u64, now: Duration) {
        if let Some(cgroup) = self.by_id.get_mut(&id) {
            if cgroup.removed_at.is_none() {
                cgroup.removed_at = Some(now);
                cgroup.rates = Rates::default();
                cgroup.changed = true;
                self.removed.push_back((id, None));
                self.tree_changed = true;
                if let Some(shares) = &mut self.shares {
                    shares.take(&cgroup.path, id);
                }
            }
            if self.by_path.get(&cgroup.path) == Some(&id) {
                self.by_path.remove(&cgroup.path);
            }
        }
        if self.removed.len() > self.most.div_ceil(LIVE_PER_REMOVED)
            && let Some((oldest, _)) = self.removed.pop_front()
        {
            let untold = self
                .by_id
                .remove(&oldest)
                .is_some_and(|cgroup| cgroup.changed);
            self.overflow += u64::from(untold);
            self.crowded_out.push(oldest);
        }
    }

    /// Forgets what was removed and has been kept for the grace period; hands out their ids. Once an
    /// interval. `awake`: time since the start in which somebody could ask; the grace period begins with
    /// the first such call after the removal.
    pub fn evict(&mut self, awake: Duration) -> Vec<u64> {
        let mut evicted = std::mem::take(&mut self.crowded_out);
        for (_, since) in self.removed.iter_mut().rev() {
            if since.is_some() {
                break;
            }
            *since = Some(awake);
        }
        while let Some(&(oldest, since)) = self.removed.front() {
            if since.is_some_and(|since| awake.saturating_sub(since) <= self.grace) {
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
            if let (Some(from), Some(to)) = (cgroup.memory.limit, memory.limit)
                && from != to
            {
                self.limit_changes.push((id, from, to));
            }
            cgroup.memory = memory;
        }
    }

    /// Limits that changed since the last call, before and after.
    pub fn take_limit_changes(&mut self) -> Vec<(u64, Limit, Limit)> {
        std::mem::take(&mut self.limit_changes)
    }

    /// All files of the cgroup were read, with its CPU time, which changes all the time and is not told.
    pub fn read_in_full(&mut self, id: u64, cpu_ns: Option<u64>) {
        if let Some(cgroup) = self.by_id.get_mut(&id) {
            cgroup.read_in_full = true;
            cgroup.cpu_ns = cpu_ns;
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

    /// The kernel killed one process of this very cgroup. `false` if the cgroup is not known.
    pub fn oom_killed(
        &mut self,
        id: u64,
        scope: Option<&'static str>,
        group: Option<bool>,
    ) -> bool {
        let Some(cgroup) = self.by_id.get_mut(&id) else {
            return false;
        };
        let kills = &mut cgroup.oom_kills;
        match kills
            .iter_mut()
            .find(|kills| (kills.scope, kills.group) == (scope, group))
        {
            Some(kills) => kills.count += 1,
            None => kills.push(OomKillCount {
                scope,
                group,
                count: 1,
            }),
        }
        true
    }

    /// Ends an interval at `now` (since start): rates, history, effective limits.
    pub fn close_interval(&mut self, now: Duration) {
        if std::mem::take(&mut self.limits_changed) {
            self.find_effective_limits();
        }
        if std::mem::take(&mut self.tree_changed) {
            self.find_parents();
        }
        if !self.is_full() {
            self.shares = None;
        }
        let began = self.last_interval();
        self.interval_ends.push_front(now);
        self.interval_ends.truncate(SAMPLES);
        for cgroup in self.by_id.values_mut() {
            if cgroup.removed_at.is_none() {
                cgroup.close_interval(began, now);
            }
        }
    }

    /// End of the last interval, since memtrace started.
    pub fn last_interval(&self) -> Option<Duration> {
        self.interval_ends.front().copied()
    }

    /// Usage of a cgroup at the ends of the last intervals, newest first.
    pub fn usage_history(&self, id: u64) -> impl Iterator<Item = (Duration, u64)> {
        let cgroup = self.by_id.get(&id);
        let removed_at = cgroup.and_then(|cgroup| cgroup.removed_at);
        let ends = self
            .interval_ends
            .iter()
            .filter(move |end| removed_at.is_none_or(|at| **end <= at));
        cgroup
            .into_iter()
            .flat_map(|cgroup| cgroup.usage_history.newest_first())
            .zip(ends)
            .filter_map(|(usage, end)| Some((*end, usage?)))
    }

    /// Whether a cgroup is another or above it. Unknown ones are: they exclude nothing.
    pub fn is_above(&self, upper: u64, lower: u64) -> bool {
        match (self.by_id.get(&upper), self.by_id.get(&lower)) {
            (Some(upper), Some(lower)) => lower.path.starts_with(&upper.path),
            _ => true,
        }
    }

    /// The same, for sure.
    pub fn is_known_above(&self, upper: u64, lower: u64) -> bool {
        self.by_id.contains_key(&upper)
            && self.by_id.contains_key(&lower)
            && self.is_above(upper, lower)
    }

    /// The live cgroup at a path.
    pub fn id_of(&self, path: &Path) -> Option<u64> {
        self.by_path.get(path).copied()
    }

    /// A cgroup and all below it, removed ones too.
    pub fn subtree(&self, id: u64) -> impl Iterator<Item = &Cgroup> {
        let top = self.by_id.get(&id).map(|cgroup| cgroup.path.clone());
        self.by_id
            .values()
            .filter(move |cgroup| top.as_ref().is_some_and(|top| cgroup.path.starts_with(top)))
    }

    /// What tasks of each live cgroup and below it lost in reclaim, removed ones included; cgroups that
    /// lost nothing are left out.
    pub fn stall_ns_with_below(&self) -> HashMap<u64, u64> {
        let mut sums = HashMap::new();
        for cgroup in self.by_id.values() {
            let stall_ns = cgroup.counters().stall_ns;
            if stall_ns == 0 {
                continue;
            }
            let with_above = cgroup.path.ancestors();
            for id in with_above.filter_map(|path| self.by_path.get(path)) {
                *sums.entry(*id).or_default() += stall_ns;
            }
        }
        sums
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

    fn find_parents(&mut self) {
        let parents: HashSet<u64> = self
            .live()
            .filter_map(|cgroup| self.by_path.get(cgroup.path.parent()?).copied())
            .collect();
        for cgroup in self.by_id.values_mut() {
            cgroup.has_children = parents.contains(&cgroup.id);
        }
    }

    /// The live cgroups above one, nearest first.
    pub fn above(&self, cgroup: &Cgroup) -> impl Iterator<Item = &Cgroup> {
        cgroup
            .path
            .ancestors()
            .skip(1)
            .filter_map(|path| self.by_id.get(self.by_path.get(path)?))
    }

    /// What the growth analysis says now.
    pub fn judged(&mut self, id: u64, leak: Option<LeakSnapshot>) {
        if let Some(cgroup) = self.by_id.get_mut(&id)
            && cgroup.leak != leak
        {
            cgroup.leak = leak;
            cgroup.changed = true;
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

    /// All that are held, removed ones too.
    pub fn all(&self) -> impl Iterator<Item = &Cgroup> {
        self.by_id.values()
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

#[cfg(test)]
#[path = "cgroups_tests.rs"]
mod tests;
