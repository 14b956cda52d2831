//! A segment of stored incidents, as `memtrace incidents` and the agent's API read it.

use std::{cell::LazyCell, collections::HashSet, fs, path::Path};

use clap::Parser as _;
use memtrace::{
    incidents::{IncidentsArgs, Screen, run as incidents},
    store::{self, index::Index},
};

use crate::{promise, scratch::Scratch};

const SEGMENT: &str = "incidents/00000001.jsonl";

#[derive(clap::Parser)]
struct CommandLine {
    #[command(flatten)]
    incidents: IncidentsArgs,
}

struct Commands {
    state: Scratch,
    list: IncidentsArgs,
    show: IncidentsArgs,
    json: IncidentsArgs,
}

thread_local! {
    static COMMANDS: LazyCell<Commands> = LazyCell::new(|| {
        let state = Scratch::new(&[SEGMENT]);
        let args = |rest: &[&str]| {
            let state_dir = state.path().to_str().expect("TMPDIR is text");
            let line = ["incidents", "--utc", "--state-dir", state_dir];
            CommandLine::parse_from([&line, rest].concat()).incidents
        };
        Commands {
            list: args(&[]),
            show: args(&["show", "latest"]),
            json: args(&["--json"]),
            state,
        }
    });
}

pub fn run(data: &[u8]) {
    COMMANDS.with(|commands| {
        // A line that does not end would be waited for.
        commands.state.fill(&[data, b"\n"].concat());
        told(&commands.list);
        told(&commands.show);
        json(&commands.json);
        indexed(commands.state.path());
    });
}

fn screen() -> Screen {
    Screen {
        colour: false,
        width: Some(80),
    }
}

fn told(args: &IncidentsArgs) {
    let (mut out, mut remarks) = (Vec::new(), Vec::new());
    if let Err(error) = incidents(args, screen(), &mut out, &mut remarks) {
        promise::printable(&error.to_string());
    }
    for text in [out, remarks] {
        promise::printable(std::str::from_utf8(&text).expect("what is told is text"));
    }
}

fn json(args: &IncidentsArgs) {
    let mut out = Vec::new();
    incidents(args, screen(), &mut out, &mut Vec::new()).expect("the store is there");
    for line in out
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        serde_json::from_slice::<serde_json::Value>(line).expect("a line is JSON");
    }
}

/// Both readers of a store find the same.
fn indexed(state_dir: &Path) {
    let read = store::read(state_dir).expect("the store is there");
    let ids: HashSet<&str> = read
        .incidents
        .iter()
        .map(|incident| &*incident.id)
        .collect();
    assert_eq!(ids.len(), read.incidents.len(), "an incident is told twice");
    let length = fs::metadata(state_dir.join(SEGMENT)).map_or(0, |file| file.len());
    assert!(read.damaged <= length);
    let index = Index::read(state_dir, |_| true).expect("the store is there");
    assert_eq!(index.entries.len(), read.incidents.len());
    for entry in &index.entries {
        let found = index.incident(entry).expect("the segment is there");
        let known = read.incidents.iter().find(|known| known.id == entry.id);
        assert_eq!(found.as_ref(), known);
    }
}
