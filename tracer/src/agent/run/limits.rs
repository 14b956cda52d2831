//! Limits that somebody changed: a resize in place, `systemctl set-property`, a hand.
//!
//! Owns how many are told: whoever owns a cgroup may change its limit as often as they like.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use crate::{
    agent::{clock, config::RunError},
    export::otlp::Event,
    model::snapshot::{Limit, LimitChange},
};

use super::Agent;

/// Whoever makes a cgroup sets its limit within this time; that is no change.
const SET_UP: Duration = Duration::from_secs(10);

/// Changes told at once.
const BURST: u32 = 128;
/// Time after which one more may be told.
const PACE: Duration = Duration::from_secs(1);

/// How many changes may be told.
#[derive(Debug)]
pub struct Pace {
    spare: u32,
    counted: Instant,
    /// Changes that were not told.
    pub untold: u64,
}

impl Pace {
    pub fn new(now: Instant) -> Self {
        Self {
            spare: BURST,
            counted: now,
            untold: 0,
        }
    }

    /// Whether one more may be told.
    fn take(&mut self, now: Instant) -> bool {
        while self.spare < BURST && now.saturating_duration_since(self.counted) >= PACE {
            self.spare += 1;
            self.counted += PACE;
        }
        if self.spare == BURST {
            self.counted = now;
        }
        let may = self.spare > 0;
        self.spare = self.spare.saturating_sub(1);
        self.untold += u64::from(!may);
        may
    }
}

impl Agent {
    /// Tells limits that changed since the last interval.
    pub(super) fn tell_limit_changes(&mut self) -> Result<(), RunError> {
        let mut result = Ok(());
        for (id, from, to) in self.cgroups.take_limit_changes() {
            let Some(change) = self.limit_change(id, from, to) else {
                continue;
            };
            self.chronicle.limit_changed(&self.cgroups, &change);
            let is_told = self
                .cgroups
                .get(id)
                .is_some_and(|cgroup| self.outputs.wants(cgroup));
            if !is_told || !self.limit_pace.take(Instant::now()) {
                continue;
            }
            let written = self.outputs.limit_changed(&change);
            result = result.and(written.map_err(RunError::Output));
            if let Some(otlp) = &self.otlp {
                otlp.event(Event::Limit(Arc::new(change)));
            }
        }
        result
    }

    fn limit_change(&self, id: u64, from: Limit, to: Limit) -> Option<LimitChange> {
        let cgroup = self.cgroups.get(id)?;
        let now = clock::boot_time();
        let is_new = |born: Duration| now.saturating_sub(born) < SET_UP;
        if cgroup.born_at.is_some_and(is_new) {
            return None;
        }
        Some(LimitChange {
            time: SystemTime::now(),
            cgroup_id: id,
            cgroup: cgroup.display.to_string(),
            names: Arc::clone(&cgroup.names),
            from,
            to,
            usage_bytes: cgroup.memory.usage_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_told_and_then_one_a_second_and_the_rest_is_counted() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let told = |pace: &mut Pace, at, times| (0..times).filter(|_| pace.take(at)).count();
        assert_eq!(told(&mut pace, start, 1000), BURST as usize);
        assert_eq!(pace.untold, 1000 - u64::from(BURST));
        let later = start + PACE * 3 + PACE / 2;
        assert_eq!(told(&mut pace, later, 10), 3);
        assert_eq!(told(&mut pace, later + PACE / 2, 10), 1);
        let much_later = later + PACE * 100_000;
        assert_eq!(told(&mut pace, much_later, 1000), BURST as usize);
    }
}
