//! `cargo xtask fuzz`: coverage-guided fuzzing of every parser of untrusted bytes, with libFuzzer.
//! Must not know what a target does: `fuzz/` does, and docs/fuzzing.md tells it.

mod build;
mod corpus;
mod outcome;
mod table;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::beside;
use crate::deps::{self, Purpose};
use crate::process::progress;
use crate::workspace::Workspace;
use outcome::Outcome;

/// Longest input, bytes: the seeds fit.
const MOST_INPUT_BYTES: u32 = 16 << 10;
/// What one input may take; the machine may be busy.
const MOST_SECONDS_OF_INPUT: u32 = 25;
const MOST_MEMORY_MIB: u32 = 2048;
/// In memory, where a machine has that: many targets write each input to a file.
const SHARED_MEMORY: &str = "/dev/shm";

/// Arguments of `cargo xtask fuzz`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Only these targets, separated by commas
    #[arg(long = "target", value_name = "NAME", value_delimiter = ',')]
    targets: Vec<String>,
    /// How long each target runs
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Targets at the same time [default: as many as there are CPUs]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Name the targets and end
    #[arg(long)]
    list: bool,
    /// Take what reaches new code into fuzz/corpus, as far as there is room
    #[arg(long)]
    keep: bool,
}

impl Args {
    /// What every change has to pass.
    pub fn every_change() -> Self {
        Args {
            targets: Vec::new(),
            seconds: 60,
            jobs: None,
            list: false,
            keep: false,
        }
    }
}

/// Where the fuzzer reads and writes.
struct Places {
    fuzzer: PathBuf,
    /// Committed.
    corpora: PathBuf,
    dictionary: PathBuf,
    /// What was learned here: begun with next time.
    learned: PathBuf,
    findings: PathBuf,
    logs: PathBuf,
    /// For files of the targets; removed at the end.
    scratch: PathBuf,
}

/// Builds, runs the targets, and fails if one of them found something.
pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let corpora = workspace.root().join("fuzz/corpus");
    let targets = chosen(&corpus::names(&corpora)?, &args.targets)?;
    if args.list {
        targets.iter().for_each(|target| println!("{target}"));
        return Ok(());
    }
    deps::ensure(&[Purpose::Compiler])?;
    let target = workspace.target().join("fuzz");
    let places = Places {
        fuzzer: build::fuzzer(workspace, &target)?,
        corpora,
        dictionary: workspace.root().join("fuzz/dictionary.txt"),
        learned: target.join("learned"),
        findings: target.join("findings"),
        logs: target.join("logs"),
        scratch: scratch(&target)?,
    };
    let outcomes = run_all(&places, &targets, args);
    let kept = outcomes
        .as_ref()
        .ok()
        .filter(|_| args.keep)
        .map(|_| targets.iter().try_for_each(|target| keep(&places, target)));
    let _ = fs::remove_dir_all(&places.scratch);
    let outcomes = outcomes?;
    kept.transpose()?;
    print!("{}", table::of(&outcomes));
    let found: Vec<&PathBuf> = outcomes.iter().flat_map(|it| &it.findings).collect();
    if found.is_empty() {
        let failed = outcomes.iter().find(|outcome| !outcome.ended_well);
        if let Some(outcome) = failed {
            let log = places.logs.join(format!("{}.log", outcome.target));
            bail!(
                "{} did not run to its end: see {}",
                outcome.target,
                log.display()
            );
        }
        return Ok(());
    }
    let remedies: Vec<String> = outcomes
        .iter()
        .flat_map(|outcome| {
            outcome
                .findings
                .iter()
                .map(|path| again(&places, outcome, path))
        })
        .collect();
    bail!(
        "{} inputs break a promise; to run one again:\n{}",
        found.len(),
        remedies.join("\n")
    )
}

fn chosen(known: &[String], asked: &[String]) -> Result<Vec<String>> {
    for name in asked {
        ensure!(
            known.contains(name),
            "no target {name}; there are {}",
            known.join(", ")
        );
    }
    let is_chosen = |name: &&String| asked.is_empty() || asked.contains(name);
    Ok(known.iter().filter(is_chosen).cloned().collect())
}

fn scratch(target: &Path) -> Result<PathBuf> {
    let memory = Path::new(SHARED_MEMORY);
    let parent = if memory.is_dir() { memory } else { target };
    let scratch = parent.join(format!("memtrace-fuzz-{}", std::process::id()));
    fs::create_dir_all(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
    Ok(scratch)
}

fn run_all(places: &Places, targets: &[String], args: &Args) -> Result<Vec<Outcome>> {
    let jobs = args.jobs.unwrap_or_else(beside::cpus).max(1);
    progress(format!(
        "{} targets, {} s each, {jobs} at a time",
        targets.len(),
        args.seconds
    ));
    let outcomes = beside::each(targets, jobs, |target| -> Result<Outcome> {
        let outcome = run_one(places, target, args.seconds)?;
        progress(format!("{target}: {}", outcome.summary()));
        Ok(outcome)
    });
    let mut outcomes = outcomes.into_iter().collect::<Result<Vec<Outcome>>>()?;
    outcomes.sort_by(|a, b| a.target.cmp(&b.target));
    Ok(outcomes)
}

fn run_one(places: &Places, target: &str, seconds: u32) -> Result<Outcome> {
    let learned = made(places.learned.join(target))?;
    let findings = made(places.findings.join(target))?;
    let before = corpus::files(&findings)?;
    let log = made(places.logs.clone())?.join(format!("{target}.log"));
    let file = fs::File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
    let mut prefix = OsString::from("-artifact_prefix=");
    prefix.push(findings.join(""));
    let mut dictionary = OsString::from("-dict=");
    dictionary.push(&places.dictionary);
    let status = fuzzer(places, target)
        .args([&learned, &places.corpora.join(target)])
        .args([prefix, dictionary])
        .args([
            format!("-max_total_time={seconds}"),
            format!("-max_len={MOST_INPUT_BYTES}"),
            format!("-timeout={MOST_SECONDS_OF_INPUT}"),
            format!("-report_slow_units={MOST_SECONDS_OF_INPUT}"),
            format!("-rss_limit_mb={MOST_MEMORY_MIB}"),
            "-print_final_stats=1".to_owned(),
        ])
        .stdout(Stdio::null())
        .stderr(file)
        .status()
        .with_context(|| format!("cannot start {}", places.fuzzer.display()))?;
    let text = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let mut outcome = Outcome::of_log(target, &String::from_utf8_lossy(&text));
    outcome.ended_well = status.success();
    outcome.findings = corpus::files(&findings)?;
    outcome.findings.retain(|path| !before.contains(path));
    Ok(outcome)
}

/// A run of one target.
fn fuzzer(places: &Places, target: &str) -> Command {
    let mut command = Command::new(&places.fuzzer);
    command
        .env("MEMTRACE_FUZZ_TARGET", target)
        .env("TMPDIR", &places.scratch)
        .stdin(Stdio::null());
    command
}

/// Adds to the committed corpus what was learned and reaches code that it does not.
fn keep(places: &Places, target: &str) -> Result<()> {
    let committed = places.corpora.join(target);
    let found = places.scratch.join(format!("found-{target}"));
    made(found.clone())?;
    corpus::copy(&committed, &found)?;
    let status = fuzzer(places, target)
        .args([
            "-set_cover_merge=1",
            // An input counts for the code that it reaches, not for how often.
            "-use_counters=0",
            &format!("-max_len={MOST_INPUT_BYTES}"),
        ])
        .args([&found, &places.learned.join(target)])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .with_context(|| format!("cannot start {}", places.fuzzer.display()))?;
    ensure!(
        status.success(),
        "what {target} learned cannot be put together"
    );
    corpus::add(&committed, &found)
}

fn made(directory: PathBuf) -> Result<PathBuf> {
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    Ok(directory)
}

fn again(places: &Places, outcome: &Outcome, input: &Path) -> String {
    format!(
        "  MEMTRACE_FUZZ_TARGET={} RUST_BACKTRACE=1 {} {}",
        outcome.target,
        places.fuzzer.display(),
        input.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_is_not_there_is_told_with_those_that_are() {
        let known = ["a".to_owned(), "b".to_owned()];
        assert_eq!(chosen(&known, &[]).unwrap(), known);
        assert_eq!(chosen(&known, &known[1..]).unwrap(), known[1..]);
        let error = chosen(&known, &["c".to_owned()]).unwrap_err().to_string();
        assert_eq!(error, "no target c; there are a, b");
    }
}
