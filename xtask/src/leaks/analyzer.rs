//! Our own analysis as a detector. Feeds it what an agent would read, each sample once.

use std::sync::Arc;

use anyhow::{Context, Result};
use memtrace::analysis::{self, Analyzer, Sample, State, Thresholds, Verdict};

use super::Setting;
use super::detector::{CONFIRMED, Detector, Estimate, Interval, Judgement, SUSPECTED};
use super::minutes::{MINUTES, Minutes, PER_MINUTE};
use super::series::{STEP_S, Series};

/// The analysis with one set of thresholds.
#[derive(Debug)]
pub struct Ours {
    thresholds: Arc<Thresholds>,
}

impl Ours {
    /// The defaults, but for these.
    pub fn new(settings: &[Setting]) -> Result<Self> {
        let mut thresholds = Thresholds::default();
        for Setting { name, value } in settings {
            thresholds
                .set(name, *value)
                .with_context(|| format!("cannot set {name} to {value}"))?;
        }
        Ok(Self {
            thresholds: Arc::new(thresholds),
        })
    }
}

impl Detector for Ours {
    fn names(&self) -> Vec<&'static str> {
        vec![CONFIRMED, SUSPECTED, "memtrace: growing"]
    }

    fn judge(&self, series: &Series, _: &Minutes) -> Vec<Judgement> {
        let mut analyzer = Analyzer::new(Arc::clone(&self.thresholds));
        let mut states = Vec::with_capacity(MINUTES);
        let mut estimates = Vec::new();
        let mut cpu_s = 0.0;
        for at in 0..MINUTES * PER_MINUTE {
            cpu_s += series.cpu[at] * STEP_S;
            analyzer.push(&sample(series, at, cpu_s));
            if (at + 1) % PER_MINUTE == 0 {
                let verdict = analyzer.verdict();
                if verdict.state.is_leak() {
                    estimates.push(estimate(verdict, states.len()));
                }
                states.push(verdict.state);
            }
        }
        let alarm = |least: State| states.iter().map(|state| *state >= least).collect();
        vec![
            Judgement {
                alarm: alarm(State::Confirmed),
                estimates: estimates.clone(),
            },
            Judgement {
                alarm: alarm(State::Suspected),
                estimates,
            },
            Judgement {
                alarm: alarm(State::Growing),
                estimates: Vec::new(),
            },
        ]
    }
}

fn sample(series: &Series, at: usize, cpu_s: f64) -> Sample {
    let (anon, file, kernel) = (series.anon[at], series.file[at], series.kernel[at]);
    Sample {
        time_ms: (at as f64 * STEP_S * 1000.0) as i64,
        anon_bytes: Some(anon as u64),
        file_bytes: Some(file as u64),
        kernel_bytes: Some(kernel as u64),
        usage_bytes: Some((anon + file + kernel) as u64),
        working_set_bytes: Some(series.working_set(at) as u64),
        limit_bytes: Some(series.limit as u64),
        cpu_ns: Some((cpu_s * 1e9) as u64),
        epoch: Some(series.epoch[at]),
        ..Sample::default()
    }
}

fn estimate(verdict: &Verdict, minute: usize) -> Estimate {
    let to_limit = verdict.time_to_limit.as_ref();
    Estimate {
        minute,
        onset: verdict.since.map(|since| since.time_ms as f64 / 60_000.0),
        rate: verdict.rate_bytes_per_hour.map(|rate| interval(rate, 1.0)),
        to_limit: to_limit.map(|time| interval(time.seconds, 60.0)),
    }
}

fn interval(estimate: analysis::Estimate, unit: f64) -> Interval {
    Interval {
        value: estimate.mid / unit,
        low: estimate.low / unit,
        high: estimate.high.unwrap_or(f64::INFINITY) / unit,
    }
}
