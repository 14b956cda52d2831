//! What a history has of a cgroup that lives, goes, comes again, and is read by another agent.

use std::{path::Path, time::Duration};

use super::*;
use crate::{
    api::records::{Series, Timeline},
    model::snapshot::{Limit, MemoryReading},
};

pub const MIB: u64 = 1 << 20;
pub const INTERVAL_MS: i64 = 5_000;
/// The sample clock is ahead of the wall clock: it was stepped back since.
pub const STEPPED_MS: i64 = -3_600_000;
pub const START_MS: i64 = 1_800_000_000_000;

/// A host whose intervals pass as fast as they are asked for.
pub struct Host {
    pub cgroups: Cgroups,
    pub timelines: Timelines,
    pub now: Moment,
}

pub fn moment(sample_ms: i64) -> Moment {
    Moment {
        sample_ms,
        to_unix_ms: STEPPED_MS,
    }
}

impl Host {
    pub fn new() -> Self {
        let mut cgroups = Cgroups::new(8192, Duration::from_secs(60));
        cgroups.machine_bytes = Some(16 << 30);
        Self {
            cgroups,
            timelines: Timelines::new(INTERVAL_MS, SystemTime::UNIX_EPOCH, 8192),
            now: moment(START_MS),
        }
    }

    pub fn made(&mut self, id: u64, path: &str) {
        let made = Path::new(path);
        assert!(self.cgroups.made(id, made, SystemTime::UNIX_EPOCH));
    }

    pub fn named(&mut self, id: u64, pod: &str, container: &str) {
        let names = Names {
            namespace: Some("shop".into()),
            pod: Some(pod.into()),
            container: Some(container.into()),
            ..Names::default()
        };
        self.cgroups.named(id, Arc::new(names), None);
    }

    pub fn gone(&mut self, id: u64) {
        self.cgroups.removed(id, Duration::from_secs(1));
    }

    pub fn has(&mut self, id: u64, usage_bytes: u64, limit: Limit) {
        let reading = MemoryReading {
            usage_bytes: Some(usage_bytes),
            anon_bytes: Some(usage_bytes / 2),
            limit: Some(limit),
            ..MemoryReading::default()
        };
        self.cgroups.read(id, reading);
    }

    /// Ends an interval that took so long.
    pub fn pass(&mut self, ms: i64) {
        self.now.sample_ms += ms;
        self.cgroups.close_interval(Duration::from_secs(1));
        self.timelines.interval(&self.cgroups, self.now);
    }

    pub fn timeline(&self, id: u64) -> Timeline {
        self.timelines.record(id).unwrap()
    }

    pub fn kinds(&self, id: u64) -> Vec<MarkKind> {
        self.timeline(id)
            .marks
            .iter()
            .map(|mark| mark.kind)
            .collect()
    }

    /// Another agent reads what this one has, `ms` later; what lives goes on.
    pub fn restarted(self, ms: i64, same_boot: bool) -> Self {
        let shared = self.timelines.shared(self.now);
        let kept: Vec<Kept> = self.timelines.kept(|_| true).collect();
        let bytes = postcard::to_stdvec(&(shared, kept)).unwrap();
        let (shared, kept) = postcard::from_bytes(&bytes).unwrap();
        let mut next = Host::new();
        next.now = moment(self.now.sample_ms + ms);
        next.timelines.restore(shared, kept, same_boot, next.now);
        next.timelines.began(next.now);
        next
    }
}

pub fn mark(kind: MarkKind, time_ms: i64) -> KeptMark {
    KeptMark::new(time_ms, kind, "text")
}

pub fn wall(sample_ms: i64) -> Timestamp {
    unix(sample_ms, STEPPED_MS)
}

pub fn usage(series: &Series) -> Vec<u64> {
    series.points.iter().map(|p| p.usage_bytes / MIB).collect()
}

#[test]
fn a_birth_was_seen_also_where_the_wall_clock_was_set_back_before_it() {
    let mut host = Host::new();
    let unix_ms = (START_MS + STEPPED_MS).unsigned_abs();
    let since = SystemTime::UNIX_EPOCH + Duration::from_millis(unix_ms);
    let started = since + Duration::from_secs(3600);
    host.timelines = Timelines::new(INTERVAL_MS, started, 8192);
    assert!(host.cgroups.made(1, Path::new("/a"), since));
    host.has(1, 100 * MIB, Limit::Unlimited);
    host.pass(INTERVAL_MS);
    let timeline = host.timeline(1);
    assert_eq!(timeline.marks[0].text, "made");
    assert_eq!(timeline.first_seen, wall(START_MS));
}

#[test]
fn each_resolution_has_the_largest_usage_of_its_steps_at_the_wall_time_of_now() {
    let mut host = Host::new();
    host.made(1, "/a");
    for interval in 0..24 * 60 * 12 {
        // One interval in each hour is high.
        let high = if interval % 720 == 200 { 400 } else { 0 };
        host.has(1, (100 + high) * MIB, Limit::Bytes(512 * MIB));
        host.pass(INTERVAL_MS);
    }
    let timeline = host.timeline(1);
    let steps: Vec<f64> = timeline.series.iter().map(|s| s.step_seconds).collect();
    assert_eq!(steps, [5.0, 60.0, 600.0, 7200.0]);
    let points: Vec<usize> = timeline.series.iter().map(|s| s.points.len()).collect();
    assert_eq!(points, [60, 120, 144, 13], "the day began within a step");
    let highs = |at: usize| {
        usage(&timeline.series[at])
            .iter()
            .filter(|mib| **mib == 500)
            .count()
    };
    assert_eq!([highs(0), highs(1), highs(2)], [0, 2, 24]);
    assert!(
        usage(&timeline.series[3])[1..12]
            .iter()
            .all(|mib| *mib == 500)
    );
    for series in &timeline.series {
        let last = series.points.last().unwrap();
        assert_eq!(
            last.time,
            wall(host.now.sample_ms),
            "no point is in the future"
        );
        assert_eq!(last.effective_limit_bytes, Some(512 * MIB));
        assert_eq!(last.anon_bytes, Some(50 * MIB));
        assert!(series.points.is_sorted_by_key(|point| point.time));
    }
    assert_eq!(timeline.first_seen, wall(START_MS + INTERVAL_MS));
}

#[test]
fn nothing_is_made_up_for_the_time_in_which_nothing_was_read() {
    let mut host = Host::new();
    host.made(1, "/a");
    host.has(1, 100 * MIB, Limit::Unlimited);
    host.pass(INTERVAL_MS);
    // Suspended for three hours.
    host.pass(3 * 3_600_000);
    let timeline = host.timeline(1);
    let times = |at: usize| -> Vec<Timestamp> {
        timeline.series[at].points.iter().map(|p| p.time).collect()
    };
    let first = wall(START_MS + INTERVAL_MS);
    let last = wall(START_MS + INTERVAL_MS + 3 * 3_600_000);
    assert_eq!(times(0), [first, last]);
    assert_eq!(
        times(1).len(),
        1,
        "the former minute left the ring of 2 hours"
    );
    assert_eq!(times(2).len(), 2);
}

#[test]
fn a_step_of_the_wall_clock_bends_nothing() {
    let mut host = Host::new();
    host.made(1, "/a");
    for _ in 0..10 {
        host.has(1, 100 * MIB, Limit::Unlimited);
        host.pass(INTERVAL_MS);
    }
    let before = host.timeline(1);
    host.now.to_unix_ms += 86_400_000;
    host.timelines.now = host.now;
    let after = host.timeline(1);
    let day = jiff::SignedDuration::from_hours(24);
    for (before, after) in before.series.iter().zip(&after.series) {
        let shifted: Vec<Timestamp> = before.points.iter().map(|p| p.time + day).collect();
        let times: Vec<Timestamp> = after.points.iter().map(|p| p.time).collect();
        assert_eq!(times, shifted);
    }
    assert_eq!(after.marks[0].time, before.marks[0].time + day);
}

#[test]
fn what_stays_small_and_quiet_has_no_history_until_something_happens() {
    let mut host = Host::new();
    host.made(1, "/a");
    host.has(1, LEAST_BYTES - 1, Limit::Unlimited);
    host.pass(INTERVAL_MS);
    assert!(host.timelines.record(1).is_none());
    let oom = mark(MarkKind::Oom, host.now.sample_ms);
    assert!(host.timelines.mark(1, host.cgroups.get(1), oom.clone()));
    assert_eq!(host.kinds(1), [MarkKind::Started, MarkKind::Oom]);
    assert!(!host.timelines.mark(7, None, oom), "nobody knows that one");
    assert_eq!(host.timelines.sizes().marks_without_cgroup, 1);
}

#[test]
fn one_that_was_killed_before_it_was_ever_read_has_its_mark() {
    let mut host = Host::new();
    host.pass(INTERVAL_MS);
    host.made(1, "/a");
    host.gone(1);
    let oom = mark(MarkKind::Oom, host.now.sample_ms);
    assert!(host.timelines.mark(1, host.cgroups.get(1), oom));
    host.pass(INTERVAL_MS);
    let kinds = [MarkKind::Started, MarkKind::Gone, MarkKind::Oom];
    assert_eq!(host.kinds(1), kinds);
    assert!(host.timeline(1).gone.is_some());
}

#[test]
fn the_same_path_goes_on_with_the_former_history_and_is_found_by_both_ids() {
    let mut host = Host::new();
    host.made(1, "/a");
    host.has(1, 100 * MIB, Limit::Bytes(512 * MIB));
    host.pass(INTERVAL_MS);
    host.gone(1);
    host.pass(INTERVAL_MS);
    assert_eq!(host.timeline(1).gone, Some(wall(host.now.sample_ms)));
    host.made(2, "/a");
    host.has(2, MIB / 2, Limit::Bytes(256 * MIB));
    host.pass(INTERVAL_MS);
    let timeline = host.timeline(2);
    let kinds = [MarkKind::Started, MarkKind::Gone, MarkKind::Restarted];
    assert_eq!(host.kinds(2), kinds);
    assert_eq!((timeline.cgroup_id, timeline.gone), (2, None));
    assert_eq!(usage(&timeline.series[0]), [100, 0]);
    let limits: Vec<_> = timeline.series[0]
        .points
        .iter()
        .map(|p| p.effective_limit_bytes)
        .collect();
    assert_eq!(limits, [Some(512 * MIB), Some(256 * MIB)]);
    assert_eq!(host.timeline(1), timeline);
    // What Kubernetes says of the former comes late.
    let report = mark(MarkKind::Report, host.now.sample_ms);
    assert!(host.timelines.mark(1, host.cgroups.get(1), report));
    assert_eq!(host.kinds(2).last(), Some(&MarkKind::Report));
}

#[test]
fn the_same_container_goes_on_under_another_path_once_its_name_is_known() {
    let mut host = Host::new();
    host.pass(INTERVAL_MS);
    for (life, path) in ["/pod1/x", "/pod1/y", "/pod2/z"].into_iter().enumerate() {
        let id = life as u64 + 1;
        host.made(id, path);
        host.has(id, (id * 100) * MIB, Limit::Unlimited);
        host.pass(INTERVAL_MS);
        host.named(id, "web-0", "app");
        host.pass(INTERVAL_MS);
        host.gone(id);
        host.pass(INTERVAL_MS);
    }
    let timeline = host.timeline(3);
    assert_eq!(timeline.cgroup, "/pod2/z");
    assert_eq!(usage(&timeline.series[0]), [100, 100, 200, 200, 300, 300]);
    let restarts = host
        .kinds(3)
        .iter()
        .filter(|kind| **kind == MarkKind::Restarted)
        .count();
    let begun = host
        .kinds(3)
        .iter()
        .filter(|kind| **kind == MarkKind::Started)
        .count();
    assert_eq!((restarts, begun), (2, 1));
    assert!(timeline.marks.is_sorted_by_key(|mark| mark.time));
    assert_eq!(host.timelines.sizes().gone, 1);
    // Another container of the pod is another.
    host.made(9, "/pod2/sidecar");
    host.has(9, 5 * MIB, Limit::Unlimited);
    host.named(9, "web-0", "sidecar");
    host.pass(INTERVAL_MS);
    assert_eq!(host.kinds(9), [MarkKind::Started]);
}

#[test]
fn growth_has_one_mark_for_each_leak_at_its_onset() {
    let mut host = Host::new();
    host.made(1, "/a");
    host.has(1, 100 * MIB, Limit::Unlimited);
    (0..100).for_each(|_| host.pass(INTERVAL_MS));
    let onset = host.now.sample_ms - 60_000;
    let verdict = mark(MarkKind::Verdict, host.now.sample_ms);
    for _ in 0..3 {
        let began = mark(MarkKind::GrowthBegan, onset);
        host.timelines.growth_began(1, host.cgroups.get(1), began);
        assert!(host.timelines.mark(1, None, verdict.clone()));
    }
    let kinds = host.kinds(1);
    assert_eq!(kinds[..2], [MarkKind::Started, MarkKind::GrowthBegan]);
    assert_eq!(kinds[2..], [MarkKind::Verdict; 3]);
    host = host.restarted(1000, true);
    host.made(1, "/a");
    host.pass(INTERVAL_MS);
    let again = mark(MarkKind::GrowthBegan, host.now.sample_ms);
    host.timelines.growth_began(1, None, again.clone());
    assert!(!host.kinds(1)[2..].contains(&MarkKind::GrowthBegan));
    host.timelines.growth_ended(1);
    host.timelines.growth_began(1, None, again);
    assert_eq!(host.kinds(1).last(), Some(&MarkKind::GrowthBegan));
}

#[test]
fn the_longest_gone_are_forgotten_first_and_all_after_a_week() {
    let mut host = Host::new();
    for id in 1..=600 {
        host.made(id, &format!("/job/{id}"));
        host.has(id, 2 * MIB, Limit::Unlimited);
        host.pass(INTERVAL_MS);
        host.gone(id);
    }
    host.pass(INTERVAL_MS);
    let sizes = host.timelines.sizes();
    assert_eq!(
        (sizes.cgroups, sizes.gone, sizes.forgotten),
        (0, gone::MOST, 88)
    );
    assert!(host.timelines.record(88).is_none());
    let (told, left_out) = host.timelines.matching(|_, _| true, 10);
    assert_eq!((told.len(), left_out), (10, 502));
    assert_eq!(
        told[0].cgroup, "/job/600",
        "the last that went is told first"
    );
    host.pass(7 * 86_400_000);
    host.pass(INTERVAL_MS);
    assert_eq!(host.timelines.sizes().gone, 0);
}

#[test]
fn paths_that_were_cut_are_not_taken_for_one() {
    let mut host = Host::new();
    let long = |end: &str| format!("/{}/{end}", "x".repeat(600));
    host.made(1, &long("a"));
    host.has(1, 2 * MIB, Limit::Unlimited);
    host.pass(INTERVAL_MS);
    host.gone(1);
    host.pass(INTERVAL_MS);
    host.made(2, &long("b"));
    host.has(2, 2 * MIB, Limit::Unlimited);
    host.pass(INTERVAL_MS);
    assert_eq!(host.kinds(2), [MarkKind::Started]);
    assert!(host.timeline(1).gone.is_some());
}
