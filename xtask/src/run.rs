//! `cargo xtask run`: builds memtrace and becomes `memtrace run`, as root.
//! Must not interpret memtrace's arguments.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};

use crate::workspace::Workspace;
use crate::{artifacts, process};

/// Arguments of `cargo xtask run`.
#[derive(clap::Args)]
pub struct Args {
    /// Arguments of `memtrace run`
    #[arg(last = true)]
    args: Vec<OsString>,
}

/// Builds and replaces this process; returns only when that fails.
pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let binary = artifacts::memtrace(workspace)?;
    let mut command = process::as_root(binary.as_os_str(), &[])?;
    command.arg("run").args(&args.args);
    process::progress(process::shown(&command));
    Err(command.exec()).with_context(|| format!("cannot execute {}", binary.display()))
}
