//! The store on disks that are full, read-only or taken away.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use super::{Store, StoreCounters, StoreLimits, fixture::incident, read};

const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until the store has dealt with `records` in all.
fn settled(store: &Store, records: u64) -> StoreCounters {
    let end = Instant::now() + DEADLINE;
    loop {
        let counters = store.counters();
        if counters.written + counters.failed + counters.dropped >= records {
            return counters;
        }
        assert!(Instant::now() < end, "{counters:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn bytes(state_dir: &Path) -> u64 {
    fs::read_dir(state_dir.join("incidents"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum()
}

fn remount(dir: &Path, flags: MsFlags) {
    mount(
        None::<&str>,
        dir,
        None::<&str>,
        MsFlags::MS_REMOUNT | flags,
        None::<&str>,
    )
    .unwrap();
}

/// Runs `test` on a disk of `bytes` that only it sees and that ends with it. Needs root.
fn on_small_disk(bytes: u64, test: impl FnOnce(&Path) + Send) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: mounting needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
            let size = format!("size={bytes}");
            mount(
                Some("tmpfs"),
                dir.path(),
                Some("tmpfs"),
                MsFlags::empty(),
                Some(size.as_str()),
            )
            .unwrap();
            test(dir.path());
        });
    });
}

#[test]
fn a_full_disk_costs_counters_and_leaves_whole_records() {
    on_small_disk(64 * 1024, |dir| {
        let store = Store::open(dir, StoreLimits::default()).unwrap();
        for n in 0..60 {
            store.write(Arc::new(incident(n)));
        }
        let counters = settled(&store, 60);
        assert!(counters.written > 3 && counters.failed > 3, "{counters:?}");
        assert_eq!(counters.dropped, 0);
        let found = read(dir).unwrap();
        assert_eq!(
            (found.damaged, found.incidents.len() as u64),
            (0, counters.written)
        );
        mount_size(dir, "size=1M");
        store.write(Arc::new(incident(100)));
        let after = store.close(DEADLINE);
        assert_eq!(after.written, counters.written + 1);
        assert_eq!(read(dir).unwrap().incidents.len() as u64, after.written);
    });
}

fn mount_size(dir: &Path, size: &str) {
    mount(
        None::<&str>,
        dir,
        None::<&str>,
        MsFlags::MS_REMOUNT,
        Some(size),
    )
    .unwrap();
}

#[test]
fn a_read_only_disk_costs_counters_until_it_is_writable() {
    on_small_disk(1 << 20, |dir| {
        remount(dir, MsFlags::MS_RDONLY);
        let store = Store::open(dir, StoreLimits::default()).unwrap();
        store.write(Arc::new(incident(1)));
        let counters = settled(&store, 1);
        assert_eq!((counters.written, counters.failed), (0, 1));
        assert_eq!(counters.losses()[0], ("incident_store_failed", 1));
        remount(dir, MsFlags::empty());
        let end = Instant::now() + DEADLINE;
        let mut n = 1;
        while store.counters().written == 0 {
            assert!(Instant::now() < end);
            n += 1;
            store.write(Arc::new(incident(n)));
            std::thread::sleep(Duration::from_millis(200));
        }
        let counters = store.close(DEADLINE);
        assert_eq!(read(dir).unwrap().incidents.len() as u64, counters.written);
    });
}

#[test]
fn a_directory_that_is_removed_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), StoreLimits::default()).unwrap();
    store.write(Arc::new(incident(1)));
    assert_eq!(settled(&store, 1).written, 1);
    fs::remove_dir_all(dir.path().join("incidents")).unwrap();
    store.write(Arc::new(incident(2)));
    assert_eq!(settled(&store, 2).written, 2);
    let found = read(dir.path()).unwrap();
    assert_eq!(found.incidents.len(), 1);
    assert_eq!(found.incidents[0].id, incident(2).id);
}

#[test]
fn a_directory_that_cannot_be_made_is_no_error_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    fs::write(&state, "a file in its place").unwrap();
    let store = Store::open(&state, StoreLimits::default()).unwrap();
    store.write(Arc::new(incident(1)));
    assert_eq!(settled(&store, 1).failed, 1);
    fs::remove_file(&state).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    store.write(Arc::new(incident(2)));
    assert_eq!(store.close(DEADLINE).written, 1);
}

#[test]
fn the_store_stays_below_its_cap_and_keeps_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let limits = StoreLimits {
        segment_bytes: 16 * 1024,
        total_bytes: 64 * 1024,
        ..StoreLimits::default()
    };
    let store = Store::open(dir.path(), limits).unwrap();
    for n in 0..200 {
        store.write(Arc::new(incident(n)));
        settled(&store, n + 1);
        assert!(bytes(dir.path()) <= limits.total_bytes);
    }
    assert_eq!(store.close(DEADLINE).written, 200);
    let found = read(dir.path()).unwrap().incidents;
    assert!(found.len() > 10);
    let first = 200 - found.len() as u64;
    for (incident, n) in found.iter().zip(first..) {
        assert_eq!(incident.id, super::fixture::incident(n).id);
    }
}

#[test]
fn two_agents_share_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let limits = StoreLimits {
        segment_bytes: 32 * 1024,
        ..StoreLimits::default()
    };
    let stores = [0, 1].map(|_| Store::open(dir.path(), limits).unwrap());
    for n in 0..200 {
        stores[n as usize % 2].write(Arc::new(incident(n)));
    }
    for store in stores {
        let counters = store.close(DEADLINE);
        assert_eq!((counters.written, counters.failed), (100, 0));
    }
    let found = read(dir.path()).unwrap();
    assert_eq!((found.incidents.len(), found.damaged), (200, 0));
}

#[test]
fn a_restarted_agent_goes_on_in_the_last_segment() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..5 {
        let store = Store::open(dir.path(), StoreLimits::default()).unwrap();
        store.write(Arc::new(incident(n)));
        store.close(DEADLINE);
    }
    // A test that forks at this moment holds a copy of the lock until it executes.
    assert!(fs::read_dir(dir.path().join("incidents")).unwrap().count() < 5);
    assert_eq!(read(dir.path()).unwrap().incidents.len(), 5);
}

#[test]
fn a_record_too_long_for_a_reader_loses_victims_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut huge = incident(1);
    huge.victims[0].command_line = Some("x".repeat(16 * 1024));
    huge.victims = vec![huge.victims[0].clone(); 1000];
    let store = Store::open(dir.path(), StoreLimits::default()).unwrap();
    store.write(Arc::new(huge));
    assert_eq!(store.close(DEADLINE).written, 1);
    let found = read(dir.path()).unwrap();
    assert_eq!(found.damaged, 0);
    let stored = &found.incidents[0];
    assert_eq!(stored.victims.len() as u64 + stored.victims_left_out, 1000);
    assert!(!stored.victims.is_empty() && stored.victims_left_out > 0);
}
