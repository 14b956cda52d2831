//! What an operator chooses about the kernel side, and what follows of it for probes. Must not load any.

use super::catalog::{Family, Probe};

/// What the operator can choose about the kernel side.
#[derive(Debug, Clone)]
pub struct Options {
    pub heap: bool,
    /// One fault in this many is sampled, a power of two; 0: none, but for the stacks.
    pub fault_sample: u64,
    /// Entries of the cgroup map.
    pub max_cgroups: u32,
    /// Entries of the process map.
    pub max_processes: u32,
    /// Sample pages with the stacks that touched them.
    pub stacks: bool,
    /// Attach only probes whose names begin so.
    pub only: Option<&'static [&'static str]>,
    /// Processes whose peak RSS stays below end without a record of their own.
    pub exit_min_bytes: u64,
    /// Keep what each process was started as, for incidents; the executable's path is always kept.
    pub command_lines: bool,
    /// Process names of user-space OOM killers.
    pub oom_killers: Vec<String>,
    /// Hooks never to use: kinds (`fexit`, `kretprobe`, `tp_btf`, …) or whole names (`kprobe/oom_kill_process`).
    pub skipped_hooks: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            heap: true,
            fault_sample: 64,
            stacks: false,
            only: None,
            max_cgroups: 8192,
            max_processes: 16384,
            exit_min_bytes: 16 << 20,
            command_lines: true,
            oom_killers: Vec::new(),
            skipped_hooks: Vec::new(),
        }
    }
}

impl Options {
    /// Which probes are loaded.
    pub(super) fn wants(&self, probe: &Probe) -> bool {
        let chosen = |only: &[&str]| only.iter().any(|start| probe.name.starts_with(start));
        self.only.is_none_or(chosen)
            && match probe.family {
                Family::Heap => self.heap,
                Family::Fault => self.fault_sample > 0 || self.stacks,
                _ => true,
            }
    }

    /// A fault is sampled when its number on the CPU has none of these bits: of 0 none ever, as numbers
    /// begin at 1.
    pub(super) fn fault_sample_mask(&self) -> u64 {
        self.fault_sample.wrapping_sub(1)
    }

    /// Peak from which an end is told. One of 0 never is: the kernel has not set it yet, and a later thread tells.
    pub(super) fn exit_min_pages(&self, page_size: u64) -> u64 {
        self.exit_min_bytes.div_ceil(page_size).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampled(fault_sample: u64) -> usize {
        let options = Options {
            fault_sample,
            stacks: true,
            ..Options::default()
        };
        let mask = options.fault_sample_mask();
        (1..=1024_u64).filter(|seen| seen & mask == 0).count()
    }

    #[test]
    fn one_fault_in_so_many_is_sampled_and_of_0_none() {
        assert_eq!((sampled(64), sampled(1), sampled(0)), (16, 1024, 0));
    }

    #[test]
    fn an_end_whose_peak_is_not_set_yet_is_told_at_no_threshold() {
        let pages = |exit_min_bytes| {
            let options = Options {
                exit_min_bytes,
                ..Options::default()
            };
            options.exit_min_pages(4096)
        };
        assert_eq!((pages(0), pages(1), pages(4097)), (1, 1, 2));
    }
}
