use super::*;

fn truth(class: Class, onset: f64, oom: Option<f64>) -> Truth {
    Truth {
        class,
        onset,
        oom,
        rate: 100.0,
    }
}

fn healthy() -> Truth {
    truth(Class::FlatNoisy, MINUTES as f64, None)
}

/// Alarms in these spans of minutes, ends excluded.
fn alarm(spans: &[(usize, usize)]) -> Judgement {
    let mut alarm = vec![false; MINUTES];
    for (start, end) in spans {
        alarm[*start..*end].fill(true);
    }
    Judgement {
        alarm,
        estimates: Vec::new(),
    }
}

#[test]
fn alarms_an_hour_apart_are_one_and_further_apart_are_two() {
    let one = Outcome::of(healthy(), &alarm(&[(100, 110), (169, 170)]));
    let two = Outcome::of(healthy(), &alarm(&[(100, 110), (170, 171)]));
    assert_eq!((one.false_alarms, two.false_alarms), (1, 2));
    assert_eq!(one.delay, None);
}

#[test]
fn an_alarm_finds_a_leak_only_between_onset_and_oom() {
    let leak = truth(Class::LeakMidway, 2000.0, Some(3000.0));
    let found = Outcome::of(leak, &alarm(&[(2250, 2300)]));
    assert_eq!((found.false_alarms, found.delay), (0, Some(250.0)));
    assert_eq!(found.lead(), Some(0.75));
    let late = Outcome::of(leak, &alarm(&[(3000, 3100)]));
    assert_eq!((late.false_alarms, late.delay), (0, None));
    let early = Outcome::of(leak, &alarm(&[(1000, 1100)]));
    assert_eq!((early.false_alarms, early.delay), (1, None));
}

#[test]
fn an_alarm_that_lasts_across_the_onset_is_false_and_finds_the_leak() {
    let leak = truth(Class::LeakMidway, 2000.0, Some(3000.0));
    let outcome = Outcome::of(leak, &alarm(&[(1900, 2500)]));
    assert_eq!((outcome.false_alarms, outcome.delay), (1, Some(0.0)));
    assert_eq!(outcome.lead(), Some(1.0));
}

#[test]
fn a_score_counts_slow_leaks_apart() {
    let leak = truth(Class::LeakLinear, 0.0, Some(5000.0));
    let slow = truth(Class::LeakSlow, 0.0, None);
    let yes = alarm(&[(1000, 1001)]);
    let no = alarm(&[]);
    let outcomes = [
        Outcome::of(leak, &yes),
        Outcome::of(leak, &no),
        Outcome::of(slow, &yes),
        Outcome::of(slow, &no),
        Outcome::of(healthy(), &yes),
        Outcome::of(healthy(), &no),
        Outcome::of(healthy(), &no),
    ];
    let score = Score::of(&outcomes);
    assert_eq!((score.leaks, score.healthy, score.slow), (2, 3, (1, 2)));
    assert_eq!(score.precision, Some(0.5));
    assert_eq!(score.recall, Some(0.5));
    assert_eq!(score.healthy_alarmed, Some(1.0 / 3.0));
    // One alarm in three healthy container-weeks.
    assert!(
        score
            .false_alarms_per_week
            .is_some_and(|rate| (rate - 1.0 / 3.0).abs() < 1e-12)
    );
    assert_eq!(score.lead, Some(0.8));
}

#[test]
fn nothing_measured_is_absent_and_not_zero() {
    let score = Score::of(&[]);
    assert_eq!(
        (score.precision, score.recall, score.lead),
        (None, None, None)
    );
    assert_eq!(score.healthy_alarmed, None);
    assert_eq!(score.false_alarms_per_week, None);
}

fn told(minute: usize, minutes_left: f64) -> Estimate {
    Estimate {
        minute,
        onset: Some(940.0),
        rate: Some(Interval {
            value: 110.0,
            low: 90.0,
            high: 120.0,
        }),
        to_limit: Some(Interval {
            value: minutes_left,
            low: 0.5 * minutes_left,
            high: 1.1 * minutes_left,
        }),
    }
}

#[test]
fn estimates_are_judged_at_detection_and_on_the_way() {
    let leak = truth(Class::LeakLinear, 1000.0, Some(3000.0));
    let mut judgement = alarm(&[(2000, 3000)]);
    // Told before the onset, at detection, and once more; the last ages until it is asked for.
    judgement.estimates = vec![told(500, 1.0), told(2000, 800.0), told(2600, 500.0)];
    let quality = Outcome::of(leak, &judgement).quality.unwrap_or_default();
    assert_eq!(quality.onset_error, Some(60.0));
    assert!(
        quality
            .rate
            .is_some_and(|(error, covered)| (error - 0.1).abs() < 1e-12 && covered)
    );
    assert_eq!(quality.due, [true; 4]);
    // At 2000 in truth 1000 are left and 800..880 told; at 2500 500 are left and 300..380 told.
    let first = quality.to_limit[0];
    assert!(first.is_some_and(|error| (error.relative - 0.2).abs() < 1e-12 && !error.covered));
    assert!(quality.to_limit[1].is_some_and(|error| (error.relative - 0.4).abs() < 1e-12));
    // At 2750 250 are left and 350 told, at least 100.
    let third = quality.to_limit[2];
    assert!(third.is_some_and(|error| (error.absolute - 100.0).abs() < 1e-9 && error.covered));
}

#[test]
fn no_time_to_limit_is_due_without_an_oom_and_right_before_it() {
    let judgement = |at| Judgement {
        estimates: vec![told(at, 10.0)],
        ..alarm(&[(at, at + 2)])
    };
    let endless = Outcome::of(truth(Class::LeakLinear, 0.0, None), &judgement(100));
    assert_eq!(endless.quality.map(|quality| quality.due), Some([false; 4]));
    let leak = truth(Class::LeakLinear, 0.0, Some(110.0));
    let last = Outcome::of(leak, &judgement(102))
        .quality
        .unwrap_or_default();
    assert_eq!(last.due, [true, false, false, false]);
}

#[test]
fn the_rate_of_an_accelerating_leak_is_not_judged() {
    let leak = truth(Class::LeakAccel, 0.0, Some(3000.0));
    let mut judgement = alarm(&[(2000, 3000)]);
    judgement.estimates = vec![told(2000, 900.0)];
    let quality = Outcome::of(leak, &judgement).quality.unwrap_or_default();
    assert_eq!(quality.rate, None);
    assert!(quality.to_limit[0].is_some());
}

#[test]
fn a_median_of_an_even_number_lies_in_the_middle() {
    assert_eq!(median([4.0, 1.0, 3.0, 2.0].into_iter()), Some(2.5));
    assert_eq!(median(std::iter::empty()), None);
}
