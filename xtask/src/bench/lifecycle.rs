//! What tracing adds to signals and to the life of a process, where the OOM hooks sit.
//! Must not know how the figures are shown.

use std::process::Command;

use anyhow::{Context, Result};

use super::accounting::{self, Program};
use super::load::Lifecycle as Load;
use super::rounds::{Figure, compare, interleave};
use super::tracer::{Tools, Tracing};
use crate::process;

/// For all contestants.
#[derive(Debug)]
pub struct Lifecycle {
    pub rows: Vec<(Tracing, LifecycleFigures)>,
    /// From one more run, with the whole of memtrace and the kernel's accounting on.
    pub programs: Vec<Program>,
}

/// One contestant's figures, in nanoseconds per operation.
#[derive(Debug)]
pub struct LifecycleFigures {
    pub signal: Figure,
    pub fork: Figure,
    pub exec: Figure,
}

/// Interleaved rounds. bpftrace is left out: its script counts nothing here.
pub fn measure(tools: &Tools, rounds: usize, batches: usize) -> Result<Lifecycle> {
    let contestants = [
        Tracing::Off,
        Tracing::OffAgain,
        Tracing::MemtraceOom,
        Tracing::Memtrace,
    ];
    let samples = interleave(&contestants, rounds, |round, tracing| {
        process::progress(format!(
            "lifecycle: round {} of {rounds}: {}",
            round + 1,
            tracing.name()
        ));
        let running = tools.start(tracing)?;
        let cost = load(tools, batches)?;
        running.stop()?;
        Ok(cost)
    })?;
    let figure = |index: usize, part: fn(&Load) -> f64| {
        let of = |samples: &[Load]| samples.iter().map(part).collect::<Vec<_>>();
        compare(&of(&samples[0]), &of(&samples[index]))
    };
    let rows = contestants
        .iter()
        .enumerate()
        .map(|(index, &tracing)| {
            let figures = LifecycleFigures {
                signal: figure(index, |cost| cost.signal),
                fork: figure(index, |cost| cost.fork),
                exec: figure(index, |cost| cost.exec),
            };
            (tracing, figures)
        })
        .collect();
    Ok(Lifecycle {
        rows,
        programs: accounting::programs(tools, || load(tools, batches).map(drop))?,
    })
}

fn load(tools: &Tools, batches: usize) -> Result<Load> {
    let mut command = Command::new(&tools.xtask);
    command
        .args(["bench-load", "lifecycle", "--batches"])
        .arg(batches.to_string());
    let json = process::stdout(&mut command)?;
    serde_json::from_str(&json).context("the load printed something unexpected")
}
