//! What tracing adds to single kernel paths: page fault, bare system call, mmap and munmap.
//! Must not know how the figures are shown.

use std::process::Command;

use anyhow::{Context, Result};

use super::accounting::{self, Program};
use super::load::Loops;
use super::rounds::{Figure, compare, interleave};
use super::tracer::{Tools, Tracing};
use crate::process;

/// The paths, for all contestants.
#[derive(Debug)]
pub struct Paths {
    pub rows: Vec<(Tracing, PathFigures)>,
    /// memtrace's hook on mmap, such as `tracepoint/syscalls/sys_exit_mmap`.
    pub heap_hook: String,
    /// Run count and time per program, from one more run with the kernel's accounting on.
    pub programs: Vec<Program>,
}

/// One contestant's figures, in nanoseconds per operation.
#[derive(Debug)]
pub struct PathFigures {
    pub fault: Figure,
    pub getppid: Figure,
    pub map: Figure,
}

/// Interleaved rounds over all tracers that this machine has.
pub fn measure(tools: &Tools, rounds: usize, batches: usize) -> Result<Paths> {
    let mut contestants = vec![
        Tracing::Off,
        Tracing::OffAgain,
        Tracing::Memtrace,
        Tracing::MemtraceNoHeap,
        Tracing::MemtraceNoFaults,
    ];
    if tools.bpftrace.is_some() {
        contestants.push(Tracing::Bpftrace);
    }
    let mut heap_hook = String::new();
    let samples = interleave(&contestants, rounds, |round, tracing| {
        process::progress(format!(
            "paths: round {} of {rounds}: {}",
            round + 1,
            tracing.name()
        ));
        let running = tools.start(tracing)?;
        if let (Tracing::Memtrace, Some(start)) = (tracing, &running.start) {
            heap_hook = start["probes"]["heap.mmap"]
                .as_str()
                .unwrap_or("none")
                .to_owned();
        }
        let cost = loops(tools, batches)?;
        running.stop()?;
        Ok(cost)
    })?;
    let figure = |index: usize, path: fn(&Loops) -> f64| {
        let of = |samples: &[Loops]| samples.iter().map(path).collect::<Vec<_>>();
        compare(&of(&samples[0]), &of(&samples[index]))
    };
    let rows = contestants
        .iter()
        .enumerate()
        .map(|(index, &tracing)| {
            let figures = PathFigures {
                fault: figure(index, |loops| loops.fault),
                getppid: figure(index, |loops| loops.getppid),
                map: figure(index, |loops| loops.map),
            };
            (tracing, figures)
        })
        .collect();
    Ok(Paths {
        rows,
        heap_hook,
        programs: accounting::programs(tools, || loops(tools, batches).map(drop))?,
    })
}

fn loops(tools: &Tools, batches: usize) -> Result<Loops> {
    let mut command = Command::new(&tools.xtask);
    command
        .args(["bench-load", "loops", "--batches"])
        .arg(batches.to_string());
    let json = process::stdout(&mut command)?;
    serde_json::from_str(&json).context("the load printed something unexpected")
}
