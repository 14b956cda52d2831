//! Tables of results: on the terminal, and in docs/kernels.md between its two marks.
//! Must not measure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::results::{Build, Held, Results};

const FILE: &str = "docs/kernels.md";
const BEGIN: &str = "<!-- written by `cargo xtask vm --docs` from here -->";
const END: &str = "<!-- to here -->";

/// Machines and families of tests.
pub fn table(rows: &[(&str, &Results)]) -> String {
    let families: BTreeSet<&str> = rows
        .iter()
        .flat_map(|(_, results)| results.families().into_keys())
        .collect();
    let head = ["machine"].into_iter().chain(families.iter().copied());
    let mut lines = vec![head.map(str::to_owned).collect()];
    for (machine, results) in rows {
        let counts = results.families();
        let cells = families.iter().map(|family| cell(counts.get(family)));
        lines.push([(*machine).to_owned()].into_iter().chain(cells).collect());
    }
    markdown(&lines)
}

fn cell(counts: Option<&[u32; 3]>) -> String {
    let Some([passed, failed, skipped]) = counts else {
        return "-".to_owned();
    };
    let mut text = passed.to_string();
    if *failed > 0 {
        let _ = write!(text, ", {failed} FAILED");
    }
    if *skipped > 0 {
        let _ = write!(text, ", {skipped} skipped");
    }
    text
}

/// Replaces the tables of the document.
pub fn write(root: &Path, kept: &[(String, Results)]) -> Result<()> {
    let path = root.join(FILE);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = replaced(&text, &tables(kept))
        .with_context(|| format!("{} lacks the marks {BEGIN} and {END}", path.display()))?;
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn replaced(text: &str, tables: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{tables}\n{END}{after}"))
}

fn tables(kept: &[(String, Results)]) -> String {
    let rows: Vec<(&str, &Results)> = kept
        .iter()
        .map(|(machine, results)| (machine.as_str(), results))
        .collect();
    format!(
        "### Tests that passed\n\n{}\n### What was measured, and when\n\n{}\n### OOM attribution by scenario\n\n{}\n\
         ### OOM attribution by field\n\n{}\n### Instructions that the verifier walks\n\n{}",
        table(&rows),
        builds(&rows),
        scenarios(&rows),
        fields(&rows),
        instructions(&rows)
    )
}

/// Results of several commits are of one BPF object; which of them has it is in git.
fn builds(rows: &[(&str, &Results)]) -> String {
    let head = ["machine", "kernel", "measured", "at commit", "BPF object"];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    for (machine, results) in rows {
        let from_to = |value: fn(&Build) -> &str| {
            let first = results.builds.first().map_or("-", value);
            let last = results.builds.last().map_or("-", value);
            if first == last {
                return first.to_owned();
            }
            format!("{first} to {last}")
        };
        lines.push(vec![
            (*machine).to_owned(),
            results.release.clone(),
            from_to(|build| &build.date),
            from_to(|build| &build.commit),
            from_to(|build| build.object.get(..12).unwrap_or("-")),
        ]);
    }
    markdown(&lines)
}

fn scenarios(rows: &[(&str, &Results)]) -> String {
    let names: BTreeSet<&String> = rows.iter().flat_map(|(_, r)| r.fields.keys()).collect();
    let lines = names.into_iter().map(|name| {
        let cells = rows.iter().map(|(_, results)| {
            let held = results.fields.get(name);
            held.map(|fields| sum(fields.values()))
        });
        (name.replace("::", ": ").replace('_', " "), cells.collect())
    });
    held_table("scenario", rows, lines)
}

fn fields(rows: &[(&str, &Results)]) -> String {
    let scenarios = rows.iter().flat_map(|(_, results)| results.fields.values());
    let names: BTreeSet<&String> = scenarios.flat_map(BTreeMap::keys).collect();
    let lines = names.into_iter().map(|name| {
        let cells = rows.iter().map(|(_, results)| {
            let held: Vec<&Held> = results
                .fields
                .values()
                .filter_map(|fields| fields.get(name))
                .collect();
            (!held.is_empty()).then(|| sum(held.into_iter()))
        });
        (format!("`{name}`"), cells.collect())
    });
    held_table("field", rows, lines)
}

fn sum<'a>(held: impl Iterator<Item = &'a Held>) -> Held {
    held.fold(Held::default(), |sum, held| Held {
        right: sum.right + held.right,
        absent: sum.absent + held.absent,
        wrong: sum.wrong + held.wrong,
    })
}

fn held_table(
    of: &str,
    rows: &[(&str, &Results)],
    lines: impl Iterator<Item = (String, Vec<Option<Held>>)>,
) -> String {
    let machines = rows.iter().map(|(machine, _)| (*machine).to_owned());
    let mut table = vec![[of.to_owned()].into_iter().chain(machines).collect()];
    for (name, cells) in lines {
        let cells = cells.into_iter().map(|held| match held {
            None => "-".to_owned(),
            Some(held) => format!("{} / {} / {}", held.right, held.absent, held.wrong),
        });
        table.push([name].into_iter().chain(cells).collect());
    }
    markdown(&table)
}

/// One column for each kernel: its layouts do not change what the verifier sees.
fn instructions(rows: &[(&str, &Results)]) -> String {
    let mut kernels: BTreeMap<&str, &Results> = BTreeMap::new();
    let mut order = Vec::new();
    for (machine, results) in rows {
        let kernel = machine.split(' ').next().unwrap_or_default();
        if !results.instructions.is_empty() && kernels.insert(kernel, results).is_none() {
            order.push(kernel);
        }
    }
    let keys: BTreeSet<&String> = kernels
        .values()
        .flat_map(|r| r.instructions.keys())
        .collect();
    let head = ["probe", "hook", "reads"]
        .into_iter()
        .chain(order.iter().copied());
    let mut table = vec![head.map(str::to_owned).collect()];
    for key in keys {
        let counts = order.iter().map(|kernel| {
            let count = kernels.get(kernel).and_then(|r| r.instructions.get(key));
            count.map_or_else(|| "-".to_owned(), ToString::to_string)
        });
        table.push(key.split('\t').map(str::to_owned).chain(counts).collect());
    }
    markdown(&table)
}

/// A table that is readable as it is.
fn markdown(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column| {
        let cells = rows.iter().filter_map(move |row| row.get(column));
        cells
            .map(|cell: &String| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(text, "| {cell:<width$} ");
        }
        text.push_str("|\n");
        if number == 0 {
            for width in &widths {
                let _ = write!(text, "|{:-<1$}", "", width + 2);
            }
            text.push_str("|\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(console: &str, findings: &str) -> Results {
        Results::parse("6.1.0", console, findings)
    }

    #[test]
    fn a_failed_family_is_told_beside_those_that_passed() {
        let old = results("test oom::a ... FAILED\ntest oom::b ... ok", "");
        let new = results("test oom::a ... ok\ntest heap::c ... ok", "");
        assert_eq!(
            table(&[("5.10 v2", &old), ("6.1 v1", &new)]),
            "| machine | heap | oom         |\n\
             |---------|------|-------------|\n\
             | 5.10 v2 | -    | 1, 1 FAILED |\n\
             | 6.1 v1  | 1    | 1           |\n"
        );
    }

    #[test]
    fn a_wrong_field_is_seen_in_both_tables() {
        let findings = "field\toom::a\tkind\tright\nfield\toom::a\torder\twrong\n";
        let kept = [("6.1 v2".to_owned(), results("", findings))];
        let text = tables(&kept);
        assert!(text.contains("| oom: a   | 1 / 0 / 1 |"), "{text}");
        assert!(text.contains("| `order` | 0 / 0 / 1 |"), "{text}");
    }

    #[test]
    fn each_machine_says_of_which_commits_and_programs_its_results_are() {
        let build = |commit: &str, date: &str| Build {
            object: "0123456789abcdef".to_owned(),
            commit: commit.to_owned(),
            date: date.to_owned(),
        };
        let mut measured = results("", "");
        measured.builds = vec![build("1a", "2026-01-31"), build("2b", "2026-01-31")];
        let text = tables(&[("6.1 v2".to_owned(), measured)]);
        let row = "| 6.1 v2  | 6.1.0  | 2026-01-31 | 1a to 2b  | 0123456789ab |";
        assert!(text.contains(row), "{text}");
    }

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let text = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let new = replaced(&text, "new\n").unwrap();
        assert_eq!(new, format!("a\n{BEGIN}\n\nnew\n\n{END}\nb\n"));
        assert!(replaced("a", "new").is_none());
    }
}
