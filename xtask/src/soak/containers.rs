//! Cgroups with processes in them that come and go, and what became of each process.
//! Must not know who watches.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::bench::cgroups::{enable_memory, hierarchy, make, remove, set};

const NAME: &str = "mt-soak";
const MIB: u64 = 1 << 20;
/// One container in so many runs into its limit.
const KILLED_EVERY: u64 = 20;
/// One in so many has several short-lived processes.
const BUSY_EVERY: u64 = 4;
const SHORT_LIVED: usize = 4;
const LIMIT_BYTES: u64 = 8 * MIB;

/// What the load did, by the kernel's word to the parent of each process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub made: u64,
    pub destroyed: u64,
    /// Processes that ended.
    pub ended: u64,
    /// Among them those that the kernel killed.
    pub killed: u64,
    /// Page faults of those that ended, from `wait4(2)`.
    pub faults: u64,
}

struct Container {
    directory: PathBuf,
    processes: Vec<Child>,
    ends: Instant,
}

/// Removed when dropped, with its processes.
pub struct Containers {
    workload: PathBuf,
    root: PathBuf,
    v2: bool,
    live: Vec<Container>,
    counts: Counts,
}

impl Containers {
    pub fn new(workload: PathBuf) -> Result<Self> {
        let (hierarchy, v2) = hierarchy()?;
        let root = hierarchy.join(NAME);
        // What a killed run left behind.
        remove(&root);
        make(&root)?;
        if v2 {
            enable_memory(&hierarchy)?;
            enable_memory(&root)?;
        }
        Ok(Self {
            workload,
            root,
            v2,
            live: Vec::new(),
            counts: Counts::default(),
        })
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    pub fn live(&self) -> usize {
        self.live.len()
    }

    /// One more, named as runtimes name them.
    pub fn make(&mut self) -> Result<()> {
        let index = self.counts.made;
        let directory = self.root.join(format!("{index:064x}"));
        make(&directory)?;
        self.counts.made += 1;
        let is_killed = index.is_multiple_of(KILLED_EVERY);
        if is_killed {
            let limit = if self.v2 {
                "memory.max"
            } else {
                "memory.limit_in_bytes"
            };
            set(&directory.join(limit), LIMIT_BYTES)?;
        }
        let (count, arguments) = if is_killed {
            (
                1,
                [
                    "oom".to_owned(),
                    "--bytes".to_owned(),
                    (8 * LIMIT_BYTES).to_string(),
                ],
            )
        } else {
            let bytes = MIB * (1 + index % 8);
            let count = if index % BUSY_EVERY == 1 {
                SHORT_LIVED
            } else {
                1
            };
            (
                count,
                ["touch".to_owned(), "--bytes".to_owned(), bytes.to_string()],
            )
        };
        let spawn = |_| self.spawn(&directory, &arguments);
        let processes = (0..count).map(spawn).collect::<Result<Vec<_>>>()?;
        // From 2 to 32 seconds, in an order that repeats.
        let life = Duration::from_millis(2000 + index * 7919 % 30_000);
        self.live.push(Container {
            directory,
            processes,
            ends: Instant::now() + life,
        });
        Ok(())
    }

    fn spawn(&self, cgroup: &Path, arguments: &[String]) -> Result<Child> {
        Command::new(&self.workload)
            .arg("--cgroup")
            .arg(cgroup)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start memtrace-workload")
    }

    /// Ends those whose time has come, and forgets those that are gone.
    pub fn end_due(&mut self) -> Result<()> {
        self.end_before(Instant::now())
    }

    /// Ends all of them.
    pub fn end_all(&mut self) -> Result<()> {
        let begun = Instant::now();
        for container in &mut self.live {
            container.ends = begun;
        }
        while !self.live.is_empty() {
            self.end_before(begun)?;
            if begun.elapsed() > Duration::from_secs(60) {
                bail!("{} containers do not end", self.live.len());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn end_before(&mut self, moment: Instant) -> Result<()> {
        let counts = &mut self.counts;
        let mut failed = None;
        self.live.retain_mut(|container| {
            if container.ends > moment {
                return true;
            }
            container.processes.retain_mut(|process| {
                // The workload ends when nobody can write to it any more.
                drop(process.stdin.take());
                match reap(process.id(), counts) {
                    Ok(is_gone) => !is_gone,
                    Err(error) => {
                        failed = Some(error);
                        false
                    }
                }
            });
            // The kernel keeps a cgroup busy for a moment after its last process.
            let is_gone =
                container.processes.is_empty() && fs::remove_dir(&container.directory).is_ok();
            counts.destroyed += u64::from(is_gone);
            !is_gone
        });
        failed.map_or(Ok(()), |error| {
            Err(error).context("cannot wait for a process")
        })
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        for process in self
            .live
            .iter_mut()
            .flat_map(|container| &mut container.processes)
        {
            drop(process.kill());
            drop(process.wait());
        }
        if !remove(&self.root) {
            eprintln!("xtask: cannot remove {}", self.root.display());
        }
    }
}

/// Whether the process has ended; counts it then.
fn reap(pid: u32, counts: &mut Counts) -> io::Result<bool> {
    let mut status = 0;
    // SAFETY: plain data, for which zero is valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: our own child, not yet waited for; both pointers are valid.
    let ended = unsafe { libc::wait4(pid as i32, &raw mut status, libc::WNOHANG, &raw mut usage) };
    if ended < 0 {
        return Err(io::Error::last_os_error());
    }
    if ended == 0 {
        return Ok(false);
    }
    counts.ended += 1;
    counts.killed +=
        u64::from(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL);
    counts.faults += (usage.ru_minflt + usage.ru_majflt) as u64;
    Ok(true)
}
