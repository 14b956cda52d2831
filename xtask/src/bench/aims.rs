//! Holds the figures against the project's aims.
//! Must not measure or format anything else.

use std::time::Duration;

use super::agent_cost::Cost;
use super::lifecycle::{Lifecycle, LifecycleFigures};
use super::oom::{Latency, percentile};
use super::paths::Paths;
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

impl Outcome {
    fn of(missed: Option<String>) -> Self {
        missed.map_or(Self::Met, Self::Missed)
    }
}

/// Of the paths of the kernel.
pub fn of_paths(paths: &Paths) -> Vec<Verdict> {
    let row = |wanted: Tracing| {
        let found = paths.rows.iter().find(|(tracing, _)| *tracing == wanted);
        found.map(|(_, figures)| figures)
    };
    let Some(ours) = row(Tracing::Memtrace) else {
        return Vec::new();
    };
    let call_aim = if paths.heap_hook.starts_with("tracepoint/") {
        CALL_RATIO_TRACEPOINT
    } else {
        CALL_RATIO_FUNCTION
    };
    let mut verdicts = vec![
        ratio("page fault", &ours.fault, FAULT_RATIO),
        ratio("getppid", &ours.getppid, call_aim),
    ];
    if let Some(theirs) = row(Tracing::Bpftrace) {
        verdicts.push(better("page fault", &ours.fault, &theirs.fault));
        verdicts.push(better("getppid", &ours.getppid, &theirs.getppid));
        verdicts.push(better("mmap + munmap", &ours.map, &theirs.map));
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
    let noise = (cpu(Tracing::OffAgain)?.ratio - 1.0).abs();
    let mut verdict = better(&what, ours, theirs);
    if (ours.ratio - theirs.ratio).abs() < noise {
        verdict.outcome = Outcome::Undecided("less than the noise");
    }
    Some(verdict)
}

/// Of a program whose stacks are sampled with the defaults.
pub fn of_stacks(stacks: &Stacks) -> Option<Verdict> {
    let cpu = |wanted: Profiler| {
        let found = stacks.rows.iter().find(|row| row.profiler == wanted);
        found.map(|row| &row.cpu)
    };
    let (ours, noise) = (cpu(Profiler::Memtrace)?, cpu(Profiler::OffAgain)?);
    let missed = (ours.ratio > STACKS_RATIO).then(|| format!("{:.3}x", ours.ratio - STACKS_RATIO));
    let outcome = match missed {
        // The whole interval is beyond what two equal measurements differ by.
        Some(by) if ours.confidence.0 > noise.confidence.1 => Outcome::Missed(by),
        Some(_) => Outcome::Undecided("less than the noise"),
        None => Outcome::Met,
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

fn ratio(what: &str, figure: &Figure, aim: f64) -> Verdict {
    Verdict {
        what: what.to_owned(),
        aim: format!("≤ {aim:.2}x"),
        result: format!("{:.3}x", figure.ratio),
        outcome: Outcome::of((figure.ratio > aim).then(|| format!("{:.3}x", figure.ratio - aim))),
    }
}

/// Met when the ratio is no higher than two equal measurements may differ.
fn not_measurable(what: &str, ours: &Figure, noise: &Figure) -> Verdict {
    let (lowest, highest) = noise.confidence;
    let by = ours.ratio - highest.max(1.0);
    let outcome = if by > 0.0 && ours.confidence.0 > 1.0 {
        Outcome::Missed(format!("{by:.3}x"))
    } else if by > 0.0 {
        Outcome::Undecided("less than the noise")
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

fn better(what: &str, ours: &Figure, theirs: &Figure) -> Verdict {
    Verdict {
        what: what.to_owned(),
        aim: format!("better than bpftrace's {:.3}x", theirs.ratio),
        result: format!("{:.3}x", ours.ratio),
        outcome: Outcome::of(
            (ours.ratio >= theirs.ratio).then(|| format!("{:.3}x", ours.ratio - theirs.ratio)),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::oom::{Delays, Setting};

    fn missed(by: &str) -> Outcome {
        Outcome::Missed(by.to_owned())
    }

    fn figure(ratio: f64) -> Figure {
        Figure {
            median: 1.0,
            added: 0.0,
            ratio,
            lowest_ratio: ratio,
            highest_ratio: ratio,
            confidence: (ratio, ratio),
        }
    }

    #[test]
    fn a_miss_says_by_how_much() {
        assert_eq!(ratio("x", &figure(1.05), 1.06).outcome, Outcome::Met);
        let outcome = ratio("x", &figure(1.1), 1.06).outcome;
        assert_eq!(outcome, missed("0.040x"));
        let outcome = better("x", &figure(1.5), &figure(1.4)).outcome;
        assert_eq!(outcome, missed("0.100x"));
    }

    #[test]
    fn a_cost_is_measurable_when_two_equal_measurements_differ_less() {
        let noise = |lowest, highest| Figure {
            confidence: (lowest, highest),
            ..figure(1.0)
        };
        let outcome = |ratio, noise: &Figure| not_measurable("x", &figure(ratio), noise).outcome;
        assert_eq!(outcome(1.01, &noise(0.98, 1.015)), Outcome::Met);
        assert_eq!(outcome(0.9, &noise(0.98, 1.015)), Outcome::Met);
        assert_eq!(outcome(1.02, &noise(0.98, 1.015)), missed("0.005x"));
        // Faster twice is noise too.
        assert_eq!(outcome(1.0, &noise(0.97, 0.99)), Outcome::Met);
        let undecided = Outcome::Undecided("too much noise");
        assert_eq!(outcome(1.0, &noise(0.9, 1.01)), undecided);
        assert_eq!(outcome(1.5, &noise(0.7, 1.3)), missed("0.200x"));
        let unsure = Figure {
            confidence: (0.99, 1.1),
            ..figure(1.02)
        };
        let outcome = not_measurable("x", &unsure, &noise(0.98, 1.015)).outcome;
        assert_eq!(outcome, Outcome::Undecided("less than the noise"));
    }

    #[test]
    fn kills_that_were_not_told_miss_the_aim() {
        let ms = Duration::from_millis;
        let mut latency = Latency {
            setting: Setting::Idle,
            kills: 2,
            delays: Delays {
                mark: vec![ms(1), ms(25)],
                incident: vec![ms(60), ms(70)],
                event: vec![ms(61)],
                death: Vec::new(),
            },
            read_at_once: true,
        };
        let verdicts = of_oom(&latency);
        assert_eq!(verdicts[0].outcome, Outcome::Met);
        assert_eq!(verdicts[1].outcome, missed("5.00 ms"));
        assert_eq!(verdicts[2].outcome, missed("1 kills"));
        latency.delays = Delays::default();
        let nothing = Outcome::Undecided("nothing was told");
        assert_eq!(of_oom(&latency)[0].outcome, nothing);
    }

    #[test]
    fn the_agents_aims_depend_on_the_number_of_cgroups() {
        let mut cost = Cost {
            cgroups: 500,
            processes: 50,
            growing: 10,
            output: "none",
            rss_bytes: 20 << 20,
            peak_rss_bytes: 30 << 20,
            cpu_percent: 0.75,
            startup_cpu: Duration::ZERO,
            window: Duration::from_secs(60),
        };
        let verdicts = of_agent(&cost);
        assert_eq!(verdicts[1].outcome, missed("5.0 MiB"));
        assert_eq!(
            verdicts[2].outcome,
            missed("0.25 points (1.5 times the aim)")
        );
        cost.cgroups = 5000;
        assert!(
            of_agent(&cost)
                .iter()
                .all(|verdict| verdict.outcome == Outcome::Met)
        );
        cost.cgroups = 10;
        assert_eq!(of_agent(&cost), []);
    }
}
