//! CPU time and resident memory of a tool with all its children. Must not know what the tool does.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::bench::clock::process_cpu;

/// While the load ran; starting up is not in it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Cost {
    pub cpu_percent: f64,
    pub median_rss_bytes: u64,
    pub highest_rss_bytes: u64,
    pub median_pss_bytes: u64,
    /// Of the PSS.
    pub median_anon_bytes: u64,
    /// Memory of BPF maps at the end, as the kernel charges it; in no RSS.
    pub map_bytes: u64,
    /// The first process and all below it, at the end.
    pub processes: usize,
}

/// Looks again and again.
#[derive(Debug)]
pub struct Meter {
    pid: u32,
    begun: Instant,
    begun_cpu: Duration,
    /// A child's time is lost when nobody waits for it: what was seen does not count down.
    cpu: Duration,
    memory: Vec<Memory>,
    map_bytes: u64,
    processes: usize,
    elapsed: Duration,
}

impl Meter {
    pub fn begin(pid: u32) -> Result<Self> {
        let begun_cpu = cpu(&family(pid)?);
        Ok(Self {
            pid,
            begun: Instant::now(),
            begun_cpu,
            cpu: begun_cpu,
            memory: Vec::new(),
            map_bytes: 0,
            processes: 0,
            elapsed: Duration::ZERO,
        })
    }

    /// Fails when the process is gone.
    pub fn look(&mut self) -> Result<()> {
        let family = family(self.pid)?;
        self.cpu = self.cpu.max(cpu(&family));
        let mut memory = Memory::default();
        for pid in &family {
            memory.add(*pid);
        }
        self.memory.push(memory);
        self.map_bytes = family.iter().map(|pid| maps(*pid)).sum();
        self.processes = family.len();
        self.elapsed = self.begun.elapsed();
        Ok(())
    }

    pub fn cost(&self) -> Cost {
        let sorted = |part: fn(&Memory) -> u64| {
            let mut values: Vec<u64> = self.memory.iter().map(part).collect();
            values.sort_unstable();
            values
        };
        let median = |part| {
            let values = sorted(part);
            values.get(values.len() / 2).copied().unwrap_or(0)
        };
        let spent = self.cpu - self.begun_cpu;
        Cost {
            cpu_percent: 100.0 * spent.as_secs_f64() / self.elapsed.as_secs_f64().max(1.0),
            median_rss_bytes: median(|memory| memory.rss),
            highest_rss_bytes: sorted(|memory| memory.rss).last().copied().unwrap_or(0),
            median_pss_bytes: median(|memory| memory.pss),
            median_anon_bytes: median(|memory| memory.anon),
            map_bytes: self.map_bytes,
            processes: self.processes,
        }
    }
}

/// A process and all below it.
fn family(pid: u32) -> Result<Vec<u32>> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let mut is_here = false;
    for entry in fs::read_dir("/proc")?.flatten() {
        let name = entry.file_name();
        let Some(child) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // Processes end meanwhile.
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let behind_name = stat.rsplit(')').next().unwrap_or_default();
        if let Some(parent) = behind_name.split_whitespace().nth(1)
            && let Ok(parent) = parent.parse()
        {
            is_here |= child == pid;
            children.entry(parent).or_default().push(child);
        }
    }
    let mut found = Vec::new();
    if is_here {
        found.push(pid);
    }
    let mut next = 0;
    while let Some(parent) = found.get(next) {
        found.extend(children.get(parent).into_iter().flatten());
        next += 1;
    }
    (!found.is_empty())
        .then_some(found)
        .with_context(|| format!("process {pid} has ended"))
}

fn cpu(family: &[u32]) -> Duration {
    let of = |pid: &u32| process_cpu(*pid).map_or(Duration::ZERO, |(own, children)| own + children);
    family.iter().map(of).sum()
}

/// Resident bytes of a family.
#[derive(Debug, Default)]
struct Memory {
    rss: u64,
    /// Pages that several processes have are shared among them.
    pss: u64,
    anon: u64,
}

impl Memory {
    /// Nothing of a process that ends meanwhile.
    fn add(&mut self, pid: u32) {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let bytes = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            kib.unwrap_or(0) << 10
        };
        self.rss += bytes("Rss:");
        self.pss += bytes("Pss:");
        self.anon += bytes("Pss_Anon:");
    }
}

fn maps(pid: u32) -> u64 {
    let entries = fs::read_dir(format!("/proc/{pid}/fdinfo"));
    let texts = entries.into_iter().flatten().flatten();
    let texts = texts.map(|entry| fs::read_to_string(entry.path()).unwrap_or_default());
    let bytes = |text: &str| -> Option<u64> {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("memlock:"))?;
        line.trim().parse().ok()
    };
    texts
        .filter(|text| text.contains("map_type:"))
        .filter_map(|text| bytes(&text))
        .sum()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_tool_counts_with_its_children_and_one_that_ended_is_an_error() -> Result<()> {
        let mut shell = Command::new("sh")
            .args(["-c", "sleep 100 & echo here; wait"])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(output) = shell.stdout.take() {
            std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line)?;
        }
        let mut meter = Meter::begin(shell.id())?;
        meter.look()?;
        let cost = meter.cost();
        assert_eq!(cost.processes, 2);
        assert!(cost.median_rss_bytes >= cost.median_pss_bytes);
        assert!(cost.median_pss_bytes >= cost.median_anon_bytes && cost.median_anon_bytes > 0);
        for pid in family(shell.id())? {
            // SAFETY: takes plain numbers; the processes are this test's own.
            unsafe { libc::kill(pid as i32, libc::SIGKILL) };
        }
        shell.wait()?;
        assert!(meter.look().is_err());
        Ok(())
    }
}
