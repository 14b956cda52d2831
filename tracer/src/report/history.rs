//! One line out of several resolutions: of each time the finest reading there is, and gaps where there is none.

use jiff::Timestamp;

use crate::{
    api::{
        readings::{self, GAP_STEPS, earlier},
        records::Series,
    },
    incident::Incident,
};

use super::graph::{GraphLimit, GraphPoint};

/// A step is told by what led up to a kill in it if its largest value is not above that by more.
const SAME: f64 = 1.01;

/// What was read until `time`, since a step before.
#[derive(Debug, Clone, Copy)]
struct Reading {
    time: Timestamp,
    usage_bytes: u64,
    step_seconds: f64,
    /// `None`: not read.
    limit: Option<Option<u64>>,
    /// A kill came then: what follows begins anew.
    is_end: bool,
}

impl Reading {
    fn begin(&self) -> Timestamp {
        earlier(self.time, self.step_seconds)
    }
}

impl From<readings::Reading> for Reading {
    fn from(read: readings::Reading) -> Self {
        Self {
            time: read.time,
            usage_bytes: read.usage_bytes,
            step_seconds: read.step_seconds,
            limit: Some(read.limit_bytes),
            is_end: false,
        }
    }
}

/// The line, its limits, and since when it tells.
#[derive(Debug, Default)]
pub struct History {
    pub points: Vec<GraphPoint>,
    pub limits: Vec<GraphLimit>,
    pub begin: Option<Timestamp>,
}

/// Joins what the agent keeps with what led up to the incidents; `from`: nothing before.
pub fn history(series: &[Series], incidents: &[Incident], from: Option<Timestamp>) -> History {
    let finest = readings::finest(series).into_iter();
    let mut readings: Vec<Reading> = finest.map(Reading::from).collect();
    for incident in incidents {
        insert(&mut readings, led_up_to(incident));
    }
    readings.retain(|reading| from.is_none_or(|from| reading.time >= from));
    readings.sort_by_key(|reading| reading.time);
    let mut history = History {
        begin: readings.first().map(Reading::begin).max(from),
        ..History::default()
    };
    let mut before: Option<Reading> = None;
    for reading in readings {
        if let Some(before) = before
            && is_gap(&before, &reading)
        {
            history.points.push(GraphPoint {
                time: before.time,
                usage_bytes: None,
            });
        }
        before = Some(reading);
        history.points.push(GraphPoint {
            time: reading.time,
            usage_bytes: Some(reading.usage_bytes),
        });
        let last = history.limits.last().map(|last| last.limit_bytes);
        if let Some(limit_bytes) = reading.limit.filter(|limit| last != Some(*limit)) {
            history.limits.push(GraphLimit {
                time: reading.time,
                limit_bytes,
            });
        }
    }
    history
}

fn is_gap(before: &Reading, next: &Reading) -> bool {
    let step = if before.is_end {
        before.step_seconds
    } else {
        before.step_seconds.max(next.step_seconds)
    };
    next.time.duration_since(before.time).as_secs_f64() > GAP_STEPS * step
}

fn led_up_to(incident: &Incident) -> Vec<Reading> {
    let usage = &incident.evidence.usage;
    let last = usage.last();
    // Nothing is missing between them, however late one came.
    let pairs = usage.iter().zip(usage.iter().skip(1));
    let steps = pairs.map(|(a, b)| a.before_ms.saturating_sub(b.before_ms));
    let step_seconds = steps.max().unwrap_or(0) as f64 / 1000.0;
    let readings = usage.iter().map(|sample| Reading {
        time: earlier(incident.time, sample.before_ms as f64 / 1000.0),
        usage_bytes: sample.usage_bytes,
        step_seconds,
        limit: None,
        is_end: Some(sample) == last && incident.kind.is_kernel_kill(),
    });
    readings.collect()
}

/// In place of the coarser readings that they tell too.
fn insert(readings: &mut Vec<Reading>, finer: Vec<Reading>) {
    let (Some(first), Some(last)) = (finer.first(), finer.last()) else {
        return;
    };
    if finer.len() < 2 {
        return;
    }
    let most = finer.iter().map(|one| one.usage_bytes).max().unwrap_or(0);
    readings.retain(|reading| {
        let overlaps = reading.time > first.time && reading.begin() < last.time;
        let finer_already = reading.step_seconds <= first.step_seconds;
        let explained = reading.usage_bytes as f64 <= most as f64 * SAME;
        !(overlaps && explained && !finer_already)
    });
    readings.extend(finer);
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
