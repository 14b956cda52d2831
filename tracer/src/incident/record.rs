//! What an incident is: the one schema of the JSON line, the store, the report and the OTLP event.
//!
//! `None` is unknown, serialized as `null`. Names and paths are escaped for display and
//! length-capped before they get here. Fields are added, never renamed.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{identity::names::Names, stacks::told::StackRecord};

/// One OOM, or what is easily taken for one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Unique on this host: second of the first event in UTC, and its boot time in nanoseconds, hex.
    pub id: String,
    pub kind: Kind,
    /// Wall time of the first event.
    pub time: Timestamp,
    /// The same on `CLOCK_BOOTTIME`, of the boot named by `boot_id`.
    pub boot_time_ns: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// `false`: written while victims were still dying; a complete record of the same id may follow.
    pub complete: bool,
    /// `memory.oom.group`: every process of a cgroup was killed together.
    pub group_kill: Option<bool>,
    /// Whose limit it was; `None` for kinds without one, and where it could not be told.
    pub charged: Option<ChargedCgroup>,
    pub trigger: Option<Trigger>,
    pub request: Request,
    pub killer: Option<Killer>,
    /// In the order in which they were marked. Empty for a stall and for missed kills.
    pub victims: Vec<Victim>,
    /// Victims left out of `victims` because there were more than [`MOST_VICTIMS`].
    pub victims_left_out: u64,
    pub evidence: Evidence,
    pub kernel_counts: KernelCounts,
    pub stall: Option<Stall>,
    /// What Kubernetes says of the container, or that it says nothing; `None` while that is open, where
    /// no container of a pod was hit, and where the API is not watched.
    #[serde(default)]
    pub kubernetes: Option<KubernetesReport>,
    pub meaning: Meaning,
}

/// What the status of a pod says of a kill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesReport {
    /// Whether it shows the kill: `OOMKilled`, or exit code 137.
    pub reported: bool,
    pub container_id: String,
    /// `state.terminated.reason`: `OOMKilled`, `Error`… `None` if the container is not shown as ended.
    pub reason: Option<String>,
    pub exit_code: Option<i32>,
    pub finished: Option<Timestamp>,
    /// `restartCount` of the container, as of then.
    pub restart_count: Option<u32>,
}

/// Victims kept in one incident.
pub const MOST_VICTIMS: usize = 1024;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A memory cgroup reached its limit.
    CgroupOom,
    /// The nodes that the task's cpuset allows ran out.
    CpusetOom,
    /// The nodes that the task's memory policy allows ran out.
    MempolicyOom,
    /// The machine ran out.
    GlobalOom,
    /// The kernel killed, and its hooks do not tell for whose limit.
    KernelOom,
    /// The kernel marked a task that was already exiting; nobody was killed.
    MarkedExiting,
    /// A user-space OOM killer sent SIGKILL.
    UserSpaceKill,
    /// Pinned at its limit without an OOM.
    Stall,
    /// The kernel counted kills that memtrace did not see.
    MissedKills,
}

impl Kind {
    pub const ALL: [Kind; 9] = [
        Kind::CgroupOom,
        Kind::CpusetOom,
        Kind::MempolicyOom,
        Kind::GlobalOom,
        Kind::KernelOom,
        Kind::MarkedExiting,
        Kind::UserSpaceKill,
        Kind::Stall,
        Kind::MissedKills,
    ];

    /// As serialized.
    pub fn name(self) -> &'static str {
        match self {
            Kind::CgroupOom => "cgroup_oom",
            Kind::CpusetOom => "cpuset_oom",
            Kind::MempolicyOom => "mempolicy_oom",
            Kind::GlobalOom => "global_oom",
            Kind::KernelOom => "kernel_oom",
            Kind::MarkedExiting => "marked_exiting",
            Kind::UserSpaceKill => "user_space_kill",
            Kind::Stall => "stall",
            Kind::MissedKills => "missed_kills",
        }
    }

    /// Whether the kernel's OOM killer killed.
    pub fn is_kernel_kill(self) -> bool {
        matches!(
            self,
            Kind::CgroupOom
                | Kind::CpusetOom
                | Kind::MempolicyOom
                | Kind::GlobalOom
                | Kind::KernelOom
        )
    }
}

/// The memory cgroup whose limit was reached, read in the kernel at the kill.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ChargedCgroup {
    pub cgroup_id: u64,
    /// From the root of the memory hierarchy; `None` if it was never seen alive.
    pub cgroup: Option<String>,
    /// Whose cgroup that is, as far as known; the same of trigger and victims.
    #[serde(default)]
    pub names: Option<Box<Names>>,
    pub usage_bytes: Option<u64>,
    /// `None`: unlimited or unknown.
    pub limit_bytes: Option<u64>,
    /// v2: `memory.swap.current`; v1: memory and swap together (`memory.memsw.usage_in_bytes`).
    pub swap_usage_bytes: Option<u64>,
    pub swap_limit_bytes: Option<u64>,
    /// Charges that failed at this limit so far (`page_counter.failcnt`; v1 only since 6.13).
    pub failcnt: Option<u64>,
    /// OOMs of this very cgroup so far (`memory.events.local`: `oom`).
    pub oom_events: Option<u64>,
    pub known_by: KnownBy,
}

/// How the charged cgroup was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KnownBy {
    /// `oom_control.memcg`: exact.
    #[default]
    OomControl,
    /// The lowest ancestor of the trigger that had no page left, as the kernel charges.
    FullCounter,
    /// The only ancestor of the trigger whose count of OOMs had risen.
    OomEvents,
    /// Its own files (a stall, missed kills).
    CgroupFiles,
}

/// The task in whose context the kernel ran out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Trigger {
    pub pid: u32,
    pub tid: u32,
    /// Name of the thread.
    pub comm: String,
    /// Name of the process.
    pub process_comm: Option<String>,
    pub cgroup_id: Option<u64>,
    pub cgroup: Option<String>,
    #[serde(default)]
    pub names: Option<Box<Names>>,
}

/// What the trigger asked for; known where `oom_kill_process` can be hooked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Binary logarithm of pages; −1: asked for by a person (SysRq f).
    pub order: Option<i32>,
    pub gfp_mask: Option<u32>,
    /// Names of the bits, as the kernel log shows them.
    pub gfp_flags: Option<String>,
    /// Pages that the OOM killer weighed badness against, in bytes.
    pub total_bytes: Option<u64>,
}

/// A user-space OOM killer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Killer {
    pub pid: u32,
    pub comm: String,
    pub cgroup: Option<String>,
    /// The last that it sent: 15 (SIGTERM) or 9 (SIGKILL).
    #[serde(default)]
    pub signal: Option<u32>,
}

/// A process that was killed, or only marked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Victim {
    /// `None` where the kernel gives only the thread.
    pub pid: Option<u32>,
    pub tid: u32,
    pub comm: Option<String>,
    /// As started; later changes by the process are not seen. `None` also with `--no-command-lines`.
    pub command_line: Option<String>,
    /// The path that was executed, of the interpreter for a script.
    pub executable: Option<String>,
    pub uid: Option<u32>,
    pub started: Option<Timestamp>,
    /// Memory cgroup.
    pub cgroup_id: Option<u64>,
    pub cgroup: Option<String>,
    #[serde(default)]
    pub names: Option<Box<Names>>,
    /// The cgroup that the process is in, where that is below its memory cgroup (v2).
    pub leaf_cgroup_id: Option<u64>,
    pub leaf_cgroup: Option<String>,
    pub total_vm_bytes: Option<u64>,
    pub anon_bytes: Option<u64>,
    pub file_bytes: Option<u64>,
    pub shmem_bytes: Option<u64>,
    pub swap_bytes: Option<u64>,
    pub page_table_bytes: Option<u64>,
    pub oom_score_adj: Option<i16>,
    /// `oom_control.chosen_points`, of the process that was chosen, pages.
    pub badness: Option<i64>,
    /// In its own PID namespace.
    pub namespace_pid: Option<u32>,
    /// PID 1 of a PID namespace below the host's.
    pub container_init: Option<bool>,
    /// SIGKILL was sent, or it ended after the SIGTERM of a user-space killer; `false`: only marked, or asked
    /// in vain. `None` where the signal cannot be seen.
    pub killed: Option<bool>,
    pub marked: Timestamp,
    /// `None`: not within the time that memtrace waits.
    pub died: Option<Timestamp>,
    /// From the mark to the end of the last thread.
    pub died_after_ns: Option<u64>,
    /// When the OOM reaper had freed its memory; `None` when it was not needed.
    pub reaped: Option<Timestamp>,
}

/// What led up to it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Of the charged cgroup (else of the victim's), oldest first, beginning with 0 if it was made
    /// meanwhile; the last is the kill.
    pub usage: Vec<UsageSample>,
    /// Largest share first.
    pub growers: Vec<Grower>,
    pub reclaim: Option<ReclaimBefore>,
    pub pressure: Option<PressureBefore>,
    pub allocations: Option<AllocationsBefore>,
    pub memory_stat: Option<MemoryStat>,
    /// The code that held the victims' memory, the first suspect first; empty if nothing was sampled.
    #[serde(default)]
    pub stacks: Vec<StackRecord>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageSample {
    /// Before the first event.
    pub before_ms: u64,
    pub usage_bytes: u64,
}

/// A process of the charged cgroup, or below it, that grew in about the time that `usage` covers: since
/// memtrace first saw it, or since its birth, where that is later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Grower {
    pub pid: u32,
    pub comm: Option<String>,
    /// Change of its anonymous memory, until the kill as the kernel told of a victim, of others until
    /// they were read just after.
    pub grown_bytes: i64,
    /// Between the two readings, or since its birth.
    pub over_ms: u64,
    /// Of the growth of all processes that grew; `None` when that does not explain `usage`.
    pub share: Option<f64>,
}

/// Reclaim by tasks of the charged cgroup and below, in the last intervals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReclaimBefore {
    pub over_ms: u64,
    pub count: u64,
    pub stall_ns: u64,
    pub reclaimed_pages: u64,
}

/// PSI of the charged cgroup, in the last intervals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PressureBefore {
    pub over_ms: u64,
    pub some_ns: Option<u64>,
    pub full_ns: Option<u64>,
}

/// Allocation calls in the charged cgroup and below, in the last intervals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocationsBefore {
    pub over_ms: u64,
    pub mmap_bytes: u64,
    pub munmap_bytes: u64,
    pub brk_grow_bytes: u64,
    pub brk_shrink_bytes: u64,
    pub madvise_free_bytes: u64,
}

/// What the charged cgroup held.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemoryStat {
    /// When it was read, relative to the first event: below 0 before it (the last reading of an
    /// interval), above 0 after it.
    pub read_after_ms: i64,
    pub usage_bytes: Option<u64>,
    pub anon_bytes: Option<u64>,
    pub file_bytes: Option<u64>,
    pub shmem_bytes: Option<u64>,
    pub kernel_bytes: Option<u64>,
    pub slab_bytes: Option<u64>,
    pub sock_bytes: Option<u64>,
    pub swap_bytes: Option<u64>,
}

/// The kernel's own counts beside memtrace's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelCounts {
    /// `memory.events.local` of the victim's cgroup (v1: `memory.oom_control`); `None` if it was
    /// removed before it could be read.
    pub oom_kill_local: Option<u64>,
    /// `memory.events` of the charged cgroup, descendants included (v2).
    pub oom_hierarchical: Option<u64>,
    pub oom_kill_hierarchical: Option<u64>,
    pub oom_group_kill_hierarchical: Option<u64>,
    /// Kills that the kernel counted and memtrace did not see; for [`Kind::MissedKills`].
    pub missed: Option<u64>,
    /// They were missed because no memtrace ran since then.
    #[serde(default)]
    pub not_running_since: Option<Timestamp>,
}

/// Pinned at a limit without an OOM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stall {
    pub duration_ms: u64,
    /// Time that tasks were stalled (PSI `some`; without PSI, reclaim), within `duration_ms`.
    pub stalled_ns: Option<u64>,
    /// The cgroup waits for an OOM that is switched off (`memory.oom_control`, v1).
    pub oom_disabled: bool,
    /// `memory.high` holds it, not `memory.max`.
    pub at_high: bool,
    /// It goes on.
    pub ongoing: bool,
    /// An OOM kill ended it.
    #[serde(default)]
    pub ended_by_kill: bool,
}

/// In words for a person.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meaning {
    /// One sentence: who was killed at whose limit.
    pub summary: String,
    /// What it means for the container, and what Kubernetes will say.
    pub consequence: String,
}
