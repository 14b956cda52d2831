//! `cargo xtask cross`: compiles the workspace for arm64. Must not run what it built.
//!
//! The compiler is the one of the BPF object, because Debian has its standard library for arm64.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::apt::Suite;
use crate::deps::{self, Purpose};
use crate::process::{self, progress};
use crate::workspace::Workspace;

const TARGET: &str = "aarch64-unknown-linux-gnu";
const RUSTC: &str = "/usr/bin/rustc";
const LIBRARY_PACKAGE: &str = "libstd-rust-web-dev";
const SUITE: &str = "bookworm-security";
/// Of Debian's compilers, for the host and for arm64.
const RUSTLIB: &str = "usr/lib/rustlib";

/// Arguments of `cargo xtask cross`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Build the programs, which takes longer than to check them
    #[arg(long)]
    build: bool,
}

/// Compiles everything but xtask, which runs only where it is built.
pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    deps::ensure(&[Purpose::Bpf, Purpose::Cross])?;
    let sysroot = sysroot(workspace)?;
    // Another compiler than the rest of the checkout has.
    let target = workspace.target().join("cross");
    let mut command = workspace.cargo();
    command
        .arg(if args.build { "build" } else { "check" })
        .args(["--workspace", "--exclude", "xtask"])
        .args(["--bins", "--tests", "--target", TARGET, "--target-dir"])
        .arg(&target)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTFLAGS")
        .env("RUSTC", RUSTC)
        .env("CARGO_PROFILE_DEV_DEBUG", "false")
        .env(
            "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER",
            "aarch64-linux-gnu-gcc",
        )
        .env(
            "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
            format!("--sysroot={}", sysroot.display()),
        );
    process::check(&mut command).context("the workspace does not compile for arm64")?;
    if args.build {
        let built = target.join(TARGET).join("debug");
        progress(format!("built in {}", built.display()));
    }
    Ok(())
}

/// A directory with the standard libraries of the host and of arm64.
fn sysroot(workspace: &Workspace) -> Result<PathBuf> {
    let directory = workspace.tools().join("cross");
    let libraries = directory.join("sysroot/lib/rustlib");
    let target = libraries.join(TARGET);
    if !target.join("lib").is_dir() {
        let unpacked = directory.join("std");
        let suite = Suite::open_security(SUITE, "arm64", &unpacked)?;
        let tree = suite.unpack([LIBRARY_PACKAGE])?;
        fs::create_dir_all(&libraries)
            .with_context(|| format!("cannot create {}", libraries.display()))?;
        let host = Path::new("/")
            .join(RUSTLIB)
            .join("x86_64-unknown-linux-gnu");
        link(&host, &libraries.join("x86_64-unknown-linux-gnu"))?;
        // Last, because its presence says that the rest is complete.
        link(&tree.join(RUSTLIB).join(TARGET), &target)?;
    }
    Ok(directory.join("sysroot"))
}

fn link(to: &Path, at: &Path) -> Result<()> {
    // One that is there may point to what was deleted.
    drop(fs::remove_file(at));
    symlink(to, at).with_context(|| format!("cannot link {}", at.display()))
}
