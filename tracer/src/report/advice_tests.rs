use jiff::SignedDuration;

use super::super::fixture::{MIB, hostile, live, stored};
use super::*;
use crate::analysis::NearLimit;

fn said(facts: &Facts) -> String {
    let all = advice(facts).into_iter();
    let all = all.map(|one| format!("{}\n{}\n", one.text, one.command.unwrap_or_default()));
    all.collect()
}

fn leak_of(facts: &mut Facts) -> &mut LeakRecord {
    facts.details.as_mut().unwrap().leak.as_mut().unwrap()
}

#[test]
fn a_leak_in_code_names_the_code_and_the_command() {
    let text = said(&live());
    assert!(
        text.contains("leak < serve < main in python3 (pid 31001)"),
        "{text}"
    );
    assert!(text.contains("memtrace record --pid 31001 "), "{text}");
    assert!(text.contains("restart it before that"), "{text}");
    assert!(text.contains("each day takes 1.4G more"), "{text}");
}

#[test]
fn without_a_sure_call_path_the_process_that_grew_is_recorded() {
    let mut facts = live();
    leak_of(&mut facts).stacks.clear();
    facts.incidents.clear();
    let text = said(&facts);
    assert!(text.contains("memtrace record --pid 31001 "), "{text}");
    leak_of(&mut facts).processes.clear();
    assert!(!said(&facts).contains("memtrace record --pid"));
}

#[test]
fn what_grows_decides_where_to_look() {
    for (signal, word) in [
        (Signal::Shmem, "/dev/shm"),
        (Signal::Kernel, "open files"),
        (Signal::Anon, "code"),
    ] {
        let mut facts = live();
        leak_of(&mut facts).signal = Some(signal);
        let first = advice(&facts).remove(0);
        assert!(first.text.contains(word), "{signal:?}: {}", first.text);
    }
}

#[test]
fn page_cache_is_no_leak_and_a_full_container_is_told_its_numbers() {
    let mut facts = live();
    facts.incidents.clear();
    let leak = leak_of(&mut facts);
    leak.state = State::Growing;
    leak.signal = Some(Signal::File);
    leak.near_limit = Some(NearLimit {
        near: true,
        ratio: 0.95,
        unreclaimable_bytes: 480 * MIB,
        limit_bytes: 512 * MIB,
        pressure: None,
        since_ms: None,
    });
    let text = said(&facts);
    assert!(text.contains("page cache: no leak"), "{text}");
    assert!(
        text.contains("A limit of 600M would leave 20 % free"),
        "{text}"
    );
}

/// As many kills, ten minutes apart, each changed by its number.
fn kills(count: i64, change: impl Fn(i64, &mut Incident)) -> Facts {
    let mut facts = stored();
    let first = facts.incidents.remove(0);
    for at in 0..count {
        let mut kill = first.clone();
        if at > 0 {
            kill.id = format!("again-{at}");
        }
        kill.time = first.time + SignedDuration::from_mins(10 * at);
        change(at, &mut kill);
        facts.incidents.push(kill);
    }
    facts
}

#[test]
fn kills_in_a_row_are_a_restart_loop() {
    let text = said(&kills(3, |_, _| {}));
    let told = "the last 3 kills of /usr/bin/python3.11 came within 21 min";
    assert!(text.contains(told), "{text}");
    assert!(!said(&kills(2, |_, _| {})).contains("loop"));
}

#[test]
fn kills_of_several_programs_or_at_several_limits_are_no_restart_loop() {
    let programs = kills(3, |at, kill| {
        kill.victims[0].executable = Some(format!("/bin/{at}"));
    });
    assert!(!said(&programs).contains("loop"));
    let names = kills(3, |at, kill| {
        kill.victims[0].executable = None;
        kill.victims[0].comm = Some(format!("part-{at}"));
    });
    assert!(!said(&names).contains("loop"));
    let limits = kills(3, |at, kill| {
        kill.charged.as_mut().unwrap().cgroup = Some(format!("/limit-{at}"));
    });
    assert!(!said(&limits).contains("loop"));
    let no_limit = kills(3, |_, kill| {
        kill.kind = Kind::GlobalOom;
        kill.charged = None;
    });
    assert!(!said(&no_limit).contains("loop"));
}

#[test]
fn a_restart_loop_counts_the_kills_that_are_alike() {
    let other = |at: i64, kill: &mut Incident| {
        if at == 1 || at == 4 {
            kill.victims[0].executable = Some("/bin/other".into());
        }
    };
    let text = said(&kills(5, other));
    let told = "the last 3 kills of /usr/bin/python3.11 came within 31 min";
    assert!(text.contains(told), "{text}");
    assert!(!said(&kills(3, other)).contains("loop"));
    let by_name = kills(3, |_, kill| kill.victims[0].executable = None);
    assert!(said(&by_name).contains("the last 3 kills of python3 came"));
}

#[test]
fn a_stall_is_met_as_its_meaning_says() {
    let told = |oom_disabled, at_high, ended_by_kill: bool| {
        let mut facts = stored();
        let incident = &mut facts.incidents[0];
        incident.kind = Kind::Stall;
        incident.victims.clear();
        incident.stall = Some(crate::incident::record::Stall {
            duration_ms: 45_000,
            stalled_ns: None,
            oom_disabled,
            at_high,
            ongoing: !ended_by_kill,
            ended_by_kill,
        });
        let meaning = crate::incident::meaning::meaning(incident).consequence;
        (advice(&facts).remove(0).text, meaning)
    };
    let (disabled, meaning) = told(true, false, false);
    assert!(
        disabled.contains("OOM killer is switched off"),
        "{disabled}"
    );
    assert!(meaning.contains(&disabled), "{meaning}");
    let (at_limit, _) = told(false, false, false);
    assert!(at_limit.contains("raise the limit"), "{at_limit}");
    assert!(!at_limit.contains("memory.high"), "{at_limit}");
    let (at_high, _) = told(false, true, false);
    assert!(at_high.contains("raise or remove memory.high"), "{at_high}");
    let (killed, _) = told(true, false, true);
    assert!(killed.contains("until the kernel killed"), "{killed}");
    assert!(!killed.contains("switched off"), "{killed}");
}

#[test]
fn a_kill_at_a_limit_that_is_not_known_is_no_calm() {
    let mut facts = stored();
    facts.incidents[0].charged = None;
    let text = said(&facts);
    assert!(text.contains("limit was reached is not known"), "{text}");
    assert!(!text.contains("nothing was killed"), "{text}");
}

#[test]
fn a_limit_that_was_full_of_what_cannot_be_reclaimed_is_too_low() {
    let mut facts = stored();
    facts.incidents[0].evidence.stacks.clear();
    let text = said(&facts);
    // 488 MiB anonymous, 9 MiB of the kernel.
    assert!(text.contains("Of the limit of 512M, 497M (97 %)"), "{text}");
    assert!(text.contains("above 614M"), "{text}");
}

#[test]
fn a_limit_above_and_a_silent_kubernetes_are_told() {
    let mut facts = stored();
    let incident = &mut facts.incidents[0];
    incident.victims[0].cgroup_id = Some(1);
    incident.kubernetes = Some(crate::incident::record::KubernetesReport {
        reported: false,
        container_id: "c".into(),
        reason: None,
        exit_code: None,
        finished: None,
        restart_count: None,
    });
    let text = said(&facts);
    assert!(text.contains("not the victim's own"), "{text}");
    assert!(
        text.contains("Kubernetes does not show this kill"),
        "{text}"
    );
}

#[test]
fn a_name_that_a_shell_would_act_on_is_in_no_command() {
    for name in ["a;reboot", "$(x)", "a b", "-n", "a'b", ""] {
        let mut facts = live();
        let names = facts.details.as_mut().unwrap().names.as_mut().unwrap();
        names.pod = Some(name.into());
        for one in advice(&facts) {
            assert!(
                !one.command.unwrap_or_default().contains("kubectl"),
                "{name}"
            );
        }
    }
    assert!(said(&live()).contains("kubectl -n shop get pod cart-7c9d -o jsonpath="));
    for one in advice(&hostile()) {
        assert!(!one.command.unwrap_or_default().contains("script"));
    }
}

/// Without incidents and without growth to see.
fn calm(state: State) -> Facts {
    let mut facts = live();
    facts.incidents.clear();
    let leak = leak_of(&mut facts);
    leak.state = state;
    leak.stacks.clear();
    let timeline = facts.details.as_mut().unwrap().timeline.as_mut().unwrap();
    for point in &mut timeline.series[0].points {
        point.usage_bytes = 220 * MIB;
    }
    facts
}

#[test]
fn where_all_is_well_that_is_said() {
    assert!(said(&calm(State::Healthy)).starts_with("Nothing needs to be done: nothing grows"));
    let warming = said(&calm(State::Warming));
    assert!(!warming.contains("nothing grows"), "{warming}");
    let mut not_judged = calm(State::Healthy);
    not_judged.details.as_mut().unwrap().leak = None;
    let text = said(&not_judged);
    assert!(text.contains("is not judged"), "{text}");
}

#[test]
fn that_nothing_was_killed_is_said_of_the_time_that_is_told() {
    let mut facts = calm(State::Healthy);
    facts.incidents = stored().incidents;
    facts.since = Some(facts.made - SignedDuration::from_mins(25));
    // What there is to do for a pod is more than calm.
    facts.details.as_mut().unwrap().names = None;
    let check = |facts: &Facts| {
        let text = said(facts);
        let told = "othing was killed in the time that is told";
        assert!(text.contains(told), "{text}");
        assert!(
            text.contains("1 incident before that time is not told"),
            "{text}"
        );
    };
    check(&facts);
    leak_of(&mut facts).state = State::Warming;
    check(&facts);
    facts.details.as_mut().unwrap().leak = None;
    check(&facts);
    facts.details.as_mut().unwrap().timeline = live().details.unwrap().timeline;
    check(&facts);
    facts.since = None;
    assert!(!said(&facts).contains("othing was killed"));
}

#[test]
fn growth_of_the_last_minutes_is_told_where_the_verdict_is_healthy() {
    let mut facts = calm(State::Healthy);
    facts.details.as_mut().unwrap().timeline = live().details.unwrap().timeline;
    let text = said(&facts);
    assert!(text.contains("no leak is told so far"), "{text}");
    assert!(text.contains("grew by 15.0M over the last 15m"), "{text}");
    assert!(!text.contains("nothing grows"), "{text}");
}

#[test]
fn what_is_too_young_to_judge_is_looked_at_again() {
    let mut facts = calm(State::Unknown);
    let details = facts.details.as_mut().unwrap();
    details.row.growth_bytes_per_second = Some(1_048_576.0);
    let text = said(&facts);
    assert!(text.starts_with("It is too early to say"), "{text}");
    assert!(text.contains("look again in some minutes"), "{text}");
    assert!(text.contains("the last interval was +1.0M/s"), "{text}");
    assert!(text.contains("it holds 220M at a limit of 512M"), "{text}");
    assert!(!text.contains("Nothing needs to be done"), "{text}");
    facts.details.as_mut().unwrap().timeline = live().details.unwrap().timeline;
    let text = said(&facts);
    assert!(text.contains("grew by 15.0M over the last 15m"), "{text}");
    facts.details.as_mut().unwrap().row.removed = true;
    let text = said(&facts);
    assert!(text.starts_with("It is gone"), "{text}");
    assert!(!text.contains("look again"), "{text}");
}

#[test]
fn a_kill_after_a_leak_was_told_is_not_met_with_a_larger_limit() {
    let mut facts = live();
    leak_of(&mut facts).state = State::Reclaimed;
    let time = facts.incidents[0].time;
    let began = |minutes| crate::api::records::Mark {
        time: time - SignedDuration::from_mins(minutes),
        kind: crate::api::records::MarkKind::GrowthBegan,
        text: "anon began to grow".into(),
        incident: None,
    };
    let timeline = facts.details.as_mut().unwrap().timeline.as_mut().unwrap();
    timeline.marks.push(began(30));
    let text = said(&facts);
    assert!(text.contains("leak was told before the kill"), "{text}");
    assert!(!text.contains("limit is too low"), "{text}");
    // That of a child, whose parent's limit was reached.
    facts.victims_timeline = facts.timeline().cloned();
    facts.details.as_mut().unwrap().timeline = None;
    assert!(said(&facts).contains("leak was told before the kill"));
    // Another kill ended that leak.
    let mut between = facts.incidents[0].clone();
    between.id = "between".into();
    between.time = time - SignedDuration::from_mins(10);
    facts.incidents.insert(0, between);
    assert!(!said(&facts).contains("leak was told"));
}
