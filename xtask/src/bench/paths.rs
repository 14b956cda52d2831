//! What tracing adds to single kernel paths: page fault, bare system call, mmap and munmap.
//! Must not know how the figures are shown.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

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

/// What the kernel accounted to one BPF program.
#[derive(Debug)]
pub struct Program {
    pub probe: String,
    pub runs: u64,
    pub ns_per_run: f64,
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
        programs: programs(tools, batches)?,
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

/// The kernel's accounting costs time itself, so this is a run of its own.
fn programs(tools: &Tools, batches: usize) -> Result<Vec<Program>> {
    let Some(_accounting) = Accounting::enable() else {
        return Ok(Vec::new());
    };
    let running = tools.memtrace(&["--interval", "1s"])?;
    loops(tools, batches)?;
    let last = running.stop()?;
    let probes = last
        .as_ref()
        .and_then(|line| line["probes"].as_array())
        .map_or(&[][..], Vec::as_slice);
    Ok(probes.iter().filter_map(program).collect())
}

fn program(probe: &Value) -> Option<Program> {
    let runs = probe["run_count"].as_u64().filter(|&runs| runs > 0)?;
    Some(Program {
        probe: probe["probe"].as_str()?.to_owned(),
        runs,
        ns_per_run: probe["run_time_ns"].as_u64()? as f64 / runs as f64,
    })
}

/// `kernel.bpf_stats_enabled`, put back when dropped.
struct Accounting(String);

const ACCOUNTING: &str = "/proc/sys/kernel/bpf_stats_enabled";

impl Accounting {
    fn enable() -> Option<Self> {
        let before = std::fs::read_to_string(ACCOUNTING).ok()?;
        std::fs::write(ACCOUNTING, "1").ok()?;
        Some(Self(before))
    }
}

impl Drop for Accounting {
    fn drop(&mut self) {
        let _ = std::fs::write(ACCOUNTING, &self.0);
    }
}
