use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::*;
use crate::stacks::code::Root;

const MIB: f64 = 1_048_576.0;

fn estimate(mib: f64, error: f64) -> Estimate {
    Estimate {
        bytes: mib * MIB,
        error_bytes: error * MIB,
    }
}

fn stack(name: &str, resident: f64, growth: (f64, f64), touched: f64, age: u64) -> ProfileStack {
    ProfileStack {
        pid: 1,
        comm: "app".into(),
        kind: Kind::Resident,
        frames: [Arc::new(Frame {
            function: Some(name.into()),
            module: "app".into(),
            offset: 0,
            source: None,
            inlined: false,
        })]
        .into(),
        root: Root::Reached,
        resident: estimate(resident, resident / 20.0),
        growth: estimate(growth.0, growth.1),
        touched: estimate(touched, touched / 50.0),
        samples: 10,
        oldest: Duration::from_secs(age * 2),
        median_age: Duration::from_secs(age),
    }
}

/// Ten minutes long.
fn profile(stacks: Vec<ProfileStack>) -> Profile {
    let from = SystemTime::UNIX_EPOCH;
    Profile {
        scope: "/app".into(),
        from,
        until: from + Duration::from_secs(600),
        base: from,
        pages_per_sample: 64,
        anon_bytes: None,
        lost_samples: 0,
        programs: Vec::new(),
        stacks,
    }
}

fn order(profile: &Profile) -> Vec<&str> {
    let stacks = suspects(profile).into_iter();
    stacks
        .filter_map(|stack| stack.frames.first()?.function.as_deref())
        .collect()
}

#[test]
fn a_small_leak_comes_before_a_large_warm_cache_and_hot_memory_comes_last() {
    // A burst of what is soon given back grows for a moment.
    for hot_growth in [(1.0, 3.0), (40.0, 3.0)] {
        let profile = profile(vec![
            stack("hot", 60.0, hot_growth, 4000.0, 1),
            stack("warm_cache", 500.0, (3.0, 8.0), 520.0, 550),
            stack("leak", 30.0, (28.0, 2.0), 30.0, 280),
        ]);
        assert_eq!(order(&profile), ["leak", "warm_cache", "hot"]);
    }
}

#[test]
fn a_leak_that_began_late_in_a_long_profile_is_seen() {
    let mut late = profile(vec![
        stack("warm_cache", 500.0, (3.0, 8.0), 520.0, 80_000),
        stack("leak", 30.0, (28.0, 2.0), 30.0, 280),
    ]);
    late.until = late.from + Duration::from_secs(86_400);
    late.base = late.until - Duration::from_secs(600);
    assert_eq!(order(&late), ["leak", "warm_cache"]);
}

#[test]
fn growth_within_two_errors_is_none() {
    assert_eq!(sure_growth(estimate(2.0, 1.0)), 0.0);
    assert_eq!(sure_growth(estimate(-5.0, 1.0)), 0.0);
    assert_eq!(sure_growth(estimate(3.0, 1.0)), MIB);
}

#[test]
fn what_shrinks_is_no_suspect_by_growth() {
    let profile = profile(vec![
        stack("shrinks", 100.0, (-50.0, 2.0), 200.0, 500),
        stack("grows", 5.0, (4.0, 0.5), 5.0, 300),
    ]);
    assert_eq!(order(&profile), ["grows", "shrinks"]);
}

#[test]
fn address_space_is_no_suspect() {
    let mut mapped = stack("mmap", 1000.0, (900.0, 1.0), 1000.0, 500);
    mapped.kind = Kind::Mapped;
    assert_eq!(order(&profile(vec![mapped])), Vec::<&str>::new());
}

#[test]
fn a_leak_at_many_addresses_of_a_function_is_one_sure_suspect() {
    let piece = |at: u64| {
        let mut piece = stack("leak", 3.0, (2.0, 1.5), 3.0, 300 + at);
        Arc::make_mut(&mut Arc::make_mut(&mut piece.frames)[0]).offset = at;
        piece
    };
    let cache = stack("cache", 100.0, (4.0, 1.9), 100.0, 500);
    let mut stacks: Vec<ProfileStack> = (0..16).map(piece).collect();
    stacks.push(cache);
    let scattered = profile(stacks);
    assert_eq!(order(&scattered), ["leak", "cache"]);
    let leak = suspect_paths(&scattered)[0];
    assert_eq!(leak.resident.bytes, 48.0 * MIB);
    assert_eq!(leak.growth.error_bytes, 6.0 * MIB);
    assert_eq!(leak.samples, 160);
    assert_eq!(leak.median_age, Duration::from_secs(307));
    assert_eq!(leak.oldest, Duration::from_secs(630));
}

#[test]
fn stacks_of_other_processes_and_other_ends_stay_apart() {
    let one = stack("f", 1.0, (0.0, 0.0), 1.0, 1);
    let mut other_process = one.clone();
    other_process.pid = 2;
    let mut cut = one.clone();
    cut.root = Root::Cut;
    let profile = profile(vec![one, other_process, cut]);
    assert_eq!(suspects(&profile).len(), 3);
}

#[test]
fn nothing_is_ranked_without_samples_or_time() {
    assert!(suspects(&profile(Vec::new())).is_empty());
    let mut instant = profile(vec![stack("f", 1.0, (0.0, f64::NAN), 0.0, 0)]);
    instant.until = instant.from;
    assert_eq!(order(&instant), ["f"]);
}
