//! How much CPU time the stacks of a cgroup, and of all together, may take.
//!
//! What is unwound and read is written by whoever runs there. What takes no longer than usual is free, and
//! as much of it is done as is sampled; beyond that each has a share of the time.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Who may take how much.
#[derive(Debug)]
pub struct Tariff {
    /// Free each time.
    pub usual: Duration,
    /// CPU time is paid with so many times as much of the cgroup's time.
    price: u32,
    /// And of the time of all together.
    price_of_all: u32,
}

/// Of a stack: deep ones of large programs take less than a millisecond. A hundredth for a cgroup, a tenth for all.
pub const UNWINDING: Tariff = Tariff {
    usual: Duration::from_millis(1),
    price: 100,
    price_of_all: 10,
};

/// Of what a process maps: those of hundreds of files take less than 5 ms. A twentieth for a cgroup, a tenth for
/// all.
pub const READING: Tariff = Tariff {
    usual: Duration::from_millis(5),
    price: 20,
    price_of_all: 10,
};

/// How much may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowance {
    Full,
    /// No more than usual: others took too much.
    Usual,
    /// The cgroup took too much itself.
    Nothing,
}

/// Who takes time may be so far ahead with it.
const MOST_AHEAD: Duration = Duration::from_secs(2);
/// Cgroups that are ahead at the same time.
const MOST_CGROUPS: usize = 1024;

/// What cgroups took beyond the usual.
#[derive(Debug)]
pub struct CpuShares {
    tariff: &'static Tariff,
    /// When a cgroup's time will have paid for all that it took.
    paid_at: HashMap<u64, Instant>,
    /// When the time of all will have.
    all_paid_at: Option<Instant>,
}

impl CpuShares {
    pub fn new(tariff: &'static Tariff) -> Self {
        Self {
            tariff,
            paid_at: HashMap::new(),
            all_paid_at: None,
        }
    }

    /// What may be done for a cgroup now.
    pub fn allowance(&self, cgroup_id: u64, now: Instant) -> Allowance {
        let is_ahead = |paid_at: Option<Instant>| {
            paid_at.is_some_and(|paid_at| paid_at.saturating_duration_since(now) > MOST_AHEAD)
        };
        if is_ahead(self.paid_at.get(&cgroup_id).copied()) {
            Allowance::Nothing
        } else if is_ahead(self.all_paid_at) {
            Allowance::Usual
        } else {
            Allowance::Full
        }
    }

    /// It took so much CPU time once.
    pub fn take(&mut self, cgroup_id: u64, now: Instant, cpu_time: Duration) {
        if cpu_time <= self.tariff.usual {
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
        let later = |paid_at: Instant, price: u32| paid_at.max(now) + cpu_time * price;
        let paid_at = self.paid_at.entry(cgroup_id).or_insert(now);
        *paid_at = later(*paid_at, self.tariff.price);
        let all = self.all_paid_at.unwrap_or(now);
        self.all_paid_at = Some(later(all, self.tariff.price_of_all));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: u64 = 1;
    const USUAL: Duration = UNWINDING.usual;

    #[test]
    fn what_takes_long_gets_a_hundredth_of_the_time() {
        let mut shares = CpuShares::new(&UNWINDING);
        let (start, each) = (Instant::now(), Duration::from_millis(5));
        let mut unwound = 0;
        for millisecond in 0..100_000 {
            let now = start + Duration::from_millis(millisecond);
            if shares.allowance(ONE, now) != Allowance::Nothing {
                shares.take(ONE, now, each);
                unwound += 1;
            }
        }
        let took = each * unwound;
        let most = Duration::from_millis(1000 + 20 + 5);
        assert!((Duration::from_secs(1)..=most).contains(&took), "{took:?}");
        let end = start + Duration::from_secs(100);
        assert_eq!(shares.allowance(ONE + 1, end), Allowance::Full);
    }

    #[test]
    fn what_takes_no_longer_than_usual_is_free() {
        let mut shares = CpuShares::new(&UNWINDING);
        let now = Instant::now();
        for _ in 0..100_000 {
            shares.take(ONE, now, USUAL);
        }
        assert_eq!(shares.allowance(ONE, now), Allowance::Full);
    }

    #[test]
    fn many_that_took_little_each_leave_the_usual_to_all() {
        let mut shares = CpuShares::new(&UNWINDING);
        let now = Instant::now();
        for cgroup_id in 0..19 {
            assert_eq!(shares.allowance(cgroup_id, now), Allowance::Full);
            shares.take(cgroup_id, now, Duration::from_millis(11));
        }
        for cgroup_id in [0, ONE, 99] {
            assert_eq!(shares.allowance(cgroup_id, now), Allowance::Usual);
        }
        let later = now + Duration::from_secs(1);
        assert_eq!(shares.allowance(99, later), Allowance::Full);
    }

    #[test]
    fn as_many_are_remembered_as_there_is_room_for_and_the_worst_of_all_stays() {
        let mut shares = CpuShares::new(&UNWINDING);
        let now = Instant::now();
        shares.take(ONE, now, Duration::from_secs(1));
        for cgroup_id in 2..5000 {
            shares.take(cgroup_id, now, Duration::from_millis(2));
        }
        assert_eq!(shares.paid_at.len(), MOST_CGROUPS);
        assert_eq!(shares.allowance(ONE, now), Allowance::Nothing);
    }
}
