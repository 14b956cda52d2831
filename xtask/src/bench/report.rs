//! Writes the results as Markdown, numbers from the run only.
//! Must not judge: see `aims`.

use std::fmt::Write as _;

use super::agent_cost::{Cost, INTERVAL};
use super::aims::{self, Verdict};
use super::machine::Machine;
use super::paths::{PathFigures, Paths};
use super::programs::Comparison;
use super::rounds::Figure;

const INTRODUCTION: &str = "\
# Benchmarks

Made by `cargo xtask bench`, which writes this file; every number is from the run named here.
Nanoseconds belong to this machine; compare ratios.
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

const PROGRAMS_METHOD: &str = "\
*Build*: 8 generated C files, one `cc -O1 -c` after the other. *Database*: Python's SQLite with all
data in memory (`xtask/src/bench/database.py`). Rounds as above; the CPU time is the program's own,
user and system, and suffers less from what else the machine does than wall time.
";

const AGENT_METHOD: &str = "\
cgroups made with mkdir, pods of four containers; in up to 50 containers a process, of which 10 touch
64 KiB every 250 ms. CPU is user and system time of all threads of `memtrace run` behind the first
interval, of one core; start-up is what it took until then. JSON goes to
/dev/null.
";

/// All that was measured; what was not asked for is absent.
#[derive(Debug, Default)]
pub struct Results {
    pub paths: Option<Paths>,
    pub programs: Vec<Comparison>,
    pub agent: Vec<Cost>,
    pub path_rounds: usize,
    pub program_rounds: usize,
}

/// The whole document.
pub fn markdown(machine: &Machine, results: &Results) -> String {
    let mut text = format!("{INTRODUCTION}\n{machine}\n");
    aims_table(&mut text, results);
    if let Some(paths) = &results.paths {
        paths_section(&mut text, paths, results.path_rounds);
    }
    if !results.programs.is_empty() {
        let _ = write!(text, "\n## Real programs\n\n{PROGRAMS_METHOD}");
        let _ = writeln!(text, "{} rounds.", results.program_rounds);
        for comparison in &results.programs {
            program_table(&mut text, comparison);
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
    verdicts.extend(results.programs.iter().filter_map(aims::of_program));
    verdicts.extend(results.agent.iter().flat_map(aims::of_agent));
    if verdicts.is_empty() {
        return;
    }
    text.push_str("\n## Aims\n\n| what | aim | result | |\n|---|---|--:|---|\n");
    for Verdict {
        what,
        aim,
        result,
        missed,
        undecided,
    } in verdicts
    {
        let verdict = match missed {
            _ if undecided => "undecided: less than the noise".to_owned(),
            Some(by) => format!("**missed** by {by}"),
            None => "ok".to_owned(),
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
    if paths.programs.is_empty() {
        return;
    }
    text.push_str(
        "\n### Time inside memtrace's BPF programs\n\n\
         As the kernel accounts it (`kernel.bpf_stats_enabled`) in one more run of the same load; the\n\
         accounting itself is part of these times.\n\n\
         | program | runs | ns per run |\n|---|--:|--:|\n",
    );
    for program in &paths.programs {
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
