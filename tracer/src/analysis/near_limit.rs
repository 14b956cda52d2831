//! The near-limit signal: unreclaimable memory against the limit, with hysteresis, and stalls and
//! reclaim as second witness. Knows nothing of trends.

use super::sample::Sample;
use super::thresholds::Thresholds;
use super::verdict::NearLimit;
use serde::{Deserialize, Serialize};

const PAGE_MIB: f64 = 4096.0 / 1_048_576.0;
/// A minute of clock in milliseconds.
const MINUTE: f64 = 60_000.0;

/// The state of the signal.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Nearness {
    on: bool,
    since_ms: Option<i64>,
    /// Since when the readings say other than the signal.
    turning_ms: Option<i64>,
    stall: Option<(i64, u64)>,
    reclaim: Option<(i64, u64)>,
    pressed: Option<bool>,
}

impl Nearness {
    /// Takes a sample; the figures, or `None` without a limit or without anon.
    pub fn take(
        &mut self,
        sample: &Sample,
        limit: Option<u64>,
        thresholds: &Thresholds,
        minute_ms: f64,
    ) -> Option<NearLimit> {
        self.witness(sample, thresholds);
        let (Some(limit), Some(anon)) = (limit, sample.anon_bytes) else {
            (self.on, self.turning_ms, self.since_ms) = (false, None, None);
            return None;
        };
        let others = sample
            .kernel_bytes
            .unwrap_or(0)
            .saturating_add(sample.shmem_bytes.unwrap_or(0));
        let unreclaimable = anon.saturating_add(others);
        let ratio = unreclaimable as f64 / limit as f64;
        let pressed = self.pressed == Some(true);
        let turns = match self.on {
            false => ratio >= thresholds.near_limit_on,
            true => ratio < thresholds.near_limit_off.min(thresholds.near_limit_on),
        };
        if turns {
            let since = *self.turning_ms.get_or_insert(sample.time_ms);
            let held = sample.time_ms.saturating_sub(since) as f64;
            if held >= thresholds.near_limit_minutes * minute_ms || (!self.on && pressed) {
                self.on = !self.on;
                self.since_ms = self.on.then_some(since);
                self.turning_ms = None;
            }
        } else {
            self.turning_ms = None;
        }
        Some(NearLimit {
            near: self.on,
            ratio,
            unreclaimable_bytes: unreclaimable,
            limit_bytes: limit,
            pressure: self.pressed,
            since_ms: self.since_ms,
        })
    }

    fn witness(&mut self, sample: &Sample, thresholds: &Thresholds) {
        let stall =
            per_ms(&mut self.stall, sample.time_ms, sample.stall_us).map(|rate| rate / 1000.0);
        let reclaim = per_ms(&mut self.reclaim, sample.time_ms, sample.reclaimed_pages)
            .map(|rate| rate * MINUTE * PAGE_MIB);
        let over = |value: Option<f64>, bound: f64| value.map(|value| value >= bound);
        let witnesses = [
            over(stall, thresholds.near_limit_stall),
            over(reclaim, thresholds.near_limit_reclaim_mib),
        ];
        if let Some(pressed) = witnesses.into_iter().flatten().reduce(|a, b| a || b) {
            self.pressed = Some(pressed);
        }
    }
}

/// Increase of a cumulative count a millisecond; `None` at first, after a reset or a step back in time.
pub fn per_ms(last: &mut Option<(i64, u64)>, time_ms: i64, count: Option<u64>) -> Option<f64> {
    let count = count?;
    let (before_ms, before) = last.replace((time_ms, count))?;
    let elapsed = time_ms
        .checked_sub(before_ms)
        .filter(|elapsed| *elapsed > 0)?;
    Some(count.checked_sub(before)? as f64 / elapsed as f64)
}
