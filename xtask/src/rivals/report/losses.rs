//! The columns in which memtrace, the first row, is not the best. Must not weigh one column against another.

use std::fmt::Write as _;

use anyhow::Result;

use super::super::score::Score;
use super::super::{Row, Run};
use super::MIB;

#[derive(Debug, Clone, Copy)]
enum Best {
    Highest,
    Lowest,
}

#[derive(Debug)]
struct Column {
    what: &'static str,
    unit: &'static str,
    decimals: usize,
    best: Best,
    /// `None`: the tool has no such number.
    value: fn(&Row, &Score) -> Option<f64>,
}

impl Column {
    const fn count(what: &'static str, value: fn(&Row, &Score) -> Option<f64>) -> Self {
        Self {
            what,
            unit: "",
            decimals: 0,
            best: Best::Highest,
            value,
        }
    }

    const fn share(what: &'static str, value: fn(&Row, &Score) -> Option<f64>) -> Self {
        Self {
            unit: "%",
            decimals: 1,
            ..Self::count(what, value)
        }
    }

    const fn mib(what: &'static str, value: fn(&Row, &Score) -> Option<f64>) -> Self {
        Self {
            unit: " MiB",
            decimals: 2,
            best: Best::Lowest,
            ..Self::count(what, value)
        }
    }

    /// As far as it is shown. What memtrace does not tell at all counts as nothing.
    fn is_better(&self, value: f64, own: Option<f64>) -> bool {
        if own.is_some_and(|own| self.text(Some(own)) == self.text(Some(value))) {
            return false;
        }
        match self.best {
            Best::Highest => value > own.unwrap_or(0.0),
            Best::Lowest => own.is_some_and(|own| value < own),
        }
    }

    fn text(&self, value: Option<f64>) -> String {
        let decimals = self.decimals;
        match value.filter(|value| value.is_finite()) {
            Some(value) => format!("{value:.decimals$}"),
            None => "not told".to_owned(),
        }
    }
}

const TOLD: &[Column] = &[
    Column::count("OOM kills seen", |_, score| count(score.kills)),
    Column::count("OOM kills of the storm", |_, score| {
        count(score.storm_kills)
    }),
    Column::count("the victim's PID", |_, score| count(score.right_pid)),
    Column::count("the victim's cgroup", |_, score| count(score.right_cgroup)),
    Column::count("whose limit it was", |_, score| count(score.right_limit)),
    Column::count("who ran out", |_, score| count(score.right_trigger)),
    Column::count("the victim's anonymous memory", |_, score| {
        count(score.right_memory)
    }),
    Column::count("short-lived processes seen", |_, score| count(score.shorts)),
    Column::share("their page faults", |_, score| percent(score.faults)),
    Column::share("their page faults of the right cgroup", |_, score| {
        percent(score.faults_by_cgroup)
    }),
    Column {
        unit: " min",
        decimals: 1,
        best: Best::Lowest,
        ..Column::count("the time until the leak was told", |row, _| {
            let after = row.seen.leak.as_ref().and_then(|leak| leak.told_after);
            Some(after.map_or(f64::INFINITY, |after| after.as_secs_f64() / 60.0))
        })
    },
    Column {
        best: Best::Lowest,
        ..Column::count("false alarms of a leak", |row, _| {
            count(row.seen.leak.as_ref().map(|leak| leak.false_alarms.len()))
        })
    },
];

const COSTS: &[Column] = &[
    Column {
        unit: " % of a core",
        ..Column::mib("CPU", |row, _| Some(row.cost.cpu_percent))
    },
    Column::mib("RSS", |row, _| mib(row.cost.median_rss_bytes)),
    Column::mib("highest RSS", |row, _| mib(row.cost.highest_rss_bytes)),
    Column::mib("PSS", |row, _| mib(row.cost.median_pss_bytes)),
    Column::mib("anonymous memory", |row, _| mib(row.cost.median_anon_bytes)),
    // A tool without BPF has no such column.
    Column::mib("BPF maps", |row, _| {
        mib(row.cost.map_bytes).filter(|mib| *mib > 0.0)
    }),
    Column {
        best: Best::Lowest,
        ..Column::count("processes", |row, _| count(Some(row.cost.processes)))
    },
];

fn count(count: Option<usize>) -> Option<f64> {
    count.map(|count| count as f64)
}

fn percent(share: Option<f64>) -> Option<f64> {
    share.map(|share| 100.0 * share)
}

fn mib(bytes: u64) -> Option<f64> {
    Some(bytes as f64 / MIB)
}

/// One line a column; `costs`: whether what it costs was measured in earnest.
pub fn tell(page: &mut String, run: &Run, costs: bool) -> Result<()> {
    let scored: Vec<(&Row, Score)> = run
        .rows
        .iter()
        .map(|row| (row, Score::of(&run.truth, &row.seen)))
        .collect();
    let Some(((own_row, own_score), rest)) = scored.split_first() else {
        return Ok(());
    };
    let costs = if costs { COSTS } else { &[] };
    let mut is_best = true;
    let columns = TOLD.iter().map(|column| (column, false));
    for (column, is_cost) in columns.chain(costs.iter().map(|column| (column, true))) {
        let own = (column.value)(own_row, own_score);
        let better: Vec<String> = rest
            .iter()
            // What ended too early cost nothing from then on.
            .filter(|(row, _)| !is_cost || !row.died)
            .filter_map(|(row, score)| {
                let value = (column.value)(row, score)?;
                let is_better = column.is_better(value, own);
                is_better.then(|| format!("{} ({})", row.name, column.text(Some(value))))
            })
            .collect();
        if better.is_empty() {
            continue;
        }
        is_best = false;
        let unit = match own.is_some_and(f64::is_finite) {
            true => column.unit,
            false => "",
        };
        writeln!(
            page,
            "- **memtrace loses** on {} ({}{unit}) to {}.",
            column.what,
            column.text(own),
            better.join(", ")
        )?;
    }
    if is_best {
        writeln!(page, "- No tool is better than memtrace in any column.")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::cost::Cost;
    use super::super::super::seen::{Kills, Leak, Seen};
    use super::super::super::truth::{Kill, Manner, Truth};
    use super::*;

    fn row(name: &str, told_after: Option<u64>, processes: usize) -> Row {
        Row {
            name: name.to_owned(),
            seen: Seen {
                leak: Some(Leak {
                    told_after: told_after.map(|minutes| Duration::from_secs(60 * minutes)),
                    false_alarms: Vec::new(),
                }),
                ..Seen::default()
            },
            cost: Cost {
                processes,
                ..Cost::default()
            },
            died: false,
        }
    }

    fn told(rows: Vec<Row>, costs: bool) -> String {
        let kill = Kill {
            pid: 7,
            cgroup: "/a".to_owned(),
            limit_cgroup: "/a".to_owned(),
            trigger_pid: 7,
            anon_bytes: 1,
            manner: Manner::Service,
        };
        let run = Run {
            place: String::new(),
            truth: Truth {
                kills: vec![kill],
                ..Truth::default()
            },
            rows,
            absent: Vec::new(),
        };
        let mut page = String::new();
        tell(&mut page, &run, costs).unwrap();
        page
    }

    #[test]
    fn the_highest_of_what_is_told_is_the_best_and_the_lowest_of_time_and_cost() {
        let mut other = row("other", Some(5), 1);
        other.seen.kills = Kills::OfCgroups([("/a".to_owned(), 1)].into());
        let page = told(vec![row("memtrace run", None, 2), other], true);
        for line in [
            "on OOM kills seen (not told) to other (1).",
            "on the victim's cgroup (not told) to other (1).",
            "on the time until the leak was told (not told) to other (5.0).",
            "on processes (2) to other (1).",
        ] {
            assert!(page.contains(line), "{line}: {page}");
        }
        assert_eq!(page.lines().count(), 4, "{page}");
    }

    #[test]
    fn a_tool_that_is_as_good_wins_nothing_and_a_cost_not_measured_is_none() {
        let rows = vec![row("memtrace run", Some(5), 2), row("other", Some(5), 1)];
        let page = told(rows, false);
        assert_eq!(page, "- No tool is better than memtrace in any column.\n");
    }
}
