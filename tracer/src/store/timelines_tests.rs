//! Histories through files: what is read back, and what damage costs.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use super::*;
use crate::{
    growth::Moment,
    model::{
        cgroups::Cgroups,
        snapshot::{Limit, MemoryReading},
    },
    store::shards::SHARDS,
};

const NOW: Moment = Moment {
    sample_ms: 1_800_000_000_000,
    to_unix_ms: 0,
};

fn boot() -> Boot {
    Boot {
        boot_id: "a".into(),
        offset_ms: 7,
    }
}

/// The histories of 200 cgroups.
fn timelines() -> Timelines {
    let mut cgroups = Cgroups::new(200, Duration::from_secs(60));
    let mut timelines = Timelines::new(1000, SystemTime::UNIX_EPOCH, 200);
    for id in 1..=200 {
        let path = format!("/a/{id}");
        assert!(cgroups.made(id, Path::new(&path), SystemTime::UNIX_EPOCH));
        let reading = MemoryReading {
            usage_bytes: Some(id << 20),
            limit: Some(Limit::Bytes(1 << 30)),
            ..MemoryReading::default()
        };
        cgroups.read(id, reading);
    }
    cgroups.close_interval(Duration::from_secs(1));
    timelines.interval(&cgroups, NOW);
    timelines
}

fn written(state_dir: &Path, timelines: &Timelines) {
    let soon = Instant::now() + Duration::from_secs(10);
    let store = TimelineStore::open(state_dir, boot(), 0).unwrap();
    for shard in 0..SHARDS {
        let kept = timelines.kept(|cgroup| shard_of(cgroup) == shard);
        store.write_until(soon, shard, &timelines.shared(NOW), kept);
    }
    assert_eq!(store.losses()[0].1, 0);
    store.close(soon);
}

/// Histories that another agent finds, and how many files are damaged.
fn found(state_dir: &Path) -> (Timelines, u64) {
    let mut timelines = Timelines::new(1000, SystemTime::UNIX_EPOCH, 200);
    let damaged = read(state_dir, |found, shared, kept| {
        assert_eq!(found, boot());
        timelines.restore(shared, kept, true, NOW);
    });
    (timelines, damaged)
}

#[test]
fn what_was_written_is_found_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let timelines = timelines();
    written(directory.path(), &timelines);
    let (found, damaged) = found(directory.path());
    assert_eq!((found.sizes().gone, damaged), (200, 0));
    for id in 1..=200 {
        let (was, is) = (timelines.record(id), found.record(id));
        assert!(is.is_some() && is == was, "{is:?}");
    }
}

#[test]
fn a_file_that_is_damaged_foreign_or_huge_costs_its_own_histories_and_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    written(directory.path(), &timelines());
    let file = |shard: usize| directory.path().join(format!("timelines/{shard:02}.bin"));
    let whole = fs::read(file(0)).unwrap();
    let in_it = timelines().kept(|cgroup| shard_of(cgroup) == 0).count();
    for length in [0, 1, 5, whole.len() / 2, whole.len() - 1] {
        fs::write(file(0), &whole[..length]).unwrap();
        let (found, damaged) = found(directory.path());
        assert_eq!((found.sizes().gone, damaged), (200 - in_it, 1));
    }
    let growth = shards::encode(1, &("another", "layout")).unwrap();
    fs::write(file(0), growth).unwrap();
    fs::File::create(file(1))
        .unwrap()
        .set_len(20 << 30)
        .unwrap();
    fs::remove_file(file(2)).unwrap();
    fs::create_dir(file(2)).unwrap();
    assert_eq!(found(directory.path()).1, 3);
}

#[test]
fn a_file_with_the_right_checksum_is_still_not_trusted() {
    let directory = tempfile::tempdir().unwrap();
    written(directory.path(), &timelines());
    let layout = shards::fingerprint(&Timelines::layout());
    let path = directory.path().join("timelines/00.bin");
    // Far more than there is room for, all of the end of time.
    let all = timelines();
    let kept: Vec<Kept> = (0..40).flat_map(|_| all.kept(|_| true)).collect();
    let mut shared = timelines().shared(NOW);
    shared.written_ms = i64::MIN;
    shared.ticks = (0..10_000)
        .map(|at| (i64::MAX - at, i64::MAX - at))
        .collect();
    let bytes = shards::encode(layout, &(boot(), shared, kept)).unwrap();
    fs::write(&path, bytes).unwrap();
    let (mut timelines, _) = found(directory.path());
    let cgroups = Cgroups::new(200, Duration::from_secs(60));
    timelines.interval(&cgroups, NOW);
    timelines.began(NOW);
    let (told, left_out) = timelines.matching(|_, _| true, 10_000);
    assert!(told.len() <= 512 && left_out == 0);
    assert!(timelines.sizes().forgotten > 0);
    let ended = told.iter().flat_map(|told| told.series.iter());
    assert!(ended.flat_map(|series| &series.points).count() > 0);
}
