//! How often the attached programs ran, and how often the kernel left a run out. Must not judge it.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
};

use super::attach::Loader;

impl Loader {
    /// Probe name, run time in ns and run count of each attached program, from the kernel.
    /// Both `None` while `kernel.bpf_stats_enabled` is 0.
    pub fn runs(&self) -> Vec<(&'static str, Option<u64>, Option<u64>)> {
        let enabled = fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled")
            .is_ok_and(|text| text.trim() == "1");
        self.verdicts
            .iter()
            .filter_map(|verdict| {
                let (program, _) = verdict.attached.as_ref()?;
                let info = enabled.then(|| self.fdinfo(program)).flatten();
                let value = |key| fdinfo_value(info.as_deref()?, key);
                Some((verdict.probe, value("run_time_ns"), value("run_cnt")))
            })
            .collect()
    }

    /// Runs that the kernel left out since the programs were attached, because the same program, or one of its
    /// kind, was interrupted on that CPU; `None` before 5.12, which does not tell. Source: `recursion_misses`
    /// of kernel/bpf/syscall.c.
    pub fn skipped_runs(&self) -> Option<u64> {
        let attached = self.verdicts.iter().filter_map(|verdict| {
            let (program, _) = verdict.attached.as_ref()?;
            Some(program)
        });
        attached
            .map(|program| fdinfo_value(&self.fdinfo(program)?, "recursion_misses"))
            .sum()
    }

    fn fdinfo(&self, program: &str) -> Option<String> {
        let fd = self.ebpf.program(program)?.fd().ok()?.as_fd().as_raw_fd();
        fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()
    }
}

pub(super) fn fdinfo_value(info: &str, key: &str) -> Option<u64> {
    info.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_fdinfo_is_found_by_its_whole_key() {
        let info = "prog_type:\t26\nmemlock:\t4096\nrecursion_misses:\t3\n";
        assert_eq!(fdinfo_value(info, "recursion_misses"), Some(3));
        assert_eq!(fdinfo_value(info, "recursion"), None);
    }
}
