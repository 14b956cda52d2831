//! Processes that run out of memory, each in one of the known manners, and what became of them.
//! Must not know when they are started.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::super::truth::{Kill, Manner};
use super::place::Place;
use crate::bench::cgroups;

const MIB: u64 = 1 << 20;
const LIMIT_BYTES: u64 = 8 * MIB;
const POD_BYTES: u64 = 32 * MIB;
const HELD_BYTES: u64 = 24 * MIB;
const MEMBERS: u64 = 3;
const MEMBER_BYTES: u64 = 4 * MIB;
const PATIENCE: Duration = Duration::from_secs(120);

/// Killed when dropped.
#[derive(Debug)]
pub struct Doomed {
    victim: Child,
    /// Lives on when the victim is dead.
    other: Option<Child>,
    kills: Vec<Kill>,
    /// Removed when all is over, the last one first.
    directories: Vec<PathBuf>,
    started: Instant,
}

impl Doomed {
    /// One process over the limit of its own cgroup.
    pub fn alone(place: &mut Place, name: &str, manner: Manner) -> Result<Self> {
        let cgroup = place.cgroup(name, Some(LIMIT_BYTES))?;
        let bytes = (8 * LIMIT_BYTES).to_string();
        let victim = place.spawn(&cgroup, &["oom", "--bytes", &bytes], false)?;
        let path = place.path(&cgroup);
        let kill = Kill {
            pid: victim.id(),
            cgroup: path.clone(),
            limit_cgroup: path,
            trigger_pid: victim.id(),
            anon_bytes: LIMIT_BYTES,
            manner,
        };
        let directories = match manner {
            Manner::Container => vec![cgroup],
            _ => Vec::new(),
        };
        Ok(Self::new(victim, None, vec![kill], directories))
    }

    /// Two containers of a pod: the one that runs out is not the one that is killed.
    pub fn elsewhere(place: &mut Place, name: &str) -> Result<Self> {
        let pod = place.pod(name, POD_BYTES)?;
        let holds = place.cgroup(&format!("{name}/holds"), None)?;
        let runs_out = place.cgroup(&format!("{name}/runs-out"), None)?;
        let bytes = HELD_BYTES.to_string();
        let mut victim = place.spawn(&holds, &["touch", "--bytes", &bytes], true)?;
        first_line(&mut victim)?;
        let bytes = (HELD_BYTES - 8 * MIB).to_string();
        let other = place.spawn(&runs_out, &["oom", "--bytes", &bytes], false)?;
        let kill = Kill {
            pid: victim.id(),
            cgroup: place.path(&holds),
            limit_cgroup: place.path(&pod),
            trigger_pid: other.id(),
            anon_bytes: HELD_BYTES,
            manner: Manner::Elsewhere,
        };
        let directories = vec![pod, holds, runs_out];
        Ok(Self::new(victim, Some(other), vec![kill], directories))
    }

    /// A cgroup whose processes are killed together; only version 2 can.
    pub fn group(place: &mut Place, name: &str) -> Result<Self> {
        let cgroup = place.cgroup(name, Some(MEMBERS * MEMBER_BYTES + LIMIT_BYTES))?;
        fs::write(cgroup.join("memory.oom.group"), "1").context("cannot ask for group kills")?;
        let (count, bytes) = (MEMBERS.to_string(), MEMBER_BYTES.to_string());
        let more = (8 * LIMIT_BYTES).to_string();
        let arguments = [
            "family", "--count", &count, "--bytes", &bytes, "--more", &more,
        ];
        let mut victim = place.spawn(&cgroup, &arguments, true)?;
        let line: Value = serde_json::from_str(&first_line(&mut victim)?)?;
        let pids = line["pids"].as_array().context("no pids of the family")?;
        let path = place.path(&cgroup);
        let kill = |pid: u32| Kill {
            pid,
            cgroup: path.clone(),
            limit_cgroup: path.clone(),
            trigger_pid: victim.id(),
            anon_bytes: if pid == victim.id() {
                MEMBER_BYTES + LIMIT_BYTES
            } else {
                MEMBER_BYTES
            },
            manner: Manner::Group,
        };
        let pids = pids.iter().filter_map(Value::as_u64);
        let kills = pids.map(|pid| kill(pid as u32)).collect();
        if let Some(input) = &mut victim.stdin {
            input.write_all(b"\n")?;
        }
        Ok(Self::new(victim, None, kills, vec![cgroup]))
    }

    fn new(
        victim: Child,
        other: Option<Child>,
        kills: Vec<Kill>,
        directories: Vec<PathBuf>,
    ) -> Self {
        Self {
            victim,
            other,
            kills,
            directories,
            started: Instant::now(),
        }
    }

    /// What the kernel did, once it is over.
    pub fn end(&mut self, place: &Place) -> Result<Option<Vec<Kill>>> {
        if self.started.elapsed() > PATIENCE {
            bail!("a process that should be killed lives on");
        }
        let Some(status) = self.victim.try_wait()? else {
            return Ok(None);
        };
        if let Some(other) = &mut self.other
            && other.try_wait()?.is_none()
        {
            return Ok(None);
        }
        if status.signal() != Some(libc::SIGKILL) {
            bail!("a process that should be killed ended with {status}");
        }
        if self.kills.len() > 1 {
            let killed = group_kills(&self.directories[0])?;
            // The kernel counts the one that it chose twice.
            if killed < self.kills.len() as u64 {
                bail!("{killed} of a group of {} were killed", self.kills.len());
            }
        }
        for directory in self.directories.iter().rev() {
            if !cgroups::remove(directory) {
                bail!("cannot remove {}", place.path(directory));
            }
        }
        Ok(Some(std::mem::take(&mut self.kills)))
    }
}

impl Drop for Doomed {
    fn drop(&mut self) {
        for process in std::iter::once(&mut self.victim).chain(&mut self.other) {
            drop(process.kill());
            drop(process.wait());
        }
    }
}

/// The kernel's count of processes killed in a cgroup of version 2.
fn group_kills(directory: &std::path::Path) -> Result<u64> {
    let events = fs::read_to_string(directory.join("memory.events"))?;
    let killed = events
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "));
    Ok(killed
        .context("no oom_kill in memory.events")?
        .trim()
        .parse()?)
}

fn first_line(process: &mut Child) -> Result<String> {
    let mut line = String::new();
    if let Some(output) = &mut process.stdout {
        BufReader::new(output).read_line(&mut line)?;
    }
    if line.is_empty() {
        bail!("memtrace-workload said nothing");
    }
    Ok(line)
}
