//! Finds, or installs, the compiler and linker of the BPF object. Must not build the object.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cargo_program::{CargoProgram, version};
use crate::deps::{self, Purpose};
use crate::process;
use crate::workspace::Workspace;

/// Debian's rustc-web, the one stable-numbered compiler whose standard library comes with sources.
const PINNED_RUSTC: &str = "/usr/bin/rustc";
const PINNED_RELEASE: &str = "rustc 1.96.";
const BPF_LINKER: CargoProgram = CargoProgram {
    name: "bpf-linker",
    version: "0.13.0",
    arguments: &["--no-default-features", "--features", "llvm-22"],
    takes: "about a minute",
    says_version: true,
};
const LLVM_MAJOR: u32 = 22;
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// A usable set of BPF build tools.
#[derive(Debug)]
pub struct Toolchain {
    /// The compiler.
    pub rustc: PathBuf,
    /// bpf-linker.
    pub linker: PathBuf,
    /// LLVM's objcopy.
    pub objcopy: PathBuf,
    /// The compiler's sources, whose path must not reach the object.
    pub library: PathBuf,
    /// First line of `rustc --version`.
    pub rustc_version: String,
    /// LLVM version of the compiler.
    pub llvm_version: String,
    /// First line of `bpf-linker --version`.
    pub linker_version: String,
    pinned: bool,
}

impl Toolchain {
    /// The toolchain that makes the committed bytes; installs what is missing when root.
    pub fn pinned(workspace: &Workspace) -> Result<Self> {
        deps::ensure(&[Purpose::Bpf, Purpose::Compiler])?;
        let toolchain = Self::assemble(workspace, Path::new(PINNED_RUSTC), true)?;
        if !toolchain.rustc_version.starts_with(PINNED_RELEASE) {
            bail!(
                "{PINNED_RUSTC} is {}, but the pinned one is {PINNED_RELEASE}x of the package \
                 rustc-web; `apt-get install rustc-web rust-web-src` (Debian 12 security archive)",
                toolchain.rustc_version
            );
        }
        Ok(toolchain)
    }

    /// A nightly of rustup that has the component rust-src.
    pub fn nightly(workspace: &Workspace) -> Result<Self> {
        let list = process::stdout(Command::new("rustup").args(["toolchain", "list", "--verbose"]))
            .context("no pinned toolchain and no rustup to find a nightly with")?;
        let rustc = nightlies(&list)
            .map(|directory| directory.join("bin/rustc"))
            .find(|rustc| rustc.is_file() && library(rustc).is_ok())
            .context(
                "no pinned toolchain, and no nightly that has the standard library's sources; \
                 `rustup toolchain install nightly --component rust-src`",
            )?;
        Self::assemble(workspace, &rustc, false)
    }

    /// Whether this makes the same bytes everywhere.
    pub fn is_pinned(&self) -> bool {
        self.pinned
    }

    fn assemble(workspace: &Workspace, rustc: &Path, pinned: bool) -> Result<Self> {
        let verbose = process::stdout(Command::new(rustc).arg("-vV"))?;
        let llvm_version = verbose
            .lines()
            .find_map(|line| line.strip_prefix("LLVM version: "))
            .with_context(|| format!("{} names no LLVM version", rustc.display()))?;
        if major(llvm_version).is_none_or(|major| major > LLVM_MAJOR) {
            bail!(
                "{} uses LLVM {llvm_version}, whose bitcode LLVM {LLVM_MAJOR}'s bpf-linker cannot \
                 read; use an older nightly",
                rustc.display()
            );
        }
        let objcopy = llvm_prefix().join("bin/llvm-objcopy");
        if !objcopy.is_file() {
            bail!(
                "{} does not exist; install LLVM {LLVM_MAJOR} (Debian's llvm-22), or set \
                 LLVM_PREFIX to where it is",
                objcopy.display()
            );
        }
        let linker = BPF_LINKER.ensure(workspace, &[("LLVM_PREFIX", llvm_prefix())])?;
        Ok(Self {
            rustc: rustc.to_owned(),
            objcopy,
            library: library(rustc)?,
            rustc_version: first_line(&verbose),
            llvm_version: llvm_version.to_owned(),
            linker_version: version(&linker)?,
            linker,
            pinned,
        })
    }
}

fn llvm_prefix() -> PathBuf {
    std::env::var_os("LLVM_PREFIX").map_or_else(|| PathBuf::from(LLVM_PREFIX), PathBuf::from)
}

/// The directory of the standard library's sources, spelled as cargo hands it to the compiler.
fn library(rustc: &Path) -> Result<PathBuf> {
    let sysroot = process::stdout(Command::new(rustc).args(["--print", "sysroot"]))?;
    let library = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library");
    if !library.join("core/Cargo.toml").is_file() {
        bail!(
            "{} has no standard library sources at {}",
            rustc.display(),
            library.display()
        );
    }
    Ok(library)
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

/// The directories of the nightlies in the output of `rustup toolchain list --verbose`.
fn nightlies(list: &str) -> impl Iterator<Item = PathBuf> {
    list.lines()
        .filter(|line| line.starts_with("nightly"))
        .filter_map(|line| {
            let directory = line.find('/')?;
            Some(PathBuf::from(line[directory..].trim()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_nightlies_in_rustups_list() {
        let list = "stable-x86_64-unknown-linux-gnu (active, default) /r/toolchains/stable\n\
                    nightly-x86_64-unknown-linux-gnu /r/tool chains/nightly\n\
                    nightly-2026-01-01-x86_64-unknown-linux-gnu\t/r/dated\n";
        let found: Vec<_> = nightlies(list).collect();
        assert_eq!(
            found,
            [Path::new("/r/tool chains/nightly"), Path::new("/r/dated")]
        );
    }

    #[test]
    fn reads_llvms_major_version() {
        assert_eq!(major("22.1.8"), Some(22));
        assert_eq!(major("x"), None);
    }
}
