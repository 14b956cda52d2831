//! When the last intervals ended, for all cgroups at once.

use std::collections::BTreeMap;

use super::history::FINE_STEPS;

/// Ends of the last intervals by their number, on the sample clock. Numbers go on after a restart.
#[derive(Debug, Default)]
pub struct Ticks(BTreeMap<i64, i64>);

impl Ticks {
    pub fn put(&mut self, tick: i64, time_ms: i64) {
        self.0.insert(tick, time_ms);
        while self.0.len() > usize::from(FINE_STEPS) {
            self.0.pop_first();
        }
    }

    pub fn latest(&self) -> Option<i64> {
        self.0.last_key_value().map(|(tick, _)| *tick)
    }

    pub fn time_ms(&self, tick: i64) -> Option<i64> {
        self.0.get(&tick).copied()
    }

    /// Number and end of each, the oldest first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (i64, i64)> + '_ {
        self.0.iter().map(|(tick, time_ms)| (*tick, *time_ms))
    }
}
