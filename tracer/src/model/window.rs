//! What happened in the last half minute to minute: counters now less counters then.

use std::time::Duration;

use super::snapshot::{HeapTotals, Pressure};

/// A new start of the window at least this far behind the last one.
const STEP: Duration = Duration::from_secs(30);

/// Cumulative counters of a cgroup at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    pub reclaims: u64,
    pub stall_ns: u64,
    pub reclaimed_pages: u64,
    pub heap: HeapTotals,
    pub pressure: Pressure,
}

impl Counters {
    /// What the same counters were when the cgroup was made.
    pub fn at_birth(&self) -> Self {
        Self {
            pressure: Pressure {
                some_ns: self.pressure.some_ns.map(|_| 0),
                full_ns: self.pressure.full_ns.map(|_| 0),
            },
            ..Self::default()
        }
    }
}

/// Two starts, so that the window is never shorter than [`STEP`] once it has been that long.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    older: (Duration, Counters),
    newer: (Duration, Counters),
}

impl Window {
    /// Begins at `now`, since memtrace started.
    pub fn new(now: Duration, counters: Counters) -> Self {
        Self {
            older: (now, counters),
            newer: (now, counters),
        }
    }

    /// The counters of another moment.
    pub fn push(&mut self, now: Duration, counters: Counters) {
        if now.saturating_sub(self.newer.0) >= STEP {
            self.older = self.newer;
            self.newer = (now, counters);
        }
    }

    /// Where the window starts.
    pub fn start(&self) -> (Duration, Counters) {
        self.older
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_covers_half_a_minute_to_a_minute() {
        let counters = |reclaims| Counters {
            reclaims,
            ..Counters::default()
        };
        let mut window = Window::new(Duration::ZERO, counters(0));
        for second in 1..=300 {
            let now = Duration::from_secs(second);
            window.push(now, counters(second));
            let (start, then) = window.start();
            assert_eq!(start.as_secs(), then.reclaims);
            let covered = now - start;
            assert!(covered < Duration::from_secs(60), "{second}: {covered:?}");
            assert!(
                second < 60 || covered >= Duration::from_secs(30),
                "{second}: {covered:?}"
            );
        }
    }
}
