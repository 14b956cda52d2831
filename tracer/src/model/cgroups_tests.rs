use super::*;
use crate::model::cgroup::Serving;
use crate::model::snapshot::{Limit, Pressure};

fn reading(usage: u64, limit: Limit) -> MemoryReading {
    MemoryReading {
        usage_bytes: Some(usage),
        limit: Some(limit),
        ..MemoryReading::default()
    }
}

fn tree() -> Cgroups {
    let mut cgroups = Cgroups::new(8, Duration::from_secs(10));
    cgroups.machine_bytes = Some(1 << 30);
    for (id, path) in [(1, "/"), (2, "/a"), (3, "/a/b")] {
        assert!(cgroups.made(id, Path::new(path), SystemTime::UNIX_EPOCH));
    }
    cgroups
}

#[test]
fn the_effective_limit_is_an_ancestors_when_that_is_smaller() {
    let mut cgroups = tree();
    cgroups.read(1, reading(5, Limit::Unlimited));
    cgroups.read(2, reading(5, Limit::Bytes(100)));
    cgroups.read(3, reading(5, Limit::Bytes(200)));
    cgroups.close_interval(Duration::from_secs(1));
    let limit = cgroups.get(3).unwrap().effective_limit.clone().unwrap();
    assert_eq!((limit.bytes, limit.cgroup.as_deref()), (100, Some("/a")));
}

#[test]
fn growth_is_the_change_of_usage_over_the_time_that_passed() {
    let mut cgroups = tree();
    cgroups.read(2, reading(1000, Limit::Unlimited));
    cgroups.close_interval(Duration::from_secs(1));
    assert_eq!(cgroups.get(2).unwrap().rates.growth_bytes_per_second, None);
    cgroups.read(2, reading(3000, Limit::Unlimited));
    cgroups.close_interval(Duration::from_secs(5));
    assert_eq!(
        cgroups.get(2).unwrap().rates.growth_bytes_per_second,
        Some(500.0)
    );
}

#[test]
fn kills_are_counted_apart_by_scope_and_group_and_unknown_without_the_probe() {
    let mut cgroups = tree();
    for _ in 0..3 {
        assert!(cgroups.oom_killed(2, Some("cgroup"), Some(true)));
    }
    assert!(cgroups.oom_killed(2, Some("global"), None));
    assert!(!cgroups.oom_killed(99, None, None));
    let serving = |oom_kills| Serving {
        heap: true,
        reclaim: true,
        execs: true,
        exits: true,
        oom_kills,
    };
    let kills = |id, oom| {
        let cgroup = cgroups.get(id).unwrap();
        cgroup.snapshot(serving(oom), Vec::new()).oom_kills
    };
    let counts: Vec<u64> = kills(2, true).unwrap().iter().map(|k| k.count).collect();
    assert_eq!(counts, [3, 1]);
    assert_eq!(kills(3, true), Some(Vec::new()));
    assert_eq!(kills(2, false), None);
}

#[test]
fn a_removed_cgroup_is_told_once_and_kept_for_the_grace_period() {
    let mut cgroups = tree();
    assert_eq!(cgroups.take_changed().count(), 3);
    cgroups.removed(3, Duration::from_secs(5));
    let told: Vec<bool> = cgroups.take_changed().map(Cgroup::is_removed).collect();
    assert_eq!(told, [true]);
    assert_eq!(cgroups.take_changed().count(), 0);
    assert!(cgroups.evict(Duration::from_secs(6)).is_empty());
    assert!(cgroups.evict(Duration::from_secs(16)).is_empty());
    assert_eq!(cgroups.evict(Duration::from_secs(17)), [3]);
    assert!(cgroups.get(3).is_none());
}

#[test]
fn a_suspension_takes_nothing_of_the_grace_period() {
    let mut cgroups = tree();
    cgroups.removed(3, Duration::from_secs(5));
    cgroups.close_interval(Duration::from_secs(6));
    assert!(cgroups.evict(Duration::from_secs(6)).is_empty());
    // An hour later, of which the host was awake for two seconds.
    cgroups.removed(2, Duration::from_secs(3607));
    cgroups.close_interval(Duration::from_secs(3608));
    assert!(cgroups.evict(Duration::from_secs(8)).is_empty());
    assert_eq!(cgroups.live_since(Duration::from_secs(6)).count(), 2);
    assert_eq!(cgroups.evict(Duration::from_secs(17)), [3]);
    assert_eq!(cgroups.evict(Duration::from_secs(19)), [2]);
}

#[test]
fn the_tree_never_outgrows_its_bound_and_removed_cgroups_make_room() {
    let mut cgroups = tree();
    let made =
        |cgroups: &mut Cgroups, id| cgroups.made(id, Path::new("/x"), SystemTime::UNIX_EPOCH);
    let kept = (10..30).filter(|&id| made(&mut cgroups, id)).count();
    assert_eq!((kept, cgroups.by_id.len()), (5, 8));
    for id in 100..200 {
        cgroups.removed(cgroups.live_ids()[0], Duration::ZERO);
        assert!(made(&mut cgroups, id));
    }
    assert_eq!(cgroups.live().count(), 8);
    assert_eq!(cgroups.by_id.len(), 10);
    // Nobody was told of the 98 that were crowded out; their BPF counts go too.
    assert_eq!(cgroups.overflow, 98);
    assert_eq!(cgroups.evict(Duration::ZERO).len(), 98);
}

#[test]
fn one_that_makes_many_cgroups_does_not_keep_others_from_being_seen() {
    let mut cgroups = Cgroups::new(64, Duration::from_secs(10));
    let made = |cgroups: &mut Cgroups, id: u64, path: &str| {
        cgroups.made(id, Path::new(path), SystemTime::UNIX_EPOCH)
    };
    for (id, path) in [(1, "/"), (2, "/pods"), (3, "/pods/old")] {
        assert!(made(&mut cgroups, id, path));
    }
    let kept = (1000..1200).filter(|&id| made(&mut cgroups, id, &format!("/user/{id}")));
    assert_eq!(kept.count(), 61);
    assert!(cgroups.take_displaced().is_empty());
    for id in 10..20 {
        assert!(made(&mut cgroups, id, &format!("/pods/{id}")));
        let displaced = cgroups.take_displaced();
        assert!(matches!(displaced[..], [user] if user >= 1000 && cgroups.get(user).is_none()));
        assert!(!made(
            &mut cgroups,
            displaced[0],
            &format!("/user/{}", displaced[0])
        ));
    }
    assert_eq!((cgroups.live().count(), cgroups.overflow), (64, 10));
    // Their BPF counts go too.
    assert_eq!(cgroups.evict(Duration::ZERO).len(), 10);
    cgroups.removed(15, Duration::ZERO);
    cgroups.close_interval(Duration::from_secs(1));
    assert!(cgroups.shares.is_none(), "kept though there is room");
    assert!(made(&mut cgroups, 2000, "/user/2000"));
}

#[test]
fn time_lost_in_reclaim_counts_for_all_above_also_when_the_cgroup_is_gone() {
    let mut cgroups = tree();
    let lost = |stall_ns| ReclaimTotals {
        stall_ns,
        ..ReclaimTotals::default()
    };
    cgroups.reclaimed(3, lost(5));
    cgroups.reclaimed(2, lost(2));
    let sums = |cgroups: &Cgroups| {
        let mut sums: Vec<_> = cgroups.stall_ns_with_below().into_iter().collect();
        sums.sort_unstable();
        sums
    };
    assert_eq!(sums(&cgroups), [(1, 7), (2, 7), (3, 5)]);
    cgroups.removed(3, Duration::ZERO);
    assert_eq!(sums(&cgroups), [(1, 7), (2, 7)]);
}

#[test]
fn pressure_is_the_share_of_the_time_since_it_was_read_last() {
    let mut cgroups = tree();
    let second = Duration::from_secs(1);
    let mut read = |some_ns: Option<u64>, at: u32, in_full: bool| {
        let memory = MemoryReading {
            pressure: Pressure {
                some_ns,
                full_ns: None,
            },
            ..MemoryReading::default()
        };
        cgroups.read(2, memory);
        if in_full {
            cgroups.read_in_full(2, None);
        }
        cgroups.close_interval(second * at);
        let rates = cgroups.get(2).unwrap().rates;
        assert_eq!(rates.pressure_full_ratio, None);
        rates.pressure_some_ratio
    };
    assert_eq!(read(Some(1_000_000_000), 1, true), None);
    assert_eq!(read(Some(1_500_000_000), 2, true), Some(0.5));
    assert_eq!(read(Some(1_500_000_000), 3, false), None);
    assert_eq!(read(Some(1_500_000_000), 5, false), None);
    // Over the four seconds in which it was not read.
    assert_eq!(read(Some(3_500_000_000), 6, true), Some(0.5));
    // A counter that fell was reset.
    assert_eq!(read(Some(0), 7, true), None);
    assert_eq!(read(None, 8, true), None);
}

#[test]
fn what_only_a_full_reading_tells_changes_over_the_time_since_the_last_one() {
    let mut cgroups = tree();
    let mut read = |(usage, anon): (u64, u64), faults: u64, at: u64, in_full: bool| {
        let memory = MemoryReading {
            usage_bytes: Some(usage),
            anon_bytes: Some(anon),
            faults: Some(faults),
            major_faults: Some(faults / 10),
            ..MemoryReading::default()
        };
        cgroups.read(2, memory);
        if in_full {
            cgroups.read_in_full(2, None);
        }
        cgroups.close_interval(Duration::from_secs(at));
        let rates = cgroups.get(2).unwrap().rates;
        [
            rates.growth_bytes_per_second,
            rates.anon_growth_bytes_per_second,
            rates.faults_per_second,
            rates.major_faults_per_second,
        ]
    };
    assert_eq!(read((1000, 500), 100, 1, true), [None; 4]);
    let usage_only = [Some(10.0), None, None, None];
    assert_eq!(read((1010, 500), 100, 2, false), usage_only);
    assert_eq!(read((1030, 500), 100, 4, false), usage_only);
    // Over four seconds what is not of usage.
    let in_full = [Some(10.0), Some(-25.0), Some(100.0), Some(10.0)];
    assert_eq!(read((1040, 400), 500, 5, true), in_full);
}

#[test]
fn time_lost_in_reclaim_is_told_for_each_second_and_may_be_more_than_one() {
    let mut cgroups = tree();
    for (seconds, stall_ns, ratio) in [(1, 5, None), (3, 4_000_000_005, Some(2.0))] {
        let totals = ReclaimTotals {
            stall_ns,
            ..ReclaimTotals::default()
        };
        cgroups.reclaimed(3, totals);
        cgroups.close_interval(Duration::from_secs(seconds));
        assert_eq!(cgroups.get(3).unwrap().rates.reclaim_stall_ratio, ratio);
    }
}
