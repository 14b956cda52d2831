//! Compiles and links the BPF object so that its bytes do not depend on where the checkout is.
//! Must not look for tools.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::toolchain::Toolchain;
use crate::process::{self, progress};
use crate::workspace::Workspace;

const TARGET: &str = "bpfel-unknown-none";

/// Builds the object in cargo's output directory and returns its final bytes.
pub fn object(workspace: &Workspace, toolchain: &Toolchain) -> Result<Vec<u8>> {
    progress(format!(
        "building the BPF object ({}, {})",
        toolchain.rustc_version, toolchain.linker_version
    ));
    let target = workspace.target().join("ebpf");
    // Cargo does not notice another linker or libLLVM; our own crate is quick to build again.
    let mut clean = workspace.cargo();
    clean
        .args([
            "clean",
            "--quiet",
            "--release",
            "--package",
            "memtrace-ebpf",
        ])
        .args(["--target", TARGET, "--target-dir"])
        .arg(&target)
        .env("RUSTC", &toolchain.rustc);
    process::quiet(&mut clean)?;
    let mut cargo = workspace.cargo();
    for (name, _) in std::env::vars_os() {
        if changes_the_build(&name.to_string_lossy()) {
            cargo.env_remove(&name);
        }
    }
    cargo
        .args(["build", "--release", "-Zbuild-std=core", "--target", TARGET])
        .args(["--package", "memtrace-ebpf", "--bin", "memtrace-ebpf"])
        .args(["--no-default-features", "--features", "bpf"])
        .arg("--target-dir")
        .arg(&target)
        .env("RUSTC", &toolchain.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            flags(workspace, toolchain, &target)?,
        )
        // The profile of user space would strip the type information and emit unwinding.
        .env("CARGO_PROFILE_RELEASE_STRIP", "none")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "2")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3")
        .env("CARGO_PROFILE_RELEASE_LTO", "true")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "false");
    process::check(&mut cargo).context("cannot build the BPF programs")?;

    let linked = target.join(TARGET).join("release/memtrace-ebpf");
    let stripped = target.join("memtrace.bpfel.o");
    // The kernel reads .BTF and .BTF.ext; DWARF would only name the paths of this machine.
    process::check(
        Command::new(&toolchain.objcopy)
            .arg("--strip-debug")
            .arg(&linked)
            .arg(&stripped),
    )?;
    fs::read(&stripped).with_context(|| format!("cannot read {}", stripped.display()))
}

/// Whether an environment variable of the caller could leak into the object's bytes.
fn changes_the_build(name: &str) -> bool {
    name == "RUSTFLAGS"
        || name == "CARGO_INCREMENTAL"
        || name.starts_with("RUSTC")
        || name.starts_with("CARGO_PROFILE_")
        || name.starts_with("CARGO_BUILD_")
        || name.starts_with("CARGO_TARGET_BPF")
}

fn flags(workspace: &Workspace, toolchain: &Toolchain, target: &Path) -> Result<OsString> {
    let mut linker = OsString::from("-Clinker=");
    linker.push(&toolchain.linker);
    let mut flags = vec!["-Cdebuginfo=2".into(), "-Clink-arg=--btf".into(), linker];
    // The last matching prefix wins, so the most general comes first.
    let crates = crates(workspace, toolchain)?;
    for (from, to) in [
        (workspace.root(), "memtrace"),
        (crates.as_path(), "crates"),
        (toolchain.library.as_path(), "library"),
        (target, "target"),
    ] {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(from);
        flag.push("=");
        flag.push(to);
        flags.push(flag);
    }
    Ok(flags.join(&OsString::from("\x1f")))
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
}

/// The directory that dependencies are unpacked in. Its name depends on cargo's home and on the
/// registry, or the mirror of it, that this machine uses.
fn crates(workspace: &Workspace, toolchain: &Toolchain) -> Result<PathBuf> {
    let mut cargo = workspace.cargo();
    cargo
        .args([
            "metadata",
            "--format-version=1",
            "--features",
            "memtrace-ebpf/bpf",
        ])
        .args(["--filter-platform", TARGET])
        .env("RUSTC", &toolchain.rustc);
    let metadata = process::stdout(&mut cargo).context("cannot resolve dependencies")?;
    directory_of(&metadata, "aya-ebpf")
}

fn directory_of(metadata: &str, name: &str) -> Result<PathBuf> {
    let metadata: Metadata =
        serde_json::from_str(metadata).context("`cargo metadata` printed unexpected JSON")?;
    metadata
        .packages
        .iter()
        .find(|package| package.name == name)
        .and_then(|package| package.manifest_path.parent()?.parent())
        .map(Path::to_owned)
        .with_context(|| format!("tracer-ebpf does not depend on {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_where_dependencies_are_unpacked() {
        let metadata = r#"{"packages": [
            {"name": "memtrace-ebpf", "manifest_path": "/w/tracer-ebpf/Cargo.toml"},
            {"name": "aya-ebpf", "manifest_path": "/r/src/mirror-1/aya-ebpf-0.2.1/Cargo.toml"}
        ]}"#;
        let found = directory_of(metadata, "aya-ebpf").unwrap();
        assert_eq!(found, Path::new("/r/src/mirror-1"));
        assert!(directory_of(metadata, "absent").is_err());
    }

    #[test]
    fn the_callers_flags_do_not_reach_the_object() {
        for name in ["RUSTFLAGS", "RUSTC_WRAPPER", "CARGO_PROFILE_RELEASE_LTO"] {
            assert!(changes_the_build(name), "{name}");
        }
        for name in [
            "CARGO_HOME",
            "CARGO_NET_OFFLINE",
            "PATH",
            "RUSTUP_TOOLCHAIN",
        ] {
            assert!(!changes_the_build(name), "{name}");
        }
    }
}
