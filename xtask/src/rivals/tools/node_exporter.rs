//! Prometheus' node exporter with its defaults, read every 15 s as Prometheus does.

use std::time::Duration;

use anyhow::{Context, Result};

use super::super::http;
use super::super::rival::{Rival, Running, Surroundings};
use super::super::seen::{Kills, Seen};
use super::super::truth::Truth;
use crate::vmstat::kernel_kills;

const PORT: u16 = 19_109;
const EVERY: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub struct NodeExporter {
    running: Running,
    next: Duration,
    first: u64,
    last: u64,
    kernel_before: u64,
    /// Whether any line named a cgroup of the load.
    names_cgroups: bool,
}

pub fn start(around: &Surroundings) -> Result<Option<Box<dyn Rival>>> {
    let Some(program) = around.program("prometheus-node-exporter") else {
        return Ok(None);
    };
    let mut command = around.command(&program);
    command.arg(format!("--web.listen-address=127.0.0.1:{PORT}"));
    let running = Running::start(command, "node exporter", &around.scratch)?;
    let running = running.wait_for("Listening on")?;
    let kernel_before = kernel_kills()?;
    let first = kills(&http::get(PORT, "/metrics")?)?;
    Ok(Some(Box::new(NodeExporter {
        running,
        next: EVERY,
        first,
        last: first,
        kernel_before,
        names_cgroups: false,
    })))
}

impl NodeExporter {
    fn scrape(&mut self) -> Result<()> {
        let metrics = http::get(PORT, "/metrics")?;
        self.last = kills(&metrics)?;
        self.names_cgroups |= metrics.contains("mt-rivals");
        Ok(())
    }
}

impl Rival for NodeExporter {
    fn name(&self) -> String {
        "node exporter, read every 15 s".to_owned()
    }

    fn pid(&self) -> u32 {
        self.running.pid()
    }

    fn tick(&mut self, elapsed: Duration) -> Result<()> {
        if elapsed < self.next {
            return Ok(());
        }
        self.next += EVERY;
        self.scrape()
    }

    fn end(mut self: Box<Self>, _truth: &Truth) -> Result<Seen> {
        self.scrape()?;
        let notes = if self.names_cgroups {
            Vec::new()
        } else {
            vec!["no metric named a cgroup of the load".to_owned()]
        };
        let seen = Seen {
            kills: Kills::OfMachine {
                told: self.last - self.first,
                kernel: kernel_kills()? - self.kernel_before,
            },
            notes,
            ..Seen::default()
        };
        self.running.end(libc::SIGTERM)?;
        Ok(seen)
    }
}

fn kills(metrics: &str) -> Result<u64> {
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("node_vmstat_oom_kill "));
    let value: f64 = line
        .context("the node exporter has no node_vmstat_oom_kill")?
        .trim()
        .parse()?;
    Ok(value as u64)
}
