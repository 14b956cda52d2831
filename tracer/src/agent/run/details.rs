//! All that is known of one cgroup, for who asks.

use std::{collections::HashSet, sync::Arc};

use jiff::Timestamp;

use crate::{
    api::{
        records::{CgroupDetails, ProcessRow},
        server::NoProfile,
    },
    identity::names::Names,
    model::snapshot::{Limit, ProcessSnapshot},
    stacks::profile::Profile,
};

use super::{Agent, rows};

/// Processes told.
const MOST_PROCESSES: usize = 10;

impl Agent {
    /// `None` if it is not known, or is not to be told.
    pub(super) fn details(&self, id: u64) -> Option<CgroupDetails> {
        let cgroup = self
            .cgroups
            .get(id)
            .filter(|cgroup| self.outputs.wants(cgroup))?;
        // Of a parent, who grows below it.
        let ids: HashSet<u64> = if cgroup.has_children {
            self.cgroups.subtree(id).map(|below| below.id).collect()
        } else {
            HashSet::from([id])
        };
        let processes = self.processes.growing_in(&ids, MOST_PROCESSES);
        let memory = &cgroup.memory;
        Some(CgroupDetails {
            time: self.interval_time(),
            row: rows::source(cgroup, self.serving, false).row(0),
            names: (!cgroup.names.is_empty()).then(|| Names::clone(&cgroup.names)),
            since: Timestamp::try_from(cgroup.since).unwrap_or(Timestamp::UNIX_EPOCH),
            file_bytes: memory.file_bytes,
            shmem_bytes: memory.shmem_bytes,
            kernel_bytes: memory.kernel_bytes,
            swap_bytes: memory.swap_bytes,
            peak_bytes: memory.peak_bytes,
            high_bytes: memory.high.and_then(Limit::bytes),
            processes: processes.into_iter().map(process).collect(),
            leak: self.verdict(id).map(Box::new),
            stacks: self.stacks.as_ref().map(|stacks| stacks.of_cgroup(id)),
            timeline: self.timeline(id),
        })
    }

    /// What was found last of a cgroup that is watched.
    pub(super) fn profile(&self, id: u64) -> Result<Arc<Profile>, NoProfile> {
        let cgroup = self
            .cgroups
            .get(id)
            .filter(|cgroup| self.outputs.wants(cgroup));
        let stacks = self.stacks.as_ref().ok_or(NoProfile::NotSampled)?;
        cgroup.ok_or(NoProfile::NoCgroup)?;
        stacks.profile_of(id).ok_or(NoProfile::NotWatched)
    }
}

fn process(process: &ProcessSnapshot) -> ProcessRow {
    ProcessRow {
        pid: process.tgid,
        comm: process.comm.clone(),
        rss_bytes: process.rss_bytes,
        rss_anon_bytes: process.rss_anon_bytes,
        growth_bytes_per_second: process.growth_bytes_per_second,
    }
}
