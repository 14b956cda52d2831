//! How much works in the end, and what is lost with each probe that has no hook.

use super::{Findings, Level, ProbeFinding};

impl Findings {
    /// How much works, and what is lost.
    pub(super) fn conclusion(&self) -> String {
        let lost: Vec<String> = self
            .probes
            .iter()
            .filter(|probe| probe.hook.is_none() && !self.fault_user_tells(probe.probe))
            .filter_map(|probe| Some(format!("\n  - {}: {}", probe.probe, words(probe.probe)?)))
            .collect();
        let runs = match self.verdict {
            Level::Ok if lost.is_empty() => return "Everything works.".to_owned(),
            Level::Ok => "memtrace runs".to_owned(),
            Level::Degraded => match self.problems.len() {
                1 => "memtrace runs, with the problem above".to_owned(),
                count => format!("memtrace runs, with the {count} problems above"),
            },
            Level::CannotRun => return "memtrace cannot run here.".to_owned(),
        };
        match lost.len() {
            0 => format!("{runs}."),
            count => format!(
                "{runs}; {count} of {} probes have no hook, without which is lost:{}",
                self.probes.len(),
                lost.concat()
            ),
        }
    }

    /// Whether the hook that stands in for `fault.user` counts what this probe would.
    pub(super) fn fault_user_tells(&self, probe: &str) -> bool {
        let by_event = |other: &ProbeFinding| {
            let hook = other.hook.as_deref();
            other.probe == "fault.user" && hook.is_some_and(|hook| hook.starts_with("perf_event/"))
        };
        probe == "fault.kernel" && self.probes.iter().any(by_event)
    }
}

/// `None`: nothing that is not found otherwise.
fn words(probe: &str) -> Option<&'static str> {
    Some(match probe {
        "oom.mark_victim" => "OOM kills and incidents; kills are only counted, as missed",
        "oom.kill_process" => {
            "order, gfp flags and badness of OOM incidents; whose limit it was is found by counters"
        }
        "oom.signal" => "whether a victim was killed, and kills by systemd-oomd or earlyoom",
        "oom.process_exit" => {
            "when victims died and were reaped, for which no incident waits; in time the commands of new processes"
        }
        "oom.reaped" => "when a victim's memory was reaped",
        "oom.command_exec" => "executables and command lines of victims",
        "oom.command_fork" => "executables and command lines of children that execute nothing",
        "lifecycle.cgroup_mkdir" => "cgroups that live between two intervals, and their age",
        // Removed ones are found at the next interval.
        "lifecycle.cgroup_rmdir" => return None,
        "lifecycle.process_exec" => "counts of processes that start a program",
        "lifecycle.process_exit" => "counts of processes that ended, and their page faults",
        "fault.user" => "activity of processes, and stacks",
        "fault.kernel" => "samples of pages that the kernel touches for a process",
        _ if probe.starts_with("reclaim.") => "all counts of reclaim: a part would be too small",
        _ if probe.starts_with("heap.") => "all heap counts: a part would be too small",
        _ => "what it tells",
    })
}
