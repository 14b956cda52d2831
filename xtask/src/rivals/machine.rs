//! The same in a virtual machine whose kernel has kprobes. Must not know any tool's output.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::load::{Load, Plan};
use super::{Run, beside, tools};
use crate::process::progress;
use crate::vm;
use crate::workspace::Workspace;

const KERNEL: &str = "6.12";
const MINUTES: u64 = 4;
/// Second serial port: the host finds in a file what is written to it.
const PORT: &str = "/dev/ttyS1";

/// Arguments of `xtask rivals-inside`, which the machine runs.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[arg(long)]
    memtrace: PathBuf,
    #[arg(long)]
    workload: PathBuf,
    /// What is measured: the machine has no git
    #[arg(long)]
    commit: Option<String>,
}

/// Boots the machine and reads what it measured.
pub fn boot(
    workspace: &Workspace,
    packages: &Path,
    memtrace: &Path,
    workload: &Path,
) -> Result<Run> {
    let xtask = std::env::current_exe().context("cannot find this program's file")?;
    let name = xtask.file_name().context("this program has no name")?;
    let commit = workspace.commit();
    let commit = commit.map_or_else(String::new, |commit| format!(" --commit {commit}"));
    let command = format!(
        "{} rivals-inside --memtrace /bin/memtrace --workload /bin/memtrace-workload{commit}",
        name.display()
    );
    let mut programs = vec![xtask.clone(), memtrace.to_owned(), workload.to_owned()];
    for tool in ["usr/sbin/oomkill", "usr/sbin/exitsnoop", "usr/bin/below"] {
        let path = packages.join(tool);
        if path.is_file() {
            programs.push(path);
        }
    }
    let args = vm::Args::shell(KERNEL, &command, programs)?;
    vm::run(workspace, &args)?;
    let answer = workspace.target().join("vm").join(KERNEL).join("ttyS1");
    let bytes = fs::read(&answer).with_context(|| format!("cannot read {}", answer.display()))?;
    serde_json::from_slice(&bytes).context("the machine measured nothing")
}

/// What the machine runs.
pub fn inside(args: &Args) -> Result<()> {
    let scratch = PathBuf::from("/tmp/rivals");
    fs::create_dir_all(&scratch)?;
    let plan = Plan {
        length: Duration::from_secs(MINUTES * 60),
        containers: 8,
        services: 4,
        storm: 12,
        elsewhere: 4,
        groups: 4,
        shorts: 60,
        // There is no disk: its files would be memory that the kernel cannot take back.
        file: None,
    };
    let load = Load::new(args.workload.clone(), plan)?;
    let nothing = PathBuf::from("/none");
    let run = beside(
        load,
        &nothing,
        &scratch,
        args.memtrace.clone(),
        args.commit.clone(),
        tools::IN_A_MACHINE,
    )?;
    progress(format!("{} rows", run.rows.len()));
    fs::write(PORT, serde_json::to_vec(&run)?).with_context(|| format!("cannot write {PORT}"))
}
