//! What the kernel itself counts of the whole machine.

use std::fs;

use anyhow::{Context, Result};

/// OOM kills of the machine since it started. Source: `oom_kill` of /proc/vmstat.
pub fn kernel_kills() -> Result<u64> {
    let text = fs::read_to_string("/proc/vmstat").context("cannot read /proc/vmstat")?;
    let kills = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    kills
        .and_then(|count| count.trim().parse().ok())
        .context("/proc/vmstat has no oom_kill")
}
