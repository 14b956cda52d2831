//! How soon an OOM kill is told: from the kernel's mark to the line on stdout and to a backend.
//! Must not judge the figures.

mod console;
mod priority;
mod receiver;
mod told;

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::cgroups::Tree;
use super::interrupt;
use super::tracer::Tools;
use crate::process::progress;
use receiver::Receiver;
pub use told::Delays;
use told::Told;

/// Memory limit of a victim's cgroup.
const LIMIT_BYTES: u64 = 4 << 20;
/// Cgroups that take turns.
const VICTIM_CGROUPS: usize = 10;
/// Between the end of a victim and the start of the next, so that no incident waits for another.
const PAUSE: Duration = Duration::from_millis(60);
/// How long the first interval, and the last incident, may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What else the machine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    Idle,
    /// A busy process per CPU, and cgroups.
    Loaded,
    /// The kernel prints its report of each OOM to its log only, not to a console.
    IdleQuiet,
    LoadedQuiet,
}

impl Setting {
    const ALL: [Self; 4] = [Self::IdleQuiet, Self::LoadedQuiet, Self::Idle, Self::Loaded];

    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle, console as it is",
            Self::Loaded => "full load, console as it is",
            Self::IdleQuiet => "idle",
            Self::LoadedQuiet => "full load, 500 cgroups",
        }
    }

    fn is_quiet(self) -> bool {
        matches!(self, Self::IdleQuiet | Self::LoadedQuiet)
    }

    fn is_loaded(self) -> bool {
        matches!(self, Self::Loaded | Self::LoadedQuiet)
    }

    fn cgroups(self) -> usize {
        if self.is_loaded() { 500 } else { 0 }
    }
}

/// All kills in one setting.
#[derive(Debug)]
pub struct Latency {
    pub setting: Setting,
    pub kills: usize,
    pub delays: Delays,
    /// The readers have real-time priority: they do not wait for a CPU.
    pub read_at_once: bool,
}

/// `kills` in each setting, one after the other.
pub fn measure(tools: &Tools, kills: usize) -> Result<Vec<Latency>> {
    Setting::ALL
        .into_iter()
        .map(|setting| {
            progress(format!("oom: {kills} kills, {}", setting.name()));
            one(tools, setting, kills)
        })
        .collect()
}

fn one(tools: &Tools, setting: Setting, kills: usize) -> Result<Latency> {
    let tree = Tree::grow(&tools.xtask, setting.cgroups())?;
    let cgroups = tree.limited(VICTIM_CGROUPS, LIMIT_BYTES)?;
    let _load = if setting.is_loaded() {
        busy(&tools.xtask)?
    } else {
        Vec::new()
    };
    let _quiet = setting.is_quiet().then(console::Quiet::new).transpose()?;
    let backend = Receiver::start()?;
    let (sender, lines) = mpsc::channel();
    let running = tools.memtrace_into(&["--otlp-endpoint", &backend.url()], move |output| {
        told::read(output, &sender)
    })?;
    // The first `self`: until then it reads every cgroup for the first time.
    let first = lines.recv_timeout(PATIENCE);
    first.context("memtrace did not get through its first interval")?;
    let mut victims = BTreeSet::new();
    for (index, cgroup) in cgroups.iter().cycle().take(kills).enumerate() {
        interrupt::sleep(PAUSE)?;
        let pid = kill(&tools.xtask, cgroup).with_context(|| format!("kill {}", index + 1))?;
        victims.insert(u64::from(pid));
    }
    let mut told = Told::default();
    let ended = Instant::now();
    loop {
        interrupt::sleep(PAUSE)?;
        lines.try_iter().for_each(|line| told.line(&line));
        backend.arrived().for_each(|event| told.arrival(&event));
        if told.is_complete(&victims) || ended.elapsed() > PATIENCE {
            break;
        }
    }
    running.stop()?;
    Ok(Latency {
        setting,
        kills,
        delays: told.delays(&victims),
        read_at_once: priority::can_be_raised(),
    })
}

/// The value that `percent` of the sorted samples do not exceed (nearest rank).
pub fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.max(1) - 1).copied()
}

/// Has the kernel kill a process in `cgroup`; gives its id.
fn kill(xtask: &Path, cgroup: &Path) -> Result<u32> {
    let mut command = Command::new(xtask);
    command.args(["bench-load", "fill", "--cgroup"]).arg(cgroup);
    command.args(["--bytes", &(16 * LIMIT_BYTES).to_string()]);
    let mut child = command
        .stdin(Stdio::null())
        .spawn()
        .context("cannot start a victim")?;
    let status = child.wait()?;
    if status.signal() != Some(libc::SIGKILL) {
        bail!("the victim was not killed: {status}");
    }
    Ok(child.id())
}

/// Killed when dropped.
struct Busy(Child);

/// One process for each CPU, of the default priority.
fn busy(xtask: &Path) -> Result<Vec<Busy>> {
    let cpus = thread::available_parallelism()?.get();
    (0..cpus)
        .map(|_| {
            let mut command = Command::new(xtask);
            command.args(["bench-load", "spin"]).stdin(Stdio::null());
            let child = command.spawn().context("cannot start a busy process")?;
            Ok(Busy(child))
        })
        .collect()
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_sample_that_was_measured() {
        let sorted: Vec<Duration> = (1..=300).map(Duration::from_millis).collect();
        assert_eq!(percentile(&sorted, 50), Some(Duration::from_millis(150)));
        assert_eq!(percentile(&sorted, 99), Some(Duration::from_millis(297)));
        assert_eq!(percentile(&sorted, 100), Some(Duration::from_millis(300)));
        assert_eq!(percentile(&sorted[..1], 1), Some(Duration::from_millis(1)));
        assert_eq!(percentile(&[], 50), None);
    }
}
