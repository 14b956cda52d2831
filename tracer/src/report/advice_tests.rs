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

#[test]
fn kills_in_a_row_are_a_restart_loop() {
    let mut facts = stored();
    let first = facts.incidents[0].clone();
    for minutes in [10, 20] {
        let mut again = first.clone();
        again.id = format!("again-{minutes}");
        again.time = first.time + SignedDuration::from_mins(minutes);
        facts.incidents.push(again);
    }
    assert!(said(&facts).contains("the last 3 kills came within 21 min"));
    facts.incidents.pop();
    assert!(!said(&facts).contains("loop"));
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
