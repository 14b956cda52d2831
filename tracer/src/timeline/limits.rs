//! The effective limits that one cgroup had, by their changes.

use serde::{Deserialize, Serialize};

use super::ring::{bytes, pages};

/// Changes that are kept; before the oldest of them the limit is unknown.
const MOST: usize = 8;

/// The changes, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    changes: Vec<Since>,
}

/// A limit from a moment on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Since {
    time_ms: i64,
    /// `None`: unknown.
    pages: Option<u32>,
}

impl Limits {
    /// The limit that was read.
    pub fn read(&mut self, limit_bytes: Option<u64>, now_ms: i64) {
        let pages = limit_bytes.map(pages);
        self.put(Since {
            time_ms: now_ms,
            pages,
        });
    }

    fn put(&mut self, since: Since) {
        if self.changes.last().and_then(|last| last.pages) == since.pages {
            return;
        }
        if self.changes.len() >= MOST {
            self.changes.remove(0);
        }
        if self.changes.len() == self.changes.capacity() {
            self.changes.reserve_exact(1);
        }
        self.changes.push(since);
    }

    /// The limit at a moment; `None`: unknown.
    pub fn at(&self, time_ms: i64) -> Option<u64> {
        let mut newest_first = self.changes.iter().rev();
        let since = newest_first.find(|since| since.time_ms <= time_ms)?;
        since.pages.map(bytes)
    }

    /// Those that came after.
    pub fn join(&mut self, later: &Limits) {
        later.changes.iter().for_each(|since| self.put(*since));
    }

    /// Those of a file.
    pub fn restored(self, shift_ms: i64) -> Self {
        let mut limits = Self::default();
        for since in self.changes {
            limits.put(Since {
                time_ms: since.time_ms.saturating_sub(shift_ms),
                ..since
            });
        }
        limits
    }

    /// Bytes on the heap.
    pub fn held_bytes(&self) -> usize {
        self.changes.capacity() * size_of::<Since>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_point_has_the_limit_of_its_time() {
        let mut limits = Limits::default();
        for (now, limit) in [(10, None), (20, Some(MIB)), (30, Some(MIB)), (40, None)] {
            limits.read(limit, now);
        }
        limits.read(Some(2 * MIB), 50);
        let at: Vec<_> = [15, 20, 39, 40, 49, 50, 99].map(|at| limits.at(at)).into();
        let (one, two) = (Some(MIB), Some(2 * MIB));
        assert_eq!(at, [None, one, one, None, None, two, two]);
    }

    #[test]
    fn a_limit_that_changes_all_the_time_is_unknown_before_the_last_changes() {
        let mut limits = Limits::default();
        for now in 0..1000 {
            limits.read(Some((1 + now as u64) * MIB), now);
        }
        assert_eq!(limits.at(900), None);
        assert_eq!(limits.at(995), Some(996 * MIB));
        assert!(limits.held_bytes() <= MOST * size_of::<Since>());
    }
}
