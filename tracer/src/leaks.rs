//! `memtrace leaks`: what leaks now, as the running agent judges it, with what that rests on.

pub mod block;

use std::io::{self, Write};

use clap::Args;
use globset::GlobMatcher;

use crate::{
    analysis::State,
    analyze::FailOn,
    api::{
        client::{Blocking, Client, ClientError},
        query::{CgroupQuery, LeakQuery},
        records::{LeakRecord, Listed},
    },
    cli::SocketArgs,
    export::console::incident::shown,
    host::{
        escape,
        pattern::{as_written, cgroup_glob},
    },
    identity::pod_name::{self, PodName},
    incidents::Screen,
    moment::Zone,
};

pub const EXAMPLES: &str = "\
Examples:
  sudo memtrace leaks                                what leaks on this host, the most certain first
  sudo memtrace leaks --all                          also what only grows
  sudo memtrace leaks --pod shop/cart-7c9d           only in this pod; NAME alone: in any namespace
  sudo memtrace leaks --fail-on confirmed            for scripts: exit code 3 if there is one
  sudo memtrace leaks --json | jq -r '[.cgroup, .state, .rate_bytes_per_hour.mid] | @tsv'

Exit codes: 0 done, also when nothing leaks; 1 failed, or no agent runs; 2 wrong usage;
3 something reached what --fail-on names; 77 not permitted.";

/// The agent tells no more of them at once.
const MOST_LEAKS: usize = 200;
/// Cgroups counted where none leaks.
const MOST_CGROUPS: usize = 100_000;

#[derive(Debug, Args)]
pub struct LeaksArgs {
    /// Also what grows and is no leak (yet), and why
    #[arg(long)]
    pub all: bool,

    /// Only cgroups whose path matches: '*' matches any characters, '/' included; a
    /// name without '/' is found at any depth
    #[arg(long, value_name = "GLOB", value_parser = cgroup_glob)]
    pub cgroup: Option<GlobMatcher>,

    /// Only in this pod: NAMESPACE/NAME, or NAME
    #[arg(long, value_name = "POD", value_parser = pod_name::parse)]
    pub pod: Option<PodName>,

    /// Exit with code 3 if any that is told is in this state or a worse one
    #[arg(long, value_enum, value_name = "STATE")]
    pub fail_on: Option<FailOn>,

    /// One JSON object a line: a `leak` line of docs/json-lines.md whose `event` is null
    #[arg(long)]
    pub json: bool,

    /// Times in UTC, not in the zone of this host; JSON is always in UTC
    #[arg(long)]
    pub utc: bool,

    #[command(flatten)]
    pub agent: SocketArgs,
}

/// Whether `--fail-on` was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Reached,
}

/// Why it cannot be said what leaks.
#[derive(Debug, thiserror::Error)]
pub enum LeaksError {
    #[error("{error}{}", recorded(error))]
    Agent {
        #[from]
        error: ClientError,
    },
    #[error("the agent does not judge growth: it was started with --leaks off; start it without")]
    Off,
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

/// What can be done without an agent.
fn recorded(error: &ClientError) -> &'static str {
    match error {
        ClientError::NotRunning { .. } => {
            "\nhistory that was recorded is judged without one: memtrace analyze --help"
        }
        _ => "",
    }
}

impl LeaksError {
    /// For the shell.
    pub fn exit_code(&self) -> u8 {
        match self {
            LeaksError::Agent { error } => error.exit_code(),
            LeaksError::Off | LeaksError::Output(_) => 1,
        }
    }
}

/// What was asked of the agent.
struct Answer {
    leaks: Listed<LeakRecord>,
    /// Of the cgroups asked for; counted where there is no leak to tell.
    judged: Option<Judged>,
}

/// How many cgroups a statement on all of them rests on.
#[derive(Debug, Clone, Copy, Default)]
struct Judged {
    /// There is a verdict.
    judged: usize,
    /// Of these, those that are young, or whose growth flattens: `--all` does not tell them either.
    warming: usize,
    /// Nothing can be said of them yet.
    young: usize,
}

/// Tells `out` what leaks; what is worth a remark goes to `remarks`. A reader that went away is no error.
///
/// # Errors
/// No agent answers, or it does not judge.
pub fn run(
    args: &LeaksArgs,
    screen: Screen,
    out: &mut impl Write,
    remarks: &mut impl Write,
) -> Result<Outcome, LeaksError> {
    let answer = ask(args)?;
    match tell(args, &answer, screen, out, remarks) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    let bad = match args.fail_on {
        None => return Ok(Outcome::Done),
        Some(FailOn::Suspected) => State::Suspected,
        Some(FailOn::Confirmed) => State::Confirmed,
    };
    let reached = answer.leaks.items.iter().any(|leak| leak.state >= bad);
    Ok(if reached {
        Outcome::Reached
    } else {
        Outcome::Done
    })
}

fn ask(args: &LeaksArgs) -> Result<Answer, LeaksError> {
    let agent = Blocking::new(Client::new(&args.agent.socket))?;
    if !agent.agent()?.leaks {
        return Err(LeaksError::Off);
    }
    let mut leaks = agent.leaks(&LeakQuery {
        all: args.all,
        limit: MOST_LEAKS,
    })?;
    leaks.items.retain(|leak| is_asked(args, leak));
    let judged = if leaks.items.is_empty() {
        let mut query = CgroupQuery {
            limit: MOST_CGROUPS,
            ..CgroupQuery::default()
        };
        query.selection.glob.clone_from(&args.cgroup);
        if let Some(pod) = &args.pod {
            query.selection.namespace.clone_from(&pod.namespace);
            query.selection.pod = Some(pod.name.clone());
        }
        let rows = agent.cgroups(&query)?;
        let states = rows.items.iter().filter_map(|row| row.leak.as_ref());
        Some(Judged::count(states.map(|leak| leak.state)))
    } else {
        None
    };
    Ok(Answer { leaks, judged })
}

fn is_asked(args: &LeaksArgs, leak: &LeakRecord) -> bool {
    args.cgroup
        .as_ref()
        .is_none_or(|glob| glob.is_match(&leak.cgroup))
        && args.pod.as_ref().is_none_or(|pod| {
            let names = leak.names.as_ref();
            names.is_some_and(|names| pod.is_of(names))
        })
}

fn tell(
    args: &LeaksArgs,
    answer: &Answer,
    screen: Screen,
    out: &mut impl Write,
    remarks: &mut impl Write,
) -> io::Result<()> {
    let zone = Zone::choose(args.utc);
    let leaks = &answer.leaks.items;
    for (at, leak) in leaks.iter().enumerate() {
        if args.json {
            writeln!(out, "{}", escape::json(&serde_json::to_string(leak)?))?;
            continue;
        }
        if at > 0 {
            writeln!(out)?;
        }
        out.write_all(block::block(leak, &zone, screen.colour, screen.width).as_bytes())?;
    }
    if let Some(judged) = answer.judged {
        let text = none(args, judged);
        if args.json {
            // Standard error that is closed must not hide what is asked for.
            let _ = writeln!(remarks, "memtrace: {text}");
        } else {
            writeln!(out, "{text}")?;
        }
    }
    if answer.leaks.left_out > 0 {
        let more = answer.leaks.left_out;
        let _ = writeln!(
            remarks,
            "memtrace: {more} more are not told: the first {MOST_LEAKS} are"
        );
    }
    out.flush()
}

impl Judged {
    fn count(states: impl Iterator<Item = State>) -> Self {
        let mut count = Self::default();
        for state in states {
            match state {
                State::Unknown => count.young += 1,
                State::Warming => {
                    count.judged += 1;
                    count.warming += 1;
                }
                _ => count.judged += 1,
            }
        }
        count
    }
}

/// That there is nothing to tell, and of how many cgroups that is known.
fn none(args: &LeaksArgs, count: Judged) -> String {
    let Judged {
        judged,
        warming,
        young,
    } = count;
    let are = if young == 1 { "is" } else { "are" };
    if judged == 0 {
        let which = match (&args.cgroup, &args.pod) {
            (_, Some(pod)) => format!("no cgroup of pod {}", shown(&pod.to_string())),
            (Some(glob), None) => {
                let glob = as_written(glob);
                format!("no cgroup that matches '{}'", shown(glob))
            }
            (None, None) => "no cgroup".to_owned(),
        };
        return match (young, &args.cgroup, &args.pod) {
            (0, None, None) => {
                format!("{which} is judged yet: judging takes some minutes after the start")
            }
            (0, ..) => format!("{which} is judged"),
            _ => format!(
                "{which} is judged yet: {young} {are} too young, look again in some minutes"
            ),
        };
    }
    let mut text = match (judged, args.all) {
        (1, true) if warming == 1 => {
            "1 cgroup is judged: it is young, or its growth flattens".to_owned()
        }
        (1, true) => "1 cgroup is judged, and does not grow".to_owned(),
        (1, false) => "1 cgroup is judged, and does not leak".to_owned(),
        (_, true) => format!("{judged} cgroups are judged, and none grows"),
        (_, false) => format!("{judged} cgroups are judged, and none leaks"),
    };
    if args.all && judged > 1 && warming > 0 {
        let (are, whose) = match warming {
            1 => ("is", "its"),
            _ => ("are", "their"),
        };
        text += &format!("; {warming} of them {are} young, or {whose} growth flattens");
    }
    if young > 0 {
        text += &format!("; {young} more {are} too young to judge");
    }
    text
}

#[cfg(test)]
#[path = "leaks/tests.rs"]
mod tests;
