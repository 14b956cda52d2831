//! What holds for every series: scaling, shifting, adding, resampling, and no input that breaks it.

use super::*;
use std::sync::Arc;

const MINUTE: i64 = 60_000;
const MIB: u64 = 1 << 20;

/// A small generator of numbers, so that the series are the same each time.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

fn analyzer() -> Analyzer {
    Analyzer::new(Arc::new(Thresholds::default()))
}

/// A series of anon under a limit, one reading each `step` milliseconds.
fn series(hours: i64, step: i64, anon: impl Fn(f64, &mut Dice) -> u64, limit: u64) -> Vec<Sample> {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    (0..hours * 60 * MINUTE / step)
        .map(|at| {
            let time_ms = at * step;
            let hour = time_ms as f64 / (60 * MINUTE) as f64;
            Sample {
                time_ms,
                anon_bytes: Some(anon(hour, &mut dice)),
                limit_bytes: Some(limit),
                ..Sample::default()
            }
        })
        .collect()
}

fn leak(step: i64) -> Vec<Sample> {
    let anon = |hour: f64, dice: &mut Dice| {
        (400.0 * MIB as f64 + 100.0 * MIB as f64 * (hour - 6.0).max(0.0)) as u64
            + dice.below(8 * MIB)
    };
    series(20, step, anon, 2500 * MIB)
}

fn calm(step: i64) -> Vec<Sample> {
    let anon = |_: f64, dice: &mut Dice| 400 * MIB + dice.below(200 * MIB);
    series(20, step, anon, 1024 * MIB)
}

fn warm_up(step: i64) -> Vec<Sample> {
    let anon = |hour: f64, dice: &mut Dice| {
        (600.0 * MIB as f64 * (1.0 - (-hour).exp())) as u64 + 100 * MIB + dice.below(4 * MIB)
    };
    series(20, step, anon, 1024 * MIB)
}

/// The states that were passed through, and the analysis at the end.
fn run(samples: &[Sample]) -> (Vec<State>, Analyzer) {
    let mut analyzer = analyzer();
    let mut states = Vec::new();
    for sample in samples {
        let change = analyzer.push(sample);
        if let Some(change) = change.and_then(|change| change.state) {
            states.push(change.to);
        }
        finite(analyzer.verdict());
    }
    (states, analyzer)
}

fn finite(verdict: &Verdict) {
    let estimate = |estimate: Estimate| {
        assert!(estimate.low.is_finite() && estimate.mid.is_finite());
        assert!(estimate.high.is_none_or(f64::is_finite));
    };
    let time = verdict.time_to_limit.map(|time| time.seconds);
    for interval in verdict.rate_bytes_per_hour.into_iter().chain(time) {
        estimate(interval);
    }
    for considered in &verdict.considered {
        assert!(considered.value.is_finite() && considered.threshold.is_finite());
    }
    if let Some(evidence) = verdict.evidence {
        let figures = [
            evidence.mann_kendall_z,
            evidence.r_squared,
            evidence.autocorrelation,
            evidence.floor_growth_bytes,
            evidence.residual_bytes,
            evidence.headroom_bytes.unwrap_or(0.0),
        ];
        assert!(figures.iter().all(|figure| figure.is_finite()));
    }
    assert!(verdict.near_limit.is_none_or(|near| near.ratio.is_finite()));
}

fn map(samples: &[Sample], change: impl Fn(&mut Sample)) -> Vec<Sample> {
    let mut samples = samples.to_vec();
    samples.iter_mut().for_each(change);
    samples
}

#[test]
fn a_leak_is_confirmed_with_its_rate_onset_and_time_to_the_limit() {
    let samples = leak(10_000);
    let (states, analyzer) = run(&samples);
    assert!(states.contains(&State::Suspected), "{states:?}");
    assert_eq!(analyzer.verdict().state, State::Confirmed, "{states:?}");
    let verdict = analyzer.verdict();
    let rate = verdict.rate_bytes_per_hour.expect("a rate").mid / MIB as f64;
    assert!((90.0..110.0).contains(&rate), "{rate} MiB/h");
    let since = verdict.since.expect("an onset").time_ms as f64 / (60 * MINUTE) as f64;
    assert!((since - 6.0).abs() < 1.0, "since hour {since}");
    let left = verdict.time_to_limit.expect("a time").seconds.mid / 3600.0;
    assert!((6.0..8.0).contains(&left), "{left} h left of 7");
}

#[test]
fn garbage_collection_and_a_warm_up_are_no_leaks() {
    for samples in [calm(10_000), warm_up(10_000)] {
        let (states, _) = run(&samples);
        assert!(states.iter().all(|state| !state.is_leak()), "{states:?}");
    }
}

#[test]
fn scaling_bytes_scales_the_rate_and_nothing_else() {
    let samples = leak(30_000);
    let (states, analyzer) = run(&samples);
    let rate = analyzer.verdict().rate_bytes_per_hour.expect("a rate").mid;
    for factor in [2, 16, 1024] {
        let scaled = map(&samples, |sample| {
            sample.anon_bytes = sample.anon_bytes.map(|bytes| bytes * factor);
            sample.limit_bytes = sample.limit_bytes.map(|bytes| bytes * factor);
        });
        let (scaled_states, scaled) = run(&scaled);
        assert_eq!(scaled_states, states);
        let scaled = scaled.verdict().rate_bytes_per_hour.expect("a rate").mid;
        assert!((scaled / rate / factor as f64 - 1.0).abs() < 1e-3);
    }
}

#[test]
fn a_shift_in_time_changes_nothing() {
    for samples in [leak(30_000), calm(30_000), warm_up(30_000)] {
        let (states, analyzer) = run(&samples);
        for shift in [1, -86_400_123, 1_700_000_000_000] {
            let shifted = map(&samples, |sample| sample.time_ms += shift);
            let (shifted_states, shifted) = run(&shifted);
            assert_eq!(shifted_states, states);
            assert_eq!(
                shifted.verdict().rate_bytes_per_hour,
                analyzer.verdict().rate_bytes_per_hour
            );
            let onset = |analyzer: &Analyzer| analyzer.verdict().since.map(|since| since.time_ms);
            assert_eq!(onset(&shifted), onset(&analyzer).map(|since| since + shift));
        }
    }
}

#[test]
fn a_constant_beside_the_growth_changes_no_verdict_under_a_limit_moved_along() {
    for samples in [leak(30_000), calm(30_000), warm_up(30_000)] {
        let (states, _) = run(&samples);
        let moved = map(&samples, |sample| {
            sample.anon_bytes = sample.anon_bytes.map(|bytes| bytes + 200 * MIB);
            sample.limit_bytes = sample.limit_bytes.map(|bytes| bytes + 200 * MIB);
        });
        let (moved, _) = run(&moved);
        assert_eq!(moved.last(), states.last());
        assert_eq!(
            moved.iter().any(|state| state.is_leak()),
            states.iter().any(|state| state.is_leak())
        );
    }
}

#[test]
fn half_the_samples_give_the_same_final_verdict() {
    for samples in [leak(10_000), calm(10_000), warm_up(10_000)] {
        let (_, whole) = run(&samples);
        let half: Vec<Sample> = samples.iter().step_by(2).copied().collect();
        let (_, half) = run(&half);
        assert_eq!(half.verdict().state, whole.verdict().state);
    }
}

#[test]
fn minutes_stand_for_hours_by_the_scale_of_time() {
    let thresholds = Thresholds {
        time_scale: 60.0,
        ..Thresholds::default()
    };
    let mut fast = Analyzer::new(Arc::new(thresholds));
    for mut sample in leak(12_000) {
        sample.time_ms /= 60;
        fast.push(&sample);
    }
    assert_eq!(fast.verdict().state, State::Confirmed);
    let rate = fast.verdict().rate_bytes_per_hour.expect("a rate").mid / MIB as f64;
    assert!((5400.0..6600.0).contains(&rate), "{rate} MiB/h");
}

#[test]
fn a_leak_cut_by_restarts_is_remembered_and_one_that_came_down_is_reclaimed() {
    let mut analyzer = analyzer();
    let mut reclaimed = false;
    for epoch in 0..4u32 {
        for mut sample in leak(30_000) {
            sample.time_ms += i64::from(epoch) * 20 * 60 * MINUTE;
            sample.epoch = Some(epoch);
            let change = analyzer.push(&sample).and_then(|change| change.state);
            reclaimed |= change.is_some_and(|change| change.to == State::Reclaimed);
        }
    }
    assert!(reclaimed);
    let verdict = analyzer.verdict();
    assert_eq!(verdict.state, State::Confirmed);
    assert!(verdict.evidence.expect("evidence").epochs_growing >= 3);
}

#[test]
fn what_is_saved_goes_on_as_if_nothing_had_happened() {
    let samples = leak(30_000);
    let (_, whole) = run(&samples);
    let mut cut = analyzer();
    for (at, sample) in samples.iter().enumerate() {
        cut.push(sample);
        if at % 311 == 0 {
            let stored = serde_json::to_string(cut.saved()).expect("it serializes");
            assert!(stored.len() < 32 * 1024, "{} bytes", stored.len());
            let saved = serde_json::from_str(&stored).expect("it reads back");
            cut = Analyzer::restore(Arc::new(Thresholds::default()), saved);
        }
    }
    assert_eq!(cut.verdict(), whole.verdict());
}

#[test]
fn gaps_are_bridged() {
    let samples = leak(30_000);
    let gappy: Vec<Sample> = samples
        .iter()
        .enumerate()
        .filter(|(at, _)| at % 97 < 70)
        .map(|(_, sample)| *sample)
        .collect();
    let (_, analyzer) = run(&gappy);
    assert_eq!(analyzer.verdict().state, State::Confirmed);
}

#[test]
fn page_cache_that_fills_the_limit_is_never_suspected() {
    let mut samples = calm(30_000);
    for (at, sample) in samples.iter_mut().enumerate() {
        sample.file_bytes = Some(at as u64 * 256 * 1024);
    }
    let (states, _) = run(&samples);
    assert!(states.iter().all(|state| !state.is_leak()), "{states:?}");
}

#[test]
fn kernel_memory_and_shmem_leak_by_themselves() {
    for signal in [Signal::Kernel, Signal::Shmem] {
        let samples = map(&leak(30_000), |sample| {
            let bytes = sample.anon_bytes.replace(50 * MIB);
            match signal {
                Signal::Kernel => sample.kernel_bytes = bytes,
                _ => sample.shmem_bytes = bytes,
            }
        });
        let (_, analyzer) = run(&samples);
        assert_eq!(analyzer.verdict().state, State::Confirmed);
        assert_eq!(analyzer.verdict().signal, Some(signal));
    }
}

#[test]
fn a_near_limit_is_told_once_and_cleared_with_hysteresis() {
    let mut analyzer = analyzer();
    let mut told = Vec::new();
    for minute in 0..120i64 {
        let share = match minute {
            0..30 => 50,
            30..60 => 95,
            60..80 => 88,
            _ => 60,
        };
        let sample = Sample {
            time_ms: minute * MINUTE,
            anon_bytes: Some(share * MIB),
            file_bytes: Some((100 - share) * MIB),
            limit_bytes: Some(100 * MIB),
            ..Sample::default()
        };
        told.extend(
            analyzer
                .push(&sample)
                .and_then(|change| Some((minute, change.near_limit?))),
        );
    }
    assert_eq!(told, [(33, true), (83, false)]);
}

#[test]
fn any_input_gives_a_verdict() {
    let mut dice = Dice(42);
    let extremes = [
        0,
        1,
        4095,
        MIB,
        u64::from(u32::MAX),
        1 << 44,
        u64::MAX - 1,
        u64::MAX,
    ];
    for round in 0..40 {
        let mut analyzer = analyzer();
        let mut time: i64 = if round % 3 == 0 { i64::MIN } else { 0 };
        for _ in 0..3000 {
            let mut pick = || match dice.below(4) {
                0 => None,
                1 => Some(dice.next()),
                2 => extremes.get(dice.below(8) as usize).copied(),
                _ => Some(dice.below(1 << 32)),
            };
            let mut sample = Sample {
                time_ms: time,
                anon_bytes: pick(),
                file_bytes: pick(),
                shmem_bytes: pick(),
                kernel_bytes: pick(),
                usage_bytes: pick(),
                working_set_bytes: pick(),
                limit_bytes: pick(),
                swap_bytes: pick(),
                cpu_ns: pick(),
                faults: pick(),
                stall_us: pick(),
                reclaimed_pages: pick(),
                epoch: None,
            };
            sample.epoch = (dice.below(200) == 0).then(|| dice.below(3) as u32);
            analyzer.push(&sample);
            finite(analyzer.verdict());
            time = match dice.below(300) {
                0 => dice.next() as i64,
                1 => time.saturating_sub(dice.below(10_000_000) as i64),
                2 => time.saturating_add(dice.below(10_000_000_000) as i64),
                _ => time.saturating_add(dice.below(60_000) as i64),
            };
        }
    }
}

#[test]
fn the_state_of_every_signal_stays_within_its_bound() {
    let samples = map(&leak(30_000), |sample| {
        let bytes = sample.anon_bytes;
        (sample.shmem_bytes, sample.kernel_bytes) = (bytes, bytes);
        sample.file_bytes = bytes.map(|bytes| bytes * 2);
        sample.cpu_ns = Some(sample.time_ms as u64 * 1000);
    });
    let (_, analyzer) = run(&samples);
    assert!(
        analyzer.state_bytes() <= 16 * 1024,
        "{} bytes",
        analyzer.state_bytes()
    );
    assert_eq!(analyzer.signals().count(), 4);
}

#[test]
fn a_threshold_is_set_by_name_and_checked() {
    let mut thresholds = Thresholds::default();
    assert!(thresholds.set("young", 3.0).is_ok());
    assert_eq!(thresholds.young, 3.0);
    assert!(thresholds.set("young", f64::NAN).is_err());
    assert!(thresholds.set("time_scale", 0.0).is_err());
    assert!(thresholds.set("no_such_thing", 1.0).is_err());
    for row in Thresholds::TABLE {
        assert!(thresholds.set(row.name, row.default).is_ok());
    }
    assert_eq!(thresholds, Thresholds::default());
}

#[test]
fn one_small_step_of_an_allocator_does_not_hide_a_straight_line() {
    let states = |step: u64| {
        let mut analyzer = analyzer();
        let samples = (0..112).map(|minute| Sample {
            time_ms: minute as i64 * MINUTE,
            anon_bytes: Some(2 * MIB + minute * MIB / 2 + if minute > 66 { step } else { 0 }),
            limit_bytes: Some(128 * MIB),
            ..Sample::default()
        });
        let states = samples.map(|sample| {
            let _ = analyzer.push(&sample);
            analyzer.verdict().state
        });
        states.collect::<Vec<_>>()
    };
    let straight = states(0);
    assert!(straight.contains(&State::Growing));
    assert_eq!(states(64 << 10), straight);
}

#[test]
fn a_life_too_short_to_be_judged_does_not_excuse_the_leak_of_the_next_ones() {
    // The first reached more, and died before its shape was to be seen.
    let short = [(65, MIB, 0..0)];
    // In the first nothing was read for a while.
    let gap = [(94, MIB / 2, 4..17)];
    for (first, limit) in [(short, 160 * MIB), (gap, 128 * MIB)] {
        let mut analyzer = analyzer();
        let mut now = 0;
        let mut accused = Vec::new();
        let minutes = if limit == 128 * MIB { 94 } else { 100 };
        let lives = first.into_iter().chain(vec![(minutes, MIB / 2, 0..0); 7]);
        for (epoch, (minutes, rate, gap)) in (0..).zip(lives) {
            for minute in 0..minutes {
                now += MINUTE;
                if gap.contains(&minute) {
                    continue;
                }
                let _ = analyzer.push(&Sample {
                    time_ms: now,
                    epoch: Some(epoch),
                    anon_bytes: Some(5 * MIB + minute * rate),
                    limit_bytes: Some(limit),
                    ..Sample::default()
                });
                if analyzer.verdict().state.is_leak() {
                    accused.push(epoch);
                }
            }
        }
        assert!(
            accused.first().is_some_and(|&life| life > 1),
            "limit {limit}: {accused:?}"
        );
    }
}

/// What is told of a leak rests on a rate that lies above zero with its interval.
#[test]
fn a_leak_is_told_with_a_rate_above_zero() {
    let bursty = |period: u64, height: u64, keeps: u64| {
        move |hour: f64, dice: &mut Dice| {
            let minute = (hour * 60.0) as u64;
            let bursts = minute / period;
            let inside = minute % period < period / 4;
            let kept = (0..bursts)
                .map(|at| (at * 2_654_435_761) % (keeps * 2))
                .sum::<u64>();
            (80 + kept) * MIB
                + if inside {
                    height * MIB
                } else {
                    dice.below(2 * MIB)
                }
        }
    };
    let mut told = 0;
    for (period, height, keeps) in [
        (7, 90, 4),
        (20, 60, 12),
        (45, 200, 25),
        (90, 40, 60),
        (240, 100, 120),
    ] {
        for limit in [600, 1500, 4000] {
            let samples = series(30, 10_000, bursty(period, height, keeps), limit * MIB);
            let mut analyzer = analyzer();
            for sample in &samples {
                if sample.anon_bytes > Some(limit * MIB) {
                    break;
                }
                analyzer.push(sample);
                let verdict = analyzer.verdict();
                let rate = verdict.rate_bytes_per_hour;
                if verdict.state.is_leak() {
                    told += 1;
                    assert!(
                        rate.is_none_or(|rate| rate.low > 0.0),
                        "{period} {limit}: {verdict:?}"
                    );
                }
            }
        }
    }
    assert!(told > 1000, "{told}");
}
