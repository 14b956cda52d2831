//! What `cargo xtask vm` is asked for, and what every change is to pass.
//! Must not boot anything.

use std::path::PathBuf;

use anyhow::Result;

use super::boot::Cgroup;
use super::kernel::{self, Kernel};

/// Emulation makes every start of the agent seconds long.
const TIMEOUT_MINUTES: u64 = 25;

/// Modules of the tests that no kernel can change the result of: what is behind the model.
const SAME_ON_EVERY_KERNEL: &[&str] = &[
    "analyze::",
    "api::",
    "cli::",
    "config::",
    "incident_store::",
    "leak_programs::",
    "leak_state::",
    "listen::",
    "names::",
    "otlp",
    "report::",
    "secrets::",
    "security::",
    "top::",
];

/// Modules that take an emulated machine longer than a change may wait: the host runs them.
const TOO_LONG_FOR_EVERY_CHANGE: &[&str] = &["faults::"];

/// Arguments of `cargo xtask vm`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Kernels to boot; 7.x (or sid) is Debian's newest. Delete target/vm/<KERNEL> to refresh one
    #[arg(long, value_delimiter = ',', default_value = "5.10,6.1,6.12")]
    pub(super) kernel: Vec<Kernel>,
    /// How the control groups are mounted; of several, those that a kernel lacks are left out
    #[arg(long, value_enum, value_delimiter = ',', default_value = "v2")]
    pub(super) cgroup: Vec<Cgroup>,
    /// Memory of the machine, as QEMU writes it
    #[arg(long, default_value = "1G")]
    pub(super) memory: String,
    /// Minutes after which a machine is killed and counts as failed
    #[arg(long, default_value_t = TIMEOUT_MINUTES)]
    pub(super) timeout: u64,
    /// Machines at the same time, each of which keeps one CPU busy [default: as many as there are CPUs]
    #[arg(long, value_name = "N")]
    pub(super) jobs: Option<usize>,
    /// Run this shell command instead of the tests; what it writes to /dev/ttyS1 arrives in
    /// target/vm/<KERNEL>/ttyS1
    #[arg(long, value_name = "CMD")]
    pub(super) shell_command: Option<String>,
    /// Put another program of this host into the machine's /bin
    #[arg(long, value_name = "PATH")]
    pub(super) include: Vec<PathBuf>,
    /// Put this host's containerd and runc into the machine, for tests that run containers; give it 2G
    #[arg(long)]
    pub(super) containers: bool,
    /// Leave memtrace and its workload out of the machine, and do not build them
    #[arg(long, requires = "shell_command")]
    pub(super) bare: bool,
    /// Commit the verifier's instruction counts of these kernels instead of comparing with them
    #[arg(long, conflicts_with = "shell_command")]
    pub(super) update_instructions: bool,
    /// Write docs/kernels.md from all results kept in target/vm/results
    #[arg(long, conflicts_with = "shell_command")]
    pub(super) docs: bool,
    /// Arguments of the test executable, such as a filter
    #[arg(last = true)]
    pub(super) test_args: Vec<String>,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            kernel: kernel::tested(),
            cgroup: vec![Cgroup::V2],
            memory: "1G".to_owned(),
            timeout: TIMEOUT_MINUTES,
            jobs: None,
            shell_command: None,
            include: Vec::new(),
            containers: false,
            bare: false,
            update_instructions: false,
            docs: false,
            test_args: Vec::new(),
        }
    }
}

impl Args {
    /// What every change has to pass on every kernel: the tests that depend on it.
    pub fn every_change() -> Self {
        let skipped = SAME_ON_EVERY_KERNEL
            .iter()
            .chain(TOO_LONG_FOR_EVERY_CHANGE)
            .flat_map(|module| ["--skip".to_owned(), (*module).to_owned()]);
        Self {
            test_args: skipped.collect(),
            ..Self::default()
        }
    }

    /// Runs a command on one kernel, with these programs and nothing else of this checkout.
    pub fn shell(kernel: &str, command: &str, include: Vec<PathBuf>) -> Result<Self> {
        Ok(Self {
            kernel: vec![kernel.parse().map_err(anyhow::Error::msg)?],
            shell_command: Some(command.to_owned()),
            include,
            bare: true,
            ..Self::default()
        })
    }

    /// What differs with cgroup v1, on the oldest kernel, which is where it is met.
    pub fn old_layout() -> Self {
        Self {
            kernel: vec![kernel::oldest()],
            cgroup: vec![Cgroup::V1],
            test_args: vec!["oom::".to_owned(), "effective_limit::".to_owned()],
            ..Self::default()
        }
    }

    /// Runs the test that takes all memory of a machine.
    pub fn little_memory() -> Self {
        Self {
            memory: "448M".to_owned(),
            test_args: vec![
                "--ignored".to_owned(),
                "a_machine_without_memory".to_owned(),
            ],
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn the_command_lines_defaults_are_the_ones_in_code() {
        let parsed = Cli::parse_from(["vm"]).args;
        assert_eq!(format!("{parsed:?}"), format!("{:?}", Args::default()));
    }

    #[test]
    fn kernels_come_as_a_list_and_test_arguments_after_two_dashes() {
        let line = [
            "vm",
            "--kernel",
            "6.1,sid",
            "--cgroup",
            "v1,hybrid",
            "--",
            "oom",
            "--nocapture",
        ];
        let parsed = Cli::parse_from(line).args;
        let kernels: Vec<_> = parsed.kernel.iter().map(ToString::to_string).collect();
        assert_eq!(kernels, ["6.1", "7.x"]);
        assert_eq!(parsed.cgroup, [Cgroup::V1, Cgroup::Hybrid]);
        assert_eq!(parsed.test_args, ["oom", "--nocapture"]);
        assert!(Cli::try_parse_from(["vm", "--kernel", "4.19"]).is_err());
        assert!(Cli::try_parse_from(["vm", "--bare"]).is_err());
    }
}
