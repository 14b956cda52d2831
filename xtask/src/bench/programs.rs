//! What tracing adds to real programs: a build and an in-memory database.
//! Must not know how the figures are shown.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::clock::children_cpu;
use super::rounds::{Figure, compare, interleave};
use super::tracer::{Tools, Tracing};
use crate::process::{self, progress};

pub(super) const DATABASE: &str = include_str!("database.py");
const UNITS: usize = 8;
const FUNCTIONS_PER_UNIT: usize = 80;

/// One program under all contestants.
#[derive(Debug)]
pub struct Comparison {
    pub name: &'static str,
    pub rows: Vec<(Tracing, Figure, Figure)>,
}

/// What a program took, milliseconds.
#[derive(Debug)]
pub struct Spent {
    pub wall: f64,
    pub cpu: f64,
}

/// 8 generated C files, one compiler process after the other.
pub fn build(tools: &Tools, rounds: usize, scratch: &Path) -> Result<Option<Comparison>> {
    if process::find_program("cc").is_none() {
        progress("build: skipped, there is no cc");
        return Ok(None);
    }
    let sources = write_sources(scratch)?;
    let object = scratch.join("unit.o");
    compare_tracers("build", tools, rounds, || {
        for source in &sources {
            let mut command = Command::new("cc");
            command.args(["-O1", "-c"]).arg(source);
            command.arg("-o").arg(&object);
            process::quiet(&mut command)?;
        }
        Ok(())
    })
    .map(Some)
}

/// Python's SQLite with all data in memory.
pub fn database(tools: &Tools, rounds: usize) -> Result<Option<Comparison>> {
    let Some(python) = python()? else {
        progress("database: skipped, there is no python3");
        return Ok(None);
    };
    compare_tracers("database", tools, rounds, || {
        process::quiet(Command::new(&python).args(["-c", DATABASE]))
    })
    .map(Some)
}

/// The interpreter itself: version managers put a slow shell script before it.
pub(super) fn python() -> Result<Option<PathBuf>> {
    if process::find_program("python3").is_none() {
        return Ok(None);
    }
    let mut which = Command::new("python3");
    which.args(["-c", "import sqlite3, sys; print(sys.executable)"]);
    Ok(Some(PathBuf::from(process::stdout(&mut which)?.trim())))
}

fn compare_tracers(
    name: &'static str,
    tools: &Tools,
    rounds: usize,
    work: impl Fn() -> Result<()>,
) -> Result<Comparison> {
    let mut contestants = vec![Tracing::Off, Tracing::OffAgain, Tracing::Memtrace];
    if tools.bpftrace.is_some() {
        contestants.push(Tracing::Bpftrace);
    }
    // Fills the page cache.
    work()?;
    let samples = interleave(&contestants, rounds, |round, tracing| {
        progress(format!(
            "{name}: round {} of {rounds}: {}",
            round + 1,
            tracing.name()
        ));
        let running = tools.start(tracing)?;
        let spent = timed(&work)?;
        running.stop()?;
        Ok(spent)
    })?;
    let figure = |index: usize, part: fn(&Spent) -> f64| {
        let of = |samples: &[Spent]| samples.iter().map(part).collect::<Vec<_>>();
        compare(&of(&samples[0]), &of(&samples[index]))
    };
    let rows = contestants
        .iter()
        .enumerate()
        .map(|(index, &tracing)| {
            let wall = figure(index, |spent| spent.wall);
            (tracing, wall, figure(index, |spent| spent.cpu))
        })
        .collect();
    Ok(Comparison { name, rows })
}

/// In milliseconds. The CPU time is that of the reaped children, so no tracer may end meanwhile.
pub(super) fn timed(work: impl FnOnce() -> Result<()>) -> Result<Spent> {
    let cpu = children_cpu()?;
    let started = Instant::now();
    work()?;
    let wall = started.elapsed();
    Ok(Spent {
        wall: wall.as_secs_f64() * 1e3,
        cpu: (children_cpu()? - cpu).as_secs_f64() * 1e3,
    })
}

fn write_sources(scratch: &Path) -> Result<Vec<PathBuf>> {
    if !scratch.is_dir() {
        bail!("{} is no directory", scratch.display());
    }
    (0..UNITS)
        .map(|unit| {
            let path = scratch.join(format!("unit-{unit:02}.c"));
            fs::write(&path, source(unit))
                .with_context(|| format!("cannot write {}", path.display()))?;
            Ok(path)
        })
        .collect()
}

/// A C file of many functions.
pub(super) fn source(unit: usize) -> String {
    let mut text = String::from("#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n");
    for index in 0..FUNCTIONS_PER_UNIT {
        let _ = write!(
            text,
            "struct s{index} {{ int a[{size}]; char *name; double weight; }};\n\
             int f{unit}_{index}(struct s{index} *s, int n) {{\n\
             \x20 int sum = {unit};\n\
             \x20 for (int i = 0; i < n; i++) {{\n\
             \x20   switch (s->a[i % {size}] % 5) {{\n\
             \x20     case 0: sum += i * {index}; break;\n\
             \x20     case 1: sum ^= s->a[i % {size}] << 3; break;\n\
             \x20     case 2: s->weight += sum / 3.0; break;\n\
             \x20     default: if (s->name && strlen(s->name) > 3) printf(\"%d\\n\", sum);\n\
             \x20   }}\n\
             \x20 }}\n\
             \x20 return sum;\n\
             }}\n",
            size = 3 + index % 7
        );
    }
    text
}

/// A directory below the build output, removed when dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(target: &Path) -> Result<Self> {
        let path = target.join(format!("bench-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
