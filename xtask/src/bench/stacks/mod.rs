//! What it costs to know which code holds memory: memtrace beside what people use instead, on programs
//! that allocate much.
//! Must not know how the figures are shown.

mod profiler;
mod program;

use std::path::Path;

use anyhow::Result;

use super::programs::Spent;
use super::rounds::{Figure, compare, interleave, median};
use super::tracer::{Running, Tools};
use crate::process::progress;

pub use profiler::Profiler;
use program::Program;

/// Of those that make a program many times slower: so much is no noise.
pub const SLOW_ROUNDS: usize = 2;

/// One program under all profilers.
#[derive(Debug)]
pub struct Stacks {
    pub program: &'static str,
    pub rows: Vec<Row>,
}

#[derive(Debug)]
pub struct Row {
    pub profiler: Profiler,
    pub wall: Figure,
    pub cpu: Figure,
    /// CPU time of the profiler's own process meanwhile, milliseconds; `None` where it is in the program's.
    pub own_cpu_ms: Option<f64>,
}

struct Sample {
    spent: Spent,
    own_cpu_ms: Option<f64>,
}

/// All programs that are here.
pub fn measure(tools: &Tools, rounds: usize, scratch: &Path) -> Result<Vec<Stacks>> {
    let programs = [Program::compiler(), Program::database(), Program::service()];
    let mut measured = Vec::new();
    for program in programs.into_iter().flatten() {
        let mut profilers = Vec::new();
        for profiler in Profiler::here() {
            // Fills the page cache, too.
            match sample(tools, &program, profiler, scratch) {
                Ok(_) => profilers.push(profiler),
                Err(error) if profiler.is_rival() => {
                    progress(format!("{} is left out: {error:#}", profiler.name()));
                }
                Err(error) => return Err(error),
            }
        }
        let (slow, fast): (Vec<_>, Vec<_>) = profilers.into_iter().partition(|one| one.is_slow());
        let slow = [vec![Profiler::Off], slow].concat();
        let mut rows = compared(tools, &program, &fast, rounds, scratch)?;
        let slow = compared(tools, &program, &slow, rounds.min(SLOW_ROUNDS), scratch)?;
        rows.extend(slow.into_iter().skip(1));
        measured.push(Stacks {
            program: program.name,
            rows,
        });
    }
    Ok(measured)
}

/// Against the first of them.
fn compared(
    tools: &Tools,
    program: &Program,
    profilers: &[Profiler],
    rounds: usize,
    scratch: &Path,
) -> Result<Vec<Row>> {
    let samples = interleave(profilers, rounds, |round, profiler| {
        progress(format!(
            "stacks, {}: round {} of {rounds}: {}",
            program.name,
            round + 1,
            profiler.name()
        ));
        sample(tools, program, profiler, scratch)
    })?;
    Ok(rows(profilers, &samples))
}

fn sample(tools: &Tools, program: &Program, profiler: Profiler, scratch: &Path) -> Result<Sample> {
    let waiting = program.start(&profiler.wrapper(), scratch)?;
    let running = profiler.attach(tools, waiting.pid())?;
    let before = running.as_ref().map(Running::own_cpu_ms).transpose()?;
    let spent = waiting.finish()?;
    let after = running.as_ref().map(Running::own_cpu_ms).transpose()?;
    if let Some(running) = running {
        running.stop()?;
    }
    Ok(Sample {
        spent,
        own_cpu_ms: after.zip(before).map(|(after, before)| after - before),
    })
}

fn rows(profilers: &[Profiler], samples: &[Vec<Sample>]) -> Vec<Row> {
    let of = |samples: &[Sample], part: fn(&Spent) -> f64| {
        let parts = samples.iter().map(|sample| part(&sample.spent));
        parts.collect::<Vec<_>>()
    };
    let figure = |index: usize, part| compare(&of(&samples[0], part), &of(&samples[index], part));
    let row = |(index, profiler): (usize, &Profiler)| {
        let own: Option<Vec<f64>> = samples[index].iter().map(|one| one.own_cpu_ms).collect();
        Row {
            profiler: *profiler,
            wall: figure(index, |spent| spent.wall),
            cpu: figure(index, |spent| spent.cpu),
            own_cpu_ms: own.map(|own| median(&own)),
        }
    };
    profilers.iter().enumerate().map(row).collect()
}
