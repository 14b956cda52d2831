//! What a verdict says fits together, at every minute of many a life.

use super::*;
use std::sync::Arc;

const MIB: f64 = 1_048_576.0;

/// A life of 30 hours under a limit of 1 GiB, a reading a minute: `anon` in MiB by the hour.
fn live(anon: impl Fn(f64) -> f64, mut look: impl FnMut(&Verdict)) {
    let mut analyzer = Analyzer::new(Arc::new(Thresholds::default()));
    for minute in 0..30 * 60i64 {
        let hour = minute as f64 / 60.0;
        // Noise that repeats after no whole number of minutes of any block.
        let noise = 2.0 * (minute as f64 * 1.7).sin();
        analyzer.push(&Sample {
            time_ms: minute * 60_000,
            anon_bytes: Some(((anon(hour) + noise) * MIB) as u64),
            limit_bytes: Some((1024.0 * MIB) as u64),
            ..Sample::default()
        });
        look(analyzer.verdict());
    }
}

/// A leak, a leak that starts later, a cache up to its cap, a warm-up, steps, a leak that stops and falls.
fn lives() -> [fn(f64) -> f64; 6] {
    [
        |hour| 200.0 + 25.0 * hour,
        |hour| 200.0 + 60.0 * (hour - 18.0).max(0.0),
        |hour| 300.0 + 40.0 * hour.min(10.0),
        |hour| 300.0 + 300.0 * (1.0 - (-hour / 3.0).exp()),
        |hour| 200.0 + 90.0 * (hour / 3.7).floor(),
        |hour| {
            if hour < 20.0 {
                200.0 + 35.0 * hour
            } else {
                220.0
            }
        },
    ]
}

#[test]
fn what_grows_has_a_rate_and_evidence() {
    let (mut grew, mut paused) = (0, 0);
    for life in lives() {
        live(life, |verdict| {
            if verdict.state >= State::Growing {
                grew += 1;
                assert!(verdict.evidence.is_some(), "{verdict:?}");
                // A leak is held over a pause.
                paused += i32::from(verdict.rate_bytes_per_hour.is_none());
                let has_rate = verdict.rate_bytes_per_hour.is_some();
                assert!(has_rate || verdict.state.is_leak(), "{verdict:?}");
                assert!(!verdict.considered.is_empty(), "{verdict:?}");
            }
        });
    }
    assert!(
        grew > 1000 && paused < grew / 5,
        "{paused} of {grew} minutes"
    );
}

#[test]
fn a_suspicion_says_why_it_is_not_confirmed_and_a_confirmation_lists_no_bar() {
    let (mut suspected, mut confirmed) = (0, 0);
    for life in lives() {
        live(life, |verdict| {
            let holding = || verdict.considered.iter().filter(|one| one.holds);
            match verdict.state {
                State::Suspected => {
                    suspected += 1;
                    assert!(holding().next().is_some(), "{verdict:?}");
                }
                State::Confirmed => {
                    confirmed += 1;
                    let bars = [Explanation::FillingCache, Explanation::Unverified];
                    assert!(!holding().any(|one| bars.contains(&one.explanation)));
                }
                _ => {}
            }
        });
    }
    assert!(
        suspected > 60 && confirmed > 600,
        "{suspected}, {confirmed}"
    );
}

#[test]
fn a_calm_container_shows_no_evidence_of_growth_long_past() {
    let mut last = None;
    live(
        |hour| {
            if hour < 6.0 {
                300.0 + 40.0 * hour
            } else {
                200.0
            }
        },
        |verdict| last = Some(verdict.clone()),
    );
    let last = last.expect("a verdict");
    assert_eq!(last.state, State::Healthy);
    assert!(
        last.evidence.is_none() && last.considered.is_empty(),
        "{last:?}"
    );
}

#[test]
fn a_leak_whose_memory_is_all_given_back_is_one_no_longer() {
    let mut last = State::Unknown;
    let mut leaked = false;
    let life = |hour: f64| {
        if hour < 25.0 {
            200.0 + 30.0 * hour
        } else {
            -2.0
        }
    };
    live(life, |verdict| {
        leaked |= verdict.state.is_leak();
        last = verdict.state;
    });
    assert!(leaked && !last.is_leak(), "{last:?}");
}

#[test]
fn a_leak_that_was_dated_stays_dated() {
    for life in lives() {
        let mut dated = false;
        live(life, |verdict| {
            dated = verdict.state.is_leak() && (dated || verdict.since.is_some());
            assert!(!dated || verdict.since.is_some(), "{verdict:?}");
        });
    }
}

#[test]
fn a_leak_without_a_limit_stays_one_however_large_it_gets() {
    let mut analyzer = Analyzer::new(Arc::new(Thresholds::default()));
    let mut confirmed = false;
    for minute in 0..600i64 {
        let grown = (minute - 60).max(0) as f64;
        analyzer.push(&Sample {
            time_ms: minute * 60_000,
            anon_bytes: Some(((20.0 + grown) * MIB) as u64),
            limit_bytes: Some(u64::MAX),
            ..Sample::default()
        });
        let state = analyzer.verdict().state;
        confirmed |= state == State::Confirmed;
        assert!(
            !confirmed || state == State::Confirmed,
            "{state:?} at {minute}"
        );
    }
    assert!(confirmed);
}
