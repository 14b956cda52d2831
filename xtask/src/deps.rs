//! The one list of Debian packages that developer commands need, and their installation.
//! Must not build anything.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::process;

/// What a command needs packages for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Building the BPF object with the pinned toolchain.
    Bpf,
    /// Booting other kernels.
    Vm,
    /// Tools that tests compare memtrace with.
    Oracle,
    /// Fetching and starting the telemetry backends that tests send to.
    Backend,
    /// Running containers that tests watch.
    Containers,
    /// Runtimes and compilers of what tests watch.
    Watched,
    /// Checking manifests, rules and the systemd unit.
    Deploy,
    /// A terminal that tests draw on.
    Terminal,
    /// Compiling C++: what links the BPF object, and the fuzzer.
    Compiler,
    /// Compiling for arm64.
    Cross,
    /// Compiling a tool that Debian does not have.
    Rival,
}

use Purpose::{
    Backend, Bpf, Compiler, Containers, Cross, Deploy, Oracle, Rival, Terminal, Vm, Watched,
};

/// Every Debian package that a developer command uses.
pub const PACKAGES: &[(&str, Purpose)] = &[
    ("rustc-web", Bpf),
    ("rust-web-src", Bpf),
    ("llvm-22", Bpf),
    ("llvm-22-dev", Bpf),
    ("libpolly-22-dev", Bpf),
    ("libzstd-dev", Bpf),
    ("zlib1g-dev", Bpf),
    ("g++", Compiler),
    ("qemu-system-x86", Vm),
    ("busybox-static", Vm),
    ("cpio", Vm),
    ("xz-utils", Vm),
    ("zstd", Vm),
    ("binutils", Vm),
    ("strace", Oracle),
    ("linux-perf", Oracle),
    ("bpftrace", Oracle),
    ("python3-pip", Backend),
    ("libpython3.11", Backend),
    ("containerd", Containers),
    ("runc", Containers),
    ("podman", Watched),
    ("golang-go", Watched),
    ("systemd", Deploy),
    ("tmux", Terminal),
    ("gcc-aarch64-linux-gnu", Cross),
    ("libc6-dev-arm64-cross", Cross),
    ("clang-16", Rival),
    ("libelf-dev", Rival),
];

/// Installs what is missing for the given purposes when root; otherwise fails with the line to run.
pub fn ensure(purposes: &[Purpose]) -> Result<()> {
    let wanted = wanted(purposes);
    let missing = missing(&wanted)?;
    if missing.is_empty() {
        return Ok(());
    }
    if !process::is_root() {
        bail!(
            "missing packages: {}\n  remedy: sudo {}",
            missing.join(" "),
            install_line(&missing)
        );
    }
    if missing.iter().any(|package| !has_candidate(package)) {
        process::progress("apt-get update (a needed package is not in the lists)");
        process::quiet(Command::new("apt-get").args(["-q", "update"]))?;
    }
    process::progress(install_line(&missing));
    let mut install = Command::new("apt-get");
    install
        .args(["-q", "install", "-y", "--no-install-recommends"])
        .args(&missing)
        .env("DEBIAN_FRONTEND", "noninteractive");
    process::quiet(&mut install).context(
        "cannot install the packages that this command needs; rustc-web 1.96 and LLVM 22 come \
         from Debian 12's security archive, so that must be among apt's sources",
    )
}

fn wanted(purposes: &[Purpose]) -> Vec<&'static str> {
    PACKAGES
        .iter()
        .filter(|(_, purpose)| purposes.contains(purpose))
        .map(|(package, _)| *package)
        .collect()
}

fn install_line(packages: &[&str]) -> String {
    format!(
        "apt-get install -y --no-install-recommends {}",
        packages.join(" ")
    )
}

fn missing(packages: &[&'static str]) -> Result<Vec<&'static str>> {
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat=${Package} ${db:Status-Status}\n"])
        .args(packages)
        // Unknown packages are reported on stderr and by the status; both mean "missing".
        .stderr(Stdio::null())
        .output()
        .with_context(|| {
            format!(
                "this command needs a Debian system (there is no dpkg-query) with the packages {}",
                packages.join(" ")
            )
        })?;
    Ok(not_installed(
        packages,
        &String::from_utf8_lossy(&output.stdout),
    ))
}

fn not_installed(packages: &[&'static str], listing: &str) -> Vec<&'static str> {
    let installed = |package: &str| {
        listing
            .lines()
            .any(|line| line.split_once(' ') == Some((package, "installed")))
    };
    packages
        .iter()
        .copied()
        .filter(|package| !installed(package))
        .collect()
}

fn has_candidate(package: &str) -> bool {
    Command::new("apt-cache")
        .args(["--quiet=0", "policy", package])
        .env("LC_ALL", "C")
        .output()
        .is_ok_and(|output| policy_has_candidate(&String::from_utf8_lossy(&output.stdout)))
}

fn policy_has_candidate(policy: &str) -> bool {
    policy
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Candidate:"))
        .any(|version| version.trim() != "(none)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_missing_unless_fully_installed() {
        let listing = "cpio installed\nzstd config-files\n";
        assert_eq!(
            not_installed(&["cpio", "zstd", "strace"], listing),
            ["zstd", "strace"]
        );
    }

    #[test]
    fn a_package_unknown_to_apt_has_no_candidate() {
        assert!(!policy_has_candidate(""));
        assert!(!policy_has_candidate(
            "x:\n  Installed: (none)\n  Candidate: (none)\n"
        ));
        assert!(policy_has_candidate(
            "x:\n  Installed: (none)\n  Candidate: 1.2-3\n"
        ));
    }

    #[test]
    fn every_package_is_listed_once() {
        let mut names: Vec<_> = PACKAGES.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), PACKAGES.len());
    }
}
