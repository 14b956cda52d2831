//! Compares what a detector said with the truth, and adds up over many series.
//! Must not know detectors; what good enough is, is in `targets`.

use super::class::Class;
use super::detector::{Estimate, Interval, Judgement};
use super::minutes::MINUTES;
use super::series::Series;

/// Alarms that are closer together than this count as one.
const EPISODE_GAP: usize = 60;
/// Where between detection and OOM the time to limit is judged.
pub const STAGES: [f64; 4] = [0.0, 0.5, 0.75, 0.9];
/// An estimate that close to the OOM is not judged: sampling alone decides it.
const TOO_LATE_MINUTES: f64 = 5.0;

/// What really happened, in minutes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Truth {
    pub class: Class,
    /// When the leak started; the end of the series if there is none.
    pub onset: f64,
    pub oom: Option<f64>,
    /// Bytes per hour.
    pub rate: f64,
}

impl Truth {
    pub fn of(series: &Series) -> Self {
        Self {
            class: series.class,
            onset: series
                .onset_s
                .map_or(MINUTES as f64, |onset_s| onset_s / 60.0),
            oom: series.first_oom_s.map(|oom_s| oom_s / 60.0),
            rate: series.rate,
        }
    }

    /// Until when an alarm finds the leak.
    fn end(&self) -> f64 {
        self.oom.unwrap_or(MINUTES as f64)
    }
}

/// How one judgement of one series turned out.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub truth: Truth,
    /// Alarms before the onset, in a healthy series all of them.
    pub false_alarms: usize,
    /// Minutes from the onset to the alarm, if it came before the OOM.
    pub delay: Option<f64>,
    /// How good what was told at the alarm is.
    pub quality: Option<Quality>,
}

/// Errors of the estimates of one leak.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Quality {
    /// Minutes.
    pub onset_error: Option<f64>,
    /// Relative to the true rate, and whether the interval contains it.
    pub rate: Option<(f64, bool)>,
    /// One per [`STAGES`], if the container was killed and an estimate was there.
    pub to_limit: [Option<TimeError>; STAGES.len()],
    /// Which of these should have had an estimate.
    pub due: [bool; STAGES.len()],
}

/// How wrong a time to limit was.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TimeError {
    /// Relative to the time that was really left.
    pub relative: f64,
    /// Minutes.
    pub absolute: f64,
    pub covered: bool,
}

impl Outcome {
    pub fn of(truth: Truth, judgement: &Judgement) -> Self {
        let (onset, end) = (truth.onset as usize, truth.end() as usize);
        let alarms = |from: usize, to: usize| {
            let within = judgement.alarm.get(from..to.min(judgement.alarm.len()));
            within.unwrap_or_default().iter().position(|alarm| *alarm)
        };
        let delay = truth
            .class
            .leaks()
            .then(|| alarms(onset, end))
            .flatten()
            .map(|minutes| minutes as f64);
        let quality = delay
            .filter(|_| !judgement.estimates.is_empty())
            .map(|delay| Quality::of(&truth, onset + delay as usize, &judgement.estimates));
        Self {
            truth,
            false_alarms: episodes(&judgement.alarm)
                .filter(|start| (*start as f64) < truth.onset)
                .count(),
            delay,
            quality,
        }
    }

    /// Share of the time between onset and OOM that was left when the alarm came.
    fn lead(&self) -> Option<f64> {
        let whole = self.truth.oom? - self.truth.onset;
        Some(1.0 - self.delay? / whole)
    }
}

/// The minutes in which alarms begin.
fn episodes(alarm: &[bool]) -> impl Iterator<Item = usize> {
    let mut last: Option<usize> = None;
    alarm.iter().enumerate().filter_map(move |(minute, alarm)| {
        let begins = *alarm && last.is_none_or(|last| minute - last > EPISODE_GAP);
        if *alarm {
            last = Some(minute);
        }
        begins.then_some(minute)
    })
}

impl Quality {
    fn of(truth: &Truth, detected: usize, estimates: &[Estimate]) -> Self {
        let mut quality = Self::default();
        let first = estimates
            .iter()
            .find(|estimate| estimate.minute >= detected);
        if let Some(first) = first {
            quality.onset_error = first.onset.map(|onset| (onset - truth.onset).abs());
            quality.rate = first
                .rate
                .filter(|_| truth.class.has_constant_rate())
                .map(|rate| {
                    (
                        (rate.value / truth.rate - 1.0).abs(),
                        rate.covers(truth.rate),
                    )
                });
        }
        let Some(oom) = truth.oom else { return quality };
        for (index, stage) in STAGES.into_iter().enumerate() {
            let now = detected as f64 + stage * (oom - detected as f64);
            if oom - now > TOO_LATE_MINUTES {
                quality.due[index] = true;
                quality.to_limit[index] = time_error(estimates, detected, now, oom);
            }
        }
        quality
    }
}

/// Judges the latest estimate that was told between detection and `now`.
fn time_error(estimates: &[Estimate], detected: usize, now: f64, oom: f64) -> Option<TimeError> {
    let latest = estimates
        .iter()
        .rev()
        .filter(|estimate| estimate.minute >= detected && estimate.minute as f64 <= now)
        .find_map(|estimate| Some((estimate.minute, estimate.to_limit?)));
    let (minute, told) = latest?;
    let (age, left) = (now - minute as f64, oom - now);
    let told = Interval {
        value: told.value - age,
        low: told.low - age,
        high: told.high - age,
    };
    Some(TimeError {
        relative: (told.value - left).abs() / left,
        absolute: (told.value - left).abs(),
        covered: told.covers(left),
    })
}

/// How a detector did on many series; what cannot be told is absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Score {
    pub healthy: usize,
    pub leaks: usize,
    /// Share of the alarmed series that leak.
    pub precision: Option<f64>,
    /// Share of the leaks found before the OOM; the slow ones are counted apart.
    pub recall: Option<f64>,
    /// Share of the healthy series that were ever alarmed.
    pub healthy_alarmed: Option<f64>,
    pub false_alarms: usize,
    /// Per container-week without a leak.
    pub false_alarms_per_week: Option<f64>,
    /// Hours, median.
    pub delay_h: Option<f64>,
    /// Median.
    pub lead: Option<f64>,
    /// Slow leaks found, and how many there are.
    pub slow: (usize, usize),
    pub estimates: EstimateScore,
}

/// How good what was told about leaks is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EstimateScore {
    /// Hours, median.
    pub onset_error_h: Option<f64>,
    /// Hours, median of the leaks that did not start with the container.
    pub later_onset_error_h: Option<f64>,
    /// Relative, median.
    pub rate_error: Option<f64>,
    pub rate_coverage: Option<f64>,
    pub to_limit: [TimeScore; STAGES.len()],
}

/// The time to limit at one stage.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TimeScore {
    /// Leaks that should have had an estimate.
    pub due: usize,
    pub estimates: usize,
    /// Relative, median.
    pub error: Option<f64>,
    /// Share within 30% or 20 minutes.
    pub close: Option<f64>,
    pub coverage: Option<f64>,
}

impl Score {
    pub fn of<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> Self {
        let outcomes: Vec<&Outcome> = outcomes.into_iter().collect();
        let of_kind = |wanted: fn(Class) -> bool| -> Vec<&Outcome> {
            let kind = outcomes
                .iter()
                .filter(|outcome| wanted(outcome.truth.class));
            kind.copied().collect()
        };
        let healthy = of_kind(|class| !class.leaks());
        let slow = of_kind(|class| class == Class::LeakSlow);
        let leaks = of_kind(|class| class.leaks() && class != Class::LeakSlow);

        let found = leaks.iter().filter(|leak| leak.delay.is_some()).count();
        let alarmed = healthy
            .iter()
            .filter(|series| series.false_alarms > 0)
            .count();
        let false_alarms = outcomes.iter().map(|outcome| outcome.false_alarms).sum();
        let calm_minutes: f64 = outcomes.iter().map(|outcome| outcome.truth.onset).sum();
        let delays = leaks.iter().filter_map(|leak| leak.delay);
        Self {
            healthy: healthy.len(),
            leaks: leaks.len(),
            precision: ratio(found, found + alarmed),
            recall: ratio(found, leaks.len()),
            healthy_alarmed: ratio(alarmed, healthy.len()),
            false_alarms,
            false_alarms_per_week: (calm_minutes > 0.0)
                .then(|| false_alarms as f64 * MINUTES as f64 / calm_minutes),
            delay_h: median(delays.map(|minutes| minutes / 60.0)),
            lead: median(leaks.iter().filter_map(|leak| leak.lead())),
            slow: (
                slow.iter().filter(|leak| leak.delay.is_some()).count(),
                slow.len(),
            ),
            estimates: EstimateScore::of(&outcomes),
        }
    }
}

impl EstimateScore {
    fn of(outcomes: &[&Outcome]) -> Self {
        let told: Vec<(&Truth, &Quality)> = outcomes
            .iter()
            .filter_map(|outcome| Some((&outcome.truth, outcome.quality.as_ref()?)))
            .collect();
        let onset_errors = |later: bool| {
            let wanted = told.iter().filter(|(truth, _)| !later || truth.onset > 0.0);
            median(wanted.filter_map(|(_, quality)| Some(quality.onset_error? / 60.0)))
        };
        let rates: Vec<(f64, bool)> = told.iter().filter_map(|(_, told)| told.rate).collect();
        let at = |stage: usize| {
            let due = told
                .iter()
                .filter(|(_, quality)| quality.due[stage])
                .count();
            let errors = told
                .iter()
                .filter_map(|(_, quality)| quality.to_limit[stage]);
            TimeScore::of(due, &errors.collect::<Vec<_>>())
        };
        Self {
            onset_error_h: onset_errors(false),
            later_onset_error_h: onset_errors(true),
            rate_error: median(rates.iter().map(|(error, _)| *error)),
            rate_coverage: ratio(
                rates.iter().filter(|(_, covered)| *covered).count(),
                rates.len(),
            ),
            to_limit: std::array::from_fn(at),
        }
    }
}

impl TimeScore {
    fn of(due: usize, errors: &[TimeError]) -> Self {
        let close = |error: &&TimeError| error.relative <= 0.3 || error.absolute <= 20.0;
        Self {
            due,
            estimates: errors.len(),
            error: median(errors.iter().map(|error| error.relative)),
            close: ratio(errors.iter().filter(close).count(), errors.len()),
            coverage: ratio(
                errors.iter().filter(|error| error.covered).count(),
                errors.len(),
            ),
        }
    }
}

fn ratio(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Halfway between the two in the middle when there is no single one.
fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values.get((values.len() - 1) / 2)?;
    Some((upper + lower) / 2.0)
}

#[cfg(test)]
#[path = "score_tests.rs"]
mod tests;
