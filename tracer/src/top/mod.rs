//! `memtrace top`: cgroups live, full screen, told by a running agent or by one of this process.
//!
//! Owns the command. State, drawing and asking know nothing of each other's ways:
//!
//! - `app`, `rows`, `tree`, `sort`, `filter`, `details`, `incidents`, `scroll`, `keys`: state, and what keys
//!   and answers change of it; pure.
//! - `columns`, `names`, `text`: what has room, what a cgroup is called, how that is cut; pure.
//! - `draw`: state to cells.
//! - `source`: asks the agent. `own`: an agent of this process. `terminal`: screen, keys, signals.

mod app;
mod columns;
mod details;
mod draw;
mod filter;
#[cfg(test)]
mod fixture;
mod incidents;
mod keys;
mod names;
mod own;
mod rows;
mod scroll;
mod sort;
mod source;
mod terminal;
mod text;
mod tree;

use std::{
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    time::Duration,
};

use clap::Args;
use globset::GlobMatcher;
use ratatui::crossterm::event::KeyEvent;

use crate::{
    agent::RunError,
    api::{
        client::ClientError,
        query::{CgroupQuery, IncidentQuery, Selection},
        records::DEFAULT_SOCKET,
    },
    cli,
    host::pattern::{as_written, cgroup_glob},
    identity::pod_name::{self, NamespacedPod},
    logger,
};

use app::{App, Then, Told};
use draw::Look;
use own::OwnAgent;
use rows::View;
pub use sort::Sort;
use source::Asked;
use terminal::Screen;

pub const EXAMPLES: &str = "\
Examples:
  sudo memtrace top                                  every cgroup, as a tree
  sudo memtrace top --flat --sort leak               what leaks, the worst first
  sudo memtrace top --cgroup '/kubepods*' -i 1s      only pods, every second
  sudo memtrace top --pod shop/cart-7d9f             one pod and its containers

Keys:
  ↑ ↓ PgUp PgDn   select        Enter  details: history, processes, code, verdict
  s S r           order         t      tree or list
  /               filter        l      only leaks
  i               incidents     Space  hold
  ?               all keys      q      quit

Asks the agent that runs on this host; where none runs it traces by itself until it ends.
For scripts: `memtrace run --output json`.

Exit codes: 0 done; 1 failed; 2 wrong usage, or no terminal; 77 not permitted.";

/// Inputs that wait to be handled; who has more waits.
const MOST_WAITING: usize = 256;

#[derive(Debug, Args)]
pub struct TopArgs {
    /// Time between two questions to the agent, which reads at an interval of its own: 500ms, 2s, 1m
    #[arg(short, long, default_value = "2s", value_name = "TIME", value_parser = cli::interval)]
    pub interval: Duration,

    /// Only cgroups whose path matches: '*' matches any characters, '/' included; a
    /// name without '/' is found at any depth
    #[arg(short, long, value_name = "GLOB", value_parser = cgroup_glob)]
    pub cgroup: Option<GlobMatcher>,

    /// Only this pod and its containers
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = pod_name::parse_namespaced)]
    pub pod: Option<NamespacedPod>,

    /// What is first
    #[arg(long, value_enum, default_value_t = Sort::Usage)]
    pub sort: Sort,

    /// A list of all cgroups instead of a tree
    #[arg(long)]
    pub flat: bool,

    /// Socket of the agent; it must run [default: /run/memtrace/agent.sock if an agent runs, else this
    /// process traces]
    #[arg(long, value_name = "PATH", env = "MEMTRACE_API_SOCKET")]
    pub socket: Option<PathBuf>,

    /// No colours; also with NO_COLOR in the environment
    #[arg(long, visible_alias = "no-color")]
    pub no_colour: bool,
}

/// Why top cannot run, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    #[error(
        "top draws on a terminal, and standard output is none\n\
         for scripts and pipes: memtrace run --output json"
    )]
    NoTerminal,
    #[error(transparent)]
    Agent(#[from] ClientError),
    #[error(transparent)]
    Own(RunError),
    #[error("{0}")]
    Names(String),
    #[error(
        "no place for the socket of an own agent: {0}\nset TMPDIR to a directory that can be written"
    )]
    OwnSocket(io::Error),
    #[error("the terminal cannot be used: {0}")]
    Terminal(io::Error),
    #[error("no thread or event loop can be started: {0}")]
    Threads(io::Error),
    #[error("a part of memtrace failed, as told above")]
    Panicked,
}

impl TopError {
    /// 77 is `EX_NOPERM` of sysexits.h.
    pub fn exit_code(&self) -> u8 {
        match self {
            TopError::NoTerminal => 2,
            TopError::Agent(error) => error.exit_code(),
            _ => 1,
        }
    }
}

/// Who is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The agent behind this socket.
    Agent(PathBuf),
    /// One of this process, which needs its capabilities.
    Own,
}

/// What ends a wait.
#[derive(Debug)]
pub(crate) enum Input {
    Key(KeyEvent),
    Resized,
    Told(Told),
    Suspend,
    Resume,
    End,
    NoTerminal(io::Error),
    OwnEnded(Box<Result<(), RunError>>),
    Panicked,
}

/// Looks who there is to ask.
///
/// # Errors
/// There is no terminal; or an agent that does not answer, where only that will do.
pub fn find(args: &TopArgs) -> Result<Place, TopError> {
    if !io::stdout().is_terminal() {
        return Err(TopError::NoTerminal);
    }
    let socket = args.socket.as_deref();
    let path = socket.unwrap_or(Path::new(DEFAULT_SOCKET));
    let client = source::client(path).map_err(TopError::Threads)?;
    match client.agent() {
        Ok(_) => Ok(Place::Agent(path.to_owned())),
        Err(ClientError::NotRunning { .. }) if socket.is_none() => Ok(Place::Own),
        Err(error) => Err(error.into()),
    }
}

/// Shows it until a key or a signal ends it.
///
/// # Errors
/// The terminal cannot be used, or the agent of this process cannot run.
pub fn run(args: &TopArgs, place: Place) -> Result<(), TopError> {
    let (sender, inputs) = sync_channel(MOST_WAITING);
    let own = match &place {
        Place::Own => Some(OwnAgent::start(args.interval, sender.clone())?),
        Place::Agent(_) => None,
    };
    let socket = match (place, &own) {
        (Place::Agent(socket), _) => socket,
        (Place::Own, own) => own.as_ref().map(OwnAgent::socket).unwrap_or_default(),
    };
    logger::hold();
    let result = watch(args, &socket, own.is_some(), sender, &inputs);
    logger::release();
    let result = match result {
        // Who closed it looks at nothing any more.
        Err(TopError::Terminal(error)) if terminal::is_gone(&error) => Ok(()),
        result => result,
    };
    // Its end waits for room there, and for nobody to read it.
    drop(inputs);
    drop(own);
    result
}

fn watch(
    args: &TopArgs,
    socket: &Path,
    own: bool,
    sender: SyncSender<Input>,
    inputs: &Receiver<Input>,
) -> Result<(), TopError> {
    terminal::send_signals(sender.clone()).map_err(TopError::Threads)?;
    terminal::end_on_panic(sender.clone());
    let mut screen = Screen::take().map_err(TopError::Terminal)?;
    terminal::send_events(sender.clone()).map_err(TopError::Threads)?;
    let client = source::client(socket).map_err(TopError::Threads)?;
    let tell = move |told| sender.send(Input::Told(told)).is_ok();
    let wanted = source::start(client, asked(args, own), tell).map_err(TopError::Threads)?;
    let view = View {
        flat: args.flat,
        sort: args.sort,
        ..View::default()
    };
    let mut app = App::new(view, own, chosen(args));
    let look = Look {
        colour: !args.no_colour && std::env::var_os("NO_COLOR").is_none(),
    };
    let mut wants = app.wants();
    let mut changed = true;
    loop {
        if changed {
            let drawn = screen.draw(|frame| draw::draw(frame, &mut app, look));
            drawn.map_err(TopError::Terminal)?;
            changed = false;
        }
        let Ok(first) = inputs.recv() else {
            return Ok(());
        };
        for input in std::iter::once(first).chain(inputs.try_iter()) {
            let then = match input {
                Input::Key(key) => app.press(key),
                Input::Resized => Then::Draw,
                Input::Told(told) => match app.hear(told) {
                    true => Then::Draw,
                    false => Then::Nothing,
                },
                Input::Suspend => Then::Suspend,
                Input::Resume => {
                    screen.resume().map_err(TopError::Terminal)?;
                    Then::Draw
                }
                Input::End => Then::Quit,
                Input::NoTerminal(error) => return Err(TopError::Terminal(error)),
                Input::OwnEnded(result) => return result.map_err(TopError::Own),
                Input::Panicked => return Err(TopError::Panicked),
            };
            match then {
                Then::Nothing => {}
                Then::Draw => changed = true,
                Then::Redraw => {
                    screen.clear().map_err(TopError::Terminal)?;
                    changed = true;
                }
                Then::Suspend => {
                    screen.suspend().map_err(TopError::Terminal)?;
                    changed = true;
                }
                Then::Quit => return Ok(()),
            }
        }
        if wants != app.wants() {
            wants = app.wants();
            // A thread that is gone told why.
            let _ = wanted.send(wants.clone());
        }
    }
}

fn asked(args: &TopArgs, own: bool) -> Asked {
    let pod = args.pod.as_ref();
    Asked {
        cgroups: CgroupQuery {
            selection: Selection {
                glob: args.cgroup.clone(),
                namespace: pod.map(|pod| pod.namespace.clone()),
                pod: pod.map(|pod| pod.name.clone()),
                container: None,
            },
            ..CgroupQuery::default()
        },
        incidents: IncidentQuery {
            glob: args.cgroup.clone(),
            pod: pod.map(|pod| (pod.namespace.clone(), pod.name.clone())),
            ..IncidentQuery::default()
        },
        every: args.interval,
        own,
    }
}

/// What the options chose, for people.
fn chosen(args: &TopArgs) -> Option<String> {
    let glob = args.cgroup.as_ref();
    let glob = glob.map(|glob| format!("--cgroup {}", as_written(glob)));
    let pod = args.pod.as_ref();
    let pod = pod.map(|pod| format!("--pod {pod}"));
    let parts: Vec<String> = glob.into_iter().chain(pod).collect();
    (!parts.is_empty()).then(|| parts.join(" "))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: TopArgs,
    }

    #[test]
    fn what_was_chosen_is_told_as_it_was_typed() {
        for (line, expected) in [
            (&["--cgroup", "shop"][..], "--cgroup shop"),
            (&["--cgroup", "/kubepods*"], "--cgroup /kubepods*"),
        ] {
            let line = ["top"].iter().chain(line);
            let args = Line::try_parse_from(line).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(chosen(&args.args).as_deref(), Some(expected));
        }
    }
}
