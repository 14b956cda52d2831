//! One load beside all tools: OOM kills, short-lived processes, a leak and caches that only look like one.
//! Must not know who watches.

mod doomed;
mod place;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};

use super::truth::{Growth, Manner, Short, Truth};
use crate::bench::interrupt;
use crate::vmstat::kernel_kills;
use doomed::Doomed;
pub use place::COMM;
use place::Place;

const MIB: u64 = 1 << 20;
const TICK: Duration = Duration::from_millis(5);
/// Short-lived processes that share a cgroup that stays.
const JOBS: usize = 10;
/// The leak would reach its limit when this many times the run had passed.
const LEAK_RUNS: f64 = 1.2;
const LEAK_BYTES: u64 = 192 * MIB;
const CACHE_PARTS: usize = 20;
const CACHE_PART_BYTES: u64 = 4 * MIB;
const FILE_LIMIT_BYTES: u64 = 64 * MIB;

/// How much of what.
#[derive(Debug, Clone)]
pub struct Plan {
    pub length: Duration,
    pub containers: usize,
    pub services: usize,
    pub storm: usize,
    pub elsewhere: usize,
    pub groups: usize,
    pub shorts: usize,
    /// Where a file may be written and read, on a disk.
    pub file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy)]
enum Action {
    Kill(Manner),
    Short,
    FillCache,
}

/// What has been started so far.
#[derive(Debug)]
pub struct Load {
    place: Place,
    plan: Plan,
    /// By the time when they are due, the last one first.
    due: Vec<(Duration, Action)>,
    doomed: Vec<Doomed>,
    /// Live until the end.
    lasting: Lasting,
    jobs: Vec<PathBuf>,
    cache: PathBuf,
    started: usize,
    truth: Truth,
}

#[derive(Debug, Default)]
struct Lasting(Vec<Child>);

impl Load {
    /// Makes the cgroups; nothing runs yet.
    pub fn new(workload: PathBuf, plan: Plan) -> Result<Self> {
        let mut place = Place::new(workload)?;
        let jobs = (0..JOBS)
            .map(|index| place.cgroup(&format!("job-{index}"), None))
            .collect::<Result<_>>()?;
        let cache_bytes = CACHE_PARTS as u64 * CACHE_PART_BYTES;
        let cache = place.cgroup("warm-cache", Some(cache_bytes * 5 / 4))?;
        let due = schedule(&plan, place.v2);
        Ok(Self {
            place,
            plan,
            due,
            doomed: Vec::new(),
            lasting: Lasting::default(),
            jobs,
            cache,
            started: 0,
            truth: Truth::default(),
        })
    }

    /// Where memory cgroups are mounted, and whether version 2 is.
    pub fn hierarchy(&self) -> (&Path, bool) {
        (self.place.hierarchy(), self.place.v2)
    }

    /// Runs to the end and calls `meanwhile` again and again.
    pub fn run(mut self, mut meanwhile: impl FnMut(Duration) -> Result<()>) -> Result<Truth> {
        let kills_before = kernel_kills()?;
        self.truth.begun_unix_s = unix_s()?;
        self.begin_lasting()?;
        let begun = Instant::now();
        loop {
            let elapsed = begun.elapsed();
            while let Some(&(time, action)) = self.due.last()
                && time <= elapsed
            {
                self.due.pop();
                self.start(action)?;
            }
            self.end_doomed()?;
            if elapsed >= self.plan.length && self.due.is_empty() && self.doomed.is_empty() {
                break;
            }
            meanwhile(elapsed)?;
            interrupt::sleep(TICK)?;
        }
        self.truth.length = begun.elapsed();
        self.truth.kernel_kills = kernel_kills()? - kills_before;
        self.truth.cgroups = std::mem::take(&mut self.place.made);
        Ok(std::mem::take(&mut self.truth))
    }

    fn begin_lasting(&mut self) -> Result<()> {
        let rate = LEAK_BYTES as f64 / (self.plan.length.as_secs_f64() * LEAK_RUNS);
        let leak = self.place.cgroup("leak", Some(LEAK_BYTES))?;
        let rate = rate as u64;
        let text = rate.to_string();
        let arguments = ["leak", "--calm-ms", "0", "--bytes-per-second", &text];
        let child = self.place.spawn(&leak, &arguments, true)?;
        self.lasting.0.push(child);
        self.truth.leak = Growth {
            cgroup: self.place.path(&leak),
            bytes_per_second: rate,
            limit_bytes: LEAK_BYTES,
        };
        self.truth.innocent = vec![self.place.path(&self.cache)];
        if let Some(file) = &self.plan.file {
            let cgroup = self.place.cgroup("files", Some(FILE_LIMIT_BYTES))?;
            let path = file.to_str().context("the path is not UTF-8")?;
            let bytes = (3 * FILE_LIMIT_BYTES).to_string();
            let arguments = ["file-io", "--path", path, "--bytes", &bytes];
            let child = self.place.spawn(&cgroup, &arguments, true)?;
            self.lasting.0.push(child);
            self.truth.innocent.push(self.place.path(&cgroup));
        }
        Ok(())
    }

    fn start(&mut self, action: Action) -> Result<()> {
        self.started += 1;
        let index = self.started;
        match action {
            Action::Kill(manner) => {
                let doomed = match manner {
                    Manner::Elsewhere => {
                        Doomed::elsewhere(&mut self.place, &format!("pod-{index:03}"))?
                    }
                    Manner::Group => Doomed::group(&mut self.place, &format!("group-{index:03}"))?,
                    _ => Doomed::alone(&mut self.place, &format!("kill-{index:03}"), manner)?,
                };
                self.doomed.push(doomed);
            }
            Action::Short => self.run_short(index)?,
            Action::FillCache => {
                let bytes = CACHE_PART_BYTES.to_string();
                let arguments = ["touch", "--bytes", &bytes];
                let child = self.place.spawn(&self.cache, &arguments, true)?;
                self.lasting.0.push(child);
            }
        }
        Ok(())
    }

    /// Every other one in a cgroup of its own, which goes with it.
    fn run_short(&mut self, index: usize) -> Result<()> {
        let count = self.truth.shorts.len();
        let own = count % 2 == 1;
        let cgroup = if own {
            self.place.cgroup(&format!("run-{index:03}"), None)?
        } else {
            self.jobs[count / 2 % JOBS].clone()
        };
        let bytes = (MIB * (1 + count as u64 * 7 % 8)).to_string();
        let begun = Instant::now();
        let child = self
            .place
            .spawn(&cgroup, &["touch", "--bytes", &bytes], false)?;
        let faults = reap(child.id())?;
        self.truth.shorts.push(Short {
            pid: child.id(),
            cgroup: self.place.path(&cgroup),
            faults,
            lived: begun.elapsed(),
        });
        if own {
            crate::bench::cgroups::remove(&cgroup);
        }
        Ok(())
    }

    fn end_doomed(&mut self) -> Result<()> {
        let mut living = Vec::new();
        for mut doomed in self.doomed.drain(..) {
            match doomed.end(&self.place)? {
                Some(kills) => self.truth.kills.extend(kills),
                None => living.push(doomed),
            }
        }
        self.doomed = living;
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.doomed.clear();
        if let Some(file) = &self.plan.file {
            drop(fs::remove_file(file));
        }
        // Before the cgroups that they are in, which go with `place`.
        self.lasting = Lasting::default();
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        for process in &mut self.0 {
            drop(process.kill());
            drop(process.wait());
        }
    }
}

/// Everything once, spread over the run; the storm in its middle, the cache full after a third.
fn schedule(plan: &Plan, v2: bool) -> Vec<(Duration, Action)> {
    let mut due = Vec::new();
    let mut spread = |count: usize, from: f64, to: f64, action: Action| {
        for index in 0..count {
            let share = from + (to - from) * (index as f64 + 0.5) / count as f64;
            due.push((plan.length.mul_f64(share), action));
        }
    };
    spread(plan.containers, 0.03, 0.95, Action::Kill(Manner::Container));
    spread(plan.services, 0.03, 0.95, Action::Kill(Manner::Service));
    spread(plan.storm, 0.5, 0.5, Action::Kill(Manner::Storm));
    spread(plan.elsewhere, 0.03, 0.95, Action::Kill(Manner::Elsewhere));
    if v2 {
        spread(plan.groups, 0.03, 0.95, Action::Kill(Manner::Group));
    }
    spread(plan.shorts, 0.02, 0.97, Action::Short);
    spread(CACHE_PARTS, 0.02, 0.33, Action::FillCache);
    due.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
    due
}

/// Waits for a process; its page faults.
fn reap(pid: u32) -> Result<u64> {
    let mut status = 0;
    // SAFETY: all-zero is a valid rusage, and both pointers are to live variables.
    let (reaped, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        let reaped = libc::wait4(pid as i32, &raw mut status, 0, &raw mut usage);
        (reaped, usage)
    };
    if reaped != pid as i32 {
        return Err(io::Error::last_os_error()).context("cannot wait for a process");
    }
    if !libc::WIFEXITED(status) || libc::WEXITSTATUS(status) != 0 {
        anyhow::bail!("a short-lived process failed (wait status {status:#x})");
    }
    Ok((usage.ru_minflt + usage.ru_majflt) as u64)
}

/// The wall clock, as tools stamp what they say.
pub fn unix_s() -> Result<f64> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(now.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            length: Duration::from_secs(100),
            containers: 3,
            services: 2,
            storm: 4,
            elsewhere: 1,
            groups: 5,
            shorts: 6,
            file: None,
        }
    }

    #[test]
    fn everything_is_due_once_and_within_the_run_and_a_storm_at_one_moment() {
        let due = schedule(&plan(), true);
        assert_eq!(due.len(), 3 + 2 + 4 + 1 + 5 + 6 + CACHE_PARTS);
        assert!(due.iter().all(|(time, _)| *time < plan().length));
        assert!(due.is_sorted_by(|earlier, later| earlier.0 >= later.0));
        let storm: Vec<_> = due
            .iter()
            .filter(|(_, action)| matches!(action, Action::Kill(Manner::Storm)))
            .map(|(time, _)| *time)
            .collect();
        assert_eq!(storm, [Duration::from_secs(50); 4]);
    }

    #[test]
    fn version_1_has_no_group_kills() {
        assert_eq!(
            schedule(&plan(), true).len(),
            5 + schedule(&plan(), false).len()
        );
    }
}
