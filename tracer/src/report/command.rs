//! The command: its options, the order of work, where the report goes.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use globset::GlobMatcher;
use jiff::Timestamp;

use crate::{
    api::client::ClientError,
    cli::SocketArgs,
    host::{escape, pattern::cgroup_glob},
    identity::pod_name::{self, PodName},
    moment::{self, Moment, Zone},
    store::StoreError,
};

use super::{gather, html, markdown, story};

pub const EXAMPLES: &str = "\
Examples:
  sudo memtrace report latest -o oom.html            the last incident, as a page to open or send
  sudo memtrace report 20261121T0742 -o ticket.md    by the beginning of its id, for a ticket
  sudo memtrace report --pod shop/cart-7c9d          a container that lives, as Markdown to the terminal
  sudo memtrace report --cgroup '*/postgres.service' -o db.html --since 6h
  sudo memtrace report latest --format json | jq -r .conclusion

A page is one file: it loads nothing and runs no script. Without a running agent the report is made of
what is stored: the incidents and what led up to them.

Exit codes: 0 done; 1 failed, or not found, or several match (they are listed); 2 wrong usage;
77 not permitted.";

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("whose").required(true).args(["id", "pod", "cgroup"]))]
pub struct ReportArgs {
    /// Of this incident: its id, the beginning of it as far as it is unique, or `latest`
    pub id: Option<String>,

    /// Of a container of this pod: NAMESPACE/NAME, or NAME
    #[arg(long, value_name = "POD", value_parser = pod_name::parse)]
    pub pod: Option<PodName>,

    /// Of the cgroup whose path matches: '*' matches any characters, '/' included; a
    /// name without '/' is found at any depth
    #[arg(long, value_name = "GLOB", value_parser = cgroup_glob)]
    pub cgroup: Option<GlobMatcher>,

    /// Write to this file; .html, .md or .json says the format
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// The format [default: by the file's name; md on standard output]
    #[arg(long, value_enum)]
    pub format: Option<Format>,

    /// Tell nothing before that, but for the incident that is named by its id: 30m, 2h, 7d
    /// ago, or a time like 2026-11-21T07:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    pub since: Option<Moment>,

    /// Times in UTC, not in the zone of this host; JSON is always in UTC
    #[arg(long)]
    pub utc: bool,

    #[command(flatten)]
    pub agent: SocketArgs,

    /// Read incidents from there, not from the agent; without an agent from /var/lib/memtrace
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One self-contained page
    Html,
    /// For a ticket
    Md,
    /// All of it, for programs; docs/report.md has the fields
    Json,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error("{error}\n{}", error.remedy())]
    Store {
        #[from]
        error: StoreError,
    },
    #[error(transparent)]
    Agent(#[from] ClientError),
    #[error(
        "no incident {id} is known{}\n`memtrace incidents` lists what is stored",
        and(agent)
    )]
    NoIncident {
        id: String,
        /// Why the agent tells nothing, if it was asked and does not.
        agent: Option<String>,
    },
    #[error(
        "no incident is stored{}: there is no latest one to report{}\nwhat is killed while `memtrace run` \
         runs is stored; of a cgroup that lives tells: memtrace report --cgroup GLOB",
        within(state_dir),
        and(agent)
    )]
    NoneStored {
        /// Where that was looked up; `None`: the agent was asked.
        state_dir: Option<PathBuf>,
        /// As of [`ReportError::NoIncident`].
        agent: Option<String>,
    },
    #[error("{id} is the beginning of {count} incidents:{candidates}")]
    Ambiguous {
        id: String,
        count: usize,
        /// A line each.
        candidates: String,
    },
    #[error("{asked} matches {count} cgroups; name one of them:{candidates}")]
    Several {
        asked: String,
        count: usize,
        /// A line each.
        candidates: String,
    },
    #[error(
        "nothing is known of {asked}: no incident that is stored, and {agent}\n`memtrace incidents` lists what is stored; a cgroup that lives needs a running agent"
    )]
    NoMatch {
        asked: String,
        /// Why the agent tells nothing.
        agent: String,
    },
    #[error("{}: the name does not say the format; end it in .html, .md or .json, or give --format", .0.display())]
    UnknownFormat(PathBuf),
    #[error("cannot write {}: {source}\ncheck that its directory exists and may be written", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the report cannot be written as JSON: {0}")]
    Encode(#[from] serde_json::Error),
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

fn within(state_dir: &Option<PathBuf>) -> String {
    let place = state_dir.as_ref();
    place.map_or(String::new(), |path| format!(" in {}", path.display()))
}

fn and(agent: &Option<String>) -> String {
    let why = agent.as_ref().map(|why| format!(", and {why}"));
    why.unwrap_or_default()
}

impl ReportError {
    /// 77 is `EX_NOPERM` of sysexits.h.
    pub fn exit_code(&self) -> u8 {
        match self {
            ReportError::Store { error } if error.is_permission() => 77,
            ReportError::Agent(error) => error.exit_code(),
            ReportError::UnknownFormat(_) => 2,
            _ => 1,
        }
    }
}

/// Writes the report to the file that `args` name, else to `out`; remarks go to `remarks`. A reader that
/// went away is no error.
///
/// # Errors
/// Nothing or several things match, or it cannot be read or written.
pub fn run(
    args: &ReportArgs,
    out: &mut impl Write,
    remarks: &mut impl Write,
) -> Result<(), ReportError> {
    let format = match (args.format, &args.output) {
        (Some(format), _) => format,
        (None, Some(path)) => of_name(path)?,
        (None, None) => Format::Md,
    };
    let zone = Zone::choose(args.utc || format == Format::Json);
    let facts = gather::gather(args, Timestamp::now())?;
    // Standard error that is closed must not hide what is asked for.
    for missing in &facts.missing {
        let _ = writeln!(remarks, "memtrace: {missing}");
    }
    let report = story::report(facts, &zone);
    let text = match format {
        Format::Html => html::page(&report, &zone),
        Format::Md => markdown::text(&report, &zone),
        Format::Json => escape::json(&serde_json::to_string_pretty(&report)?).into_owned() + "\n",
    };
    if let Some(path) = &args.output {
        return fs::write(path, text).map_err(|source| ReportError::File {
            path: path.clone(),
            source,
        });
    }
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

fn of_name(path: &Path) -> Result<Format, ReportError> {
    let extension = path
        .extension()
        .map(|extension| extension.to_ascii_lowercase());
    match extension.as_ref().and_then(|extension| extension.to_str()) {
        Some("html" | "htm") => Ok(Format::Html),
        Some("md" | "markdown") => Ok(Format::Md),
        Some("json") => Ok(Format::Json),
        _ => Err(ReportError::UnknownFormat(path.to_owned())),
    }
}
