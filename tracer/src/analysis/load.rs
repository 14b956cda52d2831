//! The proxy of load: CPU time, or page faults where there is none. Owns the rings of its means.

use super::near_limit::per_ms;
use super::ring::{BLOCK_MINUTES, LoadRing, RINGS};
use super::sample::Sample;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Source {
    Cpu,
    Faults,
}

/// Load of one cgroup.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Load {
    rings: [LoadRing; RINGS],
    /// What this epoch measures load by; the two have no common scale.
    source: Option<Source>,
    last: Option<(i64, u64)>,
    sum: f64,
    count: u32,
}

impl Load {
    /// Load of which nothing is known.
    pub fn new() -> Self {
        Load {
            rings: [LoadRing::new(); RINGS],
            source: None,
            last: None,
            sum: 0.0,
            count: 0,
        }
    }

    /// A new epoch.
    pub fn restarted(&mut self) {
        *self = Load::new();
    }

    /// Takes a sample of the minute that is open.
    pub fn take(&mut self, sample: &Sample) {
        let source = match (sample.cpu_ns, sample.faults) {
            (Some(_), _) => Source::Cpu,
            (None, Some(_)) => Source::Faults,
            (None, None) => return,
        };
        if *self.source.get_or_insert(source) != source {
            return;
        }
        let count = if source == Source::Cpu {
            sample.cpu_ns
        } else {
            sample.faults
        };
        if let Some(rate) = per_ms(&mut self.last, sample.time_ms, count) {
            self.sum += rate;
            self.count += 1;
        }
    }

    /// Ends a minute; it counts only when `kept`.
    pub fn end_minute(&mut self, kept: bool) {
        let mean = (self.count > 0).then(|| self.sum / f64::from(self.count));
        (self.sum, self.count) = (0.0, 0);
        if kept {
            for (ring, minutes) in self.rings.iter_mut().zip(BLOCK_MINUTES) {
                ring.minute(mean, minutes);
            }
        }
    }

    /// The means at each resolution.
    pub fn rings(&self) -> &[LoadRing; RINGS] {
        &self.rings
    }
}
