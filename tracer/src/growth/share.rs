//! Which processes account for the growth of a cgroup.

use std::collections::HashSet;

use crate::{
    analysis::Since,
    model::{cgroup::Cgroup, cgroups::Cgroups, processes::Processes},
};

use super::{Moment, record::GrowthShare};

/// Processes told.
const MOST: usize = 5;

/// The processes that grew most since `since`, or since they were first seen, with their part of what
/// all processes of the cgroup grew.
pub fn shares(
    processes: &Processes,
    cgroup: &Cgroup,
    cgroups: &Cgroups,
    since: Option<Since>,
    now: Moment,
) -> Vec<GrowthShare> {
    let now_unix_ms = now.sample_ms.saturating_add(now.to_unix_ms);
    let ago = since.map(|since| {
        let ms = now_unix_ms.saturating_sub(since.time_ms).max(0);
        std::time::Duration::from_millis(ms.unsigned_abs())
    });
    // Of a parent, who grows below it.
    let ids: HashSet<u64> = if cgroup.has_children {
        cgroups.subtree(cgroup.id).map(|cgroup| cgroup.id).collect()
    } else {
        HashSet::from([cgroup.id])
    };
    let mut grown: Vec<_> = processes
        .growth_since(&ids, ago)
        .filter(|grown| grown.bytes > 0)
        .collect();
    let total: u64 = grown.iter().map(|grown| grown.bytes).sum();
    grown.sort_unstable_by_key(|grown| (std::cmp::Reverse(grown.bytes), grown.tgid));
    grown.truncate(MOST);
    grown
        .into_iter()
        .map(|grown| GrowthShare {
            pid: grown.tgid,
            comm: grown.comm,
            growth_bytes: grown.bytes,
            share: grown.bytes as f64 / total as f64,
            rss_anon_bytes: grown.rss_anon_bytes,
            over_s: grown.over.as_secs_f64(),
        })
        .collect()
}
