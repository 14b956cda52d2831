//! One memory cgroup: what it holds, and how fast that changes.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    host::escape,
    identity::{facts::Container, names::Names},
};

use super::{
    history::History,
    snapshot::{
        CgroupSnapshot, EffectiveLimit, HeapTotals, LeakSnapshot, LifecycleTotals, MemoryReading,
        OomKillCount, ProcessSnapshot, Rates, ReclaimTotals,
    },
    window::{Counters, Window},
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
    /// Who that is to an operator.
    pub names: Arc<Names>,
    /// What is known of the container that it is.
    pub container: Option<Arc<Container>>,
    /// When counting began here.
    pub since: SystemTime,
    /// When it was made, of the boot clock, which never steps; `None` unless the kernel told.
    pub born_at: Option<Duration>,
    /// Seconds since memtrace started at which it was removed.
    pub(super) removed_at: Option<Duration>,
    pub memory: MemoryReading,
    /// CPU time of the cgroup with its descendants, cumulative, as of its last full reading; v2 only.
    pub cpu_ns: Option<u64>,
    pub effective_limit: Option<EffectiveLimit>,
    pub heap: HeapTotals,
    pub reclaim: Option<Box<ReclaimTotals>>,
    pub lifecycle: LifecycleTotals,
    pub(super) oom_kills: Vec<OomKillCount>,
    pub(super) sampled_faults: u64,
    pub rates: Rates,
    pub leak: Option<LeakSnapshot>,
    /// Other cgroups are below it.
    pub has_children: bool,
    /// `usage_bytes`, one value an interval.
    pub usage_history: History,
    pub(super) before: Option<Before>,
    /// All its files were read in this interval.
    pub(super) read_in_full: bool,
    pub(super) window: Option<Box<Window>>,
    /// Something changed since it was last told.
    pub(super) changed: bool,
}

/// What rates are computed against.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before {
    at: Duration,
    usage_bytes: Option<u64>,
    mapped_bytes: u64,
    stall_ns: u64,
    /// End of the interval in which all files were read last, and what they said.
    full_at: Duration,
    full: MemoryReading,
}

/// What one interval found out about a cgroup.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counted {
    pub heap: HeapTotals,
    pub lifecycle: LifecycleTotals,
    /// Faults that the samples taken here stand for.
    pub sampled_faults: u64,
}

/// Which numbers are counted whole; the others are unknown, not 0.
#[derive(Debug, Clone, Copy)]
pub struct Serving {
    pub heap: bool,
    pub reclaim: bool,
    pub execs: bool,
    pub exits: bool,
    pub oom_kills: bool,
}

impl Cgroup {
    /// A cgroup of which nothing is known yet; counting begins at `since`.
    pub(super) fn new(id: u64, path: PathBuf, since: SystemTime) -> Self {
        let display = escape::display(path.as_os_str().as_encoded_bytes(), PATH_CHARS).into();
        Self {
            id,
            path,
            display,
            names: Arc::default(),
            container: None,
            since,
            born_at: None,
            removed_at: None,
            memory: MemoryReading::default(),
            cpu_ns: None,
            effective_limit: None,
            heap: HeapTotals::default(),
            reclaim: None,
            lifecycle: LifecycleTotals::default(),
            oom_kills: Vec::new(),
            sampled_faults: 0,
            rates: Rates::default(),
            leak: None,
            has_children: false,
            usage_history: History::default(),
            before: None,
            read_in_full: false,
            window: None,
            changed: true,
        }
    }

    /// It has another path from now on; gives the former one.
    pub(super) fn moved(&mut self, path: PathBuf) -> PathBuf {
        self.display = escape::display(path.as_os_str().as_encoded_bytes(), PATH_CHARS).into();
        self.changed = true;
        std::mem::replace(&mut self.path, path)
    }

    pub fn is_removed(&self) -> bool {
        self.removed_at.is_some()
    }

    /// Kills of processes of this very cgroup that were seen.
    pub fn oom_kills(&self) -> u64 {
        self.oom_kills.iter().map(|kills| kills.count).sum()
    }

    /// The counters of now.
    pub fn counters(&self) -> Counters {
        let reclaim = self.reclaim.as_deref();
        Counters {
            reclaims: reclaim.map_or(0, |reclaim| reclaim.direct + reclaim.memcg),
            stall_ns: reclaim.map_or(0, |reclaim| reclaim.stall_ns),
            reclaimed_pages: reclaim.map_or(0, |reclaim| reclaim.reclaimed_pages),
            heap: self.heap,
            pressure: self.memory.pressure,
        }
    }

    /// The counters half a minute to a minute ago, and when that was; `None` in the first interval.
    pub fn counters_before(&self) -> Option<(Duration, Counters)> {
        self.window.as_ref().map(|window| window.start())
    }

    /// `began`: the end of the interval before; `None` in the first.
    pub(super) fn close_interval(&mut self, began: Option<Duration>, now: Duration) {
        self.usage_history.push(self.memory.usage_bytes);
        let counters = self.counters();
        match &mut self.window {
            Some(window) => window.push(now, counters),
            None => {
                // All that one did that came since then it did since then.
                let start = began.map_or((now, counters), |at| (at, counters.at_birth()));
                self.window = Some(Box::new(Window::new(start.0, start.1)));
            }
        }
        let mapped_bytes = self
            .heap
            .mmap_bytes
            .saturating_add(self.heap.brk_grow_bytes);
        if let Some(before) = self.before {
            let seconds = now.saturating_sub(before.at).as_secs_f64();
            if seconds > 0.0 {
                let change = |now: Option<u64>, before: Option<u64>, seconds: f64| {
                    Some((now? as f64 - before? as f64) / seconds)
                };
                // A counter that fell was reset: its rate is unknown.
                let rate = |now: Option<u64>, before: Option<u64>, seconds: f64| {
                    change(now, before, seconds).filter(|rate| *rate >= 0.0)
                };
                // Only usage is read in each interval. What the other files say is unknown in between, and what
                // came to it in the meantime came over all of it.
                let full = self.read_in_full.then_some(self.memory);
                let (full, was) = (full.unwrap_or_default(), before.full);
                let waited = now.saturating_sub(before.full_at).as_secs_f64();
                let pressure = |now: Option<u64>, before: Option<u64>| {
                    rate(now, before, waited).map(|ns| (ns / 1e9).min(1.0))
                };
                self.rates = Rates {
                    growth_bytes_per_second: change(
                        self.memory.usage_bytes,
                        before.usage_bytes,
                        seconds,
                    ),
                    anon_growth_bytes_per_second: change(full.anon_bytes, was.anon_bytes, waited),
                    faults_per_second: rate(full.faults, was.faults, waited),
                    major_faults_per_second: rate(full.major_faults, was.major_faults, waited),
                    mapped_bytes_per_second: rate(
                        Some(mapped_bytes),
                        Some(before.mapped_bytes),
                        seconds,
                    ),
                    reclaim_stall_ratio: rate(
                        Some(counters.stall_ns),
                        Some(before.stall_ns),
                        seconds,
                    )
                    .map(|ns| ns / 1e9),
                    pressure_some_ratio: pressure(full.pressure.some_ns, was.pressure.some_ns),
                    pressure_full_ratio: pressure(full.pressure.full_ns, was.pressure.full_ns),
                };
            }
        }
        let (full_at, full) = match self.before {
            Some(before) if !self.read_in_full => (before.full_at, before.full),
            _ => (now, self.memory),
        };
        self.read_in_full = false;
        self.before = Some(Before {
            at: now,
            usage_bytes: self.memory.usage_bytes,
            mapped_bytes,
            stall_ns: counters.stall_ns,
            full_at,
            full,
        });
    }

    /// The cgroup as outputs see it.
    pub fn snapshot(&self, serving: Serving, processes: Vec<ProcessSnapshot>) -> CgroupSnapshot {
        CgroupSnapshot {
            cgroup_id: self.id,
            cgroup: self.display.to_string(),
            names: Arc::clone(&self.names),
            container: self.container.clone(),
            since: self.since,
            removed: self.is_removed(),
            memory: self.memory,
            effective_limit: self.effective_limit.clone(),
            heap: serving.heap.then_some(self.heap),
            reclaim: serving
                .reclaim
                .then(|| self.reclaim.as_deref().cloned().unwrap_or_default()),
            execs: serving.execs.then_some(self.lifecycle.execs),
            exits: serving.exits.then_some(self.lifecycle.exits),
            oom_kills: serving.oom_kills.then(|| self.oom_kills.clone()),
            rates: self.rates,
            leak: self.leak,
            growers: Vec::new(),
            processes,
        }
    }
}
