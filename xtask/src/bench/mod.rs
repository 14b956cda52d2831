//! `cargo xtask bench`: what tracing costs the host, what the agent costs itself, and how
//! soon it tells of an OOM kill.
//! Must not change memtrace or tune the host for a better figure.

mod accounting;
mod agent_cost;
mod aims;
pub mod cgroups;
pub mod clock;
pub mod interrupt;
mod lifecycle;
pub mod load;
pub mod machine;
mod oom;
mod paths;
mod programs;
mod report;
mod rounds;
mod stacks;
mod tracer;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::workspace::Workspace;
use crate::{artifacts, process, tracefs};
use machine::Machine;
use programs::Scratch;
use report::Results;
use tracer::Tools;

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Args {
    /// Fewer rounds and shorter windows: a look, not a result
    #[arg(long)]
    quick: bool,
    /// Measure only these
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME,...")]
    only: Vec<Part>,
    /// Where to write the report [default: docs/benchmarks.md for a full run, else stdout only]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Measure this memtrace instead of building one
    #[arg(long, value_name = "FILE")]
    memtrace: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Page fault, getppid, mmap and munmap
    Paths,
    /// Signal, fork and exec
    Lifecycle,
    /// How soon an OOM kill is told
    Oom,
    /// A C compiler on generated files
    Build,
    /// SQLite in memory
    Database,
    /// What it costs to know which code holds memory, beside heaptrack and others
    Stacks,
    /// CPU and memory of memtrace with up to 5,000 cgroups
    Agent,
}

struct Effort {
    path_rounds: usize,
    path_batches: usize,
    lifecycle_rounds: usize,
    kills: usize,
    program_rounds: usize,
    stacks_rounds: usize,
    agent_window: Duration,
}

const FULL: Effort = Effort {
    path_rounds: 9,
    path_batches: 9,
    lifecycle_rounds: 25,
    kills: 300,
    program_rounds: 7,
    stacks_rounds: 7,
    agent_window: Duration::from_secs(60),
};

const QUICK: Effort = Effort {
    path_rounds: 5,
    path_batches: 5,
    lifecycle_rounds: 9,
    kills: 60,
    program_rounds: 5,
    stacks_rounds: 2,
    agent_window: Duration::from_secs(20),
};

/// Measures and reports; minutes long.
pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    if !process::is_root() {
        bail!("`cargo xtask bench` attaches tracers and makes cgroups: run it as root");
    }
    tracefs::ensure()?;
    let memtrace = match &args.memtrace {
        Some(file) => file.clone(),
        None => artifacts::memtrace(workspace)?,
    };
    let scratch = Scratch::new(workspace.target())?;
    let tools = Tools {
        memtrace,
        bpftrace: process::find_program("bpftrace"),
        xtask: std::env::current_exe().context("cannot find this program's file")?,
        state_dir: scratch.path().join("state"),
    };
    if tools.bpftrace.is_none() {
        process::progress("there is no bpftrace to compare with");
    }
    interrupt::install();
    let report = measure(args, workspace.commit(), &tools, &scratch)?;
    println!("{report}");
    let full = !args.quick && args.only.is_empty();
    let default = full.then(|| workspace.root().join("docs/benchmarks.md"));
    if let Some(out) = args.out.clone().or(default) {
        fs::write(&out, report).with_context(|| format!("cannot write {}", out.display()))?;
        process::progress(format!("wrote {}", out.display()));
    }
    Ok(())
}

fn measure(
    args: &Args,
    commit: Option<String>,
    tools: &Tools,
    scratch: &Scratch,
) -> Result<String> {
    let asked = |part: Part| args.only.is_empty() || args.only.contains(&part);
    let effort = if args.quick { QUICK } else { FULL };
    let mut machine = Machine::read()?.at(commit);
    let mut results = Results {
        path_rounds: effort.path_rounds,
        lifecycle_rounds: effort.lifecycle_rounds,
        program_rounds: effort.program_rounds,
        stacks_rounds: effort.stacks_rounds,
        ..Results::default()
    };
    if asked(Part::Paths) {
        let paths = paths::measure(tools, effort.path_rounds, effort.path_batches)?;
        results.paths = Some(paths);
    }
    if asked(Part::Lifecycle) {
        let rounds = effort.lifecycle_rounds;
        let lifecycle = lifecycle::measure(tools, rounds, effort.path_batches)?;
        results.lifecycle = Some(lifecycle);
    }
    if asked(Part::Oom) {
        results.oom = oom::measure(tools, effort.kills)?;
    }
    if asked(Part::Build) {
        let build = programs::build(tools, effort.program_rounds, scratch.path())?;
        results.programs.extend(build);
    }
    if asked(Part::Database) {
        let database = programs::database(tools, effort.program_rounds)?;
        results.programs.extend(database);
    }
    if asked(Part::Stacks) {
        results.stacks = stacks::measure(tools, effort.stacks_rounds, scratch.path())?;
    }
    if asked(Part::Agent) {
        results.agent = agent_cost::measure(tools, effort.agent_window)?;
    }
    machine.finished();
    Ok(report::markdown(&machine, &results))
}
