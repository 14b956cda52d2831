//! Axes: which values get a tick and how they are labelled.

use jiff::Timestamp;

use super::Times;
use crate::size;

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const STEPS: [i64; 27] = [
    1,
    10,
    100,
    SECOND,
    5 * SECOND,
    15 * SECOND,
    30 * SECOND,
    MINUTE,
    2 * MINUTE,
    5 * MINUTE,
    10 * MINUTE,
    15 * MINUTE,
    30 * MINUTE,
    HOUR,
    2 * HOUR,
    3 * HOUR,
    6 * HOUR,
    12 * HOUR,
    DAY,
    2 * DAY,
    7 * DAY,
    14 * DAY,
    30 * DAY,
    90 * DAY,
    365 * DAY,
    3650 * DAY,
    36_500 * DAY,
];

/// Where a range of values lies on the picture.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    pub low: f64,
    pub high: f64,
    /// Where `low` is.
    pub start: f64,
    /// Where `high` is.
    pub end: f64,
}

impl Scale {
    /// The place of `value`, in the picture or clipped to its edge.
    pub fn at(&self, value: f64) -> f64 {
        let share = (value - self.low) / (self.high - self.low);
        let share = if share.is_finite() {
            share.clamp(0.0, 1.0)
        } else {
            0.0
        };
        self.start + share * (self.end - self.start)
    }
}

/// Byte values to mark between `low` and `high`, at most about `most`.
pub fn byte_ticks(low: f64, high: f64, most: usize) -> Vec<(f64, String)> {
    let rough = (high - low) / most.max(1) as f64;
    // Powers of two are round in binary units.
    let step = 2f64.powi(rough.max(1.0).log2().ceil().min(64.0) as i32);
    let mut ticks = Vec::new();
    let mut value = (low / step).ceil() * step;
    while value <= high && ticks.len() <= 2 * most {
        ticks.push((value, size::bytes(value as u64)));
        value += step;
    }
    ticks
}

/// Times to mark between `from_ms` and `to_ms`, at most about `most`.
pub fn time_ticks(from_ms: i64, to_ms: i64, most: usize, times: Times) -> Vec<(i64, String)> {
    let span = to_ms.saturating_sub(from_ms);
    let most_steps = most.max(1) as i64;
    let fits = STEPS.iter().copied().find(|step| span / step <= most_steps);
    let step = fits.unwrap_or(36_500 * DAY);
    // Ticks are round in the zone that is shown.
    let east = match times {
        Times::Offset(seconds) => i64::from(seconds) * SECOND,
        Times::Wall | Times::Seconds => 0,
    };
    let (from_ms, to_ms) = (from_ms.saturating_add(east), to_ms.saturating_add(east));
    let mut ticks = Vec::new();
    let mut time = from_ms.div_euclid(step).saturating_mul(step);
    if time < from_ms {
        time = time.saturating_add(step);
    }
    while time <= to_ms && ticks.len() <= 2 * most {
        ticks.push((time.saturating_sub(east), label(time, step, times)));
        time = time.saturating_add(step);
    }
    ticks
}

fn label(time_ms: i64, step: i64, times: Times) -> String {
    let wall = match times {
        Times::Wall | Times::Offset(_) => Timestamp::from_millisecond(time_ms).ok(),
        Times::Seconds => None,
    };
    let Some(wall) = wall else {
        return relative(time_ms, step);
    };
    let format = match step {
        DAY.. => "%Y-%m-%d",
        MINUTE.. => "%m-%d %H:%M",
        SECOND.. => "%H:%M:%S",
        _ => "%H:%M:%S%.3f",
    };
    wall.strftime(format).to_string()
}

/// As hours and minutes since the zero of the recording, in the unit of the step.
fn relative(time_ms: i64, step: i64) -> String {
    let sign = if time_ms < 0 { "-" } else { "" };
    let ms = time_ms.unsigned_abs();
    let units = |unit: i64| ms / unit.unsigned_abs();
    let (days, hours, minutes) = (units(DAY), units(HOUR) % 24, units(MINUTE) % 60);
    match step {
        DAY.. => format!("{sign}{days}d"),
        HOUR.. if days > 0 => format!("{sign}{days}d {hours}h"),
        HOUR.. => format!("{sign}{hours}h"),
        MINUTE.. if days > 0 => format!("{sign}{days}d {hours}:{minutes:02}"),
        MINUTE.. => format!("{sign}{hours}:{minutes:02}"),
        _ => format!("{sign}{}s", ms as f64 / 1000.0),
    }
}
