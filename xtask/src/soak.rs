//! `cargo xtask soak`: thousands of containers made and destroyed beside one agent, to see that nothing of it
//! grows and that its counts stay the kernel's. Must not know how memtrace counts.

mod containers;
mod judge;
mod report;
mod resources;
mod told;

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::artifacts;
use crate::bench::interrupt;
use crate::bench::machine::Machine;
use crate::process::progress;
use crate::vmstat::kernel_kills;
use crate::workspace::Workspace;
use containers::Containers;
use judge::Judgement;
use resources::Sample;
use told::Told;

/// Between two looks at the agent's resources.
const SAMPLE: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(20);
/// After the last container, for the last lines to come.
const PATIENCE: Duration = Duration::from_secs(40);

/// Arguments of `cargo xtask soak`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// How long containers come and go
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// Containers made in a second
    #[arg(long, default_value_t = 4.0, value_name = "N")]
    per_second: f64,
    /// Write what it gave to this file too
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Fails when something grew, or when a count is not the kernel's.
pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    if !(0.1..=100.0).contains(&args.per_second) || args.minutes == 0 {
        bail!("--per-second is between 0.1 and 100, --minutes at least 1");
    }
    let memtrace = artifacts::memtrace(workspace)?;
    let workload = artifacts::workload(workspace)?;
    let place = Machine::read()?.at(workspace.commit()).place();
    interrupt::install();
    let state = workspace.target().join("soak");
    drop(fs::remove_dir_all(&state));
    fs::create_dir_all(&state).with_context(|| format!("cannot make {}", state.display()))?;
    let mut containers = Containers::new(workload)?;
    let mut agent = start(&memtrace, &state)?;
    let told = Told::read(agent.0.stdout.take().context("memtrace has no stdout")?);
    told.wait_for_start()?;

    let kills_before = kernel_kills()?;
    let length = Duration::from_secs(args.minutes * 60);
    let samples = churn(args, length, &mut containers, &mut agent, &told)?;
    containers.end_all()?;
    let ended = Instant::now();
    while told.removed() < containers.counts().made && ended.elapsed() < PATIENCE {
        interrupt::sleep(TICK)?;
    }
    let kernel_kills = kernel_kills()? - kills_before;
    let counts = told.counts();
    agent.stop()?;

    let judgement = Judgement::of(&samples, containers.counts(), &counts, kernel_kills);
    let page = report::page(args, &place, &samples, &judgement)?;
    println!("{page}");
    if let Some(out) = &args.out {
        fs::write(out, &page).with_context(|| format!("cannot write {}", out.display()))?;
    }
    if judgement.is_well() {
        return Ok(());
    }
    bail!("something grew or is not what the kernel counted: see the rows that say NO")
}

/// Containers come and go for that long.
fn churn(
    args: &Args,
    length: Duration,
    containers: &mut Containers,
    agent: &mut Agent,
    told: &Told,
) -> Result<Vec<Sample>> {
    let begun = Instant::now();
    let mut samples = Vec::new();
    let mut next_sample = Duration::ZERO;
    while begun.elapsed() < length {
        interrupt::sleep(TICK)?;
        let due = (begun.elapsed().as_secs_f64() * args.per_second) as u64;
        // What a busy machine did not get to is made up for slowly, not all at once.
        for _ in containers.counts().made..due.min(containers.counts().made + 2) {
            containers.make()?;
        }
        containers.end_due()?;
        if begun.elapsed() >= next_sample {
            next_sample += SAMPLE;
            let sample = agent.sample(begun.elapsed(), containers, told)?;
            if samples.len().is_multiple_of(6) {
                progress(sample.to_string());
            }
            samples.push(sample);
        }
    }
    Ok(samples)
}

/// memtrace, killed when dropped.
#[derive(Debug)]
struct Agent(Child);

fn start(memtrace: &std::path::Path, state: &std::path::Path) -> Result<Agent> {
    let child = Command::new(memtrace)
        .args(["run", "--output", "json", "--config", "none"])
        .args(["--api-socket", "none", "--identity", "none", "--state-dir"])
        .arg(state)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start memtrace")?;
    Ok(Agent(child))
}

impl Agent {
    fn sample(
        &mut self,
        elapsed: Duration,
        containers: &Containers,
        told: &Told,
    ) -> Result<Sample> {
        if let Some(status) = self.0.try_wait()? {
            bail!("memtrace ended too early ({status})");
        }
        Sample::take(self.0.id(), elapsed, containers, told)
    }

    fn stop(mut self) -> Result<()> {
        // SAFETY: takes plain numbers; the child is not yet waited for, so the pid is its own.
        unsafe { libc::kill(self.0.id() as i32, libc::SIGTERM) };
        let status = self.0.wait()?;
        if !status.success() {
            bail!("memtrace ended with {status}");
        }
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
