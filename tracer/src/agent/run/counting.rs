//! What the BPF programs counted, and when all cgroups are looked for.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use crate::{
    model::cgroup::Counted,
    probes::{heap, lifecycle, reclaim},
};

use super::Agent;

/// All cgroups are looked for this often, in case an event was lost.
const REDISCOVER: Duration = Duration::from_secs(60);
/// Counts of unknown cgroups call for a search, at most this often.
const UNKNOWN_AFTER: Duration = Duration::from_secs(10);

impl Agent {
    /// Looks for all cgroups; gives how many there is no room for.
    pub(super) fn rediscover(&mut self) -> u64 {
        self.rediscovered = Instant::now();
        self.readings
            .rediscover(&mut self.cgroups, self.started, self.clock.elapsed())
    }

    /// Without both of their probes every cgroup has to be looked for.
    pub(super) fn rediscover_after(&mut self) -> Duration {
        let drops = self
            .counts
            .drops()
            .iter()
            .filter(|(cause, _)| *cause == "event_ring_full")
            .map(|(_, count)| *count)
            .sum();
        if drops != self.event_drops {
            self.event_drops = drops;
            return Duration::ZERO;
        }
        if self.sees_cgroups {
            REDISCOVER
        } else {
            Duration::ZERO
        }
    }

    /// Takes in the BPF totals; gives the cgroups in which something happened.
    pub(super) fn count(&mut self) -> HashSet<u64> {
        let mut active = HashSet::new();
        let mut unknown = Vec::new();
        for (id, counts) in self.counts.cgroups() {
            let counted = Counted {
                heap: heap::totals(&counts.heap),
                lifecycle: lifecycle::totals(&counts.lifecycle, self.page_size),
                sampled_faults: counts.heap.sampled_faults,
            };
            match self.cgroups.counted(id, counted) {
                Some(true) => {
                    active.insert(id);
                }
                Some(false) => {}
                None => unknown.push(id),
            }
        }
        for (id, counts) in self.counts.reclaim() {
            self.cgroups.reclaimed(id, reclaim::totals(&counts));
        }
        if !unknown.is_empty() && self.rediscovered.elapsed() >= UNKNOWN_AFTER {
            self.rediscover();
            // Ids that no cgroup has are leftovers of removed ones.
            for id in unknown {
                if self.cgroups.get(id).is_none() {
                    self.counts.forget_cgroup(id);
                }
            }
        }
        active
    }
}
