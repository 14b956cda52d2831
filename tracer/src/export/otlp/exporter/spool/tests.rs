//! What waits: order, bounds, and what a crash or a broken disk leaves of it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::events::EventCounters;
use super::{LIMITS, Limits, Spool, disk};

const SMALL: Limits = Limits {
    memory_chunks: 4,
    memory_bytes: 1000,
    disk_chunks: 1000,
    disk_bytes: 1200,
    segment_bytes: 300,
};

fn spool(state_dir: Option<&Path>, limits: Limits) -> (Spool, Arc<EventCounters>) {
    let counters = Arc::new(EventCounters::default());
    let state_dir = state_dir.map(Path::to_owned);
    let mut spool = Spool::new(state_dir, limits, Arc::clone(&counters));
    spool.open();
    (spool, counters)
}

/// Ten bytes that say which one it is.
fn add(spool: &mut Spool, number: usize) {
    spool.add(format!("<{number:08}>").into_bytes(), 1);
}

fn numbers(body: &[u8]) -> Vec<usize> {
    let text = String::from_utf8(body.to_vec()).unwrap();
    let parts = text.split(['<', '>']).filter(|part| !part.is_empty());
    parts.map(|part| part.parse().unwrap()).collect()
}

/// Delivers everything.
fn drain(spool: &mut Spool) -> Vec<usize> {
    let mut all = Vec::new();
    while let Some(batch) = spool.take() {
        let found = numbers(&batch.body);
        assert_eq!(found.len() as u64, batch.records);
        all.extend(found);
        spool.settle();
    }
    all
}

fn value(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn files(state_dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(state_dir.join(disk::DIRECTORY)).unwrap();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some())
        .collect();
    files.sort();
    files
}

fn bytes_on_disk(state_dir: &Path) -> u64 {
    let lengths = files(state_dir);
    lengths
        .iter()
        .map(|path| fs::metadata(path).unwrap().len())
        .sum()
}

#[test]
fn what_waits_outlives_the_agent_and_comes_once_in_order() {
    let dir = tempfile::tempdir().unwrap();
    for killed in [false, true] {
        let (mut before, _) = spool(Some(dir.path()), LIMITS);
        (0..5).for_each(|number| add(&mut before, number));
        assert_eq!(numbers(&before.take().unwrap().body), [0, 1, 2, 3, 4]);
        // Under way when it ended: to be sent again.
        if killed {
            // A killed agent runs no destructor; its locks go with its descriptors.
            before.disk.as_mut().unwrap()._lock.unlock().unwrap();
            std::mem::forget(before);
        } else {
            drop(before);
        }
        let (mut after, counters) = spool(Some(dir.path()), LIMITS);
        assert_eq!(value(&counters.waiting), 5);
        (5..8).for_each(|number| add(&mut after, number));
        let batch = after.take().unwrap();
        assert_eq!(numbers(&batch.body), [0, 1, 2, 3, 4, 5, 6, 7]);
        after.settle();
        assert_eq!(value(&counters.waiting), 0);
        assert!(after.take().is_none());
        drop(after);
        let (mut last, _) = spool(Some(dir.path()), LIMITS);
        assert_eq!(drain(&mut last), [0; 0], "settled is settled");
        assert_eq!(files(dir.path()).len(), 0, "nothing is left behind");
    }
}

#[test]
fn a_part_that_was_delivered_is_not_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut before, _) = spool(Some(dir.path()), LIMITS);
    add(&mut before, 0);
    before.take().unwrap();
    add(&mut before, 1);
    before.settle();
    drop(before);
    assert_eq!(drain(&mut spool(Some(dir.path()), LIMITS).0), [1]);
}

#[test]
fn while_the_backend_takes_events_the_disk_holds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, _) = spool(Some(dir.path()), SMALL);
    for number in 0..1000 {
        add(&mut spool, number);
        assert_eq!(drain(&mut spool), [number]);
        assert_eq!(bytes_on_disk(dir.path()), 0);
    }
    assert_eq!(files(dir.path()).len(), 1);
}

#[test]
fn bytes_on_disk_are_bounded_and_the_oldest_go_and_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, counters) = spool(Some(dir.path()), SMALL);
    add(&mut spool, 0);
    let under_way = spool.take().unwrap();
    for number in 1..200 {
        add(&mut spool, number);
        assert!(bytes_on_disk(dir.path()) <= SMALL.disk_bytes + SMALL.segment_bytes);
    }
    assert_eq!(numbers(&under_way.body), [0]);
    spool.settle();
    let left = drain(&mut spool);
    assert_eq!(left.last(), Some(&199));
    assert!(
        left.windows(2).all(|pair| pair[0] + 1 == pair[1]),
        "{left:?}"
    );
    assert_eq!(value(&counters.dropped) as usize, 199 - left.len());
    assert!(left.len() > 15, "{left:?}");
}

#[test]
fn without_a_state_directory_memory_is_bounded_in_number_and_bytes() {
    let (mut in_memory, counters) = spool(None, SMALL);
    add(&mut in_memory, 0);
    in_memory.take().unwrap();
    (1..10).for_each(|number| add(&mut in_memory, number));
    assert_eq!(value(&counters.dropped), 6);
    in_memory.release();
    assert_eq!(
        drain(&mut in_memory),
        [0, 7, 8, 9],
        "what was under way stays"
    );

    let (mut in_memory, counters) = spool(None, SMALL);
    for _ in 0..4 {
        in_memory.add(vec![b'x'; 400], 2);
    }
    assert_eq!(value(&counters.dropped), 4);
    assert_eq!(in_memory.waiting(), (4, 0));
}

#[test]
fn a_torn_end_costs_only_itself_wherever_it_is_torn() {
    let dir = tempfile::tempdir().unwrap();
    let (mut written, _) = spool(Some(dir.path()), LIMITS);
    (0..3).for_each(|number| add(&mut written, number));
    drop(written);
    let path = files(dir.path()).remove(0);
    let whole = fs::read(&path).unwrap();
    let record = whole.len() / 3;
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let (mut spool, counters) = spool(Some(dir.path()), LIMITS);
        let left: Vec<usize> = (0..length / record).collect();
        assert_eq!(drain(&mut spool), left, "cut at {length}");
        let torn = !length.is_multiple_of(record);
        assert_eq!(value(&counters.damaged), u64::from(torn), "cut at {length}");
        add(&mut spool, 7);
        assert_eq!(drain(&mut spool), [7]);
    }
}

#[test]
fn a_flipped_bit_never_sends_anything_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let (mut written, _) = spool(Some(dir.path()), LIMITS);
    (0..3).for_each(|number| add(&mut written, number));
    drop(written);
    let path = files(dir.path()).remove(0);
    let whole = fs::read(&path).unwrap();
    for byte in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[byte] ^= 0x10;
        fs::write(&path, flipped).unwrap();
        let (mut spool, _) = spool(Some(dir.path()), LIMITS);
        let found = drain(&mut spool);
        assert!(
            [[0, 1].as_slice(), &[0, 2], &[1, 2], &[0], &[], &[0, 1, 2]]
                .contains(&found.as_slice()),
            "{byte}: {found:?}"
        );
        drop(spool);
        assert!(
            files(dir.path()).is_empty(),
            "{byte}: nothing is read again"
        );
    }
}

#[test]
fn a_second_agent_keeps_its_events_in_memory_until_the_first_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (mut first, _) = spool(Some(dir.path()), LIMITS);
    add(&mut first, 1);
    let (mut second, _) = spool(Some(dir.path()), LIMITS);
    add(&mut second, 2);
    assert_eq!((first.waiting(), second.waiting()), ((0, 1), (1, 0)));
    drop(first);
    second.retry = None;
    assert_eq!(drain(&mut second), [1, 2], "and sends what that one left");
}

#[test]
fn a_disk_that_is_gone_or_no_directory_costs_no_event() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool_, _) = spool(Some(dir.path()), LIMITS);
    add(&mut spool_, 0);
    fs::remove_dir_all(dir.path().join(disk::DIRECTORY)).unwrap();
    add(&mut spool_, 1);
    assert_eq!(files(dir.path()).len(), 1, "made again");
    assert_eq!(drain(&mut spool_), [0, 1]);
    drop(spool_);

    let dir = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    symlink(elsewhere.path(), dir.path().join(disk::DIRECTORY)).unwrap();
    let (mut spool, _) = spool(Some(dir.path()), LIMITS);
    add(&mut spool, 0);
    assert_eq!(spool.waiting(), (1, 0));
    assert_eq!(drain(&mut spool), [0]);
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}
