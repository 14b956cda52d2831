//! What memtrace itself takes, CPU and memory, by the number of cgroups on the host.
//! Must not judge the figures.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::cgroups::Tree;
use super::clock::process_cpu;
use super::interrupt;
use super::tracer::Tools;
use crate::process::progress;

pub const INTERVAL: Duration = Duration::from_secs(5);
const COUNTS: [usize; 3] = [10, 500, 5000];

/// One run of the agent.
#[derive(Debug, Clone)]
pub struct Cost {
    pub cgroups: usize,
    pub processes: usize,
    pub growing: usize,
    pub output: &'static str,
    pub rss_bytes: u64,
    pub peak_rss_bytes: u64,
    /// Of one core, after the first interval.
    pub cpu_percent: f64,
    /// Until the first interval was over.
    pub startup_cpu: Duration,
    pub window: Duration,
}

/// Every count of cgroups, with each output.
pub fn measure(tools: &Tools, window: Duration) -> Result<Vec<Cost>> {
    let mut costs = Vec::new();
    for count in COUNTS {
        let tree = Tree::grow(&tools.xtask, count)?;
        for output in ["none", "json"] {
            let cost = one(tools, &tree, count, output, window)?;
            progress(format!(
                "agent: {count} cgroups, --output {output}: {:.2}% of a core, {:.1} MiB",
                cost.cpu_percent,
                cost.rss_bytes as f64 / f64::from(1 << 20)
            ));
            costs.push(cost);
        }
    }
    Ok(costs)
}

fn one(
    tools: &Tools,
    tree: &Tree,
    cgroups: usize,
    output: &'static str,
    window: Duration,
) -> Result<Cost> {
    let mut agent = Agent(
        tools
            .memtrace_run(output)
            .arg("--interval")
            .arg(format!("{}s", INTERVAL.as_secs()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start memtrace")?,
    );
    // Half an interval more, so that both readings of its CPU time fall between two of its own.
    interrupt::sleep(INTERVAL + INTERVAL / 2)?;
    let startup_cpu = agent.cpu()?;
    let started = Instant::now();
    interrupt::sleep(window)?;
    let spent = agent.cpu()? - startup_cpu;
    let window = started.elapsed();
    let (rss_bytes, peak_rss_bytes) = agent.memory()?;
    Ok(Cost {
        cgroups,
        processes: tree.processes(),
        growing: tree.growing,
        output,
        rss_bytes,
        peak_rss_bytes,
        cpu_percent: 100.0 * spent.as_secs_f64() / window.as_secs_f64(),
        startup_cpu,
        window,
    })
}

/// Killed when dropped: its measurement is over, and a kill detaches every probe.
struct Agent(Child);

impl Agent {
    /// User and system time of all its threads, ended ones included.
    fn cpu(&mut self) -> Result<Duration> {
        if let Some(status) = self.0.try_wait()? {
            bail!("memtrace ended too early ({status})");
        }
        Ok(process_cpu(self.0.id())?.0)
    }

    /// Resident now, and at its highest.
    fn memory(&self) -> Result<(u64, u64)> {
        let status = self.read("status")?;
        let field = |name: &str| -> Option<u64> {
            let line = status.lines().find(|line| line.starts_with(name))?;
            let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
            Some(kib << 10)
        };
        field("VmRSS:")
            .zip(field("VmHWM:"))
            .context("/proc/PID/status has no VmRSS and VmHWM")
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = Path::new("/proc").join(self.0.id().to_string()).join(file);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
