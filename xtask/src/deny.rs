//! `cargo xtask deny`: licences, sources and doubles of all dependencies by `deny.toml`, and on demand
//! what is known against them. Must not hold a rule of its own.

use std::process::Command;

use anyhow::{Context, Result};

use crate::cargo_program::CargoProgram;
use crate::process;
use crate::workspace::Workspace;

const CARGO_DENY: CargoProgram = CargoProgram {
    name: "cargo-deny",
    version: "0.20.2",
    // Runs for a second: not worth an optimised build.
    arguments: &["--debug"],
    takes: "two minutes",
    says_version: true,
};

/// Arguments of `cargo xtask deny`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Args {
    /// Also ask RustSec's database for known vulnerabilities; needs github.com
    #[arg(long)]
    advisories: bool,
}

/// Fails when a dependency breaks a rule.
pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let program = CARGO_DENY.ensure(workspace, &[])?;
    let mut command = Command::new(program);
    command
        .args(["--locked", "check", "licenses", "bans", "sources"])
        .current_dir(workspace.root());
    if args.advisories {
        command.arg("advisories");
    }
    process::check(&mut command).context("a dependency breaks a rule of deny.toml")
}
