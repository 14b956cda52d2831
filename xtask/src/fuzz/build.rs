//! The fuzzer: memtrace's own crates, instrumented for coverage by the stable compiler, over dependencies as
//! the tests have them, so that it costs little to build.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::process::{self, progress};
use crate::workspace::Workspace;

/// Builds it and puts it into `directory`.
pub fn fuzzer(workspace: &Workspace, directory: &Path) -> Result<PathBuf> {
    progress("building the fuzzer");
    let mut command = workspace.cargo();
    command
        .args(["build", "--package=memtrace-fuzz", "--bin=memtrace-fuzz"])
        .arg("--features=libfuzzer")
        .env(
            "RUSTC_WORKSPACE_WRAPPER",
            workspace.root().join("fuzz/instrument.sh"),
        );
    process::check(&mut command)?;
    let built = workspace.target().join("debug/memtrace-fuzz");
    // Another build may take its place there.
    let fuzzer = directory.join("memtrace-fuzz");
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    fs::copy(&built, &fuzzer)
        .with_context(|| format!("cargo succeeded but left no {}", built.display()))?;
    Ok(fuzzer)
}
