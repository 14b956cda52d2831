//! Facts and options in, order of attempts out. Pure: no kernel is touched here.

use crate::kernel::btf::Param;
use crate::kernel::support::{Support, syscall_function};

use super::catalog::{Alternative, CATALOG, FirstParam, Hook, Probe};

/// Helpers that some hooks need and that BTF does not tell.
#[derive(Debug, Clone, Copy, Default)]
pub struct Helpers {
    /// `bpf_get_current_task_btf` (5.11).
    pub trusted_task: bool,
    /// `bpf_task_pt_regs` (5.15).
    pub task_regs: bool,
}

/// Skipped like a hook: kernel structs are read as before 5.11, by helper only.
pub const DIRECT_READS: &str = "direct_reads";

impl Helpers {
    /// What is left where the operator switched something off.
    pub fn without(self, skipped: &[String]) -> Self {
        if skipped.iter().any(|skipped| skipped == DIRECT_READS) {
            return Self::default();
        }
        self
    }
}

/// One probe with the alternatives worth trying, best first.
#[derive(Debug, Clone)]
pub struct Planned {
    pub probe: &'static Probe,
    pub attempts: Vec<&'static Alternative>,
    /// Alternatives that cannot work here: hook and reason.
    pub ruled_out: Vec<(String, String)>,
}

/// The plan for every probe that is wanted.
pub fn plan(
    support: &Support,
    helpers: Helpers,
    wanted: impl Fn(&Probe) -> bool,
    skipped_hooks: &[String],
) -> Vec<Planned> {
    let skips = |hook: &str| {
        let kind = hook.split('/').next().unwrap_or_default();
        let names = |skipped: &String| skipped == kind || skipped == hook;
        skipped_hooks.iter().any(names)
    };
    CATALOG
        .iter()
        .filter(|probe| wanted(probe))
        .map(|probe| {
            let mut planned = Planned {
                probe,
                attempts: Vec::new(),
                ruled_out: Vec::new(),
            };
            for alternative in probe.alternatives {
                let hook = alternative.hook.describe();
                if skips(&hook) {
                    planned
                        .ruled_out
                        .push((hook, "switched off by --skip-hook".into()));
                } else if let Some(reason) = obstacle(&alternative.hook, support, helpers) {
                    planned.ruled_out.push((hook, reason));
                } else {
                    planned.attempts.push(alternative);
                }
            }
            planned
        })
        .collect()
}

/// Why a hook cannot work on this kernel; `None` if it is worth trying.
fn obstacle(hook: &Hook, support: &Support, helpers: Helpers) -> Option<String> {
    let no_function = |name: &str| {
        (!support.functions.iter().any(|known| known == name))
            .then(|| format!("this kernel has no function {name}"))
    };
    let no_kprobes =
        || (!support.kprobes).then(|| "this kernel was built without CONFIG_KPROBES".to_owned());
    let no_regs = || {
        (!(helpers.task_regs && helpers.trusted_task))
            .then(|| "this kernel lacks bpf_task_pt_regs (5.15)".to_owned())
    };
    match *hook {
        Hook::BtfTracepoint { name, first } => {
            let Some((_, params)) = support.tracepoints.iter().find(|(known, _)| known == name)
            else {
                return Some(format!("this kernel has no tracepoint {name}"));
            };
            let is =
                |strukt: &str| params.first() == Some(&Param::StructPointer(strukt.to_owned()));
            match first {
                FirstParam::Struct(strukt) if !is(strukt) => {
                    Some(format!("its argument is not a {strukt} on this kernel"))
                }
                FirstParam::NotStruct(strukt) if is(strukt) => {
                    Some(format!("its argument is a {strukt} on this kernel"))
                }
                _ => None,
            }
        }
        Hook::FEntry(function) => no_function(function),
        Hook::KProbe(function) => no_kprobes().or_else(|| no_function(function)),
        Hook::SyscallFExit(call) => no_function(&syscall_function(call)),
        Hook::SyscallKRetProbe(call) => no_kprobes()
            .or_else(no_regs)
            .or_else(|| no_function(&syscall_function(call))),
        Hook::SyscallExit(_) => {
            no_regs().or_else(|| match (&support.tracefs, support.syscall_tracepoints) {
                (None, _) => Some(
                    "tracefs is not mounted or not readable \
                 (mount -t tracefs tracefs /sys/kernel/tracing)"
                        .to_owned(),
                ),
                (Some(_), false) => Some(
                    "this kernel has no syscall tracepoints (CONFIG_FTRACE_SYSCALLS)".to_owned(),
                ),
                _ => None,
            })
        }
        Hook::PageFaultEvent => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loader::catalog::Family;

    fn support() -> Support {
        Support {
            tracepoints: vec![
                ("mark_victim".into(), vec![Param::Other]),
                ("page_fault_user".into(), vec![Param::Other]),
            ],
            functions: vec!["mark_oom_victim".into(), syscall_function("mmap")],
            kprobes: true,
            ..Support::default()
        }
    }

    fn programs(planned: &[Planned], name: &str) -> Vec<&'static str> {
        let planned = planned
            .iter()
            .find(|planned| planned.probe.name == name)
            .unwrap();
        assert_eq!(
            planned.attempts.len() + planned.ruled_out.len(),
            planned.probe.alternatives.len()
        );
        planned
            .attempts
            .iter()
            .map(|alternative| alternative.program)
            .collect()
    }

    #[test]
    fn the_prototype_decides_which_victim_program_fits() {
        let old = plan(&support(), Helpers::default(), |_| true, &[]);
        assert_eq!(
            programs(&old, "oom.mark_victim"),
            [
                "oom_mark_victim_fentry",
                "oom_mark_victim_kprobe",
                "oom_mark_victim_pid"
            ]
        );
        let mut new = support();
        new.tracepoints[0].1 = vec![Param::StructPointer("task_struct".into()), Param::Other];
        new.functions.clear();
        let new = plan(&new, Helpers::default(), |_| true, &[]);
        assert_eq!(programs(&new, "oom.mark_victim"), ["oom_mark_victim_task"]);
    }

    #[test]
    fn hooks_that_need_the_registers_need_the_helper() {
        let without = plan(&support(), Helpers::default(), |_| true, &[]);
        assert_eq!(programs(&without, "heap.mmap"), ["heap_mmap_fexit"]);
        let helpers = Helpers {
            trusted_task: true,
            task_regs: true,
        };
        let with = plan(&support(), helpers, |_| true, &[]);
        assert_eq!(
            programs(&with, "heap.mmap"),
            ["heap_mmap_fexit", "heap_mmap_kretprobe"]
        );
        assert!(programs(&with, "heap.munmap").is_empty());
    }

    #[test]
    fn without_direct_reads_a_new_kernel_is_used_like_an_old_one() {
        let new = Helpers {
            trusted_task: true,
            task_regs: true,
        };
        let kept = new.without(&["fentry".to_owned()]);
        assert!(kept.trusted_task && kept.task_regs);
        let old = new.without(&[DIRECT_READS.to_owned()]);
        let planned = plan(&support(), old, |_| true, &[DIRECT_READS.to_owned()]);
        assert_eq!(programs(&planned, "heap.mmap"), ["heap_mmap_fexit"]);
    }

    #[test]
    fn a_family_that_is_off_is_not_planned_and_a_skipped_hook_is_ruled_out() {
        let planned = plan(
            &support(),
            Helpers::default(),
            |probe| probe.family != Family::Heap,
            &["fentry".to_owned()],
        );
        assert!(
            planned
                .iter()
                .all(|planned| planned.probe.family != Family::Heap)
        );
        assert_eq!(
            programs(&planned, "oom.mark_victim"),
            ["oom_mark_victim_kprobe", "oom_mark_victim_pid"]
        );
    }

    #[test]
    fn one_hook_can_be_skipped_by_its_whole_name_and_others_of_its_kind_stay() {
        let skipped = ["kprobe/mark_oom_victim".to_owned()];
        let mut support = support();
        support.functions.push("oom_kill_process".into());
        let planned = plan(&support, Helpers::default(), |_| true, &skipped);
        assert_eq!(
            programs(&planned, "oom.mark_victim"),
            ["oom_mark_victim_fentry", "oom_mark_victim_pid"]
        );
        assert_eq!(
            programs(&planned, "oom.kill_process"),
            ["oom_kill_process_fentry", "oom_kill_process_kprobe"]
        );
    }
}
