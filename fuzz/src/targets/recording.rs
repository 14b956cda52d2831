//! Recorded history, CSV or an answer of Prometheus, as `memtrace analyze` reads, judges and tells it.

use std::cell::LazyCell;

use clap::Parser as _;
use memtrace::analyze::{AnalyzeArgs, run as analyze};

use crate::{promise, scratch::Scratch};

#[derive(clap::Parser)]
struct CommandLine {
    #[command(flatten)]
    analyze: AnalyzeArgs,
}

struct Commands {
    recording: Scratch,
    text: AnalyzeArgs,
    json: AnalyzeArgs,
}

thread_local! {
    static COMMANDS: LazyCell<Commands> = LazyCell::new(|| {
        let recording = Scratch::new(&["recording"]);
        let file = recording.path().join("recording");
        let args = |rest: &[&str]| {
            let file = file.to_str().expect("TMPDIR is text");
            CommandLine::parse_from([&["analyze", file], rest].concat()).analyze
        };
        Commands {
            text: args(&["--signal", "anon"]),
            json: args(&["--json", "--limit", "1GiB"]),
            recording,
        }
    });
}

pub fn run(data: &[u8]) {
    COMMANDS.with(|commands| {
        commands.recording.fill(data);
        told(&commands.text);
        let lines = told(&commands.json);
        for line in lines.lines() {
            serde_json::from_str::<serde_json::Value>(line).expect("a line is JSON");
        }
    });
}

fn told(args: &AnalyzeArgs) -> String {
    let (mut out, mut remarks) = (Vec::new(), Vec::new());
    if let Err(error) = analyze(args, false, &mut out, &mut remarks) {
        promise::printable(&error.to_string());
    }
    promise::printable(std::str::from_utf8(&remarks).expect("remarks are text"));
    let out = String::from_utf8(out).expect("what is told is text");
    promise::printable(&out);
    out
}
