//! Records of the OOM ring: charge, mark, signal, death, reaping. The first field tells which.

use crate::COMM_LEN;

/// A 64-bit field that the kernel could not give.
pub const ABSENT: u64 = u64::MAX;
/// A 32-bit field that the kernel could not give.
pub const ABSENT_U32: u32 = u32::MAX;
/// A signed 32-bit field that the kernel could not give.
pub const ABSENT_I32: i32 = i32::MAX;

/// An [`OomCharge`].
pub const KIND_CHARGE: u32 = 1;
/// An [`OomVictim`] that the kernel marked.
pub const KIND_MARK: u32 = 2;
/// An [`OomVictim`] to which a user-space OOM killer sent a signal.
pub const KIND_SIGNAL: u32 = 3;
/// An [`OomEnd`]: the last thread of a victim ended.
pub const KIND_DEATH: u32 = 4;
/// An [`OomEnd`]: the OOM reaper has freed the memory of a victim; only the thread is known.
pub const KIND_REAPED: u32 = 5;

/// An [`OomEnd`]: the kernel sent SIGKILL to a victim that it had marked before, and counted a kill.
/// A group kill meets its first victim again (`mem_cgroup_scan_tasks`, mm/oom_kill.c).
pub const KIND_KILLED_AGAIN: u32 = 6;

/// Memory cgroups told of, from the one in question upwards.
pub const MOST_LEVELS: usize = 32;
/// Bytes kept of a command line.
pub const ARGS_LEN: usize = 256;
/// Bytes kept of the path of an executable.
pub const EXECUTABLE_LEN: usize = 128;

/// The counters of one memory cgroup at this moment; `ABSENT` where not readable.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemcgLevel {
    pub cgroup_id: u64,
    pub usage_pages: u64,
    /// `PAGE_COUNTER_MAX` when unlimited.
    pub max_pages: u64,
    /// v2: swap; v1: memory and swap together.
    pub swap_usage_pages: u64,
    pub swap_max_pages: u64,
    pub failcnt: u64,
    /// `memory_events_local[MEMCG_OOM]`.
    pub oom_events: u64,
    /// `memory_events_local[MEMCG_OOM_KILL]`.
    pub oom_kills: u64,
}

/// Whose memory ran out, in the context of the trigger, before the victims are marked.
///
/// From `oom_kill_process` it starts at the charged cgroup; where that cannot be hooked each mark
/// is preceded by one that starts at the cgroup the trigger charges.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OomCharge {
    pub kind: u32,
    pub level_count: u32,
    pub time_ns: u64,
    /// 1: there are more levels above.
    pub truncated: u32,
    pub padding: u32,
    /// 1: the fields down to `chosen_points` come from `oom_control`, and `levels` start at its cgroup.
    pub from_oom_control: u32,
    /// `enum oom_constraint`.
    pub constraint: u32,
    pub order: i32,
    pub gfp_mask: u32,
    pub total_pages: u64,
    pub chosen_points: i64,
    pub trigger_tgid: u32,
    pub trigger_tid: u32,
    pub levels: [MemcgLevel; MOST_LEVELS],
}

/// A process about to die, with what the kernel knows of it, in the context of who decided.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OomVictim {
    pub kind: u32,
    /// Signal sent just before: `SIGKILL` by the kernel, the killer's; 0: none was seen.
    pub signal: u32,
    /// `CLOCK_BOOTTIME`, ns.
    pub time_ns: u64,
    pub cgroup_id: u64,
    /// In the default hierarchy (cgroup2).
    pub leaf_cgroup_id: u64,
    pub sender_cgroup_id: u64,
    /// `CLOCK_BOOTTIME`, ns.
    pub started_ns: u64,
    pub total_vm_pages: u64,
    pub anon_pages: u64,
    pub file_pages: u64,
    pub shmem_pages: u64,
    pub swap_pages: u64,
    pub page_table_bytes: u64,
    pub tid: u32,
    /// 0 when only the tid is known.
    pub tgid: u32,
    pub uid: u32,
    pub oom_score_adj: i32,
    /// In the innermost PID namespace of the process.
    pub namespace_pid: u32,
    /// 0: the host's PID namespace.
    pub namespace_level: u32,
    /// The trigger of a mark, the killer that sent a signal.
    pub sender_tgid: u32,
    pub sender_tid: u32,
    pub comm: [u8; COMM_LEN],
    pub sender_comm: [u8; COMM_LEN],
    /// Of the thread group's leader.
    pub sender_process_comm: [u8; COMM_LEN],
    pub command: Command,
}

/// What a process was started as.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// Bytes of the whole command line, which may be longer than what is kept; `ABSENT_U32`: unknown.
    pub args_len: u32,
    /// Bytes of `executable` in use; 0: unknown.
    pub executable_len: u32,
    /// Arguments, each with its NUL.
    pub args: [u8; ARGS_LEN],
    pub executable: [u8; EXECUTABLE_LEN],
}

impl Command {
    pub const UNKNOWN: Command = Command {
        args_len: ABSENT_U32,
        executable_len: 0,
        args: [0; ARGS_LEN],
        executable: [0; EXECUTABLE_LEN],
    };
}

/// A victim is gone, or its memory is.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OomEnd {
    pub kind: u32,
    /// Process of a death, thread of a reaping.
    pub id: u32,
    pub time_ns: u64,
}

const _: () = {
    assert!(size_of::<MemcgLevel>() == 64);
    assert!(size_of::<OomCharge>() == 64 + 64 * MOST_LEVELS);
    assert!(size_of::<Command>() == 8 + ARGS_LEN + EXECUTABLE_LEN);
    assert!(size_of::<OomVictim>() == 8 + 11 * 8 + 8 * 4 + 3 * COMM_LEN + size_of::<Command>());
    assert!(size_of::<OomEnd>() == 16);
};

// SAFETY: repr(C), integers only, no implicit padding (sizes asserted above).
unsafe impl crate::Record for OomCharge {}
// SAFETY: as above.
unsafe impl crate::Record for OomVictim {}
// SAFETY: as above.
unsafe impl crate::Record for OomEnd {}

#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for Command {}
