//! Holds the figures against the project's aims.
//! Must not measure or format anything else.

use super::agent_cost::Cost;
use super::paths::Paths;
use super::programs::Comparison;
use super::rounds::Figure;
use super::tracer::Tracing;

const FAULT_RATIO: f64 = 1.06;
/// A bare system call where every system call pays for the per-call tracepoints.
const CALL_RATIO_TRACEPOINT: f64 = 1.35;
/// The same where only the hooked functions pay.
const CALL_RATIO_FUNCTION: f64 = 1.01;
const MIB: f64 = (1 << 20) as f64;

/// One aim and how it went.
#[derive(Debug, PartialEq)]
pub struct Verdict {
    pub what: String,
    pub aim: String,
    pub result: String,
    /// By how much the aim was missed.
    pub missed: Option<String>,
    /// The difference is smaller than that of two equal measurements.
    pub undecided: bool,
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
    verdict.undecided = (ours.ratio - theirs.ratio).abs() < noise;
    Some(verdict)
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
            missed: (mib > rss_mib).then(|| format!("{:.1} MiB", mib - rss_mib)),
            undecided: false,
        }
    };
    vec![
        memory("RSS", cost.rss_bytes),
        memory("peak RSS (start-up)", cost.peak_rss_bytes),
        Verdict {
            what: what("CPU"),
            aim: format!("≤ {cpu_percent}% of a core"),
            result: format!("{:.2}%", cost.cpu_percent),
            missed: (cost.cpu_percent > cpu_percent).then(|| {
                format!(
                    "{:.2} points ({:.1} times the aim)",
                    cost.cpu_percent - cpu_percent,
                    cost.cpu_percent / cpu_percent
                )
            }),
            undecided: false,
        },
    ]
}

fn ratio(what: &str, figure: &Figure, aim: f64) -> Verdict {
    Verdict {
        what: what.to_owned(),
        aim: format!("≤ {aim:.2}x"),
        result: format!("{:.3}x", figure.ratio),
        missed: (figure.ratio > aim).then(|| format!("{:.3}x", figure.ratio - aim)),
        undecided: false,
    }
}

fn better(what: &str, ours: &Figure, theirs: &Figure) -> Verdict {
    Verdict {
        what: what.to_owned(),
        aim: format!("better than bpftrace's {:.3}x", theirs.ratio),
        result: format!("{:.3}x", ours.ratio),
        missed: (ours.ratio >= theirs.ratio).then(|| format!("{:.3}x", ours.ratio - theirs.ratio)),
        undecided: false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn figure(ratio: f64) -> Figure {
        Figure {
            median: 1.0,
            added: 0.0,
            ratio,
            lowest_ratio: ratio,
            highest_ratio: ratio,
        }
    }

    #[test]
    fn a_miss_says_by_how_much() {
        assert_eq!(ratio("x", &figure(1.05), 1.06).missed, None);
        let missed = ratio("x", &figure(1.1), 1.06).missed;
        assert_eq!(missed.as_deref(), Some("0.040x"));
        let missed = better("x", &figure(1.5), &figure(1.4)).missed;
        assert_eq!(missed.as_deref(), Some("0.100x"));
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
        assert_eq!(verdicts[1].missed.as_deref(), Some("5.0 MiB"));
        assert_eq!(
            verdicts[2].missed.as_deref(),
            Some("0.25 points (1.5 times the aim)")
        );
        cost.cgroups = 5000;
        assert!(
            of_agent(&cost)
                .iter()
                .all(|verdict| verdict.missed.is_none())
        );
        cost.cgroups = 10;
        assert_eq!(of_agent(&cost), []);
    }
}
