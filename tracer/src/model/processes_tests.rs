use super::*;

fn key(tgid: u32) -> ProcessKey {
    ProcessKey {
        cgroup_id: 1,
        tgid,
        padding: 0,
    }
}

fn counts(sampled_faults: u64) -> HeapCounts {
    HeapCounts {
        sampled_faults,
        ..HeapCounts::default()
    }
}

fn look(tgid: u32, anon: u64) -> ProcessSnapshot {
    ProcessSnapshot {
        tgid,
        comm: None,
        cgroup_id: 1,
        rss_anon_bytes: Some(anon),
        rss_bytes: Some(anon),
        growth_bytes_per_second: None,
        minor_faults: None,
        major_faults: None,
        heap: None,
    }
}

#[test]
fn the_most_active_come_first_and_the_fastest_growing_are_kept() {
    let mut processes = Processes::default();
    let activity = processes.count([(key(1), counts(64)), (key(2), counts(640))].into_iter());
    assert_eq!(activity.active, [key(2), key(1)]);
    for (at, one, two) in [(1, 100, 100), (2, 300, 150)] {
        let at = Duration::from_secs(at);
        processes.looked_at(&key(1), at, Some(7), look(1, one));
        processes.looked_at(&key(2), at, Some(7), look(2, two));
    }
    let growing = processes.growing(1).remove(&1).unwrap();
    assert_eq!(growing[0].tgid, 1);
    assert_eq!(growing[0].growth_bytes_per_second, Some(200.0));
}

/// Memtrace started at the tick 1000, and looks each second.
fn since_tick_1000() -> Processes {
    let beginning = Beginning {
        ticks: 1000,
        ticks_per_second: 100,
    };
    Processes::new(Duration::from_secs(1), beginning)
}

fn change(processes: &Processes, tgid: u32, from: u64) -> Option<(u64, u64, u64, u64)> {
    let from = Duration::from_secs(from);
    let mut changes = processes.changes(|id| id == 1, from);
    let change = changes.find(|change| change.tgid == tgid)?;
    let (first, last) = (change.first, change.last);
    Some((
        first.at.as_secs(),
        first.anon_bytes,
        last.at.as_secs(),
        last.anon_bytes,
    ))
}

#[test]
fn growth_is_measured_from_the_look_that_is_nearest_to_the_window() {
    let mut processes = Processes::default();
    processes.count([(key(1), counts(64))].into_iter());
    for second in 0..1000 {
        let at = Duration::from_secs(second);
        processes.looked_at(&key(1), at, Some(7), look(1, second * 100));
    }
    let (at, _, last_at, last_bytes) = change(&processes, 1, 700).unwrap();
    assert!(at.abs_diff(700) <= 10, "{at}");
    assert_eq!((last_at, last_bytes), (999, 99_900));
    let none = processes.changes(|id| id == 2, Duration::ZERO);
    assert_eq!(none.count(), 0);
}

#[test]
fn a_process_grows_from_what_it_had_before_memtrace_and_from_nothing_if_born_after() {
    let mut processes = since_tick_1000();
    let first_look = Look {
        at: Duration::from_secs(1),
        anon_bytes: 700,
    };
    processes.was_there(1, 400, first_look);
    processes.count([1, 2, 3].into_iter().map(|tgid| (key(tgid), counts(64))));
    let at = Duration::from_secs(9);
    processes.looked_at(&key(1), at, Some(400), look(1, 710));
    // Born half a second after memtrace.
    processes.looked_at(&key(2), at, Some(1050), look(2, 330));
    // There before memtrace, and never seen.
    processes.looked_at(&key(3), at, Some(400), look(3, 500));
    assert_eq!(change(&processes, 1, 1), Some((1, 700, 9, 710)));
    assert_eq!(change(&processes, 2, 0), Some((0, 0, 9, 330)));
    assert_eq!(change(&processes, 3, 0), Some((9, 500, 9, 500)));
}

#[test]
fn what_was_never_looked_at_is_measured_from_its_birth_or_not_at_all() {
    let mut processes = since_tick_1000();
    let first_look = Look {
        at: Duration::from_secs(1),
        anon_bytes: 700,
    };
    processes.was_there(1, 400, first_look);
    let from = |tgid, ticks| processes.measured_from(&key(tgid), ticks, Duration::from_secs(5));
    assert_eq!(from(1, Some(401)), Some(first_look));
    // Another got the id.
    let born = Look {
        at: Duration::from_secs(2),
        anon_bytes: 0,
    };
    assert_eq!(from(1, Some(1200)), Some(born));
    assert_eq!(from(2, Some(1200)), Some(born));
    assert_eq!(from(2, Some(999)), None);
    assert_eq!(from(2, None), None);
}

#[test]
fn a_process_that_got_the_id_of_another_has_no_growth_yet() {
    let mut processes = Processes::default();
    processes.count([(key(1), counts(64))].into_iter());
    processes.looked_at(&key(1), Duration::from_secs(1), Some(7), look(1, 100));
    processes.looked_at(&key(1), Duration::from_secs(2), Some(9), look(1, 900));
    let growing = processes.growing(1).remove(&1).unwrap();
    assert_eq!(growing[0].growth_bytes_per_second, None);
}

#[test]
fn a_process_that_comes_twice_in_a_walk_keeps_what_is_known_of_it() {
    let mut processes = Processes::default();
    processes.count([(key(1), counts(64))].into_iter());
    processes.looked_at(&key(1), Duration::from_secs(1), Some(7), look(1, 100));
    // A process ended while it was read, and the walk began anew.
    let walk = [(key(1), counts(64)), (key(2), counts(1))];
    let activity = processes.count(walk.into_iter().chain(walk));
    assert_eq!(activity.active, [key(2)]);
    processes.looked_at(&key(1), Duration::from_secs(5), Some(7), look(1, 500));
    assert_eq!(change(&processes, 1, 1), Some((1, 100, 5, 500)));
    let growing = processes.growing(1).remove(&1).unwrap();
    assert_eq!(growing[0].growth_bytes_per_second, Some(100.0));
}

#[test]
fn a_process_that_left_the_map_is_forgotten_and_an_idle_one_is_asked_for() {
    let mut processes = Processes::default();
    processes.count([(key(1), counts(1)), (key(2), counts(1))].into_iter());
    let mut asked = Vec::new();
    for _ in 0..IDLE_INTERVALS {
        asked.extend(processes.count([(key(1), counts(1))].into_iter()).idle);
    }
    assert_eq!(asked, [key(1)]);
    assert!(processes.counts(&key(2)).is_none());
}
