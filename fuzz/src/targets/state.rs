//! State that an agent keeps for the next: growth analysis, timelines, events that wait, the count of kills.
//!
//! The first byte says which. What follows is laid out as the agent reads it: layout and checksum, which
//! chance would never find, are those of this build.

use std::{
    cell::LazyCell,
    fs,
    path::PathBuf,
    sync::{Arc, LazyLock},
    time::SystemTime,
};

use memtrace::{
    analysis::Thresholds,
    export::otlp::exporter::spool::{LIMITS, Spool},
    growth::{self, Growth},
    store::{KernelCount, growth as growth_store, shards, timelines as timeline_store},
    timeline::{Kept, Shared, Timelines},
};
use tempfile::TempDir;

use crate::promise;

const NOW: growth::Moment = growth::Moment {
    sample_ms: 1_000_000_000,
    to_unix_ms: 1_700_000_000_000,
};
/// Takes a while to make.
static GROWTH_LAYOUT: LazyLock<u32> = LazyLock::new(Growth::layout);
static TIMELINES_LAYOUT: LazyLock<u32> =
    LazyLock::new(|| shards::fingerprint(&Timelines::layout()));
const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);
const INTERVAL_MS: i64 = 5000;
const MOST_CGROUPS: usize = 16;
const MOST_TEXT_CHARS: usize = 1025;

type GrowthShard = (growth_store::Boot, Vec<growth::Restored>);
type TimelineShard = (timeline_store::Boot, Shared, Vec<Kept>);

pub fn run(data: &[u8]) {
    match data.split_first() {
        Some((0, state)) => of_growth(state),
        Some((1, state)) => of_timelines(state),
        Some((2, segment)) => of_events(segment),
        Some((3, count)) => of_kills(count),
        _ => {}
    }
}

/// A file of a shard, with the checksum that it has to have.
fn shard(layout: u32, state: &[u8]) -> Vec<u8> {
    let mut bytes = postcard::to_stdvec(&layout).expect("a number is encoded");
    bytes.extend_from_slice(state);
    let checksum = CRC.checksum(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

fn of_growth(state: &[u8]) {
    let layout = *GROWTH_LAYOUT;
    let Some((boot, restored)) = shards::decode::<GrowthShard>(layout, &shard(layout, state))
    else {
        return;
    };
    let mut growth = Growth::new(Arc::new(Thresholds::default()));
    for one in restored {
        growth.restore(one, true, NOW);
    }
    let kept: Vec<growth::Kept<'_>> = growth.kept(NOW, |_| true).collect();
    let bytes = shards::encode(layout, &(&boot, kept)).expect("what is kept is encoded");
    let again = shards::decode::<GrowthShard>(layout, &bytes);
    assert!(again.is_some(), "what is kept is not read back");
}

fn of_timelines(state: &[u8]) {
    let layout = *TIMELINES_LAYOUT;
    let Some((boot, shared, kept)) = shards::decode::<TimelineShard>(layout, &shard(layout, state))
    else {
        return;
    };
    let mut timelines = Timelines::new(INTERVAL_MS, SystemTime::UNIX_EPOCH, MOST_CGROUPS);
    timelines.restore(shared, kept, true, NOW);
    timelines.began(NOW);
    let (told, _) = timelines.matching(|_, _| true, usize::MAX);
    for timeline in &told {
        promise::line(&timeline.cgroup, MOST_TEXT_CHARS);
        for mark in &timeline.marks {
            promise::line(&mark.text, MOST_TEXT_CHARS);
        }
        serde_json::to_string(timeline).expect("a timeline is JSON");
    }
    let kept: Vec<Kept> = timelines.kept(|_| true).collect();
    assert_eq!(kept.len(), told.len());
    let bytes = shards::encode(layout, &(&boot, timelines.shared(NOW), kept));
    let bytes = bytes.expect("what is kept is encoded");
    let (_, shared, kept) =
        shards::decode::<TimelineShard>(layout, &bytes).expect("what is kept is read back");
    // What one agent took in, the next does.
    let mut next = Timelines::new(INTERVAL_MS, SystemTime::UNIX_EPOCH, MOST_CGROUPS);
    next.restore(shared, kept, true, NOW);
    assert_eq!(next.matching(|_, _| true, usize::MAX).0.len(), told.len());
}

thread_local! {
    static STATE: LazyCell<TempDir> =
        LazyCell::new(|| tempfile::tempdir().expect("TMPDIR is a directory to write to"));
}

fn of_events(segment: &[u8]) {
    STATE.with(|state| {
        let directory: PathBuf = state.path().join("otlp");
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir(&directory).expect("TMPDIR has room");
        fs::write(directory.join("00000001.queue"), segment).expect("TMPDIR has room");
        let mut spool = Spool::new(Some(state.path().to_owned()), LIMITS, Arc::default());
        spool.open();
        while let Some(batch) = spool.take() {
            assert!(batch.body.len() <= segment.len());
            spool.settle();
        }
        assert_eq!(spool.waiting().0, 0, "what was taken still waits");
    });
}

fn of_kills(count: &[u8]) {
    STATE.with(|state| {
        let file = state.path().join("kernel-count.json");
        fs::write(file, count).expect("TMPDIR has room");
        if let Some(count) = KernelCount::load(state.path()) {
            count.save(state.path()).expect("TMPDIR has room");
            assert_eq!(KernelCount::load(state.path()), Some(count));
        }
    });
}
