use std::slice::from_ref;

use super::*;
use crate::{api::records::Point, incident::record::UsageSample, report::fixture};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn series(step_seconds: f64, values: &[(i64, u64)]) -> Series {
    Series {
        step_seconds,
        points: values
            .iter()
            .map(|(second, usage_bytes)| Point {
                time: at(*second),
                usage_bytes: *usage_bytes,
                anon_bytes: None,
                effective_limit_bytes: Some(if *second < 500 { 1 } else { 2 }),
            })
            .collect(),
    }
}

fn told(history: &History) -> Vec<(i64, Option<u64>)> {
    let points = history.points.iter();
    points
        .map(|point| (point.time.as_second(), point.usage_bytes))
        .collect()
}

#[test]
fn of_each_time_the_finest_readings_are_told_and_gaps_stay_gaps() {
    let all = [
        series(10.0, &[(600, 6), (610, 6), (620, 6), (700, 7)]),
        series(
            100.0,
            &[
                (100, 1),
                (200, 2),
                (300, 3),
                (400, 4),
                (500, 5),
                (600, 6),
                (700, 7),
            ],
        ),
    ];
    let joined = history(&all, &[], None);
    let coarse = (1..=5).map(|step| (step * 100, Some(step as u64)));
    let fine = [
        (600, Some(6)),
        (610, Some(6)),
        (620, Some(6)),
        (620, None),
        (700, Some(7)),
    ];
    let expected: Vec<_> = coarse.chain(fine).collect();
    assert_eq!(told(&joined), expected);
    let limits: Vec<_> = joined
        .limits
        .iter()
        .map(|limit| limit.limit_bytes)
        .collect();
    assert_eq!(limits, [Some(1), Some(2)]);
    assert_eq!(joined.begin, Some(at(0)));
    let later = history(&all, &[], Some(at(605)));
    assert_eq!(told(&later).len(), 4);
    assert_eq!(later.begin, Some(at(605)));
    assert!(history(&[], &[], None).points.is_empty());
}

#[test]
fn a_peak_just_before_the_finer_readings_is_not_lost() {
    let fine = series(
        10.0,
        &[(650, 1), (660, 1), (670, 1), (680, 1), (690, 1), (700, 1)],
    );
    let peak = [
        fine.clone(),
        series(100.0, &[(500, 80), (600, 90), (700, 99)]),
    ];
    let told_of = told(&history(&peak, &[], None));
    assert!(told_of.contains(&(640, Some(99))), "{told_of:?}");
    let calm = [fine, series(100.0, &[(600, 1), (700, 1)])];
    assert!(!told(&history(&calm, &[], None)).contains(&(640, Some(1))));
}

#[test]
fn what_led_up_to_a_kill_is_told_as_it_was_and_nothing_is_told_between_it_and_the_next_reading() {
    let mut incident = fixture::incident();
    incident.time = at(243);
    incident.evidence.usage = (0..=30)
        .map(|second| UsageSample {
            before_ms: (30 - second) * 1000,
            usage_bytes: 370 + second,
        })
        .collect();
    let minutes = series(
        60.0,
        &[(120, 280), (180, 340), (240, 397), (300, 400), (360, 5)],
    );
    let told = told(&history(from_ref(&minutes), from_ref(&incident), None));
    assert_eq!(
        told[..3],
        [(120, Some(280)), (180, Some(340)), (213, Some(370))]
    );
    let kill = told
        .iter()
        .position(|point| *point == (243, Some(400)))
        .unwrap();
    // The step of the kill is told by what led up to it.
    assert_eq!(told[kill + 1..], [(243, None), (360, Some(5))]);
    incident.evidence.usage.drain(10..15);
    let late = super::history(from_ref(&minutes), from_ref(&incident), None);
    let gaps = late
        .points
        .iter()
        .filter(|point| point.usage_bytes.is_none());
    assert_eq!(gaps.count(), 1, "a reading that came late is no gap");
    // A step that saw more than that stays.
    incident
        .evidence
        .usage
        .iter_mut()
        .for_each(|sample| sample.usage_bytes /= 2);
    let less = super::history(&[minutes], &[incident], None);
    assert!(
        less.points
            .iter()
            .any(|point| point.usage_bytes == Some(400))
    );
}
