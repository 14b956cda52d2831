//! What the model hands to every output: one immutable picture per interval.
//!
//! Owns the public shape of the numbers (names, units, null rules). Must not
//! read anything: `host/` and `probes/` measure, `model/` fills this in.
//! A field that could not be measured is `None`, never 0.

use std::{sync::Arc, time::SystemTime};

use crate::identity::{facts::Container, names::Names};

use crate::analysis::{Estimate, NearLimit, Signal, Since, State, TimeToLimit};

/// A memory limit as the kernel states it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    Unlimited,
    Bytes(u64),
}

impl Limit {
    /// The limit in bytes; `None` when there is none.
    pub fn bytes(self) -> Option<u64> {
        match self {
            Limit::Unlimited => None,
            Limit::Bytes(bytes) => Some(bytes),
        }
    }
}

/// `memory.events` (cgroup v2) or what v1 has of it.
/// Source: Documentation/admin-guide/cgroup-v2.rst, "memory.events".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryEvents {
    pub low: Option<u64>,
    pub high: Option<u64>,
    /// Limit hits; on v1 `memory.failcnt`.
    pub max: Option<u64>,
    pub oom: Option<u64>,
    pub oom_kill: Option<u64>,
    pub oom_group_kill: Option<u64>,
}

/// Cumulative stall time of `memory.pressure`, nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pressure {
    pub some_ns: Option<u64>,
    pub full_ns: Option<u64>,
}

/// One reading of a memory cgroup's files; hierarchical (includes descendants) on v1 and v2 alike.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryReading {
    /// `memory.current` / `memory.usage_in_bytes`.
    pub usage_bytes: Option<u64>,
    /// `anon` / `total_rss`.
    pub anon_bytes: Option<u64>,
    /// `file` / `total_cache`, shmem included as the kernel does.
    pub file_bytes: Option<u64>,
    /// `inactive_file` / `total_inactive_file`.
    pub inactive_file_bytes: Option<u64>,
    pub shmem_bytes: Option<u64>,
    /// `kernel` (5.18+) or the sum of its parts / `memory.kmem.usage_in_bytes`.
    pub kernel_bytes: Option<u64>,
    pub slab_bytes: Option<u64>,
    /// `slab_reclaimable` (v2 only): the part that the kernel takes back under pressure.
    pub slab_reclaimable_bytes: Option<u64>,
    pub sock_bytes: Option<u64>,
    pub swap_bytes: Option<u64>,
    /// `memory.max` / `memory.limit_in_bytes`; `None` when it could not be read.
    pub limit: Option<Limit>,
    /// `memory.high` (v2 only).
    pub high: Option<Limit>,
    /// `memory.peak` (5.19+) / `memory.max_usage_in_bytes`.
    pub peak_bytes: Option<u64>,
    /// `pgfault` / `total_pgfault`: all faults, major ones included.
    pub faults: Option<u64>,
    /// `pgmajfault` / `total_pgmajfault`.
    pub major_faults: Option<u64>,
    /// `workingset_refault_anon` + `workingset_refault_file` / `total_workingset_refault*`, pages.
    pub refaults: Option<u64>,
    pub events: MemoryEvents,
    pub events_local: MemoryEvents,
    pub pressure: Pressure,
    /// `memory.oom_control` (v1 only): tasks wait at the limit of this cgroup or of an ancestor.
    pub under_oom: Option<bool>,
    /// `memory.oom_control` (v1 only): the OOM killer is switched off.
    pub oom_kill_disable: Option<bool>,
}

impl MemoryReading {
    /// `usage - inactive_file`, as the kubelet computes the working set.
    pub fn working_set_bytes(&self) -> Option<u64> {
        Some(self.usage_bytes?.saturating_sub(self.inactive_file_bytes?))
    }

    /// Faults served without I/O.
    pub fn minor_faults(&self) -> Option<u64> {
        Some(self.faults?.saturating_sub(self.major_faults?))
    }
}

/// Cumulative since memtrace started (or since the cgroup was made), from the BPF maps.
/// Local: processes of this very cgroup, not of its descendants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeapTotals {
    pub mmap_bytes: u64,
    pub munmap_bytes: u64,
    pub brk_grow_bytes: u64,
    pub brk_shrink_bytes: u64,
    pub madvise_free_bytes: u64,
}

/// Number of log2 buckets of reclaim stalls; bucket `i` counts stalls in `[2^i, 2^(i+1))` ns.
pub const STALL_BUCKETS: usize = 40;

/// Reclaim done by tasks of this very cgroup. Cumulative.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReclaimTotals {
    /// Direct reclaim: the page allocator ran short.
    pub direct: u64,
    /// Memory-cgroup reclaim: a limit was reached.
    pub memcg: u64,
    pub stall_ns: u64,
    pub reclaimed_pages: u64,
    pub stall_histogram: [u64; STALL_BUCKETS],
}

impl Default for ReclaimTotals {
    fn default() -> Self {
        Self {
            direct: 0,
            memcg: 0,
            stall_ns: 0,
            reclaimed_pages: 0,
            stall_histogram: [0; STALL_BUCKETS],
        }
    }
}

/// Processes that execed and ended in this very cgroup. Cumulative.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LifecycleTotals {
    pub execs: u64,
    pub exits: ExitTotals,
}

/// Processes that ended. Cumulative.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExitTotals {
    pub processes: u64,
    pub minor_faults: u64,
    pub major_faults: u64,
    /// Largest peak RSS among them.
    pub peak_rss_bytes: u64,
}

/// Processes of this very cgroup that the kernel's OOM killer killed. Cumulative.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OomKillCount {
    /// Whose limit it was: `cgroup`, `cpuset`, `mempolicy` or `global`; `None` when not known.
    pub scope: Option<&'static str>,
    /// `memory.oom.group`: all processes of a cgroup were killed together; `None` when not known.
    pub group: Option<bool>,
    pub count: u64,
}

/// A process that grows, within its cgroup.
#[derive(Debug, Clone, PartialEq)]
pub struct ProcessSnapshot {
    pub tgid: u32,
    /// Escaped for display; `None` when the process was gone before it was read.
    pub comm: Option<String>,
    pub cgroup_id: u64,
    pub rss_anon_bytes: Option<u64>,
    pub rss_bytes: Option<u64>,
    /// Over the last interval; `None` at first sight.
    pub growth_bytes_per_second: Option<f64>,
    /// From `/proc/PID/stat`, cumulative over the life of the process.
    pub minor_faults: Option<u64>,
    pub major_faults: Option<u64>,
    /// `None` when the heap probe is not attached.
    pub heap: Option<HeapTotals>,
}

/// A process that grew much in a cgroup that leaks.
#[derive(Debug, Clone, PartialEq)]
pub struct GrowerSnapshot {
    pub tgid: u32,
    /// Escaped for display.
    pub comm: Option<String>,
    pub rss_anon_bytes: u64,
}

/// Rates over the last interval; `None` at first sight of the cgroup. Of what only a full reading tells: over the
/// time since the one before, `None` in intervals without one.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    /// Change of `usage_bytes`.
    pub growth_bytes_per_second: Option<f64>,
    /// Of full readings, as are the next two.
    pub anon_growth_bytes_per_second: Option<f64>,
    pub faults_per_second: Option<f64>,
    pub major_faults_per_second: Option<f64>,
    pub mapped_bytes_per_second: Option<f64>,
    /// Time that tasks of this very cgroup stalled in reclaim, all together, to time passed.
    pub reclaim_stall_ratio: Option<f64>,
    /// Share of the time in which some, or all, tasks waited for memory; v2 only. Of full readings.
    pub pressure_some_ratio: Option<f64>,
    pub pressure_full_ratio: Option<f64>,
}

/// The smallest limit over a cgroup, its ancestors and the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveLimit {
    pub bytes: u64,
    /// Cgroup path that sets it; `None` when it is the machine's memory.
    pub cgroup: Option<String>,
}

/// A memory limit that somebody changed.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitChange {
    /// Of the reading that found it.
    pub time: SystemTime,
    pub cgroup_id: u64,
    pub cgroup: String,
    pub names: Arc<Names>,
    pub from: Limit,
    pub to: Limit,
    pub usage_bytes: Option<u64>,
}

/// What the growth analysis says of a cgroup. Times are Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LeakSnapshot {
    pub state: State,
    /// The memory that the state rests on.
    pub signal: Option<Signal>,
    /// `None` without a trend.
    pub rate_bytes_per_hour: Option<Estimate>,
    pub since: Option<Since>,
    /// To the effective limit; `None` unless it is a leak.
    pub time_to_limit: Option<TimeToLimit>,
    /// Of the cgroup's own limit; `None` without one.
    pub near_limit: Option<NearLimit>,
}

/// One memory cgroup at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct CgroupSnapshot {
    /// Inode of the cgroup directory in the memory hierarchy.
    pub cgroup_id: u64,
    /// Path from the root of the memory hierarchy, `/` first, escaped for display.
    pub cgroup: String,
    pub names: Arc<Names>,
    /// What sources know of the container that the cgroup is; `None` for other cgroups.
    pub container: Option<Arc<Container>>,
    /// When memtrace began to count here: its start, or the cgroup's birth if later.
    pub since: SystemTime,
    /// `true` once: the cgroup is gone and these are its last numbers.
    pub removed: bool,
    pub memory: MemoryReading,
    pub effective_limit: Option<EffectiveLimit>,
    /// `None` unless every heap probe is attached: what is mapped means little without what is released.
    pub heap: Option<HeapTotals>,
    /// `None` unless every reclaim probe is attached.
    pub reclaim: Option<ReclaimTotals>,
    /// `None` when that probe is not attached.
    pub execs: Option<u64>,
    /// `None` when that probe is not attached.
    pub exits: Option<ExitTotals>,
    /// One entry per scope and group that occurred; `None` when the OOM probe is not attached.
    pub oom_kills: Option<Vec<OomKillCount>>,
    pub rates: Rates,
    /// `None` while it is not judged.
    pub leak: Option<LeakSnapshot>,
    /// Fastest growing first; only the top few.
    /// Those that grew most, of a cgroup whose leak is suspected or confirmed.
    pub growers: Vec<GrowerSnapshot>,
    pub processes: Vec<ProcessSnapshot>,
}

/// `/proc/meminfo` and `/proc/vmstat` totals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HostReading {
    pub mem_total_bytes: Option<u64>,
    pub mem_free_bytes: Option<u64>,
    pub mem_available_bytes: Option<u64>,
    pub buffers_bytes: Option<u64>,
    pub cached_bytes: Option<u64>,
    pub shmem_bytes: Option<u64>,
    pub slab_bytes: Option<u64>,
    pub swap_total_bytes: Option<u64>,
    pub swap_free_bytes: Option<u64>,
    pub faults: Option<u64>,
    pub major_faults: Option<u64>,
    pub oom_kills: Option<u64>,
    pub pressure: Pressure,
}

/// One attached probe, by its catalog name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeRun {
    pub probe: String,
    /// Kernel's figures; `None` while `kernel.bpf_stats_enabled` is 0.
    pub run_time_ns: Option<u64>,
    pub run_count: Option<u64>,
}

/// A counted loss: what was dropped and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Stable snake_case cause, for example `oom_ring_full`.
    pub cause: &'static str,
    pub count: u64,
}

/// memtrace about itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SelfReading {
    pub rss_bytes: Option<u64>,
    /// User and system time since start.
    pub cpu_ns: Option<u64>,
    pub losses: Vec<Loss>,
    pub probes: Vec<ProbeRun>,
    pub cgroups_tracked: u64,
}

/// Everything memtrace knows at the end of one interval.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    pub time: SystemTime,
    /// When this memtrace started.
    pub started: SystemTime,
    pub host: HostReading,
    pub cgroups: Vec<CgroupSnapshot>,
    pub own: SelfReading,
}

/// One victim mark of the OOM killer, as the kernel gave it at that moment.
#[derive(Debug, Clone, PartialEq)]
pub struct OomKill {
    pub time: SystemTime,
    /// `None` where the kernel gives only the thread.
    pub victim_tgid: Option<u32>,
    pub victim_tid: u32,
    /// Escaped for display.
    pub victim_comm: Option<String>,
    pub victim_uid: Option<u32>,
    pub cgroup_id: Option<u64>,
    pub cgroup: Option<String>,
    pub total_vm_bytes: Option<u64>,
    pub anon_bytes: Option<u64>,
    pub file_bytes: Option<u64>,
    pub shmem_bytes: Option<u64>,
    pub swap_bytes: Option<u64>,
    pub page_table_bytes: Option<u64>,
    pub oom_score_adj: Option<i16>,
    /// The task in whose context the kernel chose the victim.
    pub trigger_tgid: u32,
    pub trigger_comm: String,
    pub trigger_cgroup_id: Option<u64>,
    pub trigger_cgroup: Option<String>,
}
