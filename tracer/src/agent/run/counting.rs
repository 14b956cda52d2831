//! What the BPF programs counted, and when all cgroups are looked for.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use memtrace_ebpf::counts::CgroupCounts;

use crate::{
    model::cgroup::Counted,
    probes::{heap, lifecycle, reclaim},
};

use super::{Agent, RunError};

/// All cgroups are looked for this often, in case an event was lost.
const REDISCOVER: Duration = Duration::from_secs(60);
/// Counts of unknown cgroups call for a search, at most this often, and for a hundredth of the time.
const UNKNOWN_AFTER: Duration = Duration::from_secs(10);
const UNKNOWN_SHARE: u32 = 100;

impl Agent {
    /// Looks for all cgroups; gives how many there is no room for.
    pub(super) fn rediscover(&mut self) -> Result<u64, RunError> {
        let began = Instant::now();
        let now = self.clock.elapsed();
        let found = (self.readings).rediscover(&mut self.cgroups, self.started);
        for id in found.gone {
            self.cgroup_gone(id, now)?;
        }
        self.rediscovered = Instant::now();
        self.rediscovery_took = self.rediscovered - began;
        Ok(found.left_out)
    }

    /// Without both of their probes every cgroup has to be looked for, and so it has when one was renamed.
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
        if self.cgroups.take_path_taken() {
            return Duration::ZERO;
        }
        if self.sees_cgroups {
            REDISCOVER
        } else {
            Duration::ZERO
        }
    }

    /// Takes in the BPF totals; gives the cgroups in which something happened.
    pub(super) fn count(&mut self) -> Result<HashSet<u64>, RunError> {
        let mut active = HashSet::new();
        let unknown = self.take_totals(&mut active);
        let wait = UNKNOWN_AFTER.max(self.rediscovery_took * UNKNOWN_SHARE);
        if !unknown.is_empty() && self.rediscovered.elapsed() >= wait {
            // Those that came, and maybe went, since the events were last looked at.
            self.drain_events()?;
            self.rediscover()?;
            // Whoever is now known to be gone is told with its last totals.
            let still_unknown = self.take_totals(&mut active);
            // Ids that no cgroup has are leftovers of removed ones.
            for id in unknown.intersection(&still_unknown) {
                self.counts.forget_cgroup(*id);
            }
        }
        for (id, counts) in self.counts.reclaim() {
            self.cgroups.reclaimed(id, reclaim::totals(&counts));
        }
        Ok(active)
    }

    /// The last totals of a cgroup that is gone, whether or not all of this interval were taken in before.
    pub(super) fn count_last(&mut self, id: u64) {
        if let Some(counts) = self.counts.cgroup(id) {
            self.cgroups.counted(id, counted(&counts, self.page_size));
        }
        if let Some(counts) = self.counts.reclaim_of(id) {
            self.cgroups.reclaimed(id, reclaim::totals(&counts));
        }
    }

    /// Gives the ids that no cgroup has.
    fn take_totals(&mut self, active: &mut HashSet<u64>) -> HashSet<u64> {
        let mut unknown = HashSet::new();
        for (id, counts) in self.counts.cgroups() {
            match self.cgroups.counted(id, counted(&counts, self.page_size)) {
                Some(true) => {
                    active.insert(id);
                }
                Some(false) => {}
                None => {
                    unknown.insert(id);
                }
            }
        }
        unknown
    }
}

fn counted(counts: &CgroupCounts, page_size: u64) -> Counted {
    Counted {
        heap: heap::totals(&counts.heap),
        lifecycle: lifecycle::totals(&counts.lifecycle, page_size),
        sampled_faults: counts.heap.sampled_faults,
    }
}
