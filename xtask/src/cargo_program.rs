//! Programs from crates.io that a command of ours runs, at the version that it was written for.
//! Must not know what they are for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{self, progress};
use crate::workspace::Workspace;

/// A package that gives one program of the same name.
#[derive(Debug, Clone, Copy)]
pub struct CargoProgram {
    pub name: &'static str,
    pub version: &'static str,
    /// More arguments of `cargo install`, such as features.
    pub arguments: &'static [&'static str],
    /// How long that takes, for who waits.
    pub takes: &'static str,
    /// Whether it knows `--version`; of one that does not, cargo's list of what it installed is asked.
    pub says_version: bool,
}

impl CargoProgram {
    /// Where it is; installs it in this checkout's tools first, unless that version is there.
    pub fn ensure(
        &self,
        workspace: &Workspace,
        environment: &[(&str, PathBuf)],
    ) -> Result<PathBuf> {
        let root = workspace.tools();
        let program = root.join("bin").join(self.name);
        let wanted = format!("{} {}", self.name, self.version);
        if program.is_file() && self.is_installed(&wanted, &root, &program) {
            return Ok(program);
        }
        progress(format!(
            "installing {wanted} into {} ({}, once)",
            root.display(),
            self.takes
        ));
        let mut install = workspace.cargo();
        install
            .args(["install", self.name, "--locked", "--force"])
            .args(["--version", self.version])
            .args(self.arguments)
            .arg("--root")
            .arg(&root)
            .arg("--target-dir")
            .arg(root.join("build"))
            .envs(environment.iter().cloned())
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        process::check(&mut install).with_context(|| format!("cannot install {wanted}"))?;
        Ok(program)
    }

    fn is_installed(&self, wanted: &str, root: &Path, program: &Path) -> bool {
        if self.says_version {
            return version(program).is_ok_and(|found| found == wanted);
        }
        let list = fs::read_to_string(root.join(".crates.toml"));
        list.is_ok_and(|list| list.contains(&format!("\"{wanted} (")))
    }
}

/// The first line of what it says of its version.
pub fn version(program: &Path) -> Result<String> {
    let said = process::stdout(Command::new(program).arg("--version"))?;
    Ok(said.lines().next().unwrap_or_default().trim().to_owned())
}
