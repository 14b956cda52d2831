//! `memtrace incidents`: lists what is stored and shows one of it, also while no agent runs.
//!
//! Reads the store only; needs nothing but the right to read its files.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::{Args, Subcommand, builder::PossibleValuesParser, builder::TypedValueParser as _};
use globset::GlobMatcher;
use jiff::Timestamp;

use crate::{
    export::console::incident::{line, list, report, shown},
    host::{escape, pattern::cgroup_glob},
    identity::{
        names::Names,
        pod_name::{self, PodName},
    },
    incident::{Incident, Kind},
    moment::{self, Moment, Zone},
    store::{self, Incidents, StoreError},
};

pub const EXAMPLES: &str = "\
Examples:
  sudo memtrace incidents                            what is stored, newest last
  sudo memtrace incidents show latest                the whole story of the last one
  sudo memtrace incidents show 20261121T0742         by the beginning of its id
  sudo memtrace incidents --since 2h --cgroup '/kubepods*'
  sudo memtrace incidents --pod shop/cart-7c9d       of one pod; NAME alone: in any namespace
  sudo memtrace incidents --since 2026-11-21T07:00:00Z --until 1h --utc
  sudo memtrace incidents --kind stall show latest   the last stall
  sudo memtrace incidents --json | jq -r '.meaning.summary'

BYTES is what the first victim had mapped; files and shared memory count once, in the cgroup that touched
them first, so that it can exceed LIMIT. Without a victim it is the usage of the cgroup.

Exit codes: 0 done, also when nothing is stored; 1 failed or not found; 2 wrong usage;
77 not permitted.";

const LATEST: &str = "latest";
/// Candidates named when the beginning of an id fits several.
const MOST_CANDIDATES: usize = 10;

#[derive(Debug, Args)]
pub struct IncidentsArgs {
    #[command(subcommand)]
    pub action: Option<Action>,

    /// Only those since then: 30m, 2h, 7d ago, or a time like 2026-11-21T07:00:00Z
    #[arg(long, global = true, value_name = "TIME", value_parser = moment::parse)]
    pub since: Option<Moment>,

    /// Only those until then, written alike
    #[arg(long, global = true, value_name = "TIME", value_parser = moment::parse)]
    pub until: Option<Moment>,

    /// Only these kinds, comma-separated
    #[arg(long, global = true, value_delimiter = ',', value_parser = kinds())]
    pub kind: Vec<Kind>,

    /// Only where the charged cgroup or a victim's matches: '*' matches any characters, '/' included; a
    /// name without '/' is found at any depth
    #[arg(long, global = true, value_name = "GLOB", value_parser = cgroup_glob)]
    pub cgroup: Option<GlobMatcher>,

    /// Only where the charged cgroup or a victim's is of this pod: NAMESPACE/NAME, or NAME
    #[arg(long, global = true, value_name = "POD", value_parser = pod_name::parse)]
    pub pod: Option<PodName>,

    /// Only the last N of them
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub last: Option<u32>,

    /// One JSON object a line, as docs/json-lines.md describes
    #[arg(long, global = true)]
    pub json: bool,

    /// Times in UTC, not in the zone of this host; JSON is always in UTC
    #[arg(long, global = true)]
    pub utc: bool,

    /// Where the agent keeps its state
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "/var/lib/memtrace"
    )]
    pub state_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
pub enum Action {
    /// Tell all about one incident
    Show {
        /// The beginning of an id, as far as it is unique, or `latest`
        id: String,
    },
}

/// How to draw.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    pub colour: bool,
    /// Characters; `None` where it is no terminal.
    pub width: Option<usize>,
}

/// Width of a report that no terminal bounds, characters.
const REPORT_WIDTH: usize = 100;

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum IncidentsError {
    #[error("{error}\n{}", remedy(error))]
    Store {
        #[from]
        error: StoreError,
    },
    #[error("no incident {id} in {}", state_dir.display())]
    NotFound { id: String, state_dir: PathBuf },
    #[error("no {kinds} is stored in {}{}", state_dir.display(), narrowed(*filtered))]
    NoneLatest {
        /// Those asked for.
        kinds: String,
        /// Whether it is asked for by time, cgroup or pod.
        filtered: bool,
        state_dir: PathBuf,
    },
    #[error("{id} is the beginning of {count} incidents:{candidates}")]
    Ambiguous {
        id: String,
        count: usize,
        /// A line each.
        candidates: String,
    },
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

impl IncidentsError {
    /// 77 is `EX_NOPERM` of sysexits.h.
    pub fn exit_code(&self) -> u8 {
        match self {
            IncidentsError::Store { error } if error.is_permission() => 77,
            _ => 1,
        }
    }
}

fn narrowed(filtered: bool) -> &'static str {
    if filtered {
        " that --since, --until, --cgroup and --pod ask for"
    } else {
        ""
    }
}

fn remedy(error: &StoreError) -> &'static str {
    if error.is_permission() {
        "run it as root: sudo memtrace incidents"
    } else {
        error.remedy()
    }
}

/// Lists or shows to `out`; what is worth a remark goes to `remarks`. A reader that went away is no
/// error.
pub fn run(
    args: &IncidentsArgs,
    screen: Screen,
    out: &mut impl Write,
    remarks: &mut impl Write,
) -> Result<(), IncidentsError> {
    match tell(args, screen, out, remarks) {
        Err(IncidentsError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn tell(
    args: &IncidentsArgs,
    screen: Screen,
    out: &mut impl Write,
    remarks: &mut impl Write,
) -> Result<(), IncidentsError> {
    let mut found = store::read(&args.state_dir)?;
    let stored = found.incidents.len();
    select(&mut found.incidents, args, Timestamp::now());
    // Standard error that is closed must not hide what is asked for.
    let _ = remark(args, &found, stored, remarks);
    let zone = Zone::choose(args.utc);
    match &args.action {
        None => {
            if args.json {
                for incident in &found.incidents {
                    json(incident, out)?;
                }
            } else if !found.incidents.is_empty() {
                let table = list(&found.incidents, &zone, screen.width, screen.colour);
                out.write_all(table.as_bytes())?;
            }
        }
        Some(Action::Show { id }) => {
            let incident = find(&found.incidents, id, args)?;
            if args.json {
                json(incident, out)?;
            } else {
                let width = screen.width.unwrap_or(REPORT_WIDTH);
                out.write_all(report(incident, &zone, screen.colour, width).as_bytes())?;
            }
        }
    }
    out.flush()?;
    Ok(())
}

fn json(incident: &Incident, out: &mut impl Write) -> io::Result<()> {
    let text = serde_json::to_string(incident)?;
    // Who can write to the store chooses what its records hold.
    writeln!(out, "{}", escape::json(&text))
}

fn remark(
    args: &IncidentsArgs,
    found: &Incidents,
    stored: usize,
    remarks: &mut impl Write,
) -> io::Result<()> {
    let place = args.state_dir.display();
    if found.damaged > 0 {
        writeln!(
            remarks,
            "memtrace: {} damaged records in {place} were skipped",
            found.damaged
        )?;
    }
    if found.unread_bytes > 0 {
        writeln!(
            remarks,
            "memtrace: too much in {place}: the oldest {} bytes were not read",
            found.unread_bytes
        )?;
    }
    if !found.exists {
        writeln!(
            remarks,
            "memtrace: nothing is stored in {place}: no agent ran with this --state-dir"
        )
    } else if stored == 0 {
        writeln!(remarks, "memtrace: no incident in {place} so far")
    } else if found.incidents.is_empty() {
        writeln!(
            remarks,
            "memtrace: none of the {stored} incidents in {place} is asked for"
        )
    } else {
        Ok(())
    }
}

fn select(incidents: &mut Vec<Incident>, args: &IncidentsArgs, now: Timestamp) {
    let from = args.since.map(|since| since.at(now));
    let until = args.until.map(|until| until.at(now));
    incidents.retain(|incident| {
        from.is_none_or(|from| incident.time >= from)
            && until.is_none_or(|until| incident.time <= until)
            && (args.kind.is_empty() || args.kind.contains(&incident.kind))
            && args
                .cgroup
                .as_ref()
                .is_none_or(|glob| cgroups(incident).any(|cgroup| glob.is_match(cgroup)))
            && args
                .pod
                .as_ref()
                .is_none_or(|pod| names(incident).any(|names| pod.is_of(names)))
    });
    if let Some(last) = args.last {
        let before = incidents.len().saturating_sub(last as usize);
        incidents.drain(..before);
    }
}

fn cgroups(incident: &Incident) -> impl Iterator<Item = &str> {
    let charged = incident.charged.iter().map(|charged| &charged.cgroup);
    let victims = incident
        .victims
        .iter()
        .flat_map(|victim| [&victim.cgroup, &victim.leaf_cgroup]);
    charged.chain(victims).filter_map(Option::as_deref)
}

/// Of the charged cgroup and of the victims.
fn names(incident: &Incident) -> impl Iterator<Item = &Names> {
    let charged = incident.charged.iter().map(|charged| &charged.names);
    let victims = incident.victims.iter().map(|victim| &victim.names);
    charged.chain(victims).filter_map(Option::as_deref)
}

fn find<'a>(
    incidents: &'a [Incident],
    id: &str,
    args: &IncidentsArgs,
) -> Result<&'a Incident, IncidentsError> {
    let not_found = || IncidentsError::NotFound {
        id: shown(id),
        state_dir: args.state_dir.clone(),
    };
    if id == LATEST {
        return incidents.last().ok_or_else(|| IncidentsError::NoneLatest {
            kinds: match args.kind.as_slice() {
                [] => "incident".to_owned(),
                kinds => {
                    let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
                    names.join(" or ")
                }
            },
            filtered: args.since.is_some()
                || args.until.is_some()
                || args.cgroup.is_some()
                || args.pod.is_some(),
            state_dir: args.state_dir.clone(),
        });
    }
    if let Some(exact) = incidents.iter().find(|incident| incident.id == id) {
        return Ok(exact);
    }
    let candidates: Vec<&Incident> = incidents
        .iter()
        .filter(|incident| incident.id.starts_with(id))
        .collect();
    match candidates.as_slice() {
        [] => Err(not_found()),
        [one] => Ok(one),
        several => {
            let mut lines: Vec<String> = several
                .iter()
                .take(MOST_CANDIDATES)
                .map(|incident| format!("\n  {}  {}", shown(&incident.id), line(incident)))
                .collect();
            if several.len() > MOST_CANDIDATES {
                lines.push(format!(
                    "\n  … and {} more",
                    several.len() - MOST_CANDIDATES
                ));
            }
            Err(IncidentsError::Ambiguous {
                id: shown(id),
                count: several.len(),
                candidates: lines.concat(),
            })
        }
    }
}

fn kinds() -> impl clap::builder::TypedValueParser<Value = Kind> {
    PossibleValuesParser::new(Kind::ALL.map(Kind::name)).try_map(|name| {
        Kind::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or("no such kind")
    })
}

#[cfg(test)]
#[path = "incidents_tests.rs"]
mod tests;
