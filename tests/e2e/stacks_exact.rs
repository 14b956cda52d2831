//! How exact the stacks of `memtrace record` are: against a program that touches known numbers of pages in
//! known functions and gives known ones back.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use memtrace_tests::cgroup::Cgroup;
use memtrace_tests::compiled::Compiled;
use memtrace_tests::machine::{self, MIB, PAGE};
use memtrace_tests::recording::{Figure, Recorder, Recording};
use memtrace_tests::workload::{Workload, join_before_exec};

const HUGE_PAGE: u64 = 2 * MIB;
/// The first page of a huge page is sampled so many times as often.
const BOUNDARY: u64 = 64;

/// Standard errors that one in 400 figures may be off by more, for chance.
const USUALLY: f64 = 3.0;
/// Standard errors that none may be off.
const NEVER: f64 = 5.0;
/// How many of all figures may be more than [`USUALLY`] off.
const MOST_UNUSUAL: usize = 2;
/// Pages beside the regions: of the stack, of libc, of page tables that are no memory of the function.
const SLACK: f64 = 4.0 * PAGE as f64;
/// From so many expected samples on, the stated error is known well enough to be judged.
const MANY_SAMPLES: f64 = 16.0;

/// What is true of a function after all was done, as shares of a region.
struct Truth {
    function: &'static str,
    resident: f64,
    growth: f64,
    /// Bytes of one sample, and how many times denser it is.
    sampled: (u64, u64),
}

const SMALL: (u64, u64) = (PAGE, 1);
const HUGE: (u64, u64) = (HUGE_PAGE, BOUNDARY);

const fn truth(function: &'static str, resident: f64, growth: f64, sampled: (u64, u64)) -> Truth {
    Truth {
        function,
        resident,
        growth,
        sampled,
    }
}

const TRUTHS: [Truth; 16] = [
    truth("keeps", 1.0, 0.0, SMALL),
    truth("keeps_huge", 1.0, 0.0, HUGE),
    truth("splits_huge", 0.75, 0.0, HUGE),
    truth("unmaps", 0.0, 0.0, SMALL),
    truth("unmaps_half", 0.5, 0.0, SMALL),
    truth("unmaps_half_huge", 0.5, 0.0, HUGE),
    truth("advises", 0.25, 0.0, SMALL),
    truth("touches_again", 0.25, 0.0, SMALL),
    truth("extends", 1.0, 0.0, SMALL),
    truth("reads", 0.0, 0.0, SMALL),
    // The child has its own copy of what it wrote to; what the parent writes to again is as old as it was.
    truth("parent_writes", 1.0, 0.0, SMALL),
    truth("child_writes", 0.5, 0.0, SMALL),
    truth("child_keeps", 1.0, 0.0, SMALL),
    truth("parent_writes_again", 0.0, 0.0, SMALL),
    // The second half.
    truth("gives_back_later", 0.0, -1.0, SMALL),
    truth("grows_later", 1.0, 1.0, SMALL),
];

/// In this order, and then, in the second half, what follows.
const FIRST_HALF: [&str; 12] = [
    "keeps",
    "keeps_huge",
    "splits_huge",
    "unmaps",
    "unmaps_half",
    "unmaps_half_huge",
    "advises",
    "touches_again",
    "extends",
    "gives_back_later",
    "reads",
    "parent_writes",
];
const SECOND_HALF: [&str; 2] = ["gives_back", "grows_later"];

fn make() -> Result<Option<Compiled>> {
    let source = ("truth.c", include_str!("../programs/stacks/truth.c"));
    let compiler = ["gcc", "-O2", "-Wall", "-Werror", "-o", "truth", "truth.c"];
    Compiled::make(&compiler, &[source])
}

fn start(made: &Compiled, cgroup: &Cgroup) -> Result<Workload> {
    let mut command = made.command("truth");
    join_before_exec(&mut command, cgroup)?;
    Workload::spawn(command)
}

fn order(program: &mut Workload, name: &str, bytes: u64) -> Result<()> {
    program.tell(&format!("{name} {bytes}"))?;
    let answer = program.line()?;
    ensure!(answer == "done", "{name}: {answer}");
    Ok(())
}

/// Size of a region and how long is recorded. Larger where fewer pages are sampled: each function has some
/// samples, and the test stays short. The first half is for what is there from the beginning, the second for
/// growth.
fn region(sample: u64) -> (u64, Duration) {
    match sample {
        ..=16 => (16 * MIB, Duration::from_secs(8)),
        17..=64 => (32 * MIB, Duration::from_secs(8)),
        _ => (128 * MIB, Duration::from_secs(16)),
    }
}

/// Figures against what they should be.
#[derive(Default)]
struct Judged {
    figures: usize,
    unusual: Vec<String>,
    impossible: Vec<String>,
    squares: f64,
}

impl Judged {
    /// `sample_bytes`: what one sample stands for.
    fn judge(&mut self, what: &str, figure: Figure, truth: f64, sample_bytes: f64) {
        if figure.bytes == 0.0 && truth == 0.0 {
            // Right, and not by chance.
            return;
        }
        // A few samples, or none, say little of their own error; here it is known what it should be.
        let expected = (truth.abs() * sample_bytes).sqrt();
        let known = Figure {
            error: figure.error.max(expected),
            ..figure
        };
        let off = known.off(truth, SLACK);
        let line = format!(
            "{what}: {:.2} ± {:.2} of {:.2} MiB, {off:+.2} standard errors",
            figure.bytes / MIB as f64,
            figure.error / MIB as f64,
            truth / MIB as f64,
        );
        println!("  {line}");
        self.figures += 1;
        self.squares += off * off;
        if off.abs() > NEVER {
            self.impossible.push(line.clone());
        }
        if off.abs() > USUALLY {
            self.unusual.push(line.clone());
        }
        let samples = truth.abs() / sample_bytes;
        let ratio = figure.error / expected;
        if samples >= MANY_SAMPLES && !(0.5..2.0).contains(&ratio) && sample_bytes > 0.0 {
            self.impossible
                .push(format!("{line}, and its error should be {expected:.0}"));
        }
    }
}

fn run(made: &Compiled, sample: u64, judged: &mut Judged) -> Result<()> {
    let (bytes, recorded) = region(sample);
    let cgroup = Cgroup::new("stacks-exact")?;
    let mut program = start(made, &cgroup)?;
    let path = cgroup.path();
    let arguments = ["--cgroup", &path, "--sample", &sample.to_string()];
    let recorder = Recorder::start(&arguments, recorded)?;
    let began = Instant::now();
    for name in FIRST_HALF {
        order(&mut program, name, bytes)?;
    }
    let took = began.elapsed();
    let half = machine::patience(recorded) / 2;
    ensure!(took < half - Duration::from_secs(1), "too slow: {took:?}");
    thread::sleep(half - took + Duration::from_millis(500));
    for name in SECOND_HALF {
        order(&mut program, name, bytes)?;
    }
    let recording = recorder.finish()?;
    println!("one page in {sample}, {} MiB each:", bytes / MIB);
    ensure!(recording.lost_samples == 0, "{}", recording.tree);
    judge(&recording, sample, bytes as f64, judged)
}

fn judge(recording: &Recording, sample: u64, bytes: f64, judged: &mut Judged) -> Result<()> {
    let mut sum = (Figure::default(), 0.0, 0.0);
    for truth in &TRUTHS {
        let found = recording.of_leaf(truth.function);
        let (sample_of, denser) = truth.sampled;
        let one_in = (sample / denser).max(1) as f64;
        // What every page is drawn of has no error.
        let sample_bytes = if one_in > 1.0 {
            one_in * sample_of as f64
        } else {
            0.0
        };
        let resident = bytes * truth.resident;
        judged.judge(truth.function, found.resident, resident, sample_bytes);
        let what = format!("growth of {}", truth.function);
        judged.judge(&what, found.growth, bytes * truth.growth, sample_bytes);
        sum.0.bytes += found.resident.bytes;
        sum.0.error = sum.0.error.hypot(found.resident.error);
        sum.1 += resident;
        sum.2 += resident * sample_bytes;
    }
    judged.judge("all together", sum.0, sum.1, sum.2 / sum.1);
    let unknown = recording.stacks.iter().find(|stack| {
        let named = stack.functions.iter().any(|name| name == "main");
        stack.resident.bytes > 2.0 * MIB as f64 && !named
    });
    ensure!(unknown.is_none(), "not of main: {unknown:?}");
    Ok(())
}

#[test]
fn estimates_are_as_exact_as_they_say_for_every_rate_of_sampling() -> Result<()> {
    let Some(made) = make()? else {
        return Ok(());
    };
    let mut judged = Judged::default();
    for sample in [16, 64, 512, 4096] {
        run(&made, sample, &mut judged)?;
    }
    let root_mean_square = (judged.squares / judged.figures as f64).sqrt();
    println!(
        "{} figures, {root_mean_square:.2} standard errors off in the root mean square",
        judged.figures
    );
    ensure!(judged.impossible.is_empty(), "{:#?}", judged.impossible);
    ensure!(
        judged.unusual.len() <= MOST_UNUSUAL,
        "{:#?}",
        judged.unusual
    );
    ensure!(root_mean_square < 1.5, "{root_mean_square}");
    Ok(())
}

/// What was sampled of small pages that are gone is no part of a huge page that lies there now.
#[test]
fn a_huge_page_where_small_ones_were_is_told_once() -> Result<()> {
    let Some(made) = make()? else {
        return Ok(());
    };
    let cgroup = Cgroup::new("stacks-huge-again")?;
    let mut program = start(&made, &cgroup)?;
    let pid = program.pid().to_string();
    let recorder = Recorder::start(&["--pid", &pid], Duration::from_secs(4))?;
    order(&mut program, "touches_small", 32 * MIB)?;
    order(&mut program, "touches_huge", 32 * MIB)?;
    let recording = recorder.finish()?;
    let told = recording.summary();
    let gone = recording.of_leaf("touches_small").resident.bytes;
    ensure!(gone < MIB as f64, "still resident:\n{told}");
    let huge = recording.of_leaf("touches_huge").resident;
    ensure!(huge.off(32.0 * MIB as f64, SLACK).abs() <= NEVER, "{told}");
    Ok(())
}

/// The kernel tells nobody of pages that move: they are missing, and never another function's.
#[test]
fn what_mremap_moved_is_told_of_nobody_else() -> Result<()> {
    let Some(made) = make()? else {
        return Ok(());
    };
    let cgroup = Cgroup::new("stacks-moved")?;
    let mut program = start(&made, &cgroup)?;
    let pid = program.pid().to_string();
    let recorder = Recorder::start(&["--pid", &pid], Duration::from_secs(4))?;
    order(&mut program, "moves", 64 * MIB)?;
    order(&mut program, "keeps", 64 * MIB)?;
    let recording = recorder.finish()?;
    let told = recording.summary();
    let sample_bytes = 64.0 * PAGE as f64;
    let mut judged = Judged::default();
    let kept = recording.of_leaf("keeps").resident;
    judged.judge("keeps", kept, 64.0 * MIB as f64, sample_bytes);
    let moved = recording.of_leaf("moves").resident;
    if moved.bytes > 0.0 {
        judged.judge("moves", moved, 64.0 * MIB as f64, sample_bytes);
    }
    ensure!(judged.impossible.is_empty(), "{told}");
    let all = recording.sum(|_| true).resident.bytes;
    ensure!(all - kept.bytes - moved.bytes < MIB as f64, "{told}");
    Ok(())
}

/// Another program in the same process has none of what the first one had.
#[test]
fn exec_gives_everything_back() -> Result<()> {
    let Some(made) = make()? else {
        return Ok(());
    };
    let cgroup = Cgroup::new("stacks-exec")?;
    let mut program = start(&made, &cgroup)?;
    let pid = program.pid().to_string();
    let recorder = Recorder::start(&["--pid", &pid], Duration::from_secs(6))?;
    order(&mut program, "keeps", 64 * MIB)?;
    // Seen before it goes.
    thread::sleep(Duration::from_millis(1500));
    order(&mut program, "execs", 0)?;
    order(&mut program, "grows_later", 32 * MIB)?;
    let recording = recorder.finish()?;
    let told = recording.summary();
    let kept = recording.of_leaf("keeps").resident.bytes;
    ensure!(kept == 0.0, "still resident after exec:\n{told}");
    let grown = recording.of_leaf("grows_later").resident;
    let mut judged = Judged::default();
    judged.judge("grows_later", grown, 32.0 * MIB as f64, 64.0 * PAGE as f64);
    judged
        .impossible
        .is_empty()
        .then_some(())
        .with_context(|| told)
}
