//! The tools: Debian packages, downloaded and unpacked below the build output, so that no service of theirs
//! starts, and what is on crates.io, built aside. Must not start any.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cargo_program::CargoProgram;
use crate::deps::{self, Purpose};
use crate::process::{self, progress};
use crate::workspace::Workspace;

/// Tools, and the libraries and scripts they need beyond what a developer's machine has.
const PACKAGES: &[&str] = &[
    "prometheus-node-exporter",
    "netdata-core",
    "netdata-plugins-bash",
    "atop",
    "earlyoom",
    "libbpf-tools",
    "libuv1",
    "libnetfilter-acct1",
    "libmnl0",
    "libjson-c5",
    "liblz4-1",
];

const BELOW: CargoProgram = CargoProgram {
    name: "below",
    version: "0.9.0",
    arguments: &[],
    takes: "eight minutes",
    says_version: false,
};
/// Debian 12 has 14, which fails on its BPF programs, and 22, which refuses them.
const BELOWS_COMPILER: &str = "/usr/bin/clang-16";

/// The tree of their files, and the packages that cannot be had.
#[derive(Debug)]
pub struct Packages {
    pub tree: PathBuf,
    pub absent: Vec<&'static str>,
}

/// Downloads what an earlier call has not.
pub fn fetch(workspace: &Workspace, directory: &Path) -> Result<Packages> {
    let tree = directory.join("tree");
    let downloads = directory.join("downloads");
    fs::create_dir_all(&tree).with_context(|| format!("cannot make {}", tree.display()))?;
    fs::create_dir_all(&downloads)?;
    let mut absent = Vec::new();
    for package in PACKAGES {
        let mark = directory.join(format!("{package}.unpacked"));
        if mark.exists() {
            continue;
        }
        progress(format!("downloading {package}"));
        match unpack(package, &downloads, &tree) {
            Ok(()) => fs::write(&mark, "")?,
            Err(error) => {
                progress(format!("{package} is not to be had: {error:#}"));
                absent.push(*package);
            }
        }
    }
    if let Err(error) = build_below(workspace, &tree) {
        progress(format!("{} is not to be had: {error:#}", BELOW.name));
        absent.push(BELOW.name);
    }
    Ok(Packages { tree, absent })
}

/// It asks for a compiler by the name `clang`.
fn build_below(workspace: &Workspace, tree: &Path) -> Result<()> {
    deps::ensure(&[Purpose::Rival])?;
    let compilers = workspace.tools().join("clang-16");
    fs::create_dir_all(&compilers)?;
    let clang = compilers.join("clang");
    if !clang.exists() {
        symlink(BELOWS_COMPILER, &clang)?;
    }
    let others = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths([compilers].into_iter().chain(env::split_paths(&others)))?;
    let program = BELOW.ensure(workspace, &[("PATH", path.into())])?;
    let programs = tree.join("usr/bin");
    fs::create_dir_all(&programs)?;
    fs::copy(program, programs.join(BELOW.name))?;
    Ok(())
}

fn unpack(package: &str, downloads: &Path, tree: &Path) -> Result<()> {
    let mut download = Command::new("apt-get");
    download.current_dir(downloads);
    // The user that apt drops to may not be able to enter the checkout.
    download.args(["-q", "-o", "APT::Sandbox::User=root", "download", package]);
    process::quiet(&mut download)?;
    let prefix = format!("{package}_");
    let entries = fs::read_dir(downloads)?.flatten();
    let file = entries
        .map(|entry| entry.path())
        .find(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with(&prefix))
        })
        .context("apt-get left no file")?;
    process::quiet(Command::new("dpkg").arg("-x").arg(&file).arg(tree))?;
    Ok(fs::remove_file(file)?)
}
