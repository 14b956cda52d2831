//! The one table of all probes: each with its programs in order of preference.

use std::collections::BTreeSet;

/// A probe family, the same on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    Fault,
    Heap,
    Oom,
    Reclaim,
    Lifecycle,
}

impl Family {
    pub fn name(self) -> &'static str {
        match self {
            Family::Fault => "fault",
            Family::Heap => "heap",
            Family::Oom => "oom",
            Family::Reclaim => "reclaim",
            Family::Lifecycle => "lifecycle",
        }
    }
}

/// Where a program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// `tp_btf`; with `first` the first parameter must be a pointer to that struct, or must not be.
    BtfTracepoint {
        name: &'static str,
        first: FirstParam,
    },
    FEntry(&'static str),
    KProbe(&'static str),
    /// On the function behind a system call.
    SyscallFExit(&'static str),
    SyscallKRetProbe(&'static str),
    /// `syscalls:sys_exit_<name>`.
    SyscallExit(&'static str),
    /// Software page-fault perf event on every CPU.
    PageFaultEvent,
}

/// What a tracepoint's first parameter has to be, by BTF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstParam {
    Any,
    Struct(&'static str),
    NotStruct(&'static str),
}

/// One program and its hook.
#[derive(Debug, Clone, Copy)]
pub struct Alternative {
    pub program: &'static str,
    pub hook: Hook,
}

/// One signal: the first alternative that attaches serves it.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    /// `<family>.<what>`; stable, shown by `doctor` and in `self` lines.
    pub name: &'static str,
    pub family: Family,
    pub alternatives: &'static [Alternative],
    /// Without it memtrace says it is degraded; otherwise it is a refinement.
    pub essential: bool,
    /// A probe above it without which it would tell what is not so.
    pub needs: Option<&'static str>,
}

const fn tp(program: &'static str, name: &'static str) -> Alternative {
    Alternative {
        program,
        hook: Hook::BtfTracepoint {
            name,
            first: FirstParam::Any,
        },
    }
}

const fn on(program: &'static str, hook: Hook) -> Alternative {
    Alternative { program, hook }
}

macro_rules! syscall {
    ($call:literal) => {
        Probe {
            name: concat!("heap.", $call),
            family: Family::Heap,
            alternatives: &[
                on(concat!("heap_", $call, "_fexit"), Hook::SyscallFExit($call)),
                on(
                    concat!("heap_", $call, "_kretprobe"),
                    Hook::SyscallKRetProbe($call),
                ),
                on(concat!("heap_", $call, "_exit"), Hook::SyscallExit($call)),
            ],
            essential: true,
            needs: None,
        }
    };
}

const fn single(name: &'static str, family: Family, alternatives: &'static [Alternative]) -> Probe {
    Probe {
        name,
        family,
        alternatives,
        essential: true,
        needs: None,
    }
}

/// Adds fields to OOM incidents.
const fn refinement(name: &'static str, alternatives: &'static [Alternative]) -> Probe {
    Probe {
        name,
        family: Family::Oom,
        alternatives,
        essential: false,
        needs: None,
    }
}

/// Every probe. A new one is one row here, one program, one decoder.
pub const CATALOG: &[Probe] = &[
    single(
        "oom.mark_victim",
        Family::Oom,
        &[
            on(
                "oom_mark_victim_task",
                Hook::BtfTracepoint {
                    name: "mark_victim",
                    first: FirstParam::Struct("task_struct"),
                },
            ),
            on("oom_mark_victim_fentry", Hook::FEntry("mark_oom_victim")),
            on("oom_mark_victim_kprobe", Hook::KProbe("mark_oom_victim")),
            on(
                "oom_mark_victim_pid",
                Hook::BtfTracepoint {
                    name: "mark_victim",
                    first: FirstParam::NotStruct("task_struct"),
                },
            ),
        ],
    ),
    refinement(
        "oom.kill_process",
        &[
            on("oom_kill_process_fentry", Hook::FEntry("oom_kill_process")),
            on("oom_kill_process_kprobe", Hook::KProbe("oom_kill_process")),
        ],
    ),
    single(
        "oom.signal",
        Family::Oom,
        &[tp("oom_signal", "signal_generate")],
    ),
    single(
        "oom.process_exit",
        Family::Oom,
        &[tp("oom_process_exit", "sched_process_exit")],
    ),
    refinement(
        "oom.reaped",
        &[tp("oom_finish_task_reaping", "finish_task_reaping")],
    ),
    refinement(
        "oom.command_exec",
        &[tp("oom_command_exec", "sched_process_exec")],
    ),
    Probe {
        // A child has its parent's command line until it executes another program.
        needs: Some("oom.command_exec"),
        ..refinement(
            "oom.command_fork",
            &[tp("oom_command_fork", "sched_process_fork")],
        )
    },
    single(
        "lifecycle.cgroup_mkdir",
        Family::Lifecycle,
        &[tp("lifecycle_cgroup_mkdir", "cgroup_mkdir")],
    ),
    single(
        "lifecycle.cgroup_rmdir",
        Family::Lifecycle,
        &[tp("lifecycle_cgroup_rmdir", "cgroup_rmdir")],
    ),
    single(
        "lifecycle.process_exec",
        Family::Lifecycle,
        &[tp("lifecycle_process_exec", "sched_process_exec")],
    ),
    single(
        "lifecycle.process_exit",
        Family::Lifecycle,
        &[tp("lifecycle_process_exit", "sched_process_exit")],
    ),
    single(
        "reclaim.direct_begin",
        Family::Reclaim,
        &[tp("reclaim_direct_begin", "mm_vmscan_direct_reclaim_begin")],
    ),
    single(
        "reclaim.direct_end",
        Family::Reclaim,
        &[tp("reclaim_direct_end", "mm_vmscan_direct_reclaim_end")],
    ),
    single(
        "reclaim.memcg_begin",
        Family::Reclaim,
        &[tp("reclaim_memcg_begin", "mm_vmscan_memcg_reclaim_begin")],
    ),
    single(
        "reclaim.memcg_end",
        Family::Reclaim,
        &[tp("reclaim_memcg_end", "mm_vmscan_memcg_reclaim_end")],
    ),
    single(
        "fault.user",
        Family::Fault,
        &[
            tp("fault_user", "page_fault_user"),
            on("fault_perf", Hook::PageFaultEvent),
        ],
    ),
    Probe {
        name: "fault.kernel",
        family: Family::Fault,
        alternatives: &[tp("fault_kernel", "page_fault_kernel")],
        // The perf event that stands in for `fault.user` counts these faults too.
        essential: false,
        needs: None,
    },
    // Breaks first: a brk seen before its process is known would not count.
    single(
        "heap.break_fork",
        Family::Heap,
        &[tp("heap_break_fork", "sched_process_fork")],
    ),
    single(
        "heap.break_exec",
        Family::Heap,
        &[tp("heap_break_exec", "sched_process_exec")],
    ),
    syscall!("mmap"),
    syscall!("munmap"),
    syscall!("mremap"),
    syscall!("brk"),
    syscall!("madvise"),
];

impl Hook {
    /// Kind and target, as `doctor` shows it.
    pub fn describe(&self) -> String {
        match self {
            Hook::BtfTracepoint { name, .. } => format!("tp_btf/{name}"),
            Hook::FEntry(function) => format!("fentry/{function}"),
            Hook::KProbe(function) => format!("kprobe/{function}"),
            Hook::SyscallFExit(call) => {
                format!("fexit/{}", crate::kernel::support::syscall_function(call))
            }
            Hook::SyscallKRetProbe(call) => {
                format!(
                    "kretprobe/{}",
                    crate::kernel::support::syscall_function(call)
                )
            }
            Hook::SyscallExit(call) => format!("tracepoint/syscalls/sys_exit_{call}"),
            Hook::PageFaultEvent => "perf_event/page-faults".to_owned(),
        }
    }
}

/// Names of all tracepoints that a plan has to know about.
pub fn tracepoints() -> Vec<&'static str> {
    alternatives()
        .filter_map(|alternative| match alternative.hook {
            Hook::BtfTracepoint { name, .. } => Some(name),
            _ => None,
        })
        .collect()
}

/// Names of all kernel functions that a plan has to know about.
pub fn functions() -> Vec<String> {
    alternatives()
        .filter_map(|alternative| match alternative.hook {
            Hook::FEntry(name) | Hook::KProbe(name) => Some(name.to_owned()),
            Hook::SyscallFExit(call) | Hook::SyscallKRetProbe(call) => {
                Some(crate::kernel::support::syscall_function(call))
            }
            _ => None,
        })
        .collect()
}

/// Names of all hooks, as `doctor` shows them.
pub fn hooks() -> BTreeSet<String> {
    alternatives()
        .map(|alternative| alternative.hook.describe())
        .collect()
}

fn alternatives() -> impl Iterator<Item = &'static Alternative> {
    CATALOG.iter().flat_map(|probe| probe.alternatives)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_carry_their_family() {
        let mut names = HashSet::new();
        let mut programs = HashSet::new();
        for probe in CATALOG {
            assert!(names.insert(probe.name), "{}", probe.name);
            assert!(
                probe.name.starts_with(probe.family.name()),
                "{}",
                probe.name
            );
            for alternative in probe.alternatives {
                assert!(
                    programs.insert(alternative.program),
                    "{}",
                    alternative.program
                );
            }
        }
    }
}
