//! Whose stacks are looked at, and what they are told with.

use std::time::Duration;

use crate::{
    agent::{
        config::{Config, RunError},
        stacks::{Found, MOST_WATCHED, Stacks},
    },
    analysis::State,
    growth::GrowthChange,
    host::{hierarchy::CgroupHierarchy, own_limit::own_limit, process::ProcRoot},
    incident::Incident,
    model::cgroup::Cgroup,
    stacks::limits::CollectorLimits,
    symbols::Limits,
};

use super::Agent;

/// Victims of one incident whose stacks are looked at.
const MOST_VICTIMS: usize = 8;
/// Processes that live shorter are nobody's leak.
const LEAST_AGE: Duration = Duration::from_secs(1);
/// Growth of anonymous memory from which a cgroup is watched before it has a verdict, bytes a second.
const FAST_GROWTH: f64 = 64.0 * 1024.0;

/// Under a smaller limit memtrace traces without stacks: with them it would be killed in the busy moments
/// that it is there for.
const LEAST_OWN_LIMIT: u64 = 48 << 20;

/// Takes stacks out of what was asked for where memtrace's own limit leaves no room for them.
pub(super) fn fit(config: &mut Config, hierarchy: &CgroupHierarchy) {
    let Some(own) = own_limit(hierarchy, &ProcRoot::default()) else {
        return;
    };
    if own < LEAST_OWN_LIMIT && config.stack_samples_per_second.take().is_some() {
        config.kernel.stacks = false;
        log::warn!(
            "no stacks of resident memory: memtrace's own memory limit is {} MiB; \
             give it 128 MiB, or choose --stacks off",
            own >> 20
        );
    }
}

impl Agent {
    /// Begins to sample, where the kernel lets it.
    pub(super) fn start_stacks(&mut self) -> Result<(), RunError> {
        let Some(samples_per_second) = self.config.stack_samples_per_second else {
            return Ok(());
        };
        if let Some(reason) = self.loader.lacks_fault_addresses() {
            log::warn!("no stacks of resident memory on this host: {reason}");
            return Ok(());
        }
        let mut limits = CollectorLimits::default();
        limits.density.samples_per_second = samples_per_second;
        limits.least_age = LEAST_AGE;
        limits.most_cgroups = self.config.kernel.max_cgroups as usize;
        let mut names = Limits::default();
        if let Some(own) = own_limit(self.readings.hierarchy(), &self.proc) {
            names.worker_heap_bytes = names.worker_heap_bytes.min(own / 4);
            names.cache_bytes = names.cache_bytes.min((own / 16) as usize);
        }
        let samples = self.loader.stack_samples()?;
        let stacks = Stacks::start(samples, limits, names).map_err(RunError::Threads)?;
        self.stacks = Some(stacks);
        Ok(())
    }

    /// Looks at the cgroups that grow: those with a verdict first, then the fastest.
    pub(super) fn watch_stacks(&mut self) {
        let Some(stacks) = &mut self.stacks else {
            return;
        };
        let lost = self.counts.drops();
        let lost = lost.iter().filter(|(cause, _)| cause.starts_with("stack_"));
        stacks.measured(lost.map(|(_, count)| count).sum());
        let mut growing: Vec<(State, f64, &Cgroup)> = self
            .cgroups
            .live()
            .filter(|cgroup| !cgroup.has_children)
            .filter_map(|cgroup| {
                let state = cgroup.leak.map_or(State::Unknown, |leak| leak.state);
                let rate = cgroup.rates.anon_growth_bytes_per_second.unwrap_or(0.0);
                let worth = state >= State::Growing || rate >= FAST_GROWTH;
                worth.then_some((state, rate, cgroup))
            })
            .collect();
        growing.sort_by(|a, b| b.0.cmp(&a.0).then(b.1.total_cmp(&a.1)));
        growing.truncate(MOST_WATCHED);
        let watched = growing
            .into_iter()
            .map(|(_, _, cgroup)| (cgroup.id, cgroup.display.to_string()));
        stacks.watch(watched);
    }

    pub(super) fn found_stacks(&mut self, found: Found) {
        if let Some(stacks) = &mut self.stacks {
            stacks.take(found);
        }
    }

    /// With the stacks that hold what grew.
    pub(super) fn with_stacks(&self, mut change: GrowthChange) -> GrowthChange {
        if let Some(stacks) = &self.stacks {
            change.stacks = stacks.of_cgroup(change.cgroup_id);
        }
        change
    }

    /// While the victims can still be looked at.
    pub(super) fn ask_for_victims(stacks: &mut Option<Stacks>, incident: &Incident) {
        let Some(stacks) = stacks.as_mut().filter(|_| incident.kind.is_kernel_kill()) else {
            return;
        };
        let pids = incident.victims.iter().take(MOST_VICTIMS);
        stacks.look_at_victims(&incident.id, pids.filter_map(|victim| victim.pid).collect());
    }

    pub(super) fn is_expecting_stacks(stacks: Option<&Stacks>, incident: &Incident) -> bool {
        stacks.is_some_and(|stacks| stacks.is_expecting(&incident.id))
    }

    /// What the victims had when they were killed, or else when their cgroup was looked at last.
    pub(super) fn add_stacks(&mut self, incident: &mut Incident) {
        let Some(stacks) = &mut self.stacks else {
            return;
        };
        let cgroup = incident.victims.first().and_then(|victim| victim.cgroup_id);
        let found = stacks.of_incident(&incident.id, cgroup, &incident.victims);
        if !found.is_empty() {
            incident.evidence.stacks = found;
        }
    }
}
