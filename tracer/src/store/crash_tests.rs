//! An agent killed at any point leaves every record that it had written, each once.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use super::{Store, StoreLimits, directory::Directory, fixture::incident, read};

const DIRECTORY: &str = "MEMTRACE_TEST_STORE";
const FIRST: &str = "MEMTRACE_TEST_FIRST";
const RUNS: u64 = 25;
const RECORDS_PER_RUN: u64 = 1_000_000;
const MOST_RECORDS: u64 = 20_000;

/// Killed whatever the test finds.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn limits() -> StoreLimits {
    StoreLimits {
        segment_bytes: 256 * 1024,
        total_bytes: 1 << 40,
        age: Duration::from_secs(86400 * 365),
    }
}

/// What is killed: not a test, but run as one in a process of its own.
#[test]
fn writes_until_killed() {
    let (Ok(dir), Ok(first)) = (std::env::var(DIRECTORY), std::env::var(FIRST)) else {
        return;
    };
    let first: u64 = first.parse().unwrap();
    let store = Store::open(Path::new(&dir), limits()).unwrap();
    let record = incident(0);
    // Ends by itself where nobody kills it.
    for n in first..first + MOST_RECORDS {
        while n - first > store.counters().written + 100 {
            std::hint::spin_loop();
        }
        let mut record = record.clone();
        record.id = incident_id(n);
        // Of all lengths, so that writes end anywhere in a page.
        record.meaning.consequence = "x".repeat((n * 7919 % 20_000) as usize);
        store.write(Arc::new(record));
        let mut out = std::io::stdout();
        writeln!(out, "written={}", store.counters().written).unwrap();
        out.flush().unwrap();
    }
}

fn incident_id(n: u64) -> String {
    format!("crash-{n:012}")
}

#[test]
fn a_kill_at_any_point_loses_and_doubles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut promised = Vec::new();
    for run in 0..RUNS {
        let first = run * RECORDS_PER_RUN;
        let mut child = Killed(
            Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "store::crash_tests::writes_until_killed",
                    "--nocapture",
                    "--test-threads=1",
                ])
                .env(DIRECTORY, dir.path())
                .env(FIRST, first.to_string())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        );
        let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        let written = |line: std::io::Result<String>| {
            line.ok()?.strip_prefix("written=")?.parse::<u64>().ok()
        };
        let started = lines
            .by_ref()
            .find_map(|line| written(line).filter(|n| *n > 0));
        let drain = std::thread::spawn(move || lines.filter_map(written).last());
        std::thread::sleep(Duration::from_micros(run * run * 7919 % 30_000));
        drop(child);
        let started = started.expect("the child wrote something");
        let written = drain.join().unwrap().unwrap_or(started);
        promised.extend((first..first + written).map(incident_id));
    }
    assert!(promised.len() as u64 > RUNS);

    // The next agent repairs what the last left.
    let store = Store::open(dir.path(), limits()).unwrap();
    store.write(Arc::new(incident(1)));
    let counters = store.close(Duration::from_secs(30));
    assert_eq!((counters.written, counters.failed), (1, 0));

    let found = read(dir.path()).unwrap();
    assert_eq!(found.damaged, 0);
    let found: HashMap<_, _> = found
        .incidents
        .iter()
        .map(|incident| (incident.id.as_str(), incident))
        .collect();
    for id in &promised {
        assert!(found.contains_key(id.as_str()), "{id} is missing");
    }
    let directory = Directory::open(dir.path()).unwrap().unwrap();
    let mut lines = 0;
    for number in directory.segments().unwrap() {
        let text = std::fs::read(directory.segment_path(number)).unwrap();
        lines += text.iter().filter(|byte| **byte == b'\n').count();
    }
    assert_eq!(lines, found.len(), "a record stands there twice");
}
