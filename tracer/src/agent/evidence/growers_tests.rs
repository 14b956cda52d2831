use super::*;
use crate::host::process::ticks_per_second;
use crate::model::{processes::Beginning, snapshot::ProcessSnapshot};
use jiff::Timestamp;
use memtrace_ebpf::counts::HeapCounts;

const MIB: u64 = 1 << 20;
const CGROUP: u64 = 7;

fn key(tgid: u32) -> ProcessKey {
    ProcessKey {
        cgroup_id: CGROUP,
        tgid,
        padding: 0,
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn look(second: u64, mib: u64) -> Look {
    Look {
        at: seconds(second),
        anon_bytes: mib * MIB,
    }
}

fn usage(samples: &[(u64, u64)]) -> Vec<UsageSample> {
    let samples = samples.iter();
    samples
        .map(|(before_s, mib)| UsageSample {
            before_ms: before_s * 1000,
            usage_bytes: mib * MIB,
        })
        .collect()
}

fn change(tgid: u32, first: Look, last: Look) -> Change {
    Change {
        tgid,
        comm: None,
        first,
        last,
    }
}

/// Memtrace began a hundred seconds after boot.
fn processes() -> Processes {
    let ticks_per_second = ticks_per_second();
    let beginning = Beginning {
        ticks: 100 * ticks_per_second,
        ticks_per_second,
    };
    Processes::new(seconds(5), beginning)
}

/// A process that started `lived_s` seconds before an incident 113 seconds after boot.
fn victim(pid: u32, mib: u64, lived_s: i64) -> (Incident, Victim) {
    let mut incident: Incident =
        serde_json::from_str(include_str!("../../incident/fixtures/cgroup_oom.json")).unwrap();
    incident.time = Timestamp::from_second(1_000_000).unwrap();
    incident.boot_time_ns = 113_000_000_000;
    let victim = Victim {
        pid: Some(pid),
        anon_bytes: Some(mib * MIB),
        cgroup_id: Some(CGROUP),
        started: Some(Timestamp::from_second(1_000_000 - lived_s).unwrap()),
        ..Victim::default()
    };
    (incident, victim)
}

/// The usage that is told begins at 0 s, the incident is at 13 s.
fn mark(
    victim: &Victim,
    incident: &Incident,
    processes: &Processes,
    changes: &mut HashMap<u32, Change>,
) {
    at_the_mark(
        victim,
        incident,
        processes,
        seconds(0),
        seconds(13),
        changes,
    );
}

#[test]
fn an_idle_victim_that_was_there_before_memtrace_did_not_grow() {
    let mut processes = processes();
    // Started three seconds before memtrace, and holds 67 MiB since.
    processes.was_there(1, 97 * ticks_per_second(), look(0, 67));
    let (incident, victim) = victim(1, 67, 16);
    let mut changes = HashMap::new();
    changes.insert(2, change(2, look(12, 0), look(13, 33)));
    mark(&victim, &incident, &processes, &mut changes);
    let told = told(changes.into_values(), &usage(&[(13, 67), (0, 100)]));
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].pid, told[0].over_ms), (2, 1000));
    assert_eq!(told[0].grown_bytes, 33 * MIB as i64);
    assert_eq!(told[0].share, Some(1.0));
}

#[test]
fn a_victim_that_memtrace_saw_born_grew_from_nothing() {
    let (incident, victim) = victim(1, 67, 6);
    let mut changes = HashMap::new();
    mark(&victim, &incident, &processes(), &mut changes);
    let told = told(changes.into_values(), &usage(&[(13, 33), (0, 100)]));
    assert_eq!(told[0].grown_bytes, 67 * MIB as i64);
    assert_eq!(told[0].over_ms, 6000);
}

#[test]
fn a_victim_that_was_never_seen_before_has_no_growth() {
    let (incident, victim) = victim(1, 67, 20);
    let mut changes = HashMap::new();
    mark(&victim, &incident, &processes(), &mut changes);
    assert!(changes.is_empty(), "{changes:?}");
}

#[test]
fn shares_that_do_not_explain_the_usage_are_not_told() {
    let grown = |mib: u64| [change(1, look(0, 10), look(13, 10 + mib))].into_iter();
    let shares = |mib: u64, usage: &[UsageSample]| told(grown(mib), usage)[0].share;
    let by_33 = usage(&[(13, 67), (5, 67), (0, 100)]);
    assert_eq!(shares(33, &by_33), Some(1.0));
    assert_eq!(shares(23, &by_33), Some(1.0));
    assert_eq!(shares(43, &by_33), Some(1.0));
    assert_eq!(shares(21, &by_33), None);
    assert_eq!(shares(66, &by_33), None);
    // Without growth, or with one moment only, nothing is explained.
    assert_eq!(shares(33, &usage(&[(13, 100), (0, 100)])), None);
    assert_eq!(shares(33, &usage(&[(0, 100)])), None);
    assert_eq!(shares(33, &[]), None);
}

#[test]
fn shares_are_of_all_that_grew_also_of_those_not_listed() {
    let changes = (0..20).map(|tgid| change(tgid, look(0, 1), look(9, 6)));
    let told = told(changes, &usage(&[(9, 0), (0, 100)]));
    assert_eq!(told.len(), MOST);
    assert!(told.iter().all(|grower| grower.share == Some(0.05)));
}

#[test]
fn what_the_trigger_took_after_the_kill_is_left_out() {
    let later = |mib| change(1, look(12, 10), look(13, mib));
    let until = |mib, looked, left: Option<u64>| {
        let left = left.map(|mib| mib * MIB);
        let change = until_the_kill(later(mib), looked * MIB, left);
        change.last.anon_bytes / MIB
    };
    assert_eq!(until(90, 10, Some(33)), 43);
    assert_eq!(until(20, 10, Some(33)), 20);
    assert_eq!(until(90, 10, None), 90);
    // Memory that it shares with the victim is counted in both.
    assert_eq!(until(90, 80, Some(5)), 80);
}

#[test]
fn of_a_process_in_two_cgroups_the_last_look_counts() {
    let mut processes = processes();
    let other = ProcessKey {
        cgroup_id: CGROUP + 1,
        ..key(1)
    };
    let counts = HeapCounts {
        sampled_faults: 1,
        ..HeapCounts::default()
    };
    processes.count([(key(1), counts), (other, counts)].into_iter());
    for (key, second, mib) in [(key(1), 1, 5), (other, 2, 8), (other, 9, 9)] {
        let snapshot = ProcessSnapshot {
            tgid: 1,
            comm: None,
            cgroup_id: key.cgroup_id,
            rss_anon_bytes: Some(mib * MIB),
            rss_bytes: Some(mib * MIB),
            growth_bytes_per_second: None,
            minor_faults: None,
            major_faults: None,
            heap: None,
        };
        processes.looked_at(&key, seconds(second), Some(1), snapshot);
    }
    let below = HashSet::from([CGROUP, CGROUP + 1]);
    let changes = last_looks(&processes, &below, seconds(0));
    assert_eq!(changes[&1], change(1, look(2, 8), look(9, 9)));
}
