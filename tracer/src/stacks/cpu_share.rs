//! How much CPU time the stacks of a cgroup may take.
//!
//! What unwinds them is written by whoever runs there. A stack that takes no longer than usual is free, and
//! as many come as are sampled; those that take longer may have a hundredth of the time.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Deep stacks of large programs take less.
const USUAL: Duration = Duration::from_millis(1);
/// CPU time is paid with so many times as much of the cgroup's time.
const PRICE: u32 = 100;
/// A cgroup may be so far ahead with what it took: 20 ms of CPU time.
const MOST_AHEAD: Duration = Duration::from_secs(2);
/// Cgroups that are ahead at the same time.
const MOST_CGROUPS: usize = 1024;

/// What cgroups took beyond the usual.
#[derive(Debug, Default)]
pub struct CpuShares {
    /// When a cgroup's time will have paid for all that it took.
    paid_at: HashMap<u64, Instant>,
}

impl CpuShares {
    /// Whether a cgroup has to wait until more is unwound for it.
    pub fn is_spent(&self, cgroup_id: u64, now: Instant) -> bool {
        let paid_at = self.paid_at.get(&cgroup_id);
        paid_at.is_some_and(|paid_at| paid_at.saturating_duration_since(now) > MOST_AHEAD)
    }

    /// One stack took so much CPU time.
    pub fn take(&mut self, cgroup_id: u64, now: Instant, cpu_time: Duration) {
        if cpu_time <= USUAL {
            return;
        }
        if self.paid_at.len() >= MOST_CGROUPS && !self.paid_at.contains_key(&cgroup_id) {
            self.paid_at.retain(|_, paid_at| *paid_at > now);
            // Who is ahead the least gains the least by being forgotten.
            let first = self.paid_at.iter().min_by_key(|(_, paid_at)| **paid_at);
            if let Some((&first, _)) = first.filter(|_| self.paid_at.len() >= MOST_CGROUPS) {
                self.paid_at.remove(&first);
            }
        }
        let paid_at = self.paid_at.entry(cgroup_id).or_insert(now);
        *paid_at = (*paid_at).max(now) + cpu_time * PRICE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: u64 = 1;

    #[test]
    fn what_takes_long_gets_a_hundredth_of_the_time() {
        let mut shares = CpuShares::default();
        let (start, each) = (Instant::now(), Duration::from_millis(5));
        let mut unwound = 0;
        for millisecond in 0..100_000 {
            let now = start + Duration::from_millis(millisecond);
            if !shares.is_spent(ONE, now) {
                shares.take(ONE, now, each);
                unwound += 1;
            }
        }
        let took = each * unwound;
        let most = Duration::from_millis(1000 + 20 + 5);
        assert!((Duration::from_secs(1)..=most).contains(&took), "{took:?}");
        assert!(!shares.is_spent(ONE + 1, start));
    }

    #[test]
    fn what_takes_no_longer_than_usual_is_free() {
        let mut shares = CpuShares::default();
        let now = Instant::now();
        for _ in 0..100_000 {
            shares.take(ONE, now, USUAL);
        }
        assert!(!shares.is_spent(ONE, now));
    }

    #[test]
    fn as_many_are_remembered_as_there_is_room_for_and_the_worst_of_all_stays() {
        let mut shares = CpuShares::default();
        let now = Instant::now();
        shares.take(ONE, now, Duration::from_secs(1));
        for cgroup_id in 2..5000 {
            shares.take(cgroup_id, now, Duration::from_millis(2));
        }
        assert_eq!(shares.paid_at.len(), MOST_CGROUPS);
        assert!(shares.is_spent(ONE, now));
    }
}
