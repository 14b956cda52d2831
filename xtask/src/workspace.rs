//! Knows where the checkout and its build output are, and how to call cargo in it.
//! Must not know what any command builds.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::process;

/// The checkout that the command works on.
#[derive(Debug, Clone)]
pub struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

#[derive(Deserialize)]
struct Metadata {
    workspace_root: PathBuf,
    target_directory: PathBuf,
}

impl Workspace {
    /// Asks cargo about the workspace of the running `cargo xtask`, or of the current directory.
    pub fn locate() -> Result<Self> {
        let mut command = cargo();
        command.args(["metadata", "--no-deps", "--format-version=1"]);
        if let Some(xtask) = std::env::var_os("CARGO_MANIFEST_DIR") {
            command
                .arg("--manifest-path")
                .arg(Path::new(&xtask).join("Cargo.toml"));
        }
        let json = process::stdout(&mut command)
            .context("cannot find the memtrace workspace; run `cargo xtask` inside the checkout")?;
        let metadata: Metadata =
            serde_json::from_str(&json).context("`cargo metadata` printed unexpected JSON")?;
        let workspace = Self {
            root: metadata.workspace_root,
            target: metadata.target_directory,
        };
        if !workspace.root.join("tracer-ebpf").is_dir() {
            bail!(
                "{} is not the memtrace workspace (it has no tracer-ebpf/); \
                 run `cargo xtask` inside the checkout",
                workspace.root.display()
            );
        }
        Ok(workspace)
    }

    /// The directory of the workspace's `Cargo.toml`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Cargo's output directory.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Where developer tools of this checkout are installed.
    pub fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// What is checked out, as git abbreviates it; ends in `+` if something is not committed. A release's archive
    /// has no history.
    pub fn commit(&self) -> Option<String> {
        let git = |arguments: &[&str]| {
            let mut git = Command::new("git");
            git.arg("-C").arg(&self.root).args(arguments);
            process::stdout(&mut git).ok()
        };
        let head = git(&["rev-parse", "--short", "HEAD"])?;
        let clean = git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
        Some(format!("{}{}", head.trim(), if clean { "" } else { "+" }))
    }

    /// A cargo command that runs in the workspace's root.
    pub fn cargo(&self) -> Command {
        let mut command = cargo();
        // A relative CARGO_TARGET_DIR was meant from the caller's directory.
        command
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", &self.target);
        command
    }
}

fn cargo() -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    // `cargo run` describes xtask itself in the environment and puts the libraries of its own
    // compiler first; a nested cargo, perhaps with another compiler, must see neither.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command.env_remove("LD_LIBRARY_PATH");
    command
}
