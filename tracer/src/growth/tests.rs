//! Which verdict is told of which cgroup, once.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use super::*;
use crate::identity::names::Names;
use crate::model::snapshot::{Limit, MemoryReading};

const MIB: u64 = 1 << 20;
const POD: u64 = 2;
const APP: u64 = 3;
const LIMIT: u64 = 1024 * MIB;

/// A host whose minutes pass as fast as they are asked for.
struct Host {
    cgroups: Cgroups,
    growth: Growth,
    minute: i64,
    told: Vec<GrowthChange>,
}

impl Host {
    fn new(tree: &[(u64, &str)]) -> Self {
        let mut cgroups = Cgroups::new(64, Duration::from_secs(60));
        cgroups.machine_bytes = Some(16 << 30);
        for (id, path) in tree {
            assert!(cgroups.made(*id, Path::new(path), SystemTime::UNIX_EPOCH));
        }
        Self {
            cgroups,
            growth: Growth::new(Arc::default()),
            minute: 0,
            told: Vec::new(),
        }
    }

    /// Lets minutes pass; `anon` gives bytes and limit of a cgroup by the minute since the beginning.
    fn pass(&mut self, minutes: i64, anon: impl Fn(u64, i64) -> (u64, Limit)) {
        for _ in 0..minutes {
            self.minute += 1;
            for id in self.cgroups.live_ids() {
                let (bytes, limit) = anon(id, self.minute);
                let reading = MemoryReading {
                    usage_bytes: Some(bytes),
                    anon_bytes: Some(bytes),
                    limit: Some(limit),
                    ..MemoryReading::default()
                };
                self.cgroups.read(id, reading);
            }
            let at = Duration::from_secs(60 * self.minute.unsigned_abs());
            self.cgroups.close_interval(at);
            let host = HostReading {
                mem_available_bytes: Some(8 << 30),
                ..HostReading::default()
            };
            let now = Moment {
                sample_ms: self.minute * 60_000,
                to_unix_ms: 0,
            };
            let processes = Processes::default();
            let told = self
                .growth
                .interval(&mut self.cgroups, &processes, &host, now);
            self.told.extend(told);
        }
    }

    fn events(&self) -> Vec<(u64, GrowthEvent)> {
        let events = self.told.iter();
        events
            .filter_map(|change| Some((change.cgroup_id, change.event?)))
            .collect()
    }

    fn state(&self, id: u64) -> State {
        self.cgroups.get(id).unwrap().leak.unwrap().state
    }
}

/// Calm for three hours, then 2 MiB a minute.
fn leaking(minute: i64) -> u64 {
    let grown = (minute - 180).max(0).unsigned_abs() * 2;
    (100 + grown) * MIB + (minute.unsigned_abs() * 7919 % 13) * 65_536
}

#[test]
fn a_leak_is_told_once_when_suspected_and_once_when_confirmed() {
    let mut host = Host::new(&[(APP, "/app")]);
    host.pass(500, |_, minute| (leaking(minute), Limit::Bytes(LIMIT)));
    assert_eq!(
        host.events(),
        [(APP, GrowthEvent::Suspected), (APP, GrowthEvent::Confirmed)]
    );
    let confirmed = host.told.last().unwrap();
    let rate = confirmed.rate_bytes_per_hour.unwrap().mid / MIB as f64;
    assert!((110.0..130.0).contains(&rate), "{rate} MiB/h");
    assert!(confirmed.time_to_limit_s.is_some() && confirmed.since.is_some());
    assert_eq!(confirmed.limit_cgroup.as_deref(), Some("/app"));
}

#[test]
fn a_leak_is_told_of_the_lowest_cgroup_that_has_it() {
    let mut host = Host::new(&[(POD, "/pod"), (APP, "/pod/app"), (4, "/pod/sidecar")]);
    let limits = |id| match id {
        POD => Limit::Bytes(LIMIT),
        _ => Limit::Unlimited,
    };
    host.pass(500, |id, minute| {
        let bytes = match id {
            POD => leaking(minute) + 50 * MIB,
            APP => leaking(minute),
            _ => 50 * MIB,
        };
        (bytes, limits(id))
    });
    assert_eq!(host.state(POD), State::Confirmed);
    assert_eq!(
        host.events(),
        [(APP, GrowthEvent::Suspected), (APP, GrowthEvent::Confirmed)]
    );
    let confirmed = host.told.last().unwrap();
    assert_eq!(confirmed.limit_cgroup.as_deref(), Some("/pod"));
    assert_eq!(confirmed.limit_bytes, Some(LIMIT));
}

#[test]
fn a_parent_without_a_limit_is_not_judged() {
    let mut host = Host::new(&[(POD, "/slice"), (APP, "/slice/app")]);
    host.pass(10, |_, minute| (leaking(minute), Limit::Unlimited));
    assert_eq!(host.cgroups.get(POD).unwrap().leak, None);
    assert!(host.cgroups.get(APP).unwrap().leak.is_some());
}

#[test]
fn a_cgroup_that_comes_again_goes_on_with_its_leak() {
    let mut host = Host::new(&[(APP, "/app")]);
    host.pass(500, |_, minute| (leaking(minute), Limit::Bytes(LIMIT)));
    let before = host.events().len();
    host.cgroups.removed(APP, Duration::from_secs(60 * 500));
    host.pass(2, |_, _| (0, Limit::Unlimited));
    assert!(
        host.cgroups
            .made(9, Path::new("/app"), SystemTime::UNIX_EPOCH)
    );
    host.pass(5, |_, _| (100 * MIB, Limit::Bytes(LIMIT)));
    assert!(
        host.growth.judged[&9].analyzer.verdict().state != State::Unknown,
        "it did not start over"
    );
    assert_eq!(
        host.events().len(),
        before,
        "a restart neither clears nor accuses"
    );
    host.pass(600, |_, _| (100 * MIB, Limit::Bytes(LIMIT)));
    assert_eq!(
        host.events()[before..],
        [(9, GrowthEvent::Cleared)],
        "once it is calm for as long as it leaked"
    );
}

#[test]
fn a_container_that_starts_again_under_another_id_goes_on_with_its_leak() {
    let leak = |_, minute: i64| (leaking(minute), Limit::Bytes(LIMIT));
    let again = |_, minute: i64| ((100 + minute.unsigned_abs()) * MIB, Limit::Bytes(LIMIT));
    let name = |host: &mut Host, id| {
        let names = Names {
            pod_uid: Some("u".into()),
            container: Some("app".into()),
            ..Names::default()
        };
        host.cgroups.named(id, names.into(), None);
    };
    let mut host = Host::new(&[(APP, "/pod/1")]);
    name(&mut host, APP);
    host.pass(500, leak);
    host.cgroups.removed(APP, Duration::from_secs(60 * 500));
    host.told.clear();
    assert!(
        host.cgroups
            .made(9, Path::new("/pod/2"), SystemTime::UNIX_EPOCH)
    );
    // The runtime is slow to name it.
    host.pass(3, again);
    name(&mut host, 9);
    host.pass(1, again);
    assert_eq!(host.state(9), State::Reclaimed);
    assert_eq!(host.events(), []);
}

#[test]
fn what_is_kept_is_taken_up_where_it_was_left() {
    let mut host = Host::new(&[(APP, "/app")]);
    let growing = |_, minute| (leaking(minute), Limit::Bytes(LIMIT));
    host.pass(500, growing);
    let now = Moment {
        sample_ms: host.minute * 60_000,
        to_unix_ms: 0,
    };
    let kept: Vec<Vec<u8>> = host
        .growth
        .kept(now, |_| true)
        .map(|kept| postcard::to_stdvec(&kept).unwrap())
        .collect();
    assert_eq!(kept.len(), 1);
    let mut next = Host::new(&[(APP, "/app")]);
    next.minute = host.minute + 3;
    let now = Moment {
        sample_ms: next.minute * 60_000,
        to_unix_ms: 0,
    };
    for bytes in &kept {
        next.growth
            .restore(postcard::from_bytes(bytes).unwrap(), true, now);
    }
    next.pass(10, growing);
    assert_eq!(next.state(APP), State::Confirmed);
    assert_eq!(next.events(), [], "it was told before");
    let since = |host: &Host| host.cgroups.get(APP).unwrap().leak.unwrap().since.unwrap();
    assert_eq!(since(&next).time_ms, since(&host).time_ms);
}

#[test]
fn what_is_gone_for_a_day_is_forgotten_however_often_the_agent_starts_again() {
    let now = |minute: i64| Moment {
        sample_ms: minute * 60_000,
        to_unix_ms: 0,
    };
    let mut host = Host::new(&[(APP, "/app")]);
    host.pass(500, |_, minute| (leaking(minute), Limit::Bytes(LIMIT)));
    host.cgroups.removed(APP, Duration::from_secs(60 * 500));
    host.pass(1, |_, _| (0, Limit::Unlimited));
    for left in [1, 1, 0] {
        // Half a day less a moment: the first two are within a day.
        let mut next = Host::new(&[]);
        next.minute = host.minute + 700;
        for kept in host.growth.kept(now(host.minute), |_| true) {
            let bytes = postcard::to_stdvec(&kept).unwrap();
            let restored = postcard::from_bytes(&bytes).unwrap();
            next.growth.restore(restored, true, now(next.minute));
        }
        next.pass(1, |_, _| (0, Limit::Unlimited));
        host = next;
        assert_eq!(host.growth.kept(now(host.minute), |_| true).count(), left);
    }
}

#[test]
fn without_a_limit_the_time_is_until_the_machine_has_nothing_available() {
    let mut host = Host::new(&[(APP, "/app")]);
    host.pass(480, |_, minute| (leaking(minute), Limit::Unlimited));
    let leak = host.cgroups.get(APP).unwrap().leak.unwrap();
    assert!(leak.state.is_leak(), "{leak:?}");
    let time = leak.time_to_limit.unwrap();
    assert_eq!(time.limit_bytes, 16 << 30);
    let expected = (8u64 << 30) as f64 / leak.rate_bytes_per_hour.unwrap().mid * 3600.0;
    assert_eq!(time.seconds.mid, expected);
    assert_eq!(leak.near_limit, None);
}

#[test]
fn a_limit_that_is_near_is_told_when_it_comes_and_when_it_goes() {
    let mut host = Host::new(&[(APP, "/app")]);
    let full = |id, minute| {
        let share = if minute < 60 { 95 } else { 50 };
        let _: u64 = id;
        (LIMIT / 100 * share, Limit::Bytes(LIMIT))
    };
    host.pass(120, full);
    let near: Vec<Option<bool>> = host
        .told
        .iter()
        .map(|change| change.near_limit_changed_to)
        .filter(Option::is_some)
        .collect();
    assert_eq!(near, [Some(true), Some(false)]);
    assert_eq!(host.events(), [(APP, GrowthEvent::LimitNear)]);
}

#[test]
fn small_cgroups_cost_nothing() {
    let mut host = Host::new(&[(APP, "/app")]);
    host.pass(5, |_, _| (MIB / 2, Limit::Unlimited));
    assert!(host.growth.judged.is_empty());
    assert_eq!(host.cgroups.get(APP).unwrap().leak, None);
}

#[test]
fn the_layout_is_the_same_each_time() {
    assert_ne!(Growth::layout(), 0);
    assert_eq!(Growth::layout(), Growth::layout());
}

#[test]
fn of_many_small_growers_below_one_limit_the_parent_is_told_and_its_time_holds_for_all() {
    let children = ["/pod/a", "/pod/b", "/pod/c", "/pod/d"];
    let mut tree = vec![(POD, "/pod")];
    tree.extend(children.iter().zip(10..).map(|(path, id)| (id, *path)));
    let mut host = Host::new(&tree);
    let each = |minute: i64| 25 * MIB + (leaking(minute) - 100 * MIB) / 4;
    host.pass(480, |id, minute| match id {
        POD => (4 * each(minute), Limit::Bytes(LIMIT)),
        _ => (each(minute), Limit::Unlimited),
    });
    let events = host.events();
    assert!(
        events.contains(&(POD, GrowthEvent::Suspected)),
        "{events:?}"
    );
    let leak = |id| host.cgroups.get(id).unwrap().leak.unwrap();
    let of_all = leak(POD).time_to_limit.unwrap().seconds.mid;
    for id in 10..14 {
        if let Some(time) = leak(id).time_to_limit {
            assert!(time.seconds.mid <= of_all, "{id}: {time:?}, {of_all} s");
        }
    }
}

#[test]
fn what_is_judged_stays_so_when_it_gets_a_child() {
    let mut host = Host::new(&[(APP, "/app")]);
    host.pass(500, |_, minute| (leaking(minute), Limit::Unlimited));
    assert!(host.state(APP).is_leak());
    assert!(
        host.cgroups
            .made(9, Path::new("/app/kid"), SystemTime::UNIX_EPOCH)
    );
    host.pass(30, |_, _| (20 * MIB, Limit::Unlimited));
    assert!(!host.state(APP).is_leak());
    assert_eq!(host.events().last(), Some(&(APP, GrowthEvent::Cleared)));
}

#[test]
fn a_path_that_is_no_text_is_kept() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let path = Path::new(OsStr::from_bytes(b"/bad\xff\xfe"));
    let mut host = Host::new(&[]);
    assert!(host.cgroups.made(APP, path, SystemTime::UNIX_EPOCH));
    host.pass(20, |_, _| (20 * MIB, Limit::Unlimited));
    let now = Moment {
        sample_ms: 0,
        to_unix_ms: 0,
    };
    let kept = host.growth.kept(now, |_| true).next().unwrap();
    let bytes = postcard::to_stdvec(&kept).unwrap();
    let restored: Restored = postcard::from_bytes(&bytes).unwrap();
    assert_eq!(restored.path, path);
}

#[test]
fn the_verdict_of_now_has_its_evidence_and_is_no_change() {
    let mut host = Host::new(&[(APP, "/app")]);
    let now = |host: &Host| Moment {
        sample_ms: host.minute * 60_000,
        to_unix_ms: 0,
    };
    let current = |host: &Host, id| {
        let processes = Processes::default();
        host.growth
            .current(id, &host.cgroups, &processes, now(host))
    };
    assert_eq!(current(&host, APP), None);
    host.pass(500, |_, minute| (leaking(minute), Limit::Bytes(LIMIT)));
    let verdict = current(&host, APP).unwrap();
    assert_eq!(verdict.state, host.state(APP));
    assert!(verdict.state.is_leak() && verdict.evidence.is_some());
    assert_eq!(
        (verdict.event, verdict.from, verdict.near_limit_changed_to),
        (None, None, None)
    );
    assert_eq!(verdict.usage_bytes, Some(leaking(500)));
    let told = host.told.len();
    assert_eq!(current(&host, APP), Some(verdict));
    assert_eq!(host.told.len(), told);
}
