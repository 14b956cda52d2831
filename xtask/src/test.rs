//! `cargo xtask test`: every check of the project in one order, cheapest first.
//! Must not contain a check of its own; each belongs to a module or to cargo.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result};

use crate::deps::{self, Purpose};
use crate::process::{self, progress};
use crate::workspace::Workspace;
use crate::{artifacts, backends, deny, ebpf, fuzz, tracefs, vm};

/// Arguments of `cargo xtask test`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Do not boot other kernels
    #[arg(long)]
    no_vm: bool,
    /// Only what needs neither root nor the BPF toolchain: format, lints and unit tests
    #[arg(long)]
    quick: bool,
}

type Step = (&'static str, fn(&Workspace) -> Result<()>);

const QUICK: &[Step] = &[
    ("format", format),
    ("lints", lints),
    ("unit tests", unit_tests),
];
const FULL: &[Step] = &[
    ("packages", packages),
    ("format", format),
    ("lints", lints),
    ("unit tests", unit_tests),
    ("dependencies", dependencies),
    ("BPF object", bpf_object),
    ("deployment", deployment),
    ("fuzzing", fuzzing),
    ("end-to-end tests on this kernel", host_tests),
];
const VM: &[Step] = &[
    ("end-to-end tests on other kernels", vm_tests),
    ("cgroup v1 on an old kernel", vm_v1),
    ("OOM of a whole machine", machine_oom),
];

/// Runs the steps up to the first failure and prints what each took.
pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let mut timings = Vec::new();
    let result = run_steps(workspace, &steps(args), &mut timings);
    progress("elapsed:");
    for (name, elapsed) in timings {
        progress(format!("  {name:<36} {:>7.1}s", elapsed.as_secs_f64()));
    }
    result
}

fn steps(args: &Args) -> Vec<Step> {
    if args.quick {
        return QUICK.to_vec();
    }
    let vm = if args.no_vm { &[] } else { VM };
    FULL.iter().chain(vm).copied().collect()
}

fn run_steps(
    workspace: &Workspace,
    steps: &[Step],
    timings: &mut Vec<(String, Duration)>,
) -> Result<()> {
    for (number, (name, step)) in steps.iter().enumerate() {
        progress(format!("==== {}/{} {name}", number + 1, steps.len()));
        let started = Instant::now();
        let result = step(workspace);
        let failed = if result.is_err() { " (FAILED)" } else { "" };
        timings.push((format!("{name}{failed}"), started.elapsed()));
        result.map_err(|error: Error| error.context(format!("step \"{name}\" failed")))?;
    }
    Ok(())
}

fn packages(_: &Workspace) -> Result<()> {
    deps::ensure(&[
        Purpose::Bpf,
        Purpose::Compiler,
        Purpose::Vm,
        Purpose::Oracle,
        Purpose::Backend,
        Purpose::Deploy,
        Purpose::Terminal,
        Purpose::Watched,
    ])?;
    // Debian's package would remove that of Docker, which brings the same programs.
    if process::find_program("containerd").is_some() {
        return Ok(());
    }
    deps::ensure(&[Purpose::Containers])
}

fn format(workspace: &Workspace) -> Result<()> {
    process::check(workspace.cargo().args(["fmt", "--all", "--check"])).context(
        "not formatted: run `cargo fmt --all` (`rustup component add rustfmt` if it is missing)",
    )
}

fn lints(workspace: &Workspace) -> Result<()> {
    let arguments = [
        "clippy",
        "--workspace",
        "--all-targets",
        // What `cargo xtask leaks` runs.
        "--features",
        "xtask/analyzer",
        "--",
        "-D",
        "warnings",
    ];
    process::check(workspace.cargo().args(arguments))
        .context("clippy is not content (`rustup component add clippy` if it is missing)")
}

fn unit_tests(workspace: &Workspace) -> Result<()> {
    let arguments = ["test", "--workspace", "--exclude", "memtrace-tests"];
    process::check(workspace.cargo().args(arguments))
}

fn dependencies(workspace: &Workspace) -> Result<()> {
    deny::run(workspace, &deny::Args::default())
}

fn bpf_object(workspace: &Workspace) -> Result<()> {
    ebpf::run(workspace, &ebpf::Args { check: true })
}

/// Manifests, rules, unit and dashboard, and that they use what this binary has.
fn deployment(workspace: &Workspace) -> Result<()> {
    let built = artifacts::end_to_end(workspace)?;
    let mut command = Command::new(workspace.root().join("deploy/check.sh"));
    command
        .arg(workspace.tools().join("deploy"))
        .env("MEMTRACE_BIN", built.memtrace);
    process::check(&mut command)
}

fn fuzzing(workspace: &Workspace) -> Result<()> {
    fuzz::run(workspace, &fuzz::Args::every_change())
}

fn host_tests(workspace: &Workspace) -> Result<()> {
    tracefs::ensure()?;
    let built = artifacts::end_to_end(workspace)?;
    let mut variables = vec![
        ("MEMTRACE_BIN", built.memtrace),
        ("MEMTRACE_WORKLOAD", built.workload),
    ];
    variables.extend(backends::variables(workspace)?);
    let names: Vec<&str> = variables.iter().map(|(name, _)| *name).collect();
    // Not through `cargo test`: as root it would leave root's files in the target directory.
    let mut command: Command = process::as_root(built.tests.as_os_str(), &names)?;
    command
        .arg("--test-threads=1")
        .envs(variables)
        .current_dir(workspace.root().join("tests"));
    process::check(&mut command)
}

fn vm_tests(workspace: &Workspace) -> Result<()> {
    vm::run(workspace, &vm::Args::every_change())
}

fn vm_v1(workspace: &Workspace) -> Result<()> {
    vm::run(workspace, &vm::Args::old_layout())
}

/// In machines of their own: what runs beside it might be killed.
fn machine_oom(workspace: &Workspace) -> Result<()> {
    vm::run(workspace, &vm::Args::little_memory())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_choose_the_steps() {
        let names = |no_vm, quick| -> Vec<_> {
            steps(&Args { no_vm, quick })
                .into_iter()
                .map(|(name, _)| name)
                .collect()
        };
        for (vm, _) in VM {
            assert!(names(false, false).contains(vm));
            assert!(!names(true, false).contains(vm));
        }
        assert_eq!(names(false, true), ["format", "lints", "unit tests"]);
    }
}
