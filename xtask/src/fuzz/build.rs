//! The fuzzer: memtrace and all it is made of, instrumented for coverage by the stable compiler.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::process::{self, progress};
use crate::workspace::Workspace;

/// With a target of its own, build scripts and macros are not instrumented.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";
/// What cargo-fuzz passes, without the address sanitizer, which needs a nightly compiler.
const INSTRUMENTED: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg=fuzzing",
];

/// Builds it below `target` and says where it is.
pub fn fuzzer(workspace: &Workspace, target: &Path) -> Result<PathBuf> {
    progress("building the fuzzer");
    let mut command = workspace.cargo();
    command
        .args(["build", "--package=memtrace-fuzz", "--bin=memtrace-fuzz"])
        .args([
            "--features=libfuzzer",
            "--profile=fuzz",
            "--target",
            PLATFORM,
        ])
        .env("CARGO_TARGET_DIR", target)
        // These, whatever the caller's are: they would win.
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", INSTRUMENTED.join("\x1f"));
    process::check(&mut command)?;
    let path = target.join(PLATFORM).join("fuzz/memtrace-fuzz");
    path.canonicalize()
        .with_context(|| format!("cargo succeeded but left no {}", path.display()))
}
