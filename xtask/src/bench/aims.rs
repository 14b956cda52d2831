//! Holds the figures against the project's aims.
//! Must not measure or format anything else.

use std::time::Duration;

use super::agent_cost::Cost;
use super::lifecycle::{Lifecycle, LifecycleFigures};
use super::oom::{Latency, percentile};
use super::paths::{PathFigures, Paths};
use super::programs::Comparison;
use super::rounds::Figure;
use super::stacks::{Profiler, Stacks};
use super::tracer::Tracing;

const FAULT_RATIO: f64 = 1.06;
/// A bare system call where every system call pays for the per-call tracepoints.
const CALL_RATIO_TRACEPOINT: f64 = 1.35;
/// The same where only the hooked functions pay.
const CALL_RATIO_FUNCTION: f64 = 1.01;
/// Kill to line on stdout.
const LINE_P50: Duration = Duration::from_millis(2);
const LINE_P99: Duration = Duration::from_millis(20);
/// With two equal measurements further apart than this, nothing can be told of a small cost.
const MOST_NOISE: f64 = 0.05;
/// A program whose pages are sampled with their stacks, against itself untraced.
const STACKS_RATIO: f64 = 1.02;
const MIB: f64 = (1 << 20) as f64;

/// One aim and how it went.
#[derive(Debug, PartialEq)]
pub struct Verdict {
    pub what: String,
    pub aim: String,
    pub result: String,
    pub outcome: Outcome,
}

/// How an aim went.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    Met,
    /// By how much.
    Missed(String),
    /// Why it cannot be told.
    Undecided(&'static str),
}

const WITHIN_NOISE: Outcome = Outcome::Undecided("less than the noise");

impl Outcome {
    fn of(missed: Option<String>) -> Self {
        missed.map_or(Self::Met, Self::Missed)
    }

    /// Of a ratio that is so far from its aim.
    fn beyond_noise(self, difference: f64, again: &Figure) -> Self {
        match difference.abs() < noise(again) {
            true => WITHIN_NOISE,
            false => self,
        }
    }
}

/// How far the ratio of two equal measurements may be from 1.
fn noise(again: &Figure) -> f64 {
    let (lowest, highest) = again.confidence;
    (highest - 1.0).max(1.0 - lowest)
}

/// Of the paths of the kernel.
pub fn of_paths(paths: &Paths) -> Vec<Verdict> {
    let row = |wanted: Tracing| {
        let found = paths.rows.iter().find(|(tracing, _)| *tracing == wanted);
        found.map(|(_, figures)| figures)
    };
    let (Some(ours), Some(again)) = (row(Tracing::Memtrace), row(Tracing::OffAgain)) else {
        return Vec::new();
    };
    let call_aim = if paths.heap_hook.starts_with("tracepoint/") {
        CALL_RATIO_TRACEPOINT
    } else {
        CALL_RATIO_FUNCTION
    };
    let mut verdicts = vec![
        ratio("page fault", &ours.fault, FAULT_RATIO, &again.fault),
        ratio("getppid", &ours.getppid, call_aim, &again.getppid),
    ];
    if let Some(theirs) = row(Tracing::Bpftrace) {
        let mut better = |what: &str, path: fn(&PathFigures) -> &Figure| {
            verdicts.push(better(what, path(ours), path(theirs), path(again)));
        };
        better("page fault", |figures| &figures.fault);
        better("getppid", |figures| &figures.getppid);
        better("mmap + munmap", |figures| &figures.map);
    }
    verdicts
}

/// Of the hooks that only incidents need: none may be measurable while there is no OOM.
pub fn of_lifecycle(lifecycle: &Lifecycle) -> Vec<Verdict> {
    let row = |wanted: Tracing| {
        let found = lifecycle.rows.iter().find(|row| row.0 == wanted);
        found.map(|(_, figures)| figures)
    };
    let (Some(noise), Some(ours)) = (row(Tracing::OffAgain), row(Tracing::MemtraceOom)) else {
        return Vec::new();
    };
    let verdict = |what: &str, path: fn(&LifecycleFigures) -> &Figure| {
        not_measurable(&format!("{what}, `memtrace oom`"), path(ours), path(noise))
    };
    vec![
        verdict("signal", |figures| &figures.signal),
        verdict("fork", |figures| &figures.fork),
        verdict("exec", |figures| &figures.exec),
    ]
}

/// Of how soon an OOM kill is told.
pub fn of_oom(latency: &Latency) -> Vec<Verdict> {
    let setting = latency.setting.name();
    let delays = &latency.delays;
    let line = |percent: usize, aim: Duration| {
        let what = format!("OOM kill to `oom_kill` line, p{percent}, {setting}");
        let aim_text = format!("< {} ms", aim.as_millis());
        match percentile(&delays.mark, percent) {
            None => Verdict {
                what,
                aim: aim_text,
                result: "none".to_owned(),
                outcome: Outcome::Undecided("nothing was told"),
            },
            Some(time) => Verdict {
                what,
                aim: aim_text,
                result: format!("{:.2} ms", time.as_secs_f64() * 1e3),
                outcome: Outcome::of((time >= aim).then(|| {
                    let by = time.saturating_sub(aim);
                    format!("{:.2} ms", by.as_secs_f64() * 1e3)
                })),
            },
        }
    };
    let told = [&delays.mark, &delays.incident, &delays.event];
    let told = told.iter().map(|delays| delays.len()).min().unwrap_or(0);
    vec![
        line(50, LINE_P50),
        line(99, LINE_P99),
        Verdict {
            what: format!("OOM kills told in every way, {setting}"),
            aim: "all".to_owned(),
            result: format!("{told} of {}", latency.kills),
            outcome: Outcome::of(
                (told < latency.kills).then(|| format!("{} kills", latency.kills - told)),
            ),
        },
    ]
}

/// Of a real program: only that bpftrace costs more.
pub fn of_program(comparison: &Comparison) -> Option<Verdict> {
    let cpu = |wanted: Tracing| {
        let found = comparison.rows.iter().find(|row| row.0 == wanted);
        found.map(|(_, _, cpu)| cpu)
    };
    let what = format!("{}, CPU time", comparison.name);
    let (ours, theirs) = (cpu(Tracing::Memtrace)?, cpu(Tracing::Bpftrace)?);
    Some(better(&what, ours, theirs, cpu(Tracing::OffAgain)?))
}

/// Of a program whose stacks are sampled with the defaults.
pub fn of_stacks(stacks: &Stacks) -> Option<Verdict> {
    let cpu = |wanted: Profiler| {
        let found = stacks.rows.iter().find(|row| row.profiler == wanted);
        found.map(|row| &row.cpu)
    };
    let (ours, again) = (cpu(Profiler::Memtrace)?, cpu(Profiler::OffAgain)?);
    let difference = ours.ratio - STACKS_RATIO;
    let outcome = if difference <= 0.0 {
        Outcome::Met.beyond_noise(difference, again)
    } else if ours.confidence.0 > again.confidence.1 {
        // The whole interval is beyond what two equal measurements differ by.
        Outcome::Missed(format!("{difference:.3}x"))
    } else {
        WITHIN_NOISE
    };
    Some(Verdict {
        what: format!("{} with stacks, CPU time", stacks.program),
        aim: format!("≤ {STACKS_RATIO}x"),
        result: format!("{:.3}x", ours.ratio),
        outcome,
    })
}

/// Of the agent at the counts of cgroups that have an aim.
pub fn of_agent(cost: &Cost) -> Vec<Verdict> {
    let (rss_mib, cpu_percent) = match cost.cgroups {
        500 => (25.0, 0.5),
        5000 => (60.0, 3.0),
        _ => return Vec::new(),
    };
    let what = |part: &str| {
        format!(
            "agent {part}, {} cgroups, `--output {}`",
            cost.cgroups, cost.output
        )
    };
    let memory = |part: &str, bytes: u64| {
        let mib = bytes as f64 / MIB;
        Verdict {
            what: what(part),
            aim: format!("≤ {rss_mib} MiB"),
            result: format!("{mib:.1} MiB"),
            outcome: Outcome::of((mib > rss_mib).then(|| format!("{:.1} MiB", mib - rss_mib))),
        }
    };
    vec![
        memory("RSS", cost.rss_bytes),
        memory("peak RSS (start-up)", cost.peak_rss_bytes),
        Verdict {
            what: what("CPU"),
            aim: format!("≤ {cpu_percent}% of a core"),
            result: format!("{:.2}%", cost.cpu_percent),
            outcome: Outcome::of((cost.cpu_percent > cpu_percent).then(|| {
                format!(
                    "{:.2} points ({:.1} times the aim)",
                    cost.cpu_percent - cpu_percent,
                    cost.cpu_percent / cpu_percent
                )
            })),
        },
    ]
}

fn ratio(what: &str, figure: &Figure, aim: f64, again: &Figure) -> Verdict {
    let difference = figure.ratio - aim;
    let missed = (difference > 0.0).then(|| format!("{difference:.3}x"));
    Verdict {
        what: what.to_owned(),
        aim: format!("≤ {aim:.2}x"),
        result: format!("{:.3}x", figure.ratio),
        outcome: Outcome::of(missed).beyond_noise(difference, again),
    }
}

/// Met when the ratio is no higher than two equal measurements may differ.
fn not_measurable(what: &str, ours: &Figure, noise: &Figure) -> Verdict {
    let (lowest, highest) = noise.confidence;
    let by = ours.ratio - highest.max(1.0);
    let outcome = if by > 0.0 && ours.confidence.0 > 1.0 {
        Outcome::Missed(format!("{by:.3}x"))
    } else if by > 0.0 {
        WITHIN_NOISE
    } else if highest - lowest > 2.0 * MOST_NOISE {
        Outcome::Undecided("too much noise")
    } else {
        Outcome::Met
    };
    Verdict {
        what: what.to_owned(),
        aim: format!("not measurable: noise {lowest:.3}..{highest:.3}"),
        result: format!("{:.3}x", ours.ratio),
        outcome,
    }
}

fn better(what: &str, ours: &Figure, theirs: &Figure, again: &Figure) -> Verdict {
    let difference = ours.ratio - theirs.ratio;
    let missed = (difference >= 0.0).then(|| format!("{difference:.3}x"));
    Verdict {
        what: what.to_owned(),
        aim: format!("better than bpftrace's {:.3}x", theirs.ratio),
        result: format!("{:.3}x", ours.ratio),
        outcome: Outcome::of(missed).beyond_noise(difference, again),
    }
}

#[cfg(test)]
#[path = "aims_tests.rs"]
mod tests;
