//! Builds the programs that end-to-end tests and `run` need, and says where they are.
//! Must not run them.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::process;
use crate::workspace::Workspace;

/// What the end-to-end tests consist of.
#[derive(Debug, Clone)]
pub struct EndToEnd {
    /// The release binary of memtrace.
    pub memtrace: PathBuf,
    /// The program whose memory the tests watch.
    pub workload: PathBuf,
    /// The test executable.
    pub tests: PathBuf,
}

/// Builds everything that the end-to-end tests need.
pub fn end_to_end(workspace: &Workspace) -> Result<EndToEnd> {
    Ok(EndToEnd {
        memtrace: memtrace(workspace)?,
        workload: workload(workspace)?,
        tests: e2e_tests(workspace)?,
    })
}

/// Builds the release binary of memtrace.
pub fn memtrace(workspace: &Workspace) -> Result<PathBuf> {
    process::progress("building memtrace (release)");
    let mut command = workspace.cargo();
    command.args(["build", "--release", "--locked", "--package", "memtrace"]);
    process::check(&mut command)?;
    existing(workspace.target().join("release/memtrace"))
}

/// Builds the workload as a profiled service would be: optimized, with symbols and frame pointers.
pub fn workload(workspace: &Workspace) -> Result<PathBuf> {
    process::progress("building memtrace-workload (release, with symbols and frame pointers)");
    // Other flags than the rest of the workspace: an own directory keeps both caches warm.
    let target = workspace.target().join("workload");
    let mut command = workspace.cargo();
    command
        .args([
            "build",
            "--release",
            "--package",
            "memtrace-tests",
            "--bin",
            "memtrace-workload",
        ])
        .arg("--target-dir")
        .arg(&target)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTFLAGS", "-Cforce-frame-pointers=yes")
        .env("CARGO_PROFILE_RELEASE_STRIP", "none")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "line-tables-only")
        .env("CARGO_PROFILE_RELEASE_LTO", "off");
    process::check(&mut command)?;
    existing(target.join("release/memtrace-workload"))
}

/// Compiles the end-to-end tests without running them.
pub fn e2e_tests(workspace: &Workspace) -> Result<PathBuf> {
    process::progress("building the end-to-end tests");
    let mut command = workspace.cargo();
    command.args([
        "test",
        "--no-run",
        "--package",
        "memtrace-tests",
        "--test",
        "e2e",
    ]);
    command.arg("--message-format=json-render-diagnostics");
    let messages = process::stdout(&mut command)?;
    existing(test_executable(&messages, "e2e").context(
        "cargo built no test executable named e2e; does tests/Cargo.toml still declare it?",
    )?)
}

fn existing(path: PathBuf) -> Result<PathBuf> {
    path.canonicalize()
        .with_context(|| format!("cargo succeeded but left no {}", path.display()))
}

#[derive(Deserialize)]
struct Message {
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

fn test_executable(messages: &str, name: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|message| {
            message
                .target
                .as_ref()
                .is_some_and(|target| target.name == name && target.kind == ["test"])
        })
        .find_map(|message| message.executable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_test_executable_among_cargo_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"e2e","kind":["lib"]},"executable":null}
not json
{"reason":"compiler-artifact","target":{"name":"other","kind":["test"]},"executable":"/t/other"}
{"reason":"compiler-artifact","target":{"name":"e2e","kind":["test"]},"executable":"/t/e2e-1"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(
            test_executable(messages, "e2e"),
            Some(PathBuf::from("/t/e2e-1"))
        );
        assert_eq!(test_executable(messages, "none"), None);
    }
}
