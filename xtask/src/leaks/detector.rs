//! What is evaluated: anything that says for each minute whether it takes the container for a leak.

use super::minutes::Minutes;
use super::series::Series;

/// The grades of the analysis that targets exist for, as they are named in the tables.
pub const CONFIRMED: &str = "**memtrace: confirmed**";
pub const SUSPECTED: &str = "**memtrace: suspected**";

/// A rule, or an analysis with several grades of certainty.
pub trait Detector: Sync {
    /// One name per judgement that [`Detector::judge`] gives, in its order.
    fn names(&self) -> Vec<&'static str>;

    /// Sees the samples in order of time, never a later one.
    fn judge(&self, series: &Series, minutes: &Minutes) -> Vec<Judgement>;
}

/// What a detector said in the course of one series.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Judgement {
    /// Whether it alarmed, per minute.
    pub alarm: Vec<bool>,
    /// What it told about the leak while it alarmed, in order of time; empty for what only alarms.
    pub estimates: Vec<Estimate>,
}

/// What was told about the leak in one minute.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Estimate {
    pub minute: usize,
    /// When the leak began, in minutes.
    pub onset: Option<f64>,
    /// Bytes per hour.
    pub rate: Option<Interval>,
    /// Minutes until the limit is reached.
    pub to_limit: Option<Interval>,
}

/// A value, and where it lies with the certainty that the detector states.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Interval {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

impl Interval {
    pub fn covers(&self, truth: f64) -> bool {
        (self.low..=self.high).contains(&truth)
    }
}
