//! `memtrace analyze`: the growth analysis on recorded history, offline.
//!
//! Reads recordings, runs [`crate::analysis`] over them and tells what it said. Owns options and order
//! of work; needs no agent, no kernel and no privileges.

mod clock;
mod history;
mod judge;
mod line;
mod number;
mod picture;
mod prometheus;
mod read;
mod report;
mod table;

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
};

use clap::{Args, ValueEnum};
use globset::GlobMatcher;

use self::{
    clock::Clock,
    history::{Column, History, Series, Settled},
    judge::{Judged, judge_all},
    report::Style,
};
use crate::{
    analysis::{State, Thresholds},
    cli,
    host::pattern::glob,
};

pub use self::read::ReadError;

pub const EXAMPLES: &str = "\
Examples:
  memtrace analyze history.csv                       each change of a verdict, then the final ones
  memtrace analyze history.csv --plot out.svg        and a picture
  memtrace analyze soak.csv --fail-on suspected      for CI: exit code 3 when something leaks
  memtrace analyze --limit 512MiB --time-scale 60 soak.csv
                                                     minutes stand for hours
  curl -sG http://prometheus:9090/api/v1/query_range -d step=60 \\
    -d start=2026-11-14T00:00:00Z -d end=2026-11-21T00:00:00Z \\
    --data-urlencode 'query={__name__=~\"container_memory_rss|container_spec_memory_limit_bytes\"}' \\
    | memtrace analyze -

Input, told apart by content; `-` is standard input:
  CSV   a header that names the columns, in any order: time_s (seconds) and at least one of
        anon_bytes, file_bytes, shmem_bytes, kernel_bytes, usage_bytes, working_set_bytes;
        series (else the file is the series), limit_bytes (`max` or 0: none), swap_bytes,
        cpu (cores in use), epoch (a new number: the container restarted)
  JSON  Prometheus' answer to a range query. Metrics with the same labels are one series
Nothing, NaN and infinity are gaps. Samples are put into order of time; those of one series and
time are made one, over all files, the later value counts. A limit holds until another is read.

Exit codes: 0 done, 1 failed (file and line are named), 2 wrong usage,
3 a series reached what --fail-on names.";

#[derive(Debug, Args)]
pub struct AnalyzeArgs {
    /// Recordings, `-` for standard input
    #[arg(value_name = "FILE", required_unless_present = "list_thresholds")]
    pub files: Vec<PathBuf>,

    /// One JSON object a line: `leak` for each change, `leak_verdict` for each series
    #[arg(long)]
    pub json: bool,

    /// Draw the series, floors, fits, limits and verdicts into this SVG file
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,

    /// Only series whose name matches: '*' matches any characters, '/' included
    #[arg(long, value_name = "GLOB", value_parser = glob)]
    pub series: Option<GlobMatcher>,

    /// What metrics of Prometheus are that are not known by name
    #[arg(long, value_enum, value_name = "SIGNAL")]
    pub signal: Option<SignalArg>,

    /// The limit where none was recorded: 512MiB, 2GiB
    #[arg(long, value_name = "SIZE", value_parser = cli::size)]
    pub limit: Option<u64>,

    /// Exit with code 3 if any series was ever found in this state or a worse one
    #[arg(long, value_enum, value_name = "STATE")]
    pub fail_on: Option<FailOn>,

    #[command(flatten)]
    pub thresholds: cli::ThresholdArgs,

    /// List the thresholds with their defaults and end
    #[arg(long)]
    pub list_thresholds: bool,
}

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum SignalArg {
    Anon,
    File,
    Shmem,
    Kernel,
    Usage,
    WorkingSet,
}

/// What is a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FailOn {
    Suspected,
    Confirmed,
}

/// Whether `--fail-on` was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Reached,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum AnalyzeError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("no samples in what was read")]
    Empty,
    #[error("no series matches {glob}; there are {count}: {names}")]
    NoMatch {
        glob: String,
        count: usize,
        /// The first few.
        names: String,
    },
    #[error("{0}; `memtrace analyze --list-thresholds` lists them")]
    Threshold(crate::analysis::ThresholdError),
    #[error("{}: {source}", path.display())]
    Plot {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

impl AnalyzeError {
    /// For the shell.
    pub fn exit_code(&self) -> u8 {
        match self {
            AnalyzeError::Threshold(_) => 2,
            _ => 1,
        }
    }
}

/// Does what `args` ask for to `out`; what is worth a remark goes to `remarks`. A reader that went away
/// is no error.
///
/// # Errors
/// What cannot be read, judged or written.
pub fn run(
    args: &AnalyzeArgs,
    colour: bool,
    out: &mut impl Write,
    remarks: &mut impl Write,
) -> Result<Outcome, AnalyzeError> {
    let thresholds = args
        .thresholds
        .thresholds()
        .map_err(AnalyzeError::Threshold)?;
    if args.list_thresholds {
        return ignore_closed(list(&thresholds, args.json, out)).map(|()| Outcome::Done);
    }
    let read = read_all(args, remarks)?;
    let judged = judge_all(&read.series, args.limit, &Arc::new(thresholds.clone()));
    let clock = Clock::of(&read.series);
    let rows: Vec<(&Series, &Judged)> = read.series.iter().zip(&judged).collect();
    // Before the text, which a closed pipe may end.
    if let Some(path) = &args.plot {
        let (svg, left_out) = picture::draw(&rows, args.limit, &thresholds, clock);
        fs::write(path, svg).map_err(|source| AnalyzeError::Plot {
            path: path.clone(),
            source,
        })?;
        if left_out > 0 {
            remark(
                remarks,
                &format!("{left_out} more series are not in the picture: the worst are"),
            );
        }
    }
    ignore_closed(tell(args, Style { colour, clock }, &rows, out))?;
    let bad = match args.fail_on {
        None => return Ok(Outcome::Done),
        Some(FailOn::Suspected) => State::Suspected,
        Some(FailOn::Confirmed) => State::Confirmed,
    };
    let reached = judged.iter().any(|judged| judged.worst() >= bad);
    Ok(if reached {
        Outcome::Reached
    } else {
        Outcome::Done
    })
}

fn list(thresholds: &Thresholds, json: bool, out: &mut impl Write) -> io::Result<()> {
    let width = Thresholds::TABLE
        .iter()
        .map(|row| row.name.len())
        .max()
        .unwrap_or_default();
    for (row, (name, value)) in Thresholds::TABLE.iter().zip(thresholds.values()) {
        let (doc, default) = (row.doc.trim(), row.default);
        if json {
            let line = serde_json::json!({
                "type": "threshold", "name": name, "value": value, "default": default, "doc": doc,
            });
            writeln!(out, "{line}")?;
        } else {
            let set = if value == default {
                String::new()
            } else {
                format!(" (default {default})")
            };
            writeln!(out, "{name:<width$}  {value:<6}  {doc}{set}")?;
        }
    }
    out.flush()
}

fn read_all(args: &AnalyzeArgs, remarks: &mut impl Write) -> Result<Settled, AnalyzeError> {
    let mut history = History::new(args.series.clone());
    let mut notes = Vec::new();
    for file in &args.files {
        read::read_path(
            file,
            args.signal.map(SignalArg::column),
            &mut history,
            &mut notes,
        )?;
    }
    let names = history.left_out_names();
    let read = history.settle();
    if read.back > 0 {
        notes.push(format!(
            "time went back {} times: the samples were put into order",
            read.back
        ));
    }
    if read.joined > 0 {
        notes.push(format!(
            "{} samples of a time that was there already were joined",
            read.joined
        ));
    }
    for note in notes {
        remark(remarks, &note);
    }
    match &args.series {
        Some(glob) if read.series.is_empty() && read.left_out > 0 => Err(AnalyzeError::NoMatch {
            glob: glob.glob().to_string(),
            count: read.left_out,
            names,
        }),
        _ if read
            .series
            .iter()
            .all(|series| series.times_ms().is_empty()) =>
        {
            Err(AnalyzeError::Empty)
        }
        _ => Ok(read),
    }
}

/// Standard error that is closed must not hide what is asked for.
fn remark(remarks: &mut impl Write, text: &str) {
    let _ = writeln!(remarks, "memtrace: {text}");
}

fn tell(
    args: &AnalyzeArgs,
    style: Style,
    rows: &[(&Series, &Judged)],
    out: &mut impl Write,
) -> io::Result<()> {
    let mut told: Vec<_> = rows
        .iter()
        .flat_map(|(series, judged)| judged.told.iter().map(move |told| (*series, told)))
        .collect();
    told.sort_by_key(|(_, told)| told.change.time_ms);
    for (series, told) in &told {
        if args.json {
            line::change(out, style.clock, series, told)?;
        } else {
            report::change(out, style, series, told)?;
        }
    }
    if args.json {
        for (series, judged) in rows {
            line::last(out, style.clock, series, judged)?;
        }
    } else {
        if !told.is_empty() {
            writeln!(out)?;
        }
        report::table(out, style, rows)?;
    }
    out.flush()
}

fn ignore_closed(result: io::Result<()>) -> Result<(), AnalyzeError> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

impl SignalArg {
    fn column(self) -> Column {
        match self {
            SignalArg::Anon => Column::Anon,
            SignalArg::File => Column::File,
            SignalArg::Shmem => Column::Shmem,
            SignalArg::Kernel => Column::Kernel,
            SignalArg::Usage => Column::Usage,
            SignalArg::WorkingSet => Column::WorkingSet,
        }
    }
}

#[cfg(test)]
#[path = "analyze_tests.rs"]
mod tests;
