//! The processes that grow: who was active in the kernel's counts, and what `/proc` says of them.

use std::{
    cmp::Ordering,
    collections::{HashMap, HashSet},
    time::Duration,
};

use memtrace_ebpf::counts::{HeapCounts, ProcessKey};

use super::{
    looks::{Look, Looks},
    snapshot::ProcessSnapshot,
};

/// Intervals without activity after which a process is looked up again, or forgotten if gone.
const IDLE_INTERVALS: u32 = 12;

/// Intervals between two looks that are kept: together as many as the history of a cgroup has.
const INTERVALS_BETWEEN_LOOKS: u32 = 4;
/// Processes that were there before memtrace of which the first look is kept.
const MOST_BEFORE: usize = 32_768;
/// Looks kept over the whole life of a process; when full, every other one goes.
const MOST_MARKS: usize = 32;

/// A process in one cgroup.
#[derive(Debug)]
struct Process {
    counts: HeapCounts,
    idle: u32,
    /// The last look at `/proc`.
    seen: Option<Seen>,
    /// As of the last look, escaped for display.
    comm: Option<String>,
    /// Earlier looks of the same process; the first may be its birth.
    looks: Looks,
    /// The same over its life, ever further apart.
    marks: Vec<(Duration, u64)>,
    between_marks: Duration,
    snapshot: Option<ProcessSnapshot>,
}

#[derive(Debug)]
struct Seen {
    /// Since memtrace started.
    at: Duration,
    anon_bytes: u64,
    /// Tells a process from another that got its id.
    start_ticks: Option<u64>,
}

/// Anonymous memory of a process at two moments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub tgid: u32,
    pub comm: Option<String>,
    pub first: Look,
    pub last: Look,
}

/// The first look at a process that was there before memtrace.
#[derive(Debug)]
struct Before {
    start_ticks: u64,
    look: Look,
}

/// The moment from which times here count, as `/proc/PID/stat` tells when a process started.
#[derive(Debug, Clone, Copy)]
pub struct Beginning {
    /// Since boot.
    pub ticks: u64,
    pub ticks_per_second: u64,
}

/// How much anonymous memory a process gained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grown {
    pub tgid: u32,
    pub comm: Option<String>,
    pub bytes: u64,
    pub rss_anon_bytes: u64,
    /// In this time.
    pub over: Duration,
}

impl Process {
    fn mark(&mut self, now: Duration, anon_bytes: u64) {
        let due = self
            .marks
            .last()
            .is_none_or(|(at, _)| now.saturating_sub(*at) >= self.between_marks);
        if !due {
            return;
        }
        if self.marks.len() >= MOST_MARKS {
            let mut index = 0;
            self.marks.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.between_marks = (self.between_marks * 2).max(Duration::from_secs(1));
        }
        self.marks.push((now, anon_bytes));
    }

    fn last(&self) -> Option<Look> {
        self.seen.as_ref().map(|seen| Look {
            at: seen.at,
            anon_bytes: seen.anon_bytes,
        })
    }
}

/// All processes with counts. As bounded as the BPF map they come from.
#[derive(Debug)]
pub struct Processes {
    by_key: HashMap<ProcessKey, Process>,
    /// Cgroups of all of them.
    cgroups: HashSet<u64>,
    /// By process id, until the process is looked at again.
    before: HashMap<u32, Before>,
    beginning: Option<Beginning>,
    between_looks: Duration,
}

impl Default for Processes {
    fn default() -> Self {
        Self {
            by_key: HashMap::new(),
            cgroups: HashSet::new(),
            before: HashMap::new(),
            beginning: None,
            between_looks: Duration::from_secs(20),
        }
    }
}

/// What an interval asks for.
#[derive(Debug, Default)]
pub struct Activity {
    /// Processes that were active, most active first: worth a look at `/proc`.
    pub active: Vec<ProcessKey>,
    /// Processes idle for long: worth asking whether they still exist.
    pub idle: Vec<ProcessKey>,
}

impl Processes {
    /// None is known yet; they will be looked at each `interval`.
    pub fn new(interval: Duration, beginning: Beginning) -> Self {
        Self {
            beginning: Some(beginning),
            between_looks: interval.saturating_mul(INTERVALS_BETWEEN_LOOKS),
            ..Self::default()
        }
    }

    /// The first look at a process that was there before memtrace: it grows from here, not from 0.
    /// `false` if there is no room for it.
    pub fn was_there(&mut self, tgid: u32, start_ticks: u64, look: Look) -> bool {
        let has_room = self.before.len() < MOST_BEFORE;
        if has_room {
            self.before.insert(tgid, Before { start_ticks, look });
        }
        has_room
    }

    /// When and with what a process began that was not looked at yet; `None` if it was there before
    /// memtrace and what it had then is not known.
    fn began(&self, tgid: u32, start_ticks: Option<u64>) -> Option<Look> {
        let start_ticks = start_ticks?;
        let before = self.before.get(&tgid);
        if let Some(before) = before.filter(|before| is_same(before.start_ticks, start_ticks)) {
            return Some(before.look);
        }
        let Beginning {
            ticks,
            ticks_per_second,
        } = self.beginning?;
        let after = start_ticks.checked_sub(ticks)?;
        Some(Look {
            at: Duration::from_millis(after.saturating_mul(1000).checked_div(ticks_per_second)?),
            anon_bytes: 0,
        })
    }

    /// What a process had at about `from`, or when it was first seen, or 0 when it was born after that.
    /// `None` if nothing is known of it. `start_ticks`: as of [`Processes::looked_at`], may be one off.
    pub fn measured_from(
        &self,
        key: &ProcessKey,
        start_ticks: Option<u64>,
        from: Duration,
    ) -> Option<Look> {
        let is_it = |seen: &Seen| match (seen.start_ticks, start_ticks) {
            (Some(seen), Some(wanted)) => is_same(seen, wanted),
            _ => true,
        };
        let known = self.by_key.get(key);
        let known = known.filter(|process| process.seen.as_ref().is_some_and(is_it));
        match known {
            Some(process) => process
                .looks
                .nearest(from, process.last(), self.between_looks),
            None => self.began(key.tgid, start_ticks),
        }
    }

    /// How much a process did since the last counts, by its counts of now.
    pub fn activity_since(&self, key: &ProcessKey, now: &HeapCounts) -> u64 {
        let before = self.by_key.get(key);
        weight(now).saturating_sub(before.map_or(0, |before| weight(&before.counts)))
    }

    /// Takes an interval's counts, of which the first of each process counts; says who is worth looking at.
    pub fn count(&mut self, counts: impl Iterator<Item = (ProcessKey, HeapCounts)>) -> Activity {
        let mut active: Vec<(u64, ProcessKey)> = Vec::new();
        let mut activity = Activity::default();
        let mut present = std::mem::take(&mut self.by_key);
        for (key, counts) in counts {
            // Again, as the walk over the map began anew.
            if self.by_key.contains_key(&key) {
                continue;
            }
            let before = present.remove(&key);
            let weight = weight(&counts)
                .saturating_sub(before.as_ref().map_or(0, |before| weight(&before.counts)));
            let mut process = before.unwrap_or(Process {
                counts,
                idle: 0,
                seen: None,
                comm: None,
                looks: Looks::default(),
                marks: Vec::new(),
                between_marks: Duration::ZERO,
                snapshot: None,
            });
            process.counts = counts;
            if weight > 0 {
                process.idle = 0;
                active.push((weight, key));
            } else {
                process.idle += 1;
                process.snapshot = None;
                if process.idle.is_multiple_of(IDLE_INTERVALS) {
                    activity.idle.push(key);
                }
            }
            self.by_key.insert(key, process);
        }
        self.cgroups = self.by_key.keys().map(|key| key.cgroup_id).collect();
        active.sort_unstable_by_key(|(weight, key)| (std::cmp::Reverse(*weight), key.tgid));
        activity.active = active.into_iter().map(|(_, key)| key).collect();
        activity
    }

    /// What `/proc` said of an active process; growth is computed against the last look.
    /// `start_ticks`: field 22 of `/proc/PID/stat`.
    pub fn looked_at(
        &mut self,
        key: &ProcessKey,
        now: Duration,
        start_ticks: Option<u64>,
        mut snapshot: ProcessSnapshot,
    ) {
        let began = self.began(key.tgid, start_ticks);
        if let Some(process) = self.by_key.get_mut(key) {
            let same = process
                .seen
                .as_ref()
                .filter(|seen| seen.start_ticks == start_ticks);
            if let (Some(seen), Some(bytes)) = (same, snapshot.rss_anon_bytes) {
                let seconds = now.saturating_sub(seen.at).as_secs_f64();
                if seconds > 0.0 {
                    snapshot.growth_bytes_per_second =
                        Some((bytes as f64 - seen.anon_bytes as f64) / seconds);
                }
            }
            let last = same.and_then(|_| process.last());
            if same.is_none() {
                self.before.remove(&key.tgid);
                process.looks.clear();
                process.marks.clear();
                process.between_marks = Duration::ZERO;
            }
            if let Some(bytes) = snapshot.rss_anon_bytes {
                let look = Look {
                    at: now,
                    anon_bytes: bytes,
                };
                if process.looks.is_empty()
                    && let Some(began) = began
                {
                    process.looks.remember(began, None, Duration::ZERO);
                }
                process.looks.remember(look, last, self.between_looks);
                process.mark(now, bytes);
            }
            process.seen = snapshot.rss_anon_bytes.map(|anon_bytes| Seen {
                at: now,
                anon_bytes,
                start_ticks,
            });
            process.comm.clone_from(&snapshot.comm);
            process.snapshot = Some(snapshot);
        }
    }

    /// What processes of these cgroups had at about `from`, or when they were first seen or born after
    /// that, and at the last look.
    pub fn changes(
        &self,
        of_cgroup: impl Fn(u64) -> bool,
        from: Duration,
    ) -> impl Iterator<Item = Change> {
        self.by_key
            .iter()
            .filter(move |(key, _)| of_cgroup(key.cgroup_id))
            .filter_map(move |(key, process)| {
                let last = process.last()?;
                Some(Change {
                    tgid: key.tgid,
                    comm: process.comm.clone(),
                    first: process
                        .looks
                        .nearest(from, Some(last), self.between_looks)?,
                    last,
                })
            })
    }

    /// Whether processes of this very cgroup were active while memtrace ran.
    pub fn are_active_in(&self, cgroup_id: u64) -> bool {
        self.cgroups.contains(&cgroup_id)
    }

    /// What the processes of these cgroups gained in about the last `span`, or since they were first seen.
    pub fn growth_since(
        &self,
        cgroup_ids: &HashSet<u64>,
        span: Option<Duration>,
    ) -> impl Iterator<Item = Grown> {
        self.by_key
            .iter()
            .filter(move |(key, _)| cgroup_ids.contains(&key.cgroup_id))
            .filter_map(move |(key, process)| {
                let seen = process.seen.as_ref()?;
                let from = span.map_or(Duration::ZERO, |span| seen.at.saturating_sub(span));
                let nearest = process.marks.iter().min_by_key(|(at, _)| at.abs_diff(from));
                let (at, bytes) = *nearest?;
                Some(Grown {
                    tgid: key.tgid,
                    comm: process.comm.clone(),
                    bytes: seen.anon_bytes.saturating_sub(bytes),
                    rss_anon_bytes: seen.anon_bytes,
                    over: seen.at.saturating_sub(at),
                })
            })
    }

    /// The counts of a process.
    pub fn counts(&self, key: &ProcessKey) -> Option<&HeapCounts> {
        self.by_key.get(key).map(|process| &process.counts)
    }

    /// The fastest growing processes by cgroup, at most `most` each.
    pub fn growing(&self, most: usize) -> HashMap<u64, Vec<ProcessSnapshot>> {
        let mut growing: HashMap<u64, Vec<ProcessSnapshot>> = HashMap::new();
        for (key, process) in &self.by_key {
            if let Some(snapshot) = &process.snapshot {
                growing
                    .entry(key.cgroup_id)
                    .or_default()
                    .push(snapshot.clone());
            }
        }
        for processes in growing.values_mut() {
            processes.sort_by(fastest_first);
            processes.truncate(most);
        }
        growing
    }

    /// The fastest growing processes of these cgroups together.
    pub fn growing_in(&self, cgroup_ids: &HashSet<u64>, most: usize) -> Vec<&ProcessSnapshot> {
        let mut growing: Vec<&ProcessSnapshot> = self
            .by_key
            .iter()
            .filter(|(key, _)| cgroup_ids.contains(&key.cgroup_id))
            .filter_map(|(_, process)| process.snapshot.as_ref())
            .collect();
        growing.sort_by(|a, b| fastest_first(a, b));
        growing.truncate(most);
        growing
    }
}

fn fastest_first(a: &ProcessSnapshot, b: &ProcessSnapshot) -> Ordering {
    let growth =
        |process: &ProcessSnapshot| process.growth_bytes_per_second.unwrap_or(f64::NEG_INFINITY);
    growth(b).total_cmp(&growth(a)).then(a.tgid.cmp(&b.tgid))
}

/// Whether two start times are of one process: they may be rounded on different clocks.
fn is_same(start_ticks: u64, other: u64) -> bool {
    start_ticks.abs_diff(other) <= 1
}

/// How active: faults stand for a page each.
fn weight(counts: &HeapCounts) -> u64 {
    counts
        .sampled_faults
        .saturating_mul(4096)
        .saturating_add(counts.mmap_bytes)
        .saturating_add(counts.munmap_bytes)
        .saturating_add(counts.brk_grow_bytes)
        .saturating_add(counts.brk_shrink_bytes)
        .saturating_add(counts.madvise_free_bytes)
}

#[cfg(test)]
#[path = "processes_tests.rs"]
mod tests;
