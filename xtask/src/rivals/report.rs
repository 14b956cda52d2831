//! The page. Must not judge beyond comparing numbers of one column.

mod losses;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::Result;

use super::score::Score;
use super::seen::Leak;
use super::truth::{Manner, Truth};
use super::{Row, Run};

const MIB: f64 = (1 << 20) as f64;
/// By design.
const NOT_TOLD: &str = "–";
const LAST_PARTS: &str = "\
Not compared: cAdvisor, which is not to be had here; rezolus (5.4), which tells memory of the machine only, and no
kill and no process; bcc's Python tools, where libbpf-tools has the same ones. What each hook costs the traced
programs is measured in [benchmarks.md](benchmarks.md), how well leaks are told on labelled series in
[leaks.md](leaks.md), both beside other tools.
";

/// As Markdown.
pub fn page(host: Option<&Run>, machine: Option<&Run>) -> Result<String> {
    let mut page = String::from(
        "# Beside other tools\n\n\
         Made by `cargo xtask rivals`, which writes this file; every number is from the runs named here. One load\n\
         runs while memtrace and what people use instead look on, all at the same time, each with its defaults\n\
         (memtrace with JSON on its output, and no API and no names of containers). What the load did is known from\n\
         the kernel's word to the parent of each process. Tools are Debian 12's, `below` is from crates.io.\n\
         **–**: the tool does not tell that by design. The best number of a column is the highest of what a tool\n\
         tells, and the lowest of time, of false alarms and of cost; every other one is a loss. After the tables of a\n\
         part is each column in which memtrace loses.\n\n",
    );
    if let Some(run) = host {
        writeln!(page, "## On a host\n\n{}\n", run.place)?;
        load(&mut page, &run.truth)?;
        kills(&mut page, run)?;
        processes(&mut page, run)?;
        leaks(&mut page, run)?;
        costs(&mut page, run)?;
        losses::tell(&mut page, run, true)?;
        notes(&mut page, run)?;
    }
    if let Some(run) = machine {
        writeln!(
            page,
            "## In a virtual machine, with kprobes and cgroup v2\n\n{}\nIt is emulated: no cost is told.\n",
            run.place
        )?;
        load(&mut page, &run.truth)?;
        kills(&mut page, run)?;
        processes(&mut page, run)?;
        leaks(&mut page, run)?;
        losses::tell(&mut page, run, false)?;
        notes(&mut page, run)?;
    }
    page.push_str(LAST_PARTS);
    Ok(page)
}

fn load(page: &mut String, truth: &Truth) -> Result<()> {
    let kills = [
        (
            Manner::Container,
            "of containers whose cgroup goes with them",
        ),
        (Manner::Service, "of services whose cgroup stays"),
        (Manner::Storm, "in a storm, started within a moment"),
        (
            Manner::Elsewhere,
            "where another container of the pod ran out",
        ),
        (Manner::Group, "in group kills"),
    ];
    let kills: Vec<String> = kills
        .iter()
        .map(|(manner, words)| (truth.kills_in(*manner), words))
        .filter(|(count, _)| *count > 0)
        .map(|(count, words)| format!("{count} {words}"))
        .collect();
    let mut lives: Vec<_> = truth.shorts.iter().map(|short| short.lived).collect();
    lives.sort_unstable();
    let life = |share: f64| {
        let index = (lives.len() as f64 * share) as usize;
        lives.get(index).map_or(0, |life| life.as_millis())
    };
    writeln!(
        page,
        "The load, {:.0} min: {} OOM kills\n({});\n{} processes that touch 1 to 8 MiB and end, half of them in\n\
         cgroups of their own (life with start: median {} ms, nine in ten below {} ms); a leak of {:.1} MiB a minute \
         below a limit\nof {:.0} MiB; {} that only fill (no leak).\n{}\n",
        truth.length.as_secs_f64() / 60.0,
        truth.kills.len(),
        kills.join(", "),
        truth.shorts.len(),
        life(0.5),
        life(0.9),
        truth.leak.bytes_per_second as f64 * 60.0 / MIB,
        truth.leak.limit_bytes as f64 / MIB,
        truth.innocent.len(),
        kernel_count(truth),
    )?;
    Ok(())
}

/// Why the kernel's number is another than the load's.
fn kernel_count(truth: &Truth) -> String {
    let (own, kernel) = (truth.kills.len() as u64, truth.kernel_kills);
    let mut text = format!(
        "These {own} kills are the load's: processes that it started to be killed and saw killed, each once. The \
         kernel's own count\nof the whole machine (`oom_kill` of /proc/vmstat), against which tools that only count \
         the machine are held, rose by {kernel}"
    );
    let members = truth.kills.iter();
    let members = members.filter(|kill| kill.manner == Manner::Group);
    let groups: BTreeSet<&str> = members.map(|kill| kill.cgroup.as_str()).collect();
    let more = kernel.saturating_sub(own);
    let twice = more.min(groups.len() as u64);
    let causes = [
        (
            twice,
            "for the processes chosen in group kills, which it may count twice",
        ),
        (more - twice, "of none of the load's victims"),
    ];
    let causes = causes.iter().filter(|(count, _)| *count > 0);
    let causes: Vec<String> = causes
        .map(|(count, why)| format!("{count} {why}"))
        .collect();
    if !causes.is_empty() {
        let _ = write!(text, ": {more} more, {}", causes.join(", and "));
    }
    text.push('.');
    text
}

fn kills(page: &mut String, run: &Run) -> Result<()> {
    let (all, storm) = (run.truth.kills.len(), run.truth.kills_in(Manner::Storm));
    writeln!(page, "### OOM kills\n")?;
    writeln!(
        page,
        "| tool | seen, of {all} | of the storm's {storm} | victim's PID | victim's cgroup | whose limit | who ran out | its anonymous memory |"
    )?;
    writeln!(page, "|---|--:|--:|--:|--:|--:|--:|--:|")?;
    for row in &run.rows {
        let score = Score::of(&run.truth, &row.seen);
        let seen = match (score.kills, score.machine_kills) {
            (_, Some((told, kernel))) => format!("only the machine's number: {told} of {kernel}"),
            (kills, None) => number(kills),
        };
        writeln!(
            page,
            "| {} | {seen} | {} | {} | {} | {} | {} | {} |",
            row.name,
            number(score.storm_kills),
            number(score.right_pid),
            number(score.right_cgroup),
            number(score.right_limit),
            number(score.right_trigger),
            number(score.right_memory),
        )?;
    }
    writeln!(
        page,
        "\nEach number counts kills of which the tool told this, and told it right.\n"
    )?;
    Ok(())
}

fn processes(page: &mut String, run: &Run) -> Result<()> {
    writeln!(page, "### Short-lived processes\n")?;
    writeln!(
        page,
        "| tool | seen, of {} | their page faults told | told of the right cgroup |",
        run.truth.shorts.len()
    )?;
    writeln!(page, "|---|--:|--:|--:|")?;
    let (told, silent): (Vec<_>, Vec<_>) = run
        .rows
        .iter()
        .map(|row| (row, Score::of(&run.truth, &row.seen)))
        .partition(|(_, score)| score.shorts.is_some());
    for (row, score) in told {
        writeln!(
            page,
            "| {} | {} | {} | {} |",
            row.name,
            number(score.shorts),
            percent(score.faults),
            percent(score.faults_by_cgroup),
        )?;
    }
    not_told(page, silent.into_iter().map(|(row, _)| row))
}

fn leaks(page: &mut String, run: &Run) -> Result<()> {
    writeln!(page, "### The leak\n")?;
    writeln!(
        page,
        "| tool | told after | its memory then, of its limit | false alarms |"
    )?;
    writeln!(page, "|---|--:|--:|--:|")?;
    for row in &run.rows {
        if let Some(leak) = &row.seen.leak {
            let (told, share, alarms) = leak_row(leak, &run.truth);
            writeln!(page, "| {} | {told} | {share} | {alarms} |", row.name)?;
        }
    }
    not_told(page, run.rows.iter().filter(|row| row.seen.leak.is_none()))
}

/// Those that are not in a table.
fn not_told<'a>(page: &mut String, rows: impl Iterator<Item = &'a Row>) -> Result<()> {
    let names: Vec<&str> = rows.map(|row| row.name.as_str()).collect();
    if !names.is_empty() {
        writeln!(page, "\nBy design told by none of: {}.", names.join("; "))?;
    }
    writeln!(page)?;
    Ok(())
}

fn leak_row(leak: &Leak, truth: &Truth) -> (String, String, String) {
    let alarms = format!("{} of {}", leak.false_alarms.len(), truth.innocent.len());
    let Some(after) = leak.told_after else {
        let minutes = truth.length.as_secs_f64() / 60.0;
        return (format!("not in {minutes:.0} min"), String::new(), alarms);
    };
    let bytes = after.as_secs_f64() * truth.leak.bytes_per_second as f64;
    let share = 100.0 * bytes / truth.leak.limit_bytes as f64;
    let minutes = after.as_secs_f64() / 60.0;
    (format!("{minutes:.1} min"), format!("{share:.0}%"), alarms)
}

fn costs(page: &mut String, run: &Run) -> Result<()> {
    writeln!(page, "### What it costs\n")?;
    writeln!(
        page,
        "| tool | CPU, % of a core | RSS, MiB | highest RSS, MiB | PSS, MiB | of it anonymous, MiB | BPF maps, MiB | processes |"
    )?;
    writeln!(page, "|---|--:|--:|--:|--:|--:|--:|--:|")?;
    for row in &run.rows {
        let mib = |bytes: u64| format!("{:.1}", bytes as f64 / MIB);
        let maps = match row.cost.map_bytes {
            0 => String::new(),
            bytes => mib(bytes),
        };
        writeln!(
            page,
            "| {}{} | {:.2} | {} | {} | {} | {} | {maps} | {} |",
            row.name,
            if row.died { " (ended too early)" } else { "" },
            row.cost.cpu_percent,
            mib(row.cost.median_rss_bytes),
            mib(row.cost.highest_rss_bytes),
            mib(row.cost.median_pss_bytes),
            mib(row.cost.median_anon_bytes),
            row.cost.processes,
        )?;
    }
    writeln!(
        page,
        "\nOf the tool and all its children while the load ran, from /proc; memory is the median of a look every 5 s. \
         RSS counts a page\nin each process that has it, PSS shares it among them; what is not anonymous are pages of files, \
         which the kernel takes back when\nit needs memory. Starting up is not in it, nor what hooks take in the \
         traced programs. memtrace\nmaps the unwind tables of the programs that it samples and keeps their call paths: the more and \
         the larger programs run\nmeanwhile, the more; what it takes on a quiet host is in [benchmarks.md](benchmarks.md).\n"
    )?;
    Ok(())
}

fn notes(page: &mut String, run: &Run) -> Result<()> {
    for row in run.rows.iter().filter(|row| !row.seen.notes.is_empty()) {
        writeln!(page, "- {}: {}.", row.name, row.seen.notes.join("; "))?;
    }
    for line in &run.absent {
        writeln!(
            page,
            "- Not compared: {}.",
            line.lines().next().unwrap_or_default()
        )?;
    }
    writeln!(page)?;
    Ok(())
}

fn number(count: Option<usize>) -> String {
    count.map_or(NOT_TOLD.to_owned(), |count| count.to_string())
}

fn percent(share: Option<f64>) -> String {
    share.map_or(NOT_TOLD.to_owned(), |share| {
        format!("{:.1}%", 100.0 * share)
    })
}

#[cfg(test)]
mod tests {
    use super::super::cost::Cost;
    use super::super::seen::{Kills, Seen};
    use super::super::truth::Kill;
    use super::*;

    #[test]
    fn what_memtrace_loses_is_told() -> Result<()> {
        let row = |name: &str, mib: u64| Row {
            name: name.to_owned(),
            seen: Seen {
                kills: Kills::OfMachine { told: 3, kernel: 4 },
                ..Seen::default()
            },
            cost: Cost {
                median_rss_bytes: mib << 20,
                ..Cost::default()
            },
            died: false,
        };
        let run = Run {
            place: "somewhere".to_owned(),
            truth: Truth::default(),
            rows: vec![row("memtrace run", 20), row("small", 2), row("large", 40)],
            absent: vec!["nowhere: not here".to_owned()],
        };
        let page = page(Some(&run), None)?;
        assert!(page.contains("**memtrace loses** on RSS (20.00 MiB) to small (2.00)."));
        assert!(page.contains("only the machine's number: 3 of 4"));
        assert!(page.contains("Not compared: nowhere: not here"));
        Ok(())
    }

    #[test]
    fn a_count_of_the_kernel_that_is_not_the_loads_is_explained() {
        let kill = |pid: u32, cgroup: &str| Kill {
            pid,
            cgroup: cgroup.to_owned(),
            limit_cgroup: cgroup.to_owned(),
            trigger_pid: pid,
            anon_bytes: 0,
            manner: Manner::Group,
        };
        let mut truth = Truth {
            kills: vec![kill(1, "/a"), kill(2, "/a"), kill(3, "/b")],
            kernel_kills: 3,
            ..Truth::default()
        };
        assert!(kernel_count(&truth).ends_with("rose by 3."));
        truth.kernel_kills = 5;
        let text = kernel_count(&truth);
        assert!(text.contains("rose by 5: 2 more, 2 for the"), "{text}");
        truth.kernel_kills = 9;
        let text = kernel_count(&truth);
        assert!(text.contains("rose by 9: 6 more, 2 for the"), "{text}");
        assert!(
            text.contains("and 4 of none of the load's victims."),
            "{text}"
        );
    }
}
