//! `cargo xtask dist`: the Debian package, with unit, manual pages and completions.
//! Needs `dpkg-deb` and `gzip`, which Debian and Ubuntu have, and `objdump`, which comes with the linker. Must
//! not install anything.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::workspace::Workspace;
use crate::{artifacts, process};

/// Arguments of `cargo xtask dist`.
#[derive(clap::Args)]
pub struct Args {
    /// Where the package goes [default: target/dist]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Where each shell looks for completions that packages bring.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/memtrace"),
    ("zsh", "usr/share/zsh/vendor-completions/_memtrace"),
    ("fish", "usr/share/fish/vendor_completions.d/memtrace.fish"),
];
/// Packages may run these; the unit is left to the administrator to enable.
const AFTER_INSTALL: &str = "#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl try-restart memtrace.service
fi
";
const BEFORE_REMOVE: &str = "#!/bin/sh
set -e
if [ -d /run/systemd/system ] && [ \"$1\" = remove ]; then
    systemctl disable --now memtrace.service
fi
";
const AFTER_REMOVE: &str = "#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
if [ \"$1\" = purge ]; then
    rm -rf /var/lib/memtrace
fi
";

/// Builds the package and prints its path.
pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let binary = artifacts::memtrace(workspace)?;
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| workspace.target().join("dist"));
    let root = out.join("root");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
    }
    fill(workspace, &binary, &root)?;
    let architecture = process::stdout(Command::new("dpkg").arg("--print-architecture"))?;
    let architecture = architecture.trim();
    let version = env!("CARGO_PKG_VERSION");
    let glibc = needed_glibc(&binary)?;
    control(&root, version, architecture, &glibc)?;
    let package = out.join(format!("memtrace_{version}_{architecture}.deb"));
    process::quiet(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "--build"])
            .arg(&root)
            .arg(&package),
    )?;
    process::progress(format!("wrote {}", package.display()));
    Ok(())
}

/// The files, as they are to lie on a host.
fn fill(workspace: &Workspace, binary: &Path, root: &Path) -> Result<()> {
    copy(binary, &root.join("usr/bin/memtrace"), 0o755)?;
    let systemd = workspace.root().join("deploy/systemd");
    let unit = root.join("lib/systemd/system/memtrace.service");
    copy(&systemd.join("memtrace.service"), &unit, 0o644)?;
    let defaults = root.join("etc/default/memtrace");
    copy(&systemd.join("memtrace.default"), &defaults, 0o640)?;
    // It may come to hold tokens.
    let config = root.join("etc/memtrace/memtrace.toml");
    copy(
        &workspace.root().join("deploy/memtrace.toml"),
        &config,
        0o640,
    )?;
    let documents = root.join("usr/share/doc/memtrace");
    copy(
        &workspace.root().join("README.md"),
        &documents.join("README.md"),
        0o644,
    )?;
    for directory in ["docs", "docs/runbooks"] {
        for document in fs::read_dir(workspace.root().join(directory))? {
            let document = document?.path();
            if document.is_file() {
                let inside = document.strip_prefix(workspace.root())?;
                copy(&document, &documents.join(inside), 0o644)?;
            }
        }
    }
    for (shell, path) in COMPLETIONS {
        let text = process::stdout(Command::new(binary).args(["completions", shell]))?;
        write(&root.join(path), &text, 0o644)?;
    }
    let manuals = root.join("usr/share/man/man1");
    fs::create_dir_all(&manuals)?;
    process::check(Command::new(binary).arg("manual").arg(&manuals))?;
    for page in fs::read_dir(&manuals)? {
        process::quiet(Command::new("gzip").args(["-9", "-n"]).arg(page?.path()))?;
    }
    Ok(())
}

/// What dpkg reads.
fn control(root: &Path, version: &str, architecture: &str, glibc: &str) -> Result<()> {
    let debian = root.join("DEBIAN");
    let text = format!(
        "Package: memtrace
Version: {version}
Architecture: {architecture}
Maintainer: memtrace
Depends: libc6 (>= {glibc}), libgcc-s1
Section: admin
Priority: optional
Description: why memory grows and why the kernel killed
 Traces the memory of every container and cgroup of this host with eBPF: who
 grows, whether it leaks, when it hits its limit, and every OOM kill with what
 led up to it. Needs Linux 5.10 or later with BTF.
"
    );
    write(&debian.join("control"), &text, 0o644)?;
    let kept = "/etc/default/memtrace\n/etc/memtrace/memtrace.toml\n";
    write(&debian.join("conffiles"), kept, 0o644)?;
    write(&debian.join("postinst"), AFTER_INSTALL, 0o755)?;
    write(&debian.join("prerm"), BEFORE_REMOVE, 0o755)?;
    write(&debian.join("postrm"), AFTER_REMOVE, 0o755)
}

/// The oldest glibc that has every symbol the binary takes from it.
fn needed_glibc(binary: &Path) -> Result<String> {
    let symbols = process::stdout(Command::new("objdump").arg("-T").arg(binary)).context(
        "objdump lists the symbols that the binary needs; it is in the package binutils",
    )?;
    let newest = newest_glibc(&symbols);
    ensure!(
        newest.is_some(),
        "{} takes nothing from glibc: is it of another libc?",
        binary.display()
    );
    Ok(newest.unwrap_or_default())
}

/// The newest version of glibc among the symbols that `objdump -T` lists as undefined.
fn newest_glibc(symbols: &str) -> Option<String> {
    let versions = symbols
        .lines()
        .filter(|line| line.contains("*UND*"))
        .filter_map(|line| {
            let (_, version) = line.split_once("GLIBC_")?;
            let version = version.split([')', ' ', '\t']).next()?;
            version.split('.').map(|part| part.parse().ok()).collect()
        });
    let newest: Vec<u32> = versions.max()?;
    let parts: Vec<String> = newest.iter().map(u32::to_string).collect();
    Some(parts.join("."))
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    place(to, &bytes, mode)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    place(path, text.as_bytes(), mode)
}

fn place(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let failed = || format!("cannot write {}", path.display());
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(failed)?;
    }
    fs::write(path, bytes).with_context(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).with_context(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_that_is_needed_counts() {
        let symbols = "
0000000000000000      DF *UND*	0000000000000000 (GLIBC_2.9) epoll_create1
0000000000000000      DF *UND*	0000000000000000 (GLIBC_2.34) __libc_start_main
0000000000000000      DF *UND*	0000000000000000 (GLIBC_2.2.5) memcpy
0000000000000000      DF *UND*	0000000000000000 (GCC_3.0) _Unwind_Resume
0000000000000000  w   DF *UND*	0000000000000000  Base        __gmon_start__
0000000000001000 g    DF .text	0000000000000010 (GLIBC_2.40) its_own
";
        assert_eq!(newest_glibc(symbols).as_deref(), Some("2.34"));
        assert_eq!(newest_glibc("no symbols"), None);
        assert_eq!(newest_glibc("*UND* (GLIBC_PRIVATE) x"), None);
    }
}
