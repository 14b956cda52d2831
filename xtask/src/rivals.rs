//! `cargo xtask rivals`: one load beside memtrace and what people use instead, to see who sees what, and
//! what that costs. Writes docs/rivals.md. Must not know how any tool works.

mod cost;
mod http;
mod load;
mod machine;
mod packages;
mod report;
mod rival;
mod score;
mod seen;
mod tools;
mod truth;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::artifacts;
use crate::bench::interrupt;
use crate::bench::machine::Machine;
use crate::process::{self, progress};
use crate::tracefs;
use crate::workspace::Workspace;
use cost::{Cost, Meter};
use load::{Load, Plan};
pub use machine::{Args as InsideArgs, inside};
use rival::{Rival, Surroundings};
use seen::Seen;
use tools::Start;
use truth::Truth;

const SAMPLE: Duration = Duration::from_secs(5);
/// Before the load, for what a tool does once.
const SETTLE: Duration = Duration::from_secs(12);
/// A leak is judged by minutes: a shorter run tells nothing of it.
const FULL_MINUTES: u64 = 20;

/// Arguments of `cargo xtask rivals`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// How long the load runs beside all tools
    #[arg(long, default_value_t = FULL_MINUTES, value_name = "N")]
    minutes: u64,
    /// Measure only this; the rest of the page stays as it was measured last
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Where to write the page [default: docs/rivals.md after 20 minutes or more, else stdout only]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Take this memtrace instead of building one
    #[arg(long, value_name = "FILE")]
    memtrace: Option<PathBuf>,
    /// Take this memtrace-workload instead of building one
    #[arg(long, value_name = "FILE")]
    workload: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// This host
    Host,
    /// A virtual machine whose kernel has kprobes
    Machine,
    /// Nothing: write the page of what was measured last
    Page,
}

/// What one load gave.
#[derive(Debug, Serialize, Deserialize)]
struct Run {
    /// Date, commit, kernel, processor, load average.
    place: String,
    truth: Truth,
    rows: Vec<Row>,
    absent: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Row {
    name: String,
    seen: Seen,
    cost: Cost,
    /// It ended while the load ran.
    died: bool,
}

/// Measures and reports; half an hour long.
pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    if !process::is_root() {
        bail!("`cargo xtask rivals` attaches tracers and makes cgroups: run it as root");
    }
    if args.minutes == 0 {
        bail!("--minutes is at least 1");
    }
    tracefs::ensure()?;
    let memtrace = match &args.memtrace {
        Some(file) => file.clone(),
        None => artifacts::memtrace(workspace)?,
    };
    let workload = match &args.workload {
        Some(file) => file.clone(),
        None => artifacts::workload(workspace)?,
    };
    let own = workspace.target().join("rivals");
    let packages = packages::fetch(workspace, &own)?;
    let (host, inside) = (own.join("host.json"), own.join("machine.json"));
    if args.only.is_none_or(|part| part == Part::Host) {
        interrupt::install();
        let scratch = own.join("run");
        drop(fs::remove_dir_all(&scratch));
        fs::create_dir_all(&scratch)?;
        let plan = Plan {
            length: Duration::from_secs(args.minutes * 60),
            containers: 20,
            services: 10,
            storm: 20,
            elsewhere: 10,
            groups: 10,
            shorts: 300,
            file: Some(scratch.join("file")),
        };
        let load = Load::new(workload.clone(), plan)?;
        let run = beside(
            load,
            &packages.tree,
            &scratch,
            memtrace.clone(),
            workspace.commit(),
            tools::ON_A_HOST,
        )?;
        fs::write(&host, serde_json::to_vec(&run)?)?;
    }
    if args.only.is_none_or(|part| part == Part::Machine) {
        let run = machine::boot(workspace, &packages.tree, &memtrace, &workload)?;
        fs::write(&inside, serde_json::to_vec(&run)?)?;
    }
    let page = report::page(kept(&host)?.as_ref(), kept(&inside)?.as_ref())?;
    println!("{page}");
    let is_full = args.minutes >= FULL_MINUTES && host.exists() && inside.exists();
    let default = is_full.then(|| workspace.root().join("docs/rivals.md"));
    if let Some(out) = args.out.clone().or(default) {
        fs::write(&out, page).with_context(|| format!("cannot write {}", out.display()))?;
        progress(format!("wrote {}", out.display()));
    }
    if !packages.absent.is_empty() {
        progress(format!("not to be had: {}", packages.absent.join(", ")));
    }
    Ok(())
}

/// What was measured last.
fn kept(path: &Path) -> Result<Option<Run>> {
    if !path.exists() {
        return Ok(None);
    }
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let run = serde_json::from_slice(&bytes);
    run.map(Some).with_context(|| {
        format!(
            "{} is not as this xtask writes it: delete it",
            path.display()
        )
    })
}

/// The load, and all tools that are here.
fn beside(
    load: Load,
    packages: &Path,
    scratch: &Path,
    memtrace: PathBuf,
    commit: Option<String>,
    tools: &[(&str, Start)],
) -> Result<Run> {
    let mut machine = Machine::read()?.at(commit);
    let (hierarchy, v2) = load.hierarchy();
    let around = Surroundings {
        packages: packages.to_owned(),
        scratch: scratch.to_owned(),
        memtrace,
        hierarchy: hierarchy.to_owned(),
        v2,
    };
    let (mut started, absent) = start(tools, &around);
    interrupt::sleep(SETTLE)?;
    for entrant in &mut started {
        entrant.meter = Some(Meter::begin(entrant.rival.pid())?);
    }
    let mut next_sample = SAMPLE;
    let truth = load.run(|elapsed| {
        if elapsed >= next_sample {
            next_sample += SAMPLE;
            started.iter_mut().for_each(Entrant::sample);
        }
        for entrant in &mut started {
            // A busy machine lets a reading fail, for every reader; it is told.
            entrant.failed += u64::from(entrant.rival.tick(elapsed).is_err());
        }
        Ok(())
    })?;
    // For the last readings.
    interrupt::sleep(SETTLE)?;
    machine.finished();
    progress(format!(
        "{} kills, {} short-lived processes",
        truth.kills.len(),
        truth.shorts.len()
    ));
    let rows = started
        .into_iter()
        .map(|entrant| entrant.end(&truth))
        .collect();
    Ok(Run {
        place: format!("{} {}.", machine.place(), machine.load_averages()),
        truth,
        rows,
        absent,
    })
}

struct Entrant {
    rival: Box<dyn Rival>,
    meter: Option<Meter>,
    died: bool,
    /// Readings that got no answer.
    failed: u64,
}

impl Entrant {
    fn sample(&mut self) {
        if let Some(meter) = &mut self.meter
            && !self.died
        {
            self.died = meter.look().is_err();
        }
    }

    fn end(self, truth: &Truth) -> Row {
        let name = self.rival.name();
        progress(format!("reading what {name} told"));
        let mut seen = self.rival.end(truth).unwrap_or_else(|error| Seen {
            notes: vec![format!("cannot be read: {error:#}")],
            ..Seen::default()
        });
        if self.failed > 0 {
            seen.notes
                .push(format!("{} readings got no answer", self.failed));
        }
        Row {
            cost: self.meter.map_or_else(Cost::default, |meter| meter.cost()),
            died: self.died,
            seen,
            name,
        }
    }
}

/// One that does not start is absent, with its own words; only memtrace must.
fn start(tools: &[(&str, Start)], around: &Surroundings) -> (Vec<Entrant>, Vec<String>) {
    let (mut started, mut absent) = (Vec::new(), Vec::new());
    for (name, start) in tools {
        match start(around) {
            Ok(Some(rival)) => {
                progress(format!("started {}", rival.name()));
                started.push(Entrant {
                    rival,
                    meter: None,
                    died: false,
                    failed: 0,
                });
            }
            Ok(None) => absent.push(format!("{name}: not here")),
            Err(error) => absent.push(format!("{name}: {error:#}")),
        }
    }
    for line in &absent {
        progress(line);
    }
    (started, absent)
}
