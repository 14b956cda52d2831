//! What another agent makes of what one kept.

use super::{tests::*, *};
use crate::{api::records::Mark, model::snapshot::Limit};

#[test]
fn another_agent_goes_on_and_says_for_how_long_nothing_was_seen() {
    let mut host = Host::new();
    host.made(1, "/a");
    for interval in 0..30 {
        host.has(1, (100 + interval) * MIB, Limit::Bytes(512 * MIB));
        host.pass(INTERVAL_MS);
    }
    host.timelines.stopped(host.now);
    let before = host.timeline(1);
    let mut host = host.restarted(90_000, true);
    host.made(1, "/a");
    host.has(1, 200 * MIB, Limit::Bytes(512 * MIB));
    host.pass(0);
    let after = host.timeline(1);
    assert_eq!(after.series[0].points[..30], before.series[0].points[..30]);
    assert_eq!(after.series[0].points.len(), 31);
    assert_eq!(after.first_seen, before.first_seen);
    let kinds = [
        MarkKind::Started,
        MarkKind::AgentStopped,
        MarkKind::AgentStarted,
    ];
    assert_eq!(host.kinds(1), kinds, "the same life of the same cgroup");
    let text = &after.marks[2].text;
    assert_eq!(text, "memtrace started again; nothing was seen for 1m30s");
    // Killed this time, with the host.
    let mut host = host.restarted(30_000, false);
    host.made(1, "/b");
    host.made(2, "/a");
    host.pass(0);
    let timeline = host.timeline(2);
    let marks: Vec<&Mark> = timeline.marks.iter().rev().take(2).collect();
    let kinds = marks.iter().map(|mark| mark.kind);
    assert!(
        kinds.eq([MarkKind::Restarted, MarkKind::AgentStarted]),
        "{marks:?}"
    );
    assert!(
        marks[1]
            .text
            .contains("after a start of the host, without having ended in order")
    );
    assert!(host.timelines.record(1).is_none(), "an id of another boot");
}

#[test]
fn what_went_while_no_agent_ran_is_gone_and_what_a_busy_host_hides_is_not_taken() {
    let mut host = Host::new();
    host.pass(INTERVAL_MS);
    for id in [1, 2] {
        host.made(id, &format!("/pod/{id}"));
        host.has(id, 100 * MIB, Limit::Unlimited);
    }
    host.named(1, "web-0", "app");
    host.pass(INTERVAL_MS);
    host.pass(INTERVAL_MS);
    let mut host = host.restarted(60_000, true);
    // The first lives; a new one of the same names, as anybody may make, does not take its history.
    host.made(1, "/pod/1");
    host.made(3, "/pod/3");
    for id in [1, 3] {
        host.has(id, 100 * MIB, Limit::Unlimited);
        host.named(id, "web-0", "app");
    }
    host.pass(INTERVAL_MS);
    host.pass(INTERVAL_MS);
    assert_eq!(host.timeline(1).series[0].points.len(), 4);
    assert_eq!(host.timeline(3).series[0].points.len(), 2);
    let (gone, left_out) = host.timelines.matching(|path, _| path == "/pod/2", 10);
    assert_eq!((gone.len(), left_out), (1, 0));
    assert!(gone[0].gone.is_some());
    assert_eq!(gone[0].marks.last().unwrap().kind, MarkKind::Gone);
}

#[test]
fn the_clock_of_another_boot_may_have_been_ahead() {
    let mut host = Host::new();
    host.made(1, "/a");
    for _ in 0..1000 {
        host.has(1, 100 * MIB, Limit::Bytes(512 * MIB));
        host.pass(INTERVAL_MS);
    }
    let mut host = host.restarted(-365 * 86_400_000, false);
    let now = wall(host.now.sample_ms);
    let begun = host.timelines.agents.last().unwrap().told(STEPPED_MS);
    assert!(
        !begun.text.contains("nothing was seen for"),
        "that is not known"
    );
    host.made(2, "/a");
    host.has(2, 100 * MIB, Limit::Bytes(512 * MIB));
    host.pass(0);
    let timeline = host.timeline(2);
    for series in &timeline.series[1..3] {
        assert!(series.points.len() > 1, "what was known is kept");
        assert!(series.points.iter().all(|point| point.time <= now));
        let known = |p: &&crate::api::records::Point| p.effective_limit_bytes.is_some();
        assert!(series.points.iter().filter(known).count() > 1);
    }
    assert!(timeline.marks.iter().all(|mark| mark.time <= now));
}

#[test]
fn another_interval_begins_the_finest_series_anew_and_keeps_the_others() {
    let mut host = Host::new();
    host.made(1, "/a");
    for _ in 0..30 {
        host.has(1, 100 * MIB, Limit::Unlimited);
        host.pass(INTERVAL_MS);
    }
    let mut shared = host.timelines.shared(host.now);
    shared.interval_ms = 1000;
    let kept = host.timelines.kept(|_| true).collect();
    let now = host.now;
    let mut host = Host::new();
    host.now = now;
    host.timelines.restore(shared, kept, true, now);
    host.made(1, "/a");
    host.has(1, 50 * MIB, Limit::Unlimited);
    host.pass(INTERVAL_MS);
    let timeline = host.timeline(1);
    assert_eq!(usage(&timeline.series[0]), [50]);
    assert!(timeline.series[1].points.len() >= 3);
}

#[test]
fn marks_of_memtrace_itself_are_of_the_time_in_which_a_cgroup_lived() {
    let mut host = Host::new();
    host.timelines.stopped(moment(START_MS - 5));
    host.made(1, "/a");
    host.has(1, 2 * MIB, Limit::Unlimited);
    host.pass(INTERVAL_MS);
    assert_eq!(host.kinds(1), [MarkKind::Started]);
    for restart in 0..100 {
        host.timelines.mark_agent(
            MarkKind::AgentStarted,
            "x",
            moment(START_MS + 6000 + restart),
        );
        assert!(
            host.timelines
                .mark(1, None, mark(MarkKind::Oom, START_MS + 6000 + restart))
        );
    }
    host.pass(INTERVAL_MS);
    let kinds = host.kinds(1);
    let own = kinds
        .iter()
        .filter(|kind| **kind != MarkKind::AgentStarted)
        .count();
    assert_eq!(
        (kinds.len(), own),
        (63, 48),
        "the end before it was made is not told"
    );
}
