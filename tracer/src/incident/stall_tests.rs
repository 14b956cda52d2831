use super::*;

const MIB: u64 = 1 << 20;
const ID: u64 = 7;
const THRESHOLD: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_secs(5);

/// A cgroup of 100 MiB, fed one reading an interval.
struct Fed {
    detector: StallDetector,
    at: Duration,
    reading: StallReading,
}

impl Fed {
    fn new(reading: StallReading) -> Self {
        let mut fed = Fed {
            detector: StallDetector::new(THRESHOLD, 4096),
            at: Duration::ZERO,
            reading,
        };
        assert_eq!(fed.next(|_| {}), None);
        fed
    }

    fn next(&mut self, change: impl FnOnce(&mut StallReading)) -> Option<StallEvent> {
        change(&mut self.reading);
        self.at += INTERVAL;
        self.detector.observe(ID, self.at, &self.reading)
    }

    fn repeat(&mut self, intervals: u32, change: impl Fn(&mut StallReading)) -> Vec<StallEvent> {
        (0..intervals).filter_map(|_| self.next(&change)).collect()
    }
}

/// At its limit, with PSI.
fn at_limit() -> StallReading {
    StallReading {
        usage_bytes: Some(100 * MIB),
        limit_bytes: Some(100 * MIB),
        pressure_some_ns: Some(0),
        reclaim_stall_ns: Some(0),
        limit_hits: Some(0),
        oom_kills: Some(3),
        ..StallReading::default()
    }
}

fn add(counter: &mut Option<u64>, more: u64) {
    *counter = counter.map(|value| value + more);
}

/// Share of an interval, nanoseconds.
fn share(percent: u64) -> u64 {
    INTERVAL.as_nanos() as u64 * percent / 100
}

fn stalled(reading: &mut StallReading) {
    add(&mut reading.pressure_some_ns, share(90));
    add(&mut reading.limit_hits, 100);
}

fn idle(_: &mut StallReading) {}

fn began(events: &[StallEvent]) -> Stall {
    match events {
        [StallEvent::Began(stall)] => *stall,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stall_begins_once_and_ends_once() {
    let mut fed = Fed::new(at_limit());
    assert_eq!(fed.repeat(5, stalled), []);
    let expected = Stall {
        duration_ms: 30_000,
        stalled_ns: Some(6 * share(90)),
        oom_disabled: false,
        at_high: false,
        ongoing: true,
        ended_by_kill: false,
    };
    assert_eq!(began(&fed.repeat(20, stalled)), expected);
    let expected = Stall {
        duration_ms: 125_000,
        stalled_ns: Some(25 * share(90)),
        ongoing: false,
        ended_by_kill: false,
        ..expected
    };
    assert_eq!(fed.repeat(20, idle), [StallEvent::Ended(expected)]);
}

#[test]
fn a_reader_of_files_at_its_limit_is_no_stall() {
    let mut fed = Fed::new(at_limit());
    let events = fed.repeat(100, |reading| {
        add(&mut reading.pressure_some_ns, share(20));
        add(&mut reading.limit_hits, 5000);
    });
    assert_eq!(events, []);
}

#[test]
fn stalled_time_below_the_limit_is_no_stall() {
    let mut fed = Fed::new(StallReading {
        usage_bytes: Some(80 * MIB),
        ..at_limit()
    });
    let events = fed.repeat(100, |reading| {
        add(&mut reading.pressure_some_ns, share(100));
    });
    assert_eq!(events, []);
}

#[test]
fn hits_of_the_limit_count_although_usage_was_sampled_low() {
    let mut fed = Fed::new(StallReading {
        usage_bytes: Some(92 * MIB),
        ..at_limit()
    });
    began(&fed.repeat(7, stalled));
}

#[test]
fn without_psi_reclaim_tells() {
    let mut fed = Fed::new(StallReading {
        pressure_some_ns: None,
        ..at_limit()
    });
    // Four tasks at a time.
    let stall = began(&fed.repeat(7, |reading| {
        add(&mut reading.reclaim_stall_ns, share(400));
    }));
    assert_eq!(stall.stalled_ns, Some(6 * share(100)));
}

#[test]
fn nothing_measured_is_no_stall() {
    let mut fed = Fed::new(StallReading {
        pressure_some_ns: None,
        reclaim_stall_ns: None,
        ..at_limit()
    });
    assert_eq!(fed.repeat(100, stalled), []);
}

#[test]
fn a_cgroup_throttled_at_memory_high() {
    let mut fed = Fed::new(StallReading {
        usage_bytes: Some(64 * MIB),
        high_bytes: Some(64 * MIB),
        high_hits: Some(0),
        ..at_limit()
    });
    let stall = began(&fed.repeat(7, |reading| {
        add(&mut reading.pressure_some_ns, share(95));
        add(&mut reading.high_hits, 3);
    }));
    assert!(stall.at_high);
}

#[test]
fn sleep_far_above_memory_high_shows_without_psi() {
    let reading = StallReading {
        usage_bytes: Some(75 * MIB),
        high_bytes: Some(64 * MIB),
        high_hits: Some(0),
        pressure_some_ns: None,
        ..at_limit()
    };
    let mut fed = Fed::new(reading);
    let stall = began(&fed.repeat(7, |reading| add(&mut reading.high_hits, 3)));
    assert!(stall.at_high);
    // Reclaim keeps it just above: a reader of files.
    let mut fed = Fed::new(StallReading {
        usage_bytes: Some(66 * MIB),
        ..reading
    });
    assert_eq!(
        fed.repeat(100, |reading| add(&mut reading.high_hits, 900)),
        []
    );
}

#[test]
fn the_limit_names_a_stall_that_is_at_memory_high_too() {
    let mut fed = Fed::new(StallReading {
        high_bytes: Some(90 * MIB),
        ..at_limit()
    });
    assert!(!began(&fed.repeat(7, stalled)).at_high);
}

#[test]
fn an_oom_that_is_switched_off() {
    let waiting = StallReading {
        under_oom: Some(true),
        oom_kill_disable: Some(true),
        pressure_some_ns: None,
        reclaim_stall_ns: None,
        ..at_limit()
    };
    let mut fed = Fed::new(waiting);
    let stall = began(&fed.repeat(7, idle));
    assert!(stall.oom_disabled);
    assert_eq!(stall.stalled_ns, None);
    // An ancestor's OOM shows here too, but this limit is not reached.
    let mut fed = Fed::new(StallReading {
        usage_bytes: Some(10 * MIB),
        ..waiting
    });
    assert_eq!(fed.repeat(20, idle), []);
    for (under_oom, oom_kill_disable) in [
        (Some(true), Some(false)),
        (Some(false), Some(true)),
        (Some(true), None),
        (None, None),
    ] {
        let mut fed = Fed::new(StallReading {
            under_oom,
            oom_kill_disable,
            ..waiting
        });
        assert_eq!(fed.repeat(20, idle), []);
    }
}

#[test]
fn a_kill_is_an_oom_and_no_stall() {
    let mut fed = Fed::new(at_limit());
    for _ in 0..10 {
        assert_eq!(fed.repeat(5, stalled), []);
        assert_eq!(fed.next(|reading| add(&mut reading.oom_kills, 1)), None);
    }
    // One that has begun ends with it, at once.
    began(&fed.repeat(7, stalled));
    let ended = fed.next(|reading| {
        stalled(reading);
        add(&mut reading.oom_kills, 1);
    });
    assert!(matches!(ended, Some(StallEvent::Ended(_))));
    began(&fed.repeat(7, stalled));
    assert!(matches!(
        fed.detector.killed(ID),
        Some(StallEvent::Ended(_))
    ));
    assert_eq!(fed.detector.killed(ID), None);
    assert_eq!(fed.detector.killed(99), None);
}

#[test]
fn a_gap_before_the_threshold_starts_anew() {
    let mut fed = Fed::new(at_limit());
    for _ in 0..10 {
        assert_eq!(fed.repeat(5, stalled), []);
        assert_eq!(fed.next(idle), None);
    }
}

#[test]
fn a_stall_that_wavers_does_not_flap() {
    let mut fed = Fed::new(at_limit());
    began(&fed.repeat(6, stalled));
    for _ in 0..50 {
        // Under the bars to enter, above those to stay.
        let events = fed.repeat(3, |reading| {
            add(&mut reading.pressure_some_ns, share(30));
            reading.usage_bytes = Some(100 * MIB - 3 * MIB / 2);
        });
        assert_eq!(events, []);
        // One quiet interval.
        assert_eq!(fed.next(idle), None);
        assert_eq!(fed.next(stalled), None);
    }
    let events = fed.repeat(2, idle);
    assert!(matches!(events[..], [StallEvent::Ended(_)]));
}

#[test]
fn one_long_interval_is_enough() {
    let mut detector = StallDetector::new(THRESHOLD, 4096);
    let mut reading = at_limit();
    assert_eq!(detector.observe(ID, Duration::ZERO, &reading), None);
    reading.pressure_some_ns = Some(40_000_000_000);
    let event = detector.observe(ID, Duration::from_secs(60), &reading);
    assert_eq!(event.map(|event| event.stall().duration_ms), Some(60_000));
}

#[test]
fn intervals_that_are_a_little_short_are_as_many_as_the_threshold_has() {
    let mut fed = Fed::new(at_limit());
    let short = |fed: &mut Fed| {
        fed.at -= Duration::from_millis(1);
        fed.next(stalled)
    };
    let events: Vec<_> = (0..6).filter_map(|_| short(&mut fed)).collect();
    began(&events);
}

#[test]
fn a_removed_cgroup_ends_its_stall() {
    let mut fed = Fed::new(at_limit());
    began(&fed.repeat(7, stalled));
    assert!(matches!(
        fed.detector.forget(ID),
        Some(StallEvent::Ended(_))
    ));
    assert_eq!(fed.detector.forget(ID), None);
    assert!(fed.detector.followed.is_empty());
}

#[test]
fn a_limit_that_is_raised_ends_the_stall() {
    let mut fed = Fed::new(at_limit());
    began(&fed.repeat(7, stalled));
    let events = fed.repeat(5, |reading| {
        reading.limit_bytes = None;
        add(&mut reading.pressure_some_ns, share(90));
    });
    assert!(matches!(events[..], [StallEvent::Ended(_)]));
    assert!(fed.detector.followed.is_empty());
}

#[test]
fn counters_that_go_back_and_clocks_that_stand_still_are_survived() {
    let mut fed = Fed::new(at_limit());
    began(&fed.repeat(7, stalled));
    let mut detector = fed.detector;
    let at = fed.at;
    assert_eq!(detector.observe(ID, at, &fed.reading), None);
    assert_eq!(detector.observe(ID, Duration::ZERO, &fed.reading), None);
    let zero = StallReading {
        pressure_some_ns: Some(0),
        reclaim_stall_ns: Some(0),
        limit_hits: Some(0),
        oom_kills: Some(0),
        ..at_limit()
    };
    assert_eq!(detector.observe(ID, at + INTERVAL, &zero), None);
    let unknown = StallReading::default();
    assert!(matches!(
        detector.observe(ID, at + 2 * INTERVAL, &unknown),
        Some(StallEvent::Ended(_))
    ));
    let extreme = StallReading {
        usage_bytes: Some(u64::MAX),
        limit_bytes: Some(u64::MAX),
        high_bytes: Some(0),
        pressure_some_ns: Some(u64::MAX),
        reclaim_stall_ns: Some(u64::MAX),
        limit_hits: Some(u64::MAX),
        high_hits: Some(u64::MAX),
        oom_kills: Some(u64::MAX),
        under_oom: Some(true),
        oom_kill_disable: Some(true),
    };
    for (step, reading) in [extreme, zero, extreme, unknown, extreme]
        .iter()
        .enumerate()
    {
        detector.observe(ID, Duration::MAX / 10 * (step as u32 + 1), reading);
        detector.is_near_limit(reading);
    }
}

#[test]
fn cgroups_without_a_limit_take_no_room() {
    let mut detector = StallDetector::new(THRESHOLD, 4096);
    let unlimited = StallReading {
        limit_bytes: None,
        ..at_limit()
    };
    for id in 0..10 {
        assert_eq!(detector.observe(id, INTERVAL, &unlimited), None);
    }
    assert!(detector.followed.is_empty());
    for id in 0..MOST_CGROUPS as u64 + 5 {
        assert_eq!(detector.observe(id, INTERVAL, &at_limit()), None);
    }
    assert_eq!(detector.followed.len(), MOST_CGROUPS);
    assert_eq!(detector.not_followed, 5);
}

#[test]
fn the_margin_fits_small_and_large_cgroups() {
    assert_eq!(margin(8 * MIB, 4096), 256 * 1024);
    assert_eq!(margin(100 * MIB, 4096), MIB);
    assert_eq!(margin(64 * MIB, 65536), 4 * MIB);
    let detector = StallDetector::new(THRESHOLD, 4096);
    let tiny = StallReading {
        usage_bytes: Some(0),
        limit_bytes: Some(64 * 1024),
        ..StallReading::default()
    };
    assert!(!detector.is_near_limit(&tiny));
    assert!(detector.is_near_limit(&at_limit()));
}

#[test]
fn a_reading_takes_the_local_events_and_the_hierarchical_kills() {
    let mut memory = MemoryReading {
        usage_bytes: Some(1),
        limit: Some(Limit::Bytes(2)),
        high: Some(Limit::Unlimited),
        under_oom: Some(false),
        oom_kill_disable: Some(true),
        ..MemoryReading::default()
    };
    memory.pressure.some_ns = Some(3);
    memory.events.max = Some(40);
    memory.events.high = Some(50);
    memory.events.oom_kill = Some(60);
    memory.events_local.max = Some(4);
    let expected = StallReading {
        usage_bytes: Some(1),
        limit_bytes: Some(2),
        high_bytes: None,
        pressure_some_ns: Some(3),
        reclaim_stall_ns: Some(9),
        limit_hits: Some(4),
        high_hits: Some(50),
        under_oom: Some(false),
        oom_kill_disable: Some(true),
        oom_kills: Some(60),
    };
    assert_eq!(StallReading::of(&memory, Some(9)), expected);
}
