use jiff::Timestamp;

use super::*;
use crate::{analysis::State, growth::GrowthShare, stacks::told::tests::record};

fn change(stacks: Vec<StackRecord>) -> GrowthChange {
    GrowthChange {
        time: Timestamp::UNIX_EPOCH,
        cgroup: "/pods/a".to_owned(),
        cgroup_id: 1,
        names: None,
        event: Some(GrowthEvent::Suspected),
        from: None,
        near_limit_changed_to: None,
        state: State::Suspected,
        state_since: None,
        signal: Some(Signal::Anon),
        rate_bytes_per_hour: None,
        since: None,
        since_uncertainty_s: None,
        time_to_limit_s: None,
        limit_bytes: None,
        limit_cgroup: None,
        usage_bytes: None,
        near_limit: None,
        evidence: None,
        considered: Vec::new(),
        processes: vec![GrowthShare {
            pid: 7,
            comm: Some("app".to_owned()),
            growth_bytes: 1,
            share: 0.98,
            rss_anon_bytes: 1,
            over_s: 1.0,
        }],
        stacks,
    }
}

fn told(change: &GrowthChange) -> String {
    line(change).unwrap_or_default()
}

const BEGIN: &str = "leak suspected in /pods/a: anon, 98% of it by app (pid 7)";
const LEAK: [&str; 4] = [
    "__memset_avx2 (libc.so.6)",
    "leak_step (app)",
    "handle (app)",
    "main (app)",
];

#[test]
fn the_sentence_of_a_leak_says_the_code() {
    let mut cache = record(&["cache (app)", "main (app)"]);
    cache.growth_bytes = 1 << 20;
    let change = change(vec![record(&LEAK), cache]);
    let code = "most of it by leak_step < handle < main (61.0M ±6.0M resident)";
    assert_eq!(told(&change), format!("{BEGIN}, {code}"));
}

#[test]
fn what_is_not_most_or_may_be_chance_is_only_a_suspect() {
    let both = change(vec![record(&LEAK), record(&["cache (app)"])]);
    assert!(told(&both).contains(", first suspect leak_step < "));
    let mut unsure = record(&LEAK);
    unsure.growth_error_bytes = 15 << 20;
    assert!(told(&change(vec![unsure])).contains(", first suspect leak_step < "));
}

#[test]
fn code_of_another_process_says_whose_it_is() {
    let mut other = record(&LEAK);
    other.process.pid = 8;
    let told = told(&change(vec![other]));
    assert!(
        told.ends_with("< main in app (pid 8) (61.0M ±6.0M resident)"),
        "{told}"
    );
}

#[test]
fn without_stacks_or_of_memory_that_has_none_nothing_is_said_of_code() {
    assert_eq!(told(&change(Vec::new())), BEGIN);
    let mut kernel = change(vec![record(&LEAK)]);
    kernel.signal = Some(Signal::Kernel);
    assert!(!told(&kernel).contains("leak_step"));
    kernel.event = Some(GrowthEvent::Cleared);
    assert!(!told(&kernel).contains("leak_step"));
}
