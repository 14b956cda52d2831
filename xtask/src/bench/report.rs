//! Writes the results as Markdown, numbers from the run only.
//! Must not judge: see `aims`.

use std::fmt::Write as _;

use std::time::Duration;

use super::accounting::Program;
use super::agent_cost::{Cost, INTERVAL};
use super::aims::{self, Outcome, Verdict};
use super::lifecycle::{Lifecycle, LifecycleFigures};
use super::machine::Machine;
use super::oom::{Latency, percentile};
use super::paths::{PathFigures, Paths};
use super::programs::Comparison;
use super::rounds::Figure;
use super::stacks::{SLOW_ROUNDS, Stacks};

const INTRODUCTION: &str = "\
# Benchmarks

Made by `cargo xtask bench`, which writes this file; every number is from the run named here.
Nanoseconds belong to this machine; compare ratios.
";

const AIMS_METHOD: &str = "\
*Less than the noise*: the result is nearer to its aim than `off, again`, with 95% confidence, is to `off`; it neither
meets nor misses it. Of latencies and of the agent no two equal measurements tell the noise.
";

const PATHS_METHOD: &str = "\
One process on one CPU repeats each path; the median batch of its CPU time counts. *Page fault*: map
64 MiB without huge pages, touch each page, unmap, per page. *getppid*: the bare system call. *mmap +
munmap*: a pair of one page. Every round starts each tracer anew, waits until it is attached, measures
and ends it; the order rotates. *Added* and *ratio* compare with `off` of the same round: the median,
and the ratio's lowest and highest. `off, again` shows the noise. *bpftrace* runs a script
(`xtask/src/bench/counts.bt`) that counts the same things: page faults per cgroup and process, and the
bytes of mmap, munmap, mremap, brk and madvise per process.
";

const LIFECYCLE_METHOD: &str = "\
What the hooks that incidents need cost while there is no OOM. *Signal*: kill(2) to oneself, with a
handler. *Fork*: fork, `_exit` and wait. *Exec*: fork, exec of `/bin/true` and wait; its loader maps and
touches memory. CPU time of the process and of the children it waited for, on one CPU. `memtrace oom`
has neither heap nor fault hooks, `memtrace` (`run`, with the defaults) has both. Rounds as above; the interval is that of the median ratio with 95% confidence. A cost counts as *not measurable*
while its ratio is no higher than the upper end of the interval of `off, again`, and that interval is no
wider than 0.1.
";

const PROGRAMS_METHOD: &str = "\
*Build*: 8 generated C files, one `cc -O1 -c` after the other. *Database*: Python's SQLite with all
data in memory (`xtask/src/bench/database.py`). Rounds as above; the CPU time is the program's own,
user and system, and suffers less from what else the machine does than wall time.
";

const STACKS_METHOD: &str = "\
One process each, which waits until the profiler is attached, then works; CPU time is its own, with that of what
wraps it. *Compiler*: `cc1 -O1` on generated C. *Database*: as above. *Service*: Python, JSON in and out, sessions
and a cache (`xtask/src/bench/stacks/service.py`). memtrace watches the whole host, and the stacks of all that is
resident, with its defaults; bpftrace's script for page faults the whole host too, but every first touch, resident or
not; the other ones this process alone, and only what its C library allocates (heaptrack, massif and memleak see
nothing of what Python takes from its own arenas but the arenas). *Profiler's CPU* is what its own process used
meanwhile; that of heaptrack's interpreter is in the program's.
";

const AGENT_METHOD: &str = "\
cgroups made with mkdir, pods of four containers; in up to 50 containers a process, of which 10 touch
64 KiB every 250 ms. CPU is user and system time of all threads of `memtrace run` behind the first
interval, of one core; start-up is what it took until then. JSON goes to
/dev/null.
";

const OOM_METHOD: &str = "\
From the moment that the kernel marks the victim (`CLOCK_BOOTTIME`, taken by the BPF program, the
incident's `boot_time_ns`) to the moment, on the same clock, at which another process has read the whole
line from the pipe, or the whole OTLP/HTTP request from the loopback device. A process enters a cgroup
with a limit of 4 MiB and touches memory until it is killed; 10 such cgroups take turns, the next process
starts 60 ms after the last one ended. `memtrace run -o json` with the default interval, store and OTLP
on, past its first interval. *Full load* is a busy process per CPU at nice 0, and 500 cgroups as in \"The
agent itself\". While it kills the kernel prints a report, in the context of the trigger and without
giving up the CPU; a serial console takes milliseconds for it. *Console as it is* has that time in it,
the other settings raise the console's log level meanwhile. `oom_kill` is written at once. `oom_incident` and the event wait by design until the
victim is dead and 50 ms have gone by since its mark, in case others are killed with it.
";

/// All that was measured; what was not asked for is absent.
#[derive(Debug, Default)]
pub struct Results {
    pub paths: Option<Paths>,
    pub lifecycle: Option<Lifecycle>,
    pub oom: Vec<Latency>,
    pub programs: Vec<Comparison>,
    pub stacks: Vec<Stacks>,
    pub agent: Vec<Cost>,
    pub path_rounds: usize,
    pub lifecycle_rounds: usize,
    pub program_rounds: usize,
    pub stacks_rounds: usize,
}

/// The whole document.
pub fn markdown(machine: &Machine, results: &Results) -> String {
    let mut text = format!("{INTRODUCTION}\n{machine}\n");
    aims_table(&mut text, results);
    if let Some(paths) = &results.paths {
        paths_section(&mut text, paths, results.path_rounds);
    }
    if let Some(lifecycle) = &results.lifecycle {
        lifecycle_section(&mut text, lifecycle, results.lifecycle_rounds);
    }
    if !results.oom.is_empty() {
        oom_section(&mut text, &results.oom);
    }
    if !results.programs.is_empty() {
        let _ = write!(text, "\n## Real programs\n\n{PROGRAMS_METHOD}");
        let _ = writeln!(text, "{} rounds.", results.program_rounds);
        for comparison in &results.programs {
            program_table(&mut text, comparison);
        }
    }
    if !results.stacks.is_empty() {
        let _ = write!(text, "\n## Which code grows\n\n{STACKS_METHOD}");
        let _ = writeln!(
            text,
            "{} rounds, {SLOW_ROUNDS} of those that look at every call of the allocator.",
            results.stacks_rounds
        );
        for stacks in &results.stacks {
            stacks_table(&mut text, stacks);
        }
    }
    if !results.agent.is_empty() {
        agent_section(&mut text, &results.agent);
    }
    text
}

fn aims_table(text: &mut String, results: &Results) {
    let mut verdicts: Vec<Verdict> = Vec::new();
    verdicts.extend(results.paths.iter().flat_map(aims::of_paths));
    verdicts.extend(results.lifecycle.iter().flat_map(aims::of_lifecycle));
    verdicts.extend(results.oom.iter().flat_map(aims::of_oom));
    verdicts.extend(results.programs.iter().filter_map(aims::of_program));
    verdicts.extend(results.stacks.iter().filter_map(aims::of_stacks));
    verdicts.extend(results.agent.iter().flat_map(aims::of_agent));
    if verdicts.is_empty() {
        return;
    }
    let _ = write!(text, "\n## Aims\n\n{AIMS_METHOD}");
    text.push_str("\n| what | aim | result | |\n|---|---|--:|---|\n");
    for Verdict {
        what,
        aim,
        result,
        outcome,
    } in verdicts
    {
        let verdict = match outcome {
            Outcome::Met => "ok".to_owned(),
            Outcome::Missed(by) => format!("**missed** by {by}"),
            Outcome::Undecided(why) => format!("undecided: {why}"),
        };
        let _ = writeln!(text, "| {what} | {aim} | {result} | {verdict} |");
    }
}

fn paths_section(text: &mut String, paths: &Paths, rounds: usize) {
    let _ = write!(text, "\n## Kernel paths\n\n{PATHS_METHOD}");
    let _ = writeln!(
        text,
        "{rounds} rounds. memtrace's hook on mmap here: `{}`.",
        paths.heap_hook
    );
    path_table(text, "Page fault", paths, |figures| &figures.fault);
    path_table(text, "getppid", paths, |figures| &figures.getppid);
    path_table(text, "mmap + munmap", paths, |figures| &figures.map);
    accounting_table(text, &paths.programs);
}

fn lifecycle_section(text: &mut String, lifecycle: &Lifecycle, rounds: usize) {
    let _ = write!(text, "\n## Signals and processes\n\n{LIFECYCLE_METHOD}");
    let _ = writeln!(text, "{rounds} rounds.");
    lifecycle_table(text, "Signal", lifecycle, |figures| &figures.signal);
    lifecycle_table(text, "Fork", lifecycle, |figures| &figures.fork);
    lifecycle_table(text, "Exec", lifecycle, |figures| &figures.exec);
    accounting_table(text, &lifecycle.programs);
}

fn lifecycle_table(
    text: &mut String,
    title: &str,
    lifecycle: &Lifecycle,
    path: fn(&LifecycleFigures) -> &Figure,
) {
    let _ = write!(
        text,
        "\n### {title}\n\n\
         | tracer | ns | added ns | ratio | 95% | lowest..highest |\n|---|--:|--:|--:|--:|--:|\n"
    );
    for (tracing, figures) in &lifecycle.rows {
        let figure = path(figures);
        let (lower, upper) = figure.confidence;
        let _ = writeln!(
            text,
            "| {} | {:.0} | {:+.0} | {:.3}x | {lower:.3}..{upper:.3} | {:.3}..{:.3} |",
            tracing.name(),
            figure.median,
            figure.added,
            figure.ratio,
            figure.lowest_ratio,
            figure.highest_ratio
        );
    }
}

fn oom_section(text: &mut String, settings: &[Latency]) {
    let _ = write!(text, "\n## From an OOM kill to its telling\n\n{OOM_METHOD}");
    // Under full load to wait for a CPU is most of what there is to measure.
    text.push_str(if settings.iter().all(|latency| latency.read_at_once) {
        "The reader has real-time priority, memtrace has not: it waits for a CPU like any other process.\n"
    } else {
        "The reader could not have real-time priority: it waited for a CPU too, and that is counted.\n"
    });
    text.push_str(
        "\n| machine | from the kill to | told | p50 ms | p99 ms | longest ms |\n\
         |---|---|--:|--:|--:|--:|\n",
    );
    for latency in settings {
        let delays = &latency.delays;
        for (what, sorted) in [
            ("`oom_kill` line", &delays.mark),
            ("`oom_incident` line", &delays.incident),
            ("event at the OTLP backend", &delays.event),
            ("the victim's death, for comparison", &delays.death),
        ] {
            let ms = |percent: usize| {
                let time: Option<Duration> = percentile(sorted, percent);
                time.map_or_else(
                    || "none".to_owned(),
                    |time| format!("{:.2}", time.as_secs_f64() * 1e3),
                )
            };
            let _ = writeln!(
                text,
                "| {} | {what} | {} of {} | {} | {} | {} |",
                latency.setting.name(),
                sorted.len(),
                latency.kills,
                ms(50),
                ms(99),
                ms(100)
            );
        }
    }
}

fn accounting_table(text: &mut String, programs: &[Program]) {
    if programs.is_empty() {
        return;
    }
    text.push_str(
        "\n### Time inside memtrace's BPF programs\n\n\
         As the kernel accounts it (`kernel.bpf_stats_enabled`) in one more run of the same load; the\n\
         accounting itself is part of these times.\n\n\
         | program | runs | ns per run |\n|---|--:|--:|\n",
    );
    for program in programs {
        let _ = writeln!(
            text,
            "| {} | {} | {:.0} |",
            program.probe, program.runs, program.ns_per_run
        );
    }
}

fn path_table(text: &mut String, title: &str, paths: &Paths, path: fn(&PathFigures) -> &Figure) {
    let _ = write!(
        text,
        "\n### {title}\n\n\
         | tracer | ns | added ns | ratio | lowest..highest |\n|---|--:|--:|--:|--:|\n"
    );
    for (tracing, figures) in &paths.rows {
        let figure = path(figures);
        let _ = writeln!(
            text,
            "| {} | {:.0} | {:+.0} | {} |",
            tracing.name(),
            figure.median,
            figure.added,
            ratio(figure)
        );
    }
}

fn program_table(text: &mut String, comparison: &Comparison) {
    let _ = write!(
        text,
        "\n### {}\n\n| tracer | wall ms | ratio | lowest..highest | CPU ms | ratio | lowest..highest |\n\
         |---|--:|--:|--:|--:|--:|--:|\n",
        comparison.name
    );
    for (tracing, wall, cpu) in &comparison.rows {
        let _ = writeln!(
            text,
            "| {} | {:.0} | {} | {:.0} | {} |",
            tracing.name(),
            wall.median,
            ratio(wall),
            cpu.median,
            ratio(cpu)
        );
    }
}

fn stacks_table(text: &mut String, stacks: &Stacks) {
    let _ = write!(
        text,
        "\n### {}\n\n| profiler | wall ms | ratio | lowest..highest | CPU ms | ratio | lowest..highest | profiler's CPU ms |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|\n",
        stacks.program
    );
    for row in &stacks.rows {
        let own = row.own_cpu_ms.map(|ms| format!("{ms:.0}"));
        let _ = writeln!(
            text,
            "| {} | {:.0} | {} | {:.0} | {} | {} |",
            row.profiler.name(),
            row.wall.median,
            ratio(&row.wall),
            row.cpu.median,
            ratio(&row.cpu),
            own.unwrap_or_default()
        );
    }
}

fn agent_section(text: &mut String, costs: &[Cost]) {
    let window = costs.iter().map(|cost| cost.window.as_secs()).max();
    let _ = write!(text, "\n## The agent itself\n\n{AGENT_METHOD}");
    let _ = writeln!(
        text,
        "Interval {} s, {} s each.\n\n\
         | cgroups | processes, growing | output | CPU | start-up CPU | RSS | peak RSS |\n\
         |--:|--:|---|--:|--:|--:|--:|",
        INTERVAL.as_secs(),
        window.unwrap_or_default()
    );
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    for cost in costs {
        let _ = writeln!(
            text,
            "| {} | {}, {} | {} | {:.2}% | {} ms | {:.1} MiB | {:.1} MiB |",
            cost.cgroups,
            cost.processes,
            cost.growing,
            cost.output,
            cost.cpu_percent,
            cost.startup_cpu.as_millis(),
            mib(cost.rss_bytes),
            mib(cost.peak_rss_bytes)
        );
    }
}

fn ratio(figure: &Figure) -> String {
    format!(
        "{:.3}x | {:.3}..{:.3}",
        figure.ratio, figure.lowest_ratio, figure.highest_ratio
    )
}
