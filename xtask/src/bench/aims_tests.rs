use super::*;
use crate::bench::oom::{Delays, Setting};
use crate::bench::stacks::Row;

fn missed(by: &str) -> Outcome {
    Outcome::Missed(by.to_owned())
}

fn figure(ratio: f64) -> Figure {
    Figure {
        median: 1.0,
        added: 0.0,
        ratio,
        lowest_ratio: ratio,
        highest_ratio: ratio,
        confidence: (ratio, ratio),
    }
}

#[test]
fn a_miss_says_by_how_much() {
    let again = figure(1.0);
    let outcome = ratio("x", &figure(1.05), 1.06, &again).outcome;
    assert_eq!(outcome, Outcome::Met);
    let outcome = ratio("x", &figure(1.1), 1.06, &again).outcome;
    assert_eq!(outcome, missed("0.040x"));
    let outcome = better("x", &figure(1.5), &figure(1.4), &again).outcome;
    assert_eq!(outcome, missed("0.100x"));
}

#[test]
fn a_difference_below_the_noise_is_said_of_what_is_met_as_of_what_is_missed() {
    let again = Figure {
        confidence: (0.95, 1.02),
        ..figure(1.0)
    };
    let of = |value| ratio("x", &figure(value), 1.06, &again).outcome;
    assert_eq!(of(1.04), WITHIN_NOISE);
    assert_eq!(of(1.08), WITHIN_NOISE);
    assert_eq!(of(1.0), Outcome::Met);
    assert_eq!(of(1.2), missed("0.140x"));
    let beside = |ours| better("x", &figure(ours), &figure(1.4), &again).outcome;
    assert_eq!(beside(1.38), WITHIN_NOISE);
    assert_eq!(beside(1.42), WITHIN_NOISE);
    assert_eq!(beside(1.3), Outcome::Met);
}

#[test]
fn a_cost_of_stacks_is_decided_only_beyond_the_noise() {
    let outcome = |ours, again: (f64, f64)| {
        let row = |profiler, cpu| Row {
            profiler,
            wall: figure(1.0),
            cpu,
            own_cpu_ms: None,
        };
        let again = Figure {
            confidence: again,
            ..figure(1.0)
        };
        let stacks = Stacks {
            program: "x",
            rows: vec![
                row(Profiler::OffAgain, again),
                row(Profiler::Memtrace, figure(ours)),
            ],
        };
        of_stacks(&stacks).unwrap().outcome
    };
    assert_eq!(outcome(0.99, (0.99, 1.01)), Outcome::Met);
    assert_eq!(outcome(0.99, (0.8, 1.1)), WITHIN_NOISE);
    assert_eq!(outcome(1.05, (0.99, 1.01)), missed("0.030x"));
    assert_eq!(outcome(1.05, (0.99, 1.06)), WITHIN_NOISE);
}

#[test]
fn a_cost_is_measurable_when_two_equal_measurements_differ_less() {
    let noise = |lowest, highest| Figure {
        confidence: (lowest, highest),
        ..figure(1.0)
    };
    let outcome = |ratio, noise: &Figure| not_measurable("x", &figure(ratio), noise).outcome;
    assert_eq!(outcome(1.01, &noise(0.98, 1.015)), Outcome::Met);
    assert_eq!(outcome(0.9, &noise(0.98, 1.015)), Outcome::Met);
    assert_eq!(outcome(1.02, &noise(0.98, 1.015)), missed("0.005x"));
    // Faster twice is noise too.
    assert_eq!(outcome(1.0, &noise(0.97, 0.99)), Outcome::Met);
    let undecided = Outcome::Undecided("too much noise");
    assert_eq!(outcome(1.0, &noise(0.9, 1.01)), undecided);
    assert_eq!(outcome(1.5, &noise(0.7, 1.3)), missed("0.200x"));
    let unsure = Figure {
        confidence: (0.99, 1.1),
        ..figure(1.02)
    };
    let outcome = not_measurable("x", &unsure, &noise(0.98, 1.015)).outcome;
    assert_eq!(outcome, WITHIN_NOISE);
}

#[test]
fn kills_that_were_not_told_miss_the_aim() {
    let ms = Duration::from_millis;
    let mut latency = Latency {
        setting: Setting::Idle,
        kills: 2,
        delays: Delays {
            mark: vec![ms(1), ms(25)],
            incident: vec![ms(60), ms(70)],
            event: vec![ms(61)],
            death: Vec::new(),
        },
        read_at_once: true,
    };
    let verdicts = of_oom(&latency);
    assert_eq!(verdicts[0].outcome, Outcome::Met);
    assert_eq!(verdicts[1].outcome, missed("5.00 ms"));
    assert_eq!(verdicts[2].outcome, missed("1 kills"));
    latency.delays = Delays::default();
    let nothing = Outcome::Undecided("nothing was told");
    assert_eq!(of_oom(&latency)[0].outcome, nothing);
}

#[test]
fn the_agents_aims_depend_on_the_number_of_cgroups() {
    let mut cost = Cost {
        cgroups: 500,
        processes: 50,
        growing: 10,
        output: "none",
        rss_bytes: 20 << 20,
        peak_rss_bytes: 30 << 20,
        cpu_percent: 0.75,
        startup_cpu: Duration::ZERO,
        window: Duration::from_secs(60),
    };
    let verdicts = of_agent(&cost);
    assert_eq!(verdicts[1].outcome, missed("5.0 MiB"));
    assert_eq!(
        verdicts[2].outcome,
        missed("0.25 points (1.5 times the aim)")
    );
    cost.cgroups = 5000;
    assert!(
        of_agent(&cost)
            .iter()
            .all(|verdict| verdict.outcome == Outcome::Met)
    );
    cost.cgroups = 10;
    assert_eq!(of_agent(&cost), []);
}
