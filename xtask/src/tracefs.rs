//! The file system that tells tracepoints, which a machine without systemd may not have mounted.
//! Must not unmount it: others may have begun to use it.

use std::ffi::OsStr;
use std::fs;

use anyhow::{Context, Result};

use crate::process;

const MOUNTS: &str = "/proc/self/mounts";
const PLACE: &str = "/sys/kernel/tracing";

/// Mounts it unless it is; without it memtrace sees no system calls on a kernel without fentry and kprobes.
pub fn ensure() -> Result<()> {
    let mounts = fs::read_to_string(MOUNTS).with_context(|| format!("cannot read {MOUNTS}"))?;
    if has_tracefs(&mounts) {
        return Ok(());
    }
    let mut mount = process::as_root(OsStr::new("mount"), &[])?;
    mount.args(["-t", "tracefs", "tracefs", PLACE]);
    process::check(&mut mount).context("tracefs is not mounted and cannot be")
}

fn has_tracefs(mounts: &str) -> bool {
    mounts
        .lines()
        .any(|line| line.split(' ').nth(2) == Some("tracefs"))
}

#[cfg(test)]
mod tests {
    use super::has_tracefs;

    #[test]
    fn only_a_mounted_tracefs_counts() {
        assert!(has_tracefs(
            "proc /proc proc rw 0 0\nnone /sys/kernel/tracing tracefs rw 0 0\n"
        ));
        assert!(!has_tracefs(
            "tracefs /sys/kernel/debug debugfs rw 0 0\nx /mnt/tracefs tmpfs rw 0 0\n"
        ));
    }
}
