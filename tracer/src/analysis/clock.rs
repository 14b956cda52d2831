//! Minutes of analysis out of times of samples: gaps, steps back, scale. Owns no data.

use super::ring::{BLOCK_MINUTES, BLOCKS, RINGS};
use serde::{Deserialize, Serialize};

/// A step back of less than this is a sample out of order; of more, a clock that was set.
const DISORDER_MS: i64 = 600_000;
/// A gap of more minutes than every ring holds starts over.
const LONGEST_GAP: i64 = BLOCK_MINUTES[RINGS - 1] * BLOCKS as i64;

/// Where the samples of an epoch are in time.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Clock {
    start_ms: Option<i64>,
    last_ms: i64,
    minute: i64,
}

/// What a sample's time means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tick {
    /// The first of an epoch.
    First,
    /// In the minute that is open.
    Same,
    /// So many minutes after it.
    Later(i64),
    /// Older than the last: to be left out.
    Old,
    /// So long after that nothing held is of use.
    Lost,
}

impl Clock {
    /// Takes the time of a sample; a minute lasts `minute_ms`.
    pub fn tick(&mut self, time_ms: i64, minute_ms: f64) -> Tick {
        let Some(start) = self.start_ms else {
            *self = Clock {
                start_ms: Some(time_ms),
                last_ms: time_ms,
                minute: 0,
            };
            return Tick::First;
        };
        let mut start = start;
        if time_ms < self.last_ms {
            let back = self.last_ms.saturating_sub(time_ms);
            if back < DISORDER_MS {
                return Tick::Old;
            }
            start = start.saturating_sub(back);
            self.start_ms = Some(start);
        }
        self.last_ms = time_ms;
        let minute = (time_ms.saturating_sub(start) as f64 / minute_ms) as i64;
        let later = minute - self.minute;
        self.minute = self.minute.max(minute);
        match later {
            ..=0 => Tick::Same,
            later if later > LONGEST_GAP => Tick::Lost,
            later => Tick::Later(later),
        }
    }

    /// The next sample starts an epoch.
    pub fn restart(&mut self) {
        self.start_ms = None;
    }

    /// The minute that is open, counted from the start of the epoch.
    pub fn minute(&self) -> i64 {
        self.minute
    }

    /// Time of the last sample.
    pub fn last_ms(&self) -> i64 {
        self.last_ms
    }

    /// Time at which a minute of this epoch began.
    pub fn time_ms(&self, minute: i64, minute_ms: f64) -> i64 {
        self.start_ms
            .unwrap_or(self.last_ms)
            .saturating_add((minute as f64 * minute_ms) as i64)
    }
}
