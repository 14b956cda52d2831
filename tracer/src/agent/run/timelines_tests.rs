//! An agent's histories through a state directory, and what becomes a mark.

use std::sync::Arc;

use super::*;
use crate::model::snapshot::{Limit, MemoryReading};

const CGROUP_OOM: &str = include_str!("../../incident/fixtures/cgroup_oom.json");

fn cgroups(ids: &[u64]) -> Cgroups {
    let mut cgroups = Cgroups::new(16, Duration::from_secs(60));
    for id in ids {
        let path = format!("/a/{id}");
        assert!(cgroups.made(*id, Path::new(&path), SystemTime::UNIX_EPOCH));
        let reading = MemoryReading {
            usage_bytes: Some(100 << 20),
            limit: Some(Limit::Bytes(1 << 30)),
            ..MemoryReading::default()
        };
        cgroups.read(*id, reading);
    }
    cgroups.close_interval(Duration::from_secs(1));
    cgroups
}

fn chronicle(state_dir: Option<&Path>) -> Chronicle {
    // The cgroups were there before it.
    Chronicle::new(
        Duration::from_secs(1),
        SystemTime::UNIX_EPOCH,
        16,
        state_dir,
    )
}

fn kinds(chronicle: &Chronicle, id: u64) -> Vec<MarkKind> {
    let timeline = chronicle.timelines.record(id).unwrap();
    timeline.marks.iter().map(|mark| mark.kind).collect()
}

#[test]
fn an_agent_that_ended_in_order_and_one_that_was_killed_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let cgroups = cgroups(&[1]);
    let mut first = chronicle(Some(directory.path()));
    first.interval(&cgroups);
    first.stop();
    let mut second = chronicle(Some(directory.path()));
    second.interval(&cgroups);
    let agents = [MarkKind::AgentStopped, MarkKind::AgentStarted];
    assert_eq!(kinds(&second, 1)[1..], agents);
    let points = second.timelines.record(1).unwrap().series[0].points.len();
    assert_eq!(points, 2, "one of each agent");
    // What this one wrote is lost with it; the files of the first are whole.
    drop(second);
    let mut third = chronicle(Some(directory.path()));
    third.interval(&cgroups);
    assert_eq!(kinds(&third, 1)[1..], agents);
    assert!(third.losses().all(|(_, count)| count == 0));
}

#[test]
fn a_state_directory_that_cannot_be_used_costs_a_counter() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("timelines"), "a file").unwrap();
    let mut chronicle = chronicle(Some(directory.path()));
    chronicle.interval(&cgroups(&[1]));
    let losses: Vec<_> = chronicle.losses().collect();
    assert_eq!(losses, [("timeline_store_unusable", 1)]);
    chronicle.stop();
}

#[test]
fn an_incident_is_a_mark_of_each_cgroup_that_has_to_do_with_it_at_its_own_time() {
    let mut incident: Incident = serde_json::from_str(CGROUP_OOM).unwrap();
    let charged = incident.charged.as_mut().unwrap();
    charged.cgroup_id = 1;
    incident.victims[0].cgroup_id = Some(2);
    let mut other = incident.victims[0].clone();
    other.cgroup_id = Some(2);
    incident.victims.push(other);
    incident.boot_time_ns = 5_000_000_000;
    let cgroups = cgroups(&[1, 2, 3]);
    let mut chronicle = chronicle(None);
    chronicle.interval(&cgroups);
    chronicle.incident(&cgroups, &incident);
    chronicle.report(&cgroups, &incident);
    for id in [1, 2] {
        let timeline = chronicle.timelines.record(id).unwrap();
        let oom = timeline
            .marks
            .iter()
            .find(|mark| mark.kind == MarkKind::Oom);
        let oom = oom.unwrap();
        assert_eq!(oom.incident.as_ref(), Some(&incident.id));
        assert_eq!(oom.text, incident.meaning.summary);
        let booted = jiff::Timestamp::now().as_millisecond() - clock_ms();
        let off = oom.time.as_millisecond() - (booted + 5000);
        assert!(off.abs() < 1000, "{off}");
    }
    assert_eq!(kinds(&chronicle, 3), [MarkKind::Started]);
}

fn clock_ms() -> i64 {
    crate::agent::clock::boot_time().as_millis() as i64
}

#[test]
fn a_limit_that_was_changed_is_told_in_the_words_of_the_output() {
    let cgroups = cgroups(&[1]);
    let mut chronicle = chronicle(None);
    chronicle.interval(&cgroups);
    let change = LimitChange {
        time: SystemTime::now(),
        cgroup_id: 1,
        cgroup: "/a/1".into(),
        names: Arc::default(),
        from: Limit::Bytes(1 << 30),
        to: Limit::Unlimited,
        usage_bytes: None,
    };
    chronicle.limit_changed(&cgroups, &change);
    let timeline = chronicle.timelines.record(1).unwrap();
    let text = "the memory limit of /a/1 changed from 1.0G to no limit";
    assert_eq!(timeline.marks.last().map(|mark| &*mark.text), Some(text));
}
