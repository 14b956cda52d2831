//! How many instructions the verifier walks for each program, against what is committed.
//! Must not measure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};

use crate::process::progress;

/// Beside this source; kernel, probe, hook, way of reading, instructions.
pub const FILE: &str = "xtask/src/vm/instructions.tsv";
/// A count that grew by more has to be looked at.
const TOLERATED_PERCENT: u64 = 10;
/// Machines that run beside each other commit theirs one after the other.
static COMMITTING: Mutex<()> = Mutex::new(());

/// Kernel version; then probe, hook and way of reading. To instructions.
type Table = BTreeMap<(String, String), u64>;

/// Fails when a program needs clearly more than is committed, or loads no more; tells of everything else
/// that changed.
pub fn compare(root: &Path, kernel: &str, measured: &BTreeMap<String, u64>) -> Result<()> {
    let changes = changes(&read(root)?, kernel, measured);
    for change in changes.iter().filter(|change| !change.worse) {
        progress(format!("[{kernel}] {}", change.text));
    }
    let worse: Vec<&str> = changes
        .iter()
        .filter(|change| change.worse)
        .map(|change| change.text.as_str())
        .collect();
    if worse.is_empty() {
        return Ok(());
    }
    bail!(
        "the verifier walks other instructions than {FILE} says: {}; if that is meant, run \
         `cargo xtask vm --update-instructions` and commit {FILE}",
        worse.join("; ")
    )
}

/// Commits the measured counts of one kernel. Hooks that were not found any more go.
pub fn update(root: &Path, kernel: &str, measured: &BTreeMap<String, u64>) -> Result<()> {
    let _committing = COMMITTING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut table = read(root)?;
    let ways: BTreeSet<&str> = measured.keys().filter_map(|key| way(key)).collect();
    table.retain(|(of, key), _| of != kernel || way(key).is_none_or(|way| !ways.contains(way)));
    for (key, count) in measured {
        table.insert((kernel.to_owned(), key.clone()), *count);
    }
    let mut text = String::new();
    for ((kernel, key), count) in &table {
        let _ = writeln!(text, "{kernel}\t{key}\t{count}");
    }
    let path = root.join(FILE);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// How kernel memory was read.
fn way(key: &str) -> Option<&str> {
    key.rsplit('\t').next()
}

struct Change {
    worse: bool,
    text: String,
}

fn changes(table: &Table, kernel: &str, measured: &BTreeMap<String, u64>) -> Vec<Change> {
    let mut changes = Vec::new();
    for (key, &now) in measured {
        let shown = key.replace('\t', ", ");
        let Some(&before) = table.get(&(kernel.to_owned(), key.clone())) else {
            let text = format!("{shown}: {now} instructions, not in {FILE} yet");
            changes.push(Change { worse: false, text });
            continue;
        };
        let worse = now * 100 > before * (100 + TOLERATED_PERCENT);
        let better = now * (100 + TOLERATED_PERCENT) < before * 100;
        if worse || better {
            let text = format!("{shown}: {now} instructions instead of {before}");
            changes.push(Change { worse, text });
        }
    }
    // A way of reading is measured in one test, so one that was measured at all is there whole.
    let ways: BTreeSet<&str> = measured.keys().filter_map(|key| way(key)).collect();
    for (of, key) in table.keys() {
        let expected = of == kernel && way(key).is_some_and(|way| ways.contains(way));
        if expected && !measured.contains_key(key) {
            let text = format!("{}: loads no more", key.replace('\t', ", "));
            changes.push(Change { worse: true, text });
        }
    }
    changes
}

fn read(root: &Path) -> Result<Table> {
    let path = root.join(FILE);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    text.lines()
        .map(|line| {
            let row = || {
                let (kernel, rest) = line.split_once('\t')?;
                let (key, count) = rest.rsplit_once('\t')?;
                Some(((kernel.to_owned(), key.to_owned()), count.parse().ok()?))
            };
            row().with_context(|| format!("{}: not a row: {line}", path.display()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(before: u64, now: u64) -> Vec<bool> {
        let key = "heap.mmap\tfexit/x\tusual".to_owned();
        let table = Table::from([(("6.1".to_owned(), key.clone()), before)]);
        let changes = changes(&table, "6.1", &BTreeMap::from([(key, now)]));
        changes.into_iter().map(|change| change.worse).collect()
    }

    #[test]
    fn only_growth_beyond_a_tenth_is_worse() {
        assert!(changed(1000, 1000).is_empty());
        assert!(changed(1000, 1100).is_empty());
        assert_eq!(changed(1000, 1101), [true]);
        assert_eq!(changed(1000, 900), [false]);
    }

    #[test]
    fn what_was_never_measured_on_a_kernel_is_no_regression() {
        let measured = BTreeMap::from([("a\tb\tusual".to_owned(), 7)]);
        let changes = changes(&Table::new(), "6.1", &measured);
        assert_eq!(changes.len(), 1);
        assert!(!changes.iter().any(|change| change.worse));
    }

    #[test]
    fn a_program_that_loads_no_more_is_a_regression_of_its_kernel_and_way_alone() {
        let row = |kernel: &str, key: &str| ((kernel.to_owned(), key.to_owned()), 7);
        let table = Table::from([
            row("6.1", "a\tb\tusual"),
            row("6.1", "a\tc\tusual"),
            row("6.1", "a\tb\tprobe_read"),
            row("6.12", "a\td\tusual"),
        ]);
        let measured = BTreeMap::from([("a\tb\tusual".to_owned(), 7)]);
        let changes = changes(&table, "6.1", &measured);
        let texts: Vec<&str> = changes.iter().map(|change| change.text.as_str()).collect();
        assert_eq!(texts, ["a, c, usual: loads no more"]);
        assert!(changes[0].worse);
    }

    #[test]
    fn the_committed_table_can_be_read() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        assert!(!read(&root).unwrap().is_empty());
    }
}
