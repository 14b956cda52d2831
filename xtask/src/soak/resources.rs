//! What the agent holds at one moment: memory, descriptors, threads, memory of maps, CPU.
//! Must not judge it.

use std::fmt;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use super::containers::Containers;
use super::told::Told;
use crate::bench::clock::process_cpu;

/// One look.
#[derive(Debug, Clone)]
pub struct Sample {
    pub elapsed: Duration,
    /// Containers made so far, and those that are there.
    pub made: u64,
    pub live: usize,
    /// Cgroups that memtrace follows.
    pub cgroups: u64,
    /// Resident memory of its own.
    pub anon_bytes: u64,
    /// Resident pages of files: its program, and unwind tables of the programs that it looked at, which
    /// the kernel takes back when it needs memory.
    pub file_bytes: u64,
    pub descriptors: u64,
    pub threads: u64,
    /// Memory of its BPF maps, as the kernel charges it; entries of those that are not allocated at once
    /// count while they are there. Source: `memlock` of /proc/PID/fdinfo.
    pub map_bytes: u64,
    /// CPU time so far, its helpers' included.
    pub cpu: Duration,
}

impl Sample {
    pub fn take(pid: u32, elapsed: Duration, containers: &Containers, told: &Told) -> Result<Self> {
        let path = format!("/proc/{pid}/status");
        let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let field = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok())
                .with_context(|| format!("{path} has no {name}"))
        };
        let (descriptors, map_bytes) = descriptors(pid)?;
        let (own, children) = process_cpu(pid)?;
        Ok(Self {
            elapsed,
            made: containers.counts().made,
            live: containers.live(),
            cgroups: told.counts().cgroups,
            anon_bytes: field("RssAnon:")? << 10,
            file_bytes: field("RssFile:")? << 10,
            descriptors,
            threads: field("Threads:")?,
            map_bytes,
            cpu: own + children,
        })
    }
}

/// How many there are, and what the maps among them take.
fn descriptors(pid: u32) -> Result<(u64, u64)> {
    let directory = format!("/proc/{pid}/fdinfo");
    let cannot = || format!("cannot read {directory}");
    let (mut count, mut map_bytes) = (0, 0);
    for entry in fs::read_dir(&directory).with_context(cannot)? {
        count += 1;
        // Descriptors come and go meanwhile.
        let text = fs::read_to_string(entry.with_context(cannot)?.path()).unwrap_or_default();
        if text.contains("map_type:") {
            let bytes = text.lines().find_map(|line| line.strip_prefix("memlock:"));
            map_bytes += bytes
                .and_then(|bytes| bytes.trim().parse::<u64>().ok())
                .unwrap_or(0);
        }
    }
    Ok((count, map_bytes))
}

impl fmt::Display for Sample {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:>5.1} min: {} containers made, {} live, {:.1} MiB anonymous, {:.1} MiB of files, \
             {} descriptors, {} threads, {:.2} MiB of maps",
            self.elapsed.as_secs_f64() / 60.0,
            self.made,
            self.live,
            self.anon_bytes as f64 / f64::from(1 << 20),
            self.file_bytes as f64 / f64::from(1 << 20),
            self.descriptors,
            self.threads,
            self.map_bytes as f64 / f64::from(1 << 20),
        )
    }
}
