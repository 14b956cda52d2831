//! What memtrace says of leaks, read from its lines.

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde_json::Value;

use crate::agent::of_type;

/// A second of clock counts as a minute of analysis.
pub const MINUTES_AS_HOURS: [&str; 4] = ["--interval", "1s", "--time-scale", "60"];

/// A figure with its interval; `high` is `None` where it is unbounded.
#[derive(Debug, Clone, Copy)]
pub struct Estimate {
    pub low: f64,
    pub mid: f64,
    pub high: Option<f64>,
}

impl Estimate {
    pub fn of(value: &Value) -> Option<Self> {
        Some(Self {
            low: value["low"].as_f64()?,
            mid: value["mid"].as_f64()?,
            high: value["high"].as_f64(),
        })
    }

    pub fn covers(&self, value: f64) -> bool {
        self.low <= value && self.high.is_none_or(|high| value <= high)
    }
}

/// The state of a `leak` line, or of the `leak` field of a `cgroup` line.
pub fn state(leak: &Value) -> &str {
    leak["state"].as_str().unwrap_or("unknown")
}

/// Whether an operator is told of a leak.
pub fn is_accused(leak: &Value) -> bool {
    ["suspected", "confirmed"].contains(&state(leak))
}

/// Accepts the lines that accuse this cgroup, which may be made again: only its path lasts.
pub fn accuses(cgroup: &str) -> impl Fn(&Value) -> bool + use<'_> {
    move |line| of_type("leak")(line) && line["cgroup"] == cgroup && is_accused(line)
}

/// Seconds since 1970 of a field that holds a time.
pub fn seconds(line: &Value, field: &str) -> Result<f64> {
    let text = line[field].as_str();
    let text = text.with_context(|| format!("{field} is no time in {line}"))?;
    let time: Timestamp = text.parse()?;
    Ok(time.as_duration().as_secs_f64())
}
