//! What a crash, a hostile directory and a full disk cost.

use super::*;
use std::os::unix::fs::symlink;

const KIND: Kind = Kind {
    directory: "kind",
    thread: "kind-store",
    what: "what is known",
    largest: 1 << 20,
};
const LAYOUT: u32 = 7;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn state(shard: usize) -> (String, u64) {
    ("state".into(), shard as u64)
}

fn written(state_dir: &Path) {
    let store = Shards::open(state_dir, KIND).unwrap();
    for shard in 0..SHARDS {
        store.write_until(soon(), shard, encode(LAYOUT, &state(shard)));
    }
    assert_eq!(store.failed(), 0);
    store.close(soon());
}

/// What is found, and how many files are damaged.
fn found(state_dir: &Path) -> (Vec<(String, u64)>, u64) {
    let mut found = Vec::new();
    let damaged = read(state_dir, KIND, |bytes| {
        let state = decode(LAYOUT, bytes);
        let is_whole = state.is_some();
        found.extend(state);
        is_whole
    });
    (found, damaged)
}

#[test]
fn what_was_written_is_found_and_nothing_else_is_left() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(found(directory.path()), (Vec::new(), 0));
    written(directory.path());
    assert_eq!(
        found(directory.path()),
        ((0..SHARDS).map(state).collect(), 0)
    );
    let files = fs::read_dir(directory.path().join(KIND.directory)).unwrap();
    assert_eq!(files.count(), SHARDS);
}

#[test]
fn a_damaged_shard_costs_itself_alone_and_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    written(directory.path());
    let path = directory.path().join(KIND.directory).join(name(3));
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        assert_eq!(found(directory.path()).1, 1, "cut at {length}");
    }
    for byte in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[byte] ^= 0x10;
        fs::write(&path, flipped).unwrap();
        let (found, damaged) = found(directory.path());
        assert_eq!((found.len(), damaged), (SHARDS - 1, 1));
    }
}

#[test]
fn another_layout_is_not_taken_in() {
    let bytes = encode(LAYOUT, &state(1)).unwrap();
    assert!(decode::<(String, u64)>(LAYOUT + 1, &bytes).is_none());
}

#[test]
fn no_symbolic_link_is_followed() {
    let directory = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    symlink(elsewhere.path(), directory.path().join(KIND.directory)).unwrap();
    let refused = Shards::open(directory.path(), KIND);
    assert!(matches!(
        refused.err(),
        Some(StoreError::SymbolicLink { .. })
    ));
}

#[test]
fn what_a_killed_agent_left_is_removed_and_what_is_too_large_not_read() {
    let directory = tempfile::tempdir().unwrap();
    written(directory.path());
    let kept = directory.path().join(KIND.directory);
    // No process has a pid that large.
    let left = kept.join("03.bin.4294967294");
    fs::write(&left, "half").unwrap();
    written(directory.path());
    assert!(!left.exists());
    fs::File::create(kept.join(name(5)))
        .unwrap()
        .set_len(20 << 30)
        .unwrap();
    assert_eq!(found(directory.path()).1, 1);
}

#[test]
fn a_disk_that_refuses_costs_a_counter() {
    let directory = tempfile::tempdir().unwrap();
    let store = Shards::open(directory.path(), KIND).unwrap();
    fs::remove_dir(directory.path().join(KIND.directory)).unwrap();
    store.write_until(soon(), 0, encode(LAYOUT, &state(0)));
    let failed = Arc::clone(&store.failed);
    store.close(soon());
    assert_eq!(failed.load(Ordering::Relaxed), 1);
}

#[test]
fn every_shard_has_its_turn_once_and_again_after_a_long_pause() {
    let start = Instant::now();
    let mut turns = Turns::new(start, Duration::from_secs(640));
    let mut due = |at: u64| {
        let at = start + Duration::from_secs(at);
        std::iter::from_fn(|| turns.due(at)).collect::<Vec<_>>()
    };
    assert!(due(9).is_empty());
    assert_eq!(due(10), [0]);
    assert_eq!(due(35), [1, 2]);
    assert_eq!(due(640).len(), SHARDS - 3);
    let after_a_pause = due(1_000_000);
    assert!(after_a_pause.len() <= SHARDS + 1, "{after_a_pause:?}");
    assert!(due(1_000_000).is_empty());
}
