//! Of each time the finest reading that a timeline has. Must not know how it is drawn.

use jiff::{SignedDuration, Timestamp};

use super::records::Series;

/// Steps between two readings from which on nothing is known between them.
pub const GAP_STEPS: f64 = 2.5;

/// The largest usage of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// End of the step.
    pub time: Timestamp,
    pub step_seconds: f64,
    pub usage_bytes: u64,
    pub limit_bytes: Option<u64>,
}

impl Reading {
    pub fn begin(&self) -> Timestamp {
        earlier(self.time, self.step_seconds)
    }
}

/// The oldest first.
pub fn finest(series: &[Series]) -> Vec<Reading> {
    let mut finest_first: Vec<&Series> = series.iter().collect();
    finest_first.sort_by(|a, b| a.step_seconds.total_cmp(&b.step_seconds));
    let mut readings: Vec<Reading> = Vec::new();
    for series in finest_first {
        let begins = readings.first().map(Reading::begin);
        let mut older = Vec::new();
        for point in &series.points {
            let mut reading = Reading {
                time: point.time,
                step_seconds: series.step_seconds,
                usage_bytes: point.usage_bytes,
                limit_bytes: point.effective_limit_bytes,
            };
            if let Some(begins) = begins.filter(|begins| reading.time > *begins) {
                // The step in which finer ones begin: its largest value came before them, or they tell it.
                let inside = readings.iter().take_while(|one| one.time <= reading.time);
                let known = inside.map(|finer| finer.usage_bytes).max();
                if reading.begin() >= begins || known >= Some(reading.usage_bytes) {
                    break;
                }
                reading.time = begins;
            }
            older.push(reading);
        }
        older.append(&mut readings);
        readings = older;
    }
    readings
}

/// `seconds` before `time`.
pub fn earlier(time: Timestamp, seconds: f64) -> Timestamp {
    SignedDuration::try_from_secs_f64(seconds)
        .ok()
        .and_then(|ago| time.checked_sub(ago).ok())
        .unwrap_or(time)
}
