use std::collections::HashMap;

use super::*;
use crate::{incident::record::KnownBy, probes::oom::Level};

const CHILD: u64 = 11;
const PARENT: u64 = 10;

struct Host {
    paths: HashMap<u64, &'static str>,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            paths: HashMap::from([(PARENT, "/pod"), (CHILD, "/pod/app"), (12, "/pod/app/leaf")]),
        }
    }
}

impl Surroundings for Host {
    fn cgroup(&self, id: u64) -> Option<String> {
        self.paths.get(&id).map(|path| (*path).to_owned())
    }

    fn is_above(&self, upper: u64, lower: u64) -> bool {
        match (self.paths.get(&upper), self.paths.get(&lower)) {
            (Some(upper), Some(lower)) => lower.starts_with(upper),
            _ => true,
        }
    }

    fn wall_clock(&self, boot_ns: u64) -> Timestamp {
        Timestamp::from_nanosecond(1_700_000_000_000_000_000 + i128::from(boot_ns)).unwrap()
    }

    fn gfp_flags(&self, mask: u32) -> Option<String> {
        Some(format!("bits {mask:#x}"))
    }
}

fn facts() -> HostFacts {
    HostFacts {
        boot_id: "boot".into(),
        constraints: OomConstraints {
            none: Some(0),
            cpuset: Some(1),
            memory_policy: Some(2),
            memcg: Some(3),
        },
        single_node: true,
        sees_signals: true,
        sees_deaths: true,
        swap_counts_memory: false,
        page_bytes: 4096,
    }
}

fn charge(trigger_tid: u32, from_oom_control: bool, oom_events: u64) -> OomRecord {
    OomRecord::Charge(Charge {
        boot_ns: 90,
        from_oom_control,
        constraint: from_oom_control.then_some(3),
        order: from_oom_control.then_some(0),
        gfp_mask: from_oom_control.then_some(0xcc0),
        total_bytes: None,
        chosen_points: from_oom_control.then_some(77),
        trigger_tid,
        truncated: false,
        levels: vec![Level {
            cgroup_id: PARENT,
            usage_bytes: Some(100),
            limit_bytes: Some(100),
            oom_events: Some(oom_events),
            ..Level::default()
        }],
    })
}

fn mark(trigger_tid: u32, pid: u32, boot_ns: u64, signal: Option<u32>) -> OomRecord {
    OomRecord::Mark(Box::new(VictimRecord {
        boot_ns,
        signal,
        tid: pid,
        tgid: Some(pid),
        cgroup_id: Some(CHILD),
        sender_tgid: trigger_tid,
        sender_tid: trigger_tid,
        namespace_pid: Some(1),
        namespace_level: Some(1),
        ..VictimRecord::default()
    }))
}

/// Of the user-space killer 30.
fn signal(pid: u32, boot_ns: u64, signal: u32) -> OomRecord {
    let OomRecord::Mark(victim) = mark(30, pid, boot_ns, Some(signal)) else {
        panic!("not a mark");
    };
    OomRecord::Signal(victim)
}

fn death(tgid: u32, boot_ns: u64) -> OomRecord {
    OomRecord::Death { tgid, boot_ns }
}

fn feed(assembler: &mut Assembler, records: impl IntoIterator<Item = OomRecord>) {
    for record in records {
        assembler.feed(record, &Host::default());
    }
}

const SECOND: u64 = 1_000_000_000;

fn opened(assembler: &mut Assembler) -> usize {
    std::iter::from_fn(|| assembler.next_opened().map(drop)).count()
}

fn closed(assembler: &mut Assembler, now_ns: u64) -> Vec<Incident> {
    opened(assembler);
    std::iter::from_fn(|| assembler.next_closed(now_ns)).collect()
}

#[test]
fn a_kill_is_complete_when_its_victim_is_dead() {
    let mut assembler = Assembler::new(facts());
    feed(
        &mut assembler,
        [charge(5, true, 1), mark(5, 7, 100, Some(9))],
    );
    assert_eq!(opened(&mut assembler), 1);
    assert_eq!(opened(&mut assembler), 0);
    assert!(closed(&mut assembler, SECOND).is_empty());
    feed(&mut assembler, [death(8, 200), death(7, 300)]);
    let closed = closed(&mut assembler, SECOND);
    assert_eq!(closed.len(), 1);
    let incident = &closed[0];
    assert_eq!(incident.kind, Kind::CgroupOom);
    assert!(incident.complete);
    let charged = incident.charged.as_ref().unwrap();
    assert_eq!(charged.cgroup.as_deref(), Some("/pod"));
    assert_eq!(charged.known_by, KnownBy::OomControl);
    assert_eq!(incident.request.gfp_flags.as_deref(), Some("bits 0xcc0"));
    let victim = &incident.victims[0];
    assert_eq!(victim.died_after_ns, Some(200));
    assert_eq!(victim.badness, Some(77));
    assert_eq!(victim.container_init, Some(true));
    assert_eq!(incident.group_kill, None);
    assert!(assembler.next_close().is_none());
}

#[test]
fn a_victim_that_exits_before_its_mark_is_dead() {
    let mut assembler = Assembler::new(facts());
    let records = [
        death(500, 98),
        charge(7, true, 1),
        mark(7, 500, 100, Some(9)),
    ];
    feed(&mut assembler, records);
    assert_eq!(opened(&mut assembler), 1);
    let incidents = closed(&mut assembler, 60_000_000);
    assert_eq!(incidents[0].victims[0].died_after_ns, Some(0));
}

#[test]
fn an_old_end_of_another_process_of_the_same_pid_kills_no_victim() {
    let mut assembler = Assembler::new(facts());
    let late = 2_000_000_000;
    let records = [
        death(500, 98),
        charge(7, true, 1),
        mark(7, 500, late, Some(9)),
    ];
    feed(&mut assembler, records);
    assert_eq!(opened(&mut assembler), 1);
    assert!(closed(&mut assembler, late + 60_000_000).is_empty());
}

#[test]
fn a_group_kill_is_one_incident_with_every_victim() {
    for from_oom_control in [true, false] {
        let mut assembler = Assembler::new(facts());
        for pid in 1..=50 {
            if pid == 1 || !from_oom_control {
                feed(&mut assembler, [charge(5, from_oom_control, 1)]);
            }
            feed(
                &mut assembler,
                [mark(5, pid, 100 + u64::from(pid), Some(9))],
            );
        }
        feed(&mut assembler, (1..=50).map(|pid| death(pid, 500)));
        let closed = closed(&mut assembler, SECOND);
        assert_eq!(closed.len(), 1, "{from_oom_control}");
        assert_eq!(closed[0].victims.len(), 50);
        assert_eq!(closed[0].group_kill, Some(true));
    }
}

#[test]
fn two_ooms_of_one_trigger_are_two_incidents() {
    for from_oom_control in [true, false] {
        let mut assembler = Assembler::new(facts());
        feed(
            &mut assembler,
            [
                charge(5, from_oom_control, 1),
                mark(5, 7, 100, Some(9)),
                charge(5, from_oom_control, 2),
                mark(5, 8, 200, Some(9)),
                death(7, 300),
                death(8, 300),
            ],
        );
        let closed = closed(&mut assembler, SECOND);
        assert_eq!(closed.len(), 2, "{from_oom_control}");
        assert_ne!(closed[0].id, closed[1].id);
    }
}

#[test]
fn a_mark_without_a_signal_kills_nobody() {
    let mut assembler = Assembler::new(facts());
    feed(
        &mut assembler,
        [
            charge(5, true, 1),
            mark(5, 7, 100, Some(9)),
            // `out_of_memory` marks its caller, which was killed, without another charge.
            mark(5, 5, 200, None),
            // Nor is another thread of a victim.
            mark(7, 7, 210, None),
            death(7, 300),
            death(5, 300),
        ],
    );
    let closed = closed(&mut assembler, SECOND);
    let kinds: Vec<Kind> = closed.iter().map(|incident| incident.kind).collect();
    assert_eq!(kinds, [Kind::CgroupOom, Kind::MarkedExiting]);
    assert_eq!(closed[1].victims[0].killed, Some(false));
    // Where signals are not seen, nothing is claimed.
    let mut assembler = Assembler::new(HostFacts {
        sees_signals: false,
        ..facts()
    });
    feed(&mut assembler, [charge(5, true, 1), mark(5, 7, 100, None)]);
    let closed = assembler.close_all();
    assert_eq!(closed[0].kind, Kind::CgroupOom);
    assert_eq!(closed[0].victims[0].killed, None);
}

#[test]
fn a_victim_that_the_kernel_meets_twice_is_told_once() {
    // Where signals are seen and where they are not.
    for sees_signals in [true, false] {
        let mut assembler = Assembler::new(HostFacts {
            sees_signals,
            ..facts()
        });
        feed(
            &mut assembler,
            [
                charge(5, true, 1),
                mark(5, 7, 100, Some(9)),
                mark(5, 8, 110, Some(9)),
                mark(5, 7, 120, None),
            ],
        );
        assert_eq!(assembler.cgroup_of(7), Some(CHILD));
        feed(&mut assembler, [death(7, 300), death(8, 300)]);
        let closed = closed(&mut assembler, SECOND);
        assert_eq!(closed.len(), 1);
        let pids: Vec<_> = closed[0].victims.iter().map(|victim| victim.pid).collect();
        assert_eq!(pids, [Some(7), Some(8)]);
    }
}

#[test]
fn a_victim_that_does_not_die_is_not_waited_for_for_ever() {
    let mut assembler = Assembler::new(facts());
    feed(
        &mut assembler,
        [charge(5, true, 1), mark(5, 7, 100, Some(9))],
    );
    let closes = assembler.next_close().unwrap();
    assert!(closes > 5 * SECOND && closes < 60 * SECOND);
    let closed = closed(&mut assembler, closes);
    assert_eq!(closed[0].victims[0].died, None);
    // Its death, when it comes, is nobody's.
    feed(&mut assembler, [death(7, closes + 1)]);
    assert!(assembler.close_all().is_empty());
}

#[test]
fn a_charge_of_another_thread_is_not_this_marks() {
    let mut assembler = Assembler::new(facts());
    feed(
        &mut assembler,
        [charge(6, true, 1), mark(5, 7, 100, Some(9))],
    );
    let closed = assembler.close_all();
    assert_eq!(closed[0].kind, Kind::KernelOom);
    assert_eq!(closed[0].charged, None);
}

#[test]
fn a_machine_that_ran_out_has_no_charged_cgroup() {
    let global = |constraint| {
        let OomRecord::Charge(mut charge) = charge(5, true, 0) else {
            panic!("not a charge");
        };
        charge.levels.clear();
        charge.constraint = constraint;
        let mut assembler = Assembler::new(facts());
        feed(
            &mut assembler,
            [OomRecord::Charge(charge), mark(5, 7, 100, Some(9))],
        );
        assembler.close_all().remove(0)
    };
    assert_eq!(global(Some(0)).kind, Kind::GlobalOom);
    assert_eq!(global(Some(1)).kind, Kind::CpusetOom);
    assert_eq!(global(Some(2)).kind, Kind::MempolicyOom);
    assert_eq!(global(Some(9)).kind, Kind::KernelOom);
    assert_eq!(global(Some(0)).charged, None);
}

#[test]
fn the_signals_of_a_user_space_killer_are_one_incident_each_process_once() {
    let mut assembler = Assembler::new(facts());
    feed(
        &mut assembler,
        [signal(7, 100, 15), signal(7, 200, 9), signal(8, 300, 9)],
    );
    feed(&mut assembler, [death(7, 400), death(8, 400)]);
    let closed = closed(&mut assembler, SECOND);
    assert_eq!(closed.len(), 1);
    assert_eq!(closed[0].kind, Kind::UserSpaceKill);
    assert_eq!(closed[0].victims.len(), 2);
    let killer = closed[0].killer.as_ref().unwrap();
    assert_eq!((killer.pid, killer.signal), (30, Some(9)));
    assert_eq!(closed[0].group_kill, None);
}

#[test]
fn a_process_that_ignores_sigterm_was_not_killed_until_sigkill_comes() {
    let mut assembler = Assembler::new(facts());
    feed(&mut assembler, [signal(7, 100, 15)]);
    let ignored = closed(&mut assembler, 60 * SECOND);
    assert_eq!(ignored[0].victims[0].killed, Some(false));
    feed(
        &mut assembler,
        [
            signal(7, 100, 15),
            signal(7, 5 * SECOND, 9),
            death(7, 6 * SECOND),
        ],
    );
    let killed = closed(&mut assembler, 60 * SECOND);
    assert_eq!(killed.len(), 1);
    assert_eq!(killed[0].victims.len(), 1);
    assert_eq!(killed[0].victims[0].killed, Some(true));
    assert_eq!(killed[0].killer.as_ref().unwrap().signal, Some(9));
}

#[test]
fn a_killer_that_goes_on_signalling_keeps_no_incident_open_for_ever() {
    let mut assembler = Assembler::new(facts());
    let mut told = Vec::new();
    for tenths in 0..600 {
        let now = tenths * SECOND / 10;
        let other = 100 + tenths as u32;
        // One ignores it, and the others end at once.
        let records = [signal(7, now, 15), signal(other, now, 9), death(other, now)];
        feed(&mut assembler, records);
        told.extend(closed(&mut assembler, now));
    }
    let spans = told.iter().map(|incident| {
        let last = incident.victims.iter().map(|victim| victim.marked).max();
        last.unwrap().duration_since(incident.time)
    });
    let longest = spans.max().unwrap();
    assert!(longest.as_secs() <= 10, "{longest}");
    assert!(told.len() >= 3, "{}", told.len());
    let mut victims: Vec<_> = told.iter().flat_map(|incident| &incident.victims).collect();
    victims.retain(|victim| victim.pid != Some(7));
    assert!(victims.iter().all(|victim| victim.died.is_some()));
}

#[test]
fn a_process_that_ends_after_sigterm_was_killed_and_is_waited_for_no_longer() {
    let mut assembler = Assembler::new(facts());
    feed(
        &mut assembler,
        [signal(7, 100, 15), death(7, 50_000_000 + 100)],
    );
    let closed = closed(&mut assembler, SECOND);
    assert_eq!(closed.len(), 1);
    let victim = &closed[0].victims[0];
    assert_eq!(victim.killed, Some(true));
    assert_eq!(victim.died_after_ns, Some(50_000_000));
    assert_eq!(closed[0].killer.as_ref().unwrap().signal, Some(15));
}

#[test]
fn whether_sigterm_ended_a_process_is_unknown_where_no_end_is_seen() {
    let mut assembler = Assembler::new(HostFacts {
        sees_deaths: false,
        ..facts()
    });
    feed(&mut assembler, [signal(7, 100, 15)]);
    let asked = closed(&mut assembler, 60 * SECOND);
    assert_eq!(asked[0].victims[0].killed, None);
}

#[test]
fn whether_sigterm_ends_a_process_is_unknown_where_nobody_waits_for_it() {
    let mut assembler = Assembler::new(facts());
    feed(
        &mut assembler,
        [signal(7, 100, 15), signal(8, 100, 15), death(8, 200)],
    );
    let asked = assembler.close_all().remove(0);
    let killed: Vec<_> = asked.victims.iter().map(|victim| victim.killed).collect();
    assert_eq!(killed, [None, Some(true)]);
}

#[test]
fn a_victim_of_a_killer_that_goes_on_is_of_one_incident() {
    let mut assembler = Assembler::new(facts());
    let again = (0..=10).map(|second| signal(7, second * SECOND, 15));
    feed(&mut assembler, again);
    // Too late for the first one.
    feed(&mut assembler, [signal(8, 10 * SECOND + SECOND / 5, 15)]);
    feed(&mut assembler, [signal(7, 10 * SECOND + SECOND / 2, 15)]);
    feed(
        &mut assembler,
        [death(7, 11 * SECOND), death(8, 11 * SECOND)],
    );
    let told = closed(&mut assembler, 12 * SECOND);
    let victims = told.iter().flat_map(|incident| &incident.victims);
    let victims: Vec<_> = victims.map(|victim| (victim.pid, victim.killed)).collect();
    assert_eq!(victims, [(Some(7), Some(true)), (Some(8), Some(true))]);
}

#[test]
fn of_an_end_that_two_threads_tell_the_first_record_counts() {
    let mut assembler = Assembler::new(facts());
    let ends = [death(7, 150), death(7, 190)];
    feed(
        &mut assembler,
        [charge(5, true, 1), mark(5, 7, 100, Some(9))],
    );
    feed(&mut assembler, ends);
    let killed = closed(&mut assembler, SECOND);
    assert_eq!(killed[0].victims[0].died_after_ns, Some(50));
}

#[test]
fn a_leaf_below_the_memory_cgroup_is_told_beside_it() {
    let mut assembler = Assembler::new(facts());
    for (leaf, expected) in [(12, Some("/pod/app/leaf")), (CHILD, None), (99, None)] {
        let OomRecord::Mark(mut victim) = mark(5, 7, 100, Some(9)) else {
            panic!("not a mark");
        };
        victim.leaf_cgroup_id = Some(leaf);
        feed(
            &mut assembler,
            [charge(5, true, 1), OomRecord::Mark(victim)],
        );
        let incident = assembler.close_all().remove(0);
        assert_eq!(incident.victims[0].leaf_cgroup.as_deref(), expected);
    }
}

#[test]
fn ids_differ_even_within_one_nanosecond() {
    let mut assembler = Assembler::new(facts());
    let one = assembler.bare(Kind::Stall, 5, &Host::default());
    let other = assembler.bare(Kind::Stall, 5, &Host::default());
    assert_ne!(one.id, other.id);
    assert!(one.id.starts_with("20231114T221320-"), "{}", one.id);
}

#[test]
fn what_is_under_way_is_bounded() {
    let mut assembler = Assembler::new(facts());
    for pid in 0..MOST_OPEN as u32 + 10 {
        feed(
            &mut assembler,
            [
                charge(pid + 1, true, u64::from(pid)),
                mark(pid + 1, pid + 1, 100, Some(9)),
            ],
        );
        closed(&mut assembler, 101);
    }
    assert!(assembler.open.len() <= MOST_OPEN);
}
