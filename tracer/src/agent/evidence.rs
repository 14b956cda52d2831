//! What led up to an incident: taken from the model, the maps and the cgroup's files at once, before
//! they are gone.

mod growers;

use std::{collections::HashSet, time::Duration};

use crate::{
    host::process::ProcRoot,
    incident::record::{
        AllocationsBefore, ChargedCgroup, Evidence, Incident, KernelCounts, Kind, MemoryStat,
        PressureBefore, ReclaimBefore, UsageSample,
    },
    loader::counts::Counts,
    model::{
        cgroup::Cgroup, cgroups::Cgroups, history, processes::Processes, snapshot::MemoryReading,
    },
    probes::{heap, reclaim},
};

use super::{clock, readings::Readings};

/// Cgroups below the charged one whose maps are read afresh; of more the last interval's are taken.
const MOST_FRESH: usize = 32;

/// Where evidence comes from.
pub struct Sources<'a> {
    pub cgroups: &'a Cgroups,
    pub processes: &'a Processes,
    pub counts: &'a Counts,
    pub readings: &'a mut Readings,
    pub proc: &'a ProcRoot,
    /// Since then.
    pub now: Duration,
    /// Families that count.
    pub heap: bool,
    pub reclaim: bool,
}

/// Fills in the evidence, and whether a lone victim was killed as a group.
pub fn gather(incident: &mut Incident, sources: &mut Sources<'_>) {
    if incident.kind.is_kernel_kill() && incident.group_kill.is_none() {
        incident.group_kill = group_kill(incident, sources);
    }
    let victims_cgroup = incident.victims.first().and_then(|victim| victim.cgroup_id);
    let charged = incident.charged.as_ref().map(|charged| charged.cgroup_id);
    let Some(id) = charged.or(victims_cgroup) else {
        return;
    };
    let since_ns = duration_ns(clock::boot_time()).saturating_sub(incident.boot_time_ns);
    let since = Duration::from_nanos(since_ns);
    // The incident on the clock that intervals have.
    let at = sources.now.saturating_sub(since);
    let fresh = sources.readings.read_now(id);
    let below: HashSet<u64> = (sources.cgroups.subtree(id))
        .map(|cgroup| cgroup.id)
        .collect();
    let usage = usage(sources, id, at, incident.charged.as_ref());
    // Processes grow while the rest is gathered.
    let growers = growers::growers(incident, sources, id, &below, at, &usage);
    incident.evidence = Evidence {
        usage,
        growers,
        reclaim: sources
            .reclaim
            .then(|| reclaim_before(sources, &below))
            .flatten(),
        pressure: pressure(sources, id, fresh.as_ref()),
        allocations: (sources.heap)
            .then(|| allocations(sources, &below))
            .flatten(),
        memory_stat: memory_stat(sources, id, fresh, since, at),
        stacks: Vec::new(),
    };
}

/// The kernel's own counts, once the victims are dead.
pub fn kernel_counts(incident: &mut Incident, readings: &mut Readings) {
    let local_id = incident.victims.first().and_then(|victim| victim.cgroup_id);
    let local = local_id.and_then(|id| readings.read_now(id));
    let charged_id = incident
        .charged
        .as_ref()
        .filter(|_| !readings.swap_counts_memory())
        .map(|charged| charged.cgroup_id);
    let charged = match charged_id {
        Some(id) if Some(id) == local_id => local,
        Some(id) => readings.read_now(id),
        None => None,
    };
    incident.kernel_counts = KernelCounts {
        oom_kill_local: local.and_then(|reading| reading.events_local.oom_kill),
        oom_hierarchical: charged.and_then(|reading| reading.events.oom),
        oom_kill_hierarchical: charged.and_then(|reading| reading.events.oom_kill),
        oom_group_kill_hierarchical: charged.and_then(|reading| reading.events.oom_group_kill),
        ..incident.kernel_counts.clone()
    };
}

/// `mem_cgroup_get_oom_group` (mm/memcontrol.c): set in the victim's cgroup or one above it, up to
/// the charged one.
fn group_kill(incident: &Incident, sources: &Sources<'_>) -> Option<bool> {
    let lowest = incident.victims.first()?.cgroup_id?;
    let top = incident.charged.as_ref().map(|charged| charged.cgroup_id);
    let path = &sources.cgroups.get(lowest)?.path;
    for ancestor in path.ancestors() {
        let id = sources.cgroups.id_of(ancestor)?;
        // The root has no such file, and is no group.
        if ancestor.parent().is_none() {
            break;
        }
        if sources.readings.oom_group(id)? {
            return Some(true);
        }
        if Some(id) == top {
            break;
        }
    }
    Some(false)
}

fn usage(
    sources: &Sources<'_>,
    id: u64,
    at: Duration,
    charged: Option<&ChargedCgroup>,
) -> Vec<UsageSample> {
    let mut samples: Vec<UsageSample> = sources
        .cgroups
        .usage_history(id)
        .filter(|(end, _)| *end <= at)
        .map(|(end, usage_bytes)| UsageSample {
            before_ms: millis(at.saturating_sub(end)),
            usage_bytes,
        })
        .collect();
    if samples.len() < history::SAMPLES
        && let Some(born) = born(sources, id)
    {
        let before_ms = millis(at.saturating_sub(born));
        let first_ms = samples.last().map_or(0, |first| first.before_ms);
        // A cgroup is made empty.
        if before_ms > first_ms {
            samples.push(UsageSample {
                before_ms,
                usage_bytes: 0,
            });
        }
    }
    samples.reverse();
    if let Some(usage_bytes) = charged.and_then(|charged| charged.usage_bytes) {
        samples.push(UsageSample {
            before_ms: 0,
            usage_bytes,
        });
    }
    samples
}

/// When a cgroup was made, since memtrace started; `None` if it was there before.
fn born(sources: &Sources<'_>, id: u64) -> Option<Duration> {
    let born_at = sources.cgroups.get(id)?.born_at?;
    let age = clock::boot_time().saturating_sub(born_at);
    sources.now.checked_sub(age)
}

fn reclaim_before(sources: &Sources<'_>, below: &HashSet<u64>) -> Option<ReclaimBefore> {
    let mut before = ReclaimBefore {
        over_ms: 0,
        count: 0,
        stall_ns: 0,
        reclaimed_pages: 0,
    };
    let mut known = false;
    let cgroups = below.iter().filter_map(|id| sources.cgroups.get(*id));
    for (index, cgroup) in cgroups.enumerate() {
        let mut now = cgroup.counters();
        if index < MOST_FRESH
            && let Some(counts) = sources.counts.reclaim_of(cgroup.id)
        {
            let totals = reclaim::totals(&counts);
            now.reclaims = totals.direct + totals.memcg;
            now.stall_ns = totals.stall_ns;
            now.reclaimed_pages = totals.reclaimed_pages;
        }
        // A cgroup without an interval yet has only ever reclaimed in this one.
        let (start, then) = cgroup.counters_before().unwrap_or_default();
        if start > Duration::ZERO {
            let over = millis(sources.now.saturating_sub(start));
            before.over_ms = before.over_ms.max(over);
        }
        known = true;
        before.count += now.reclaims.saturating_sub(then.reclaims);
        before.stall_ns += now.stall_ns.saturating_sub(then.stall_ns);
        before.reclaimed_pages += now.reclaimed_pages.saturating_sub(then.reclaimed_pages);
    }
    if before.over_ms == 0 {
        before.over_ms = millis(sources.now);
    }
    known.then_some(before)
}

fn pressure(
    sources: &Sources<'_>,
    id: u64,
    fresh: Option<&MemoryReading>,
) -> Option<PressureBefore> {
    let (start, then) = sources.cgroups.get(id)?.counters_before()?;
    let now = fresh?.pressure;
    let change = |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then?));
    let before = PressureBefore {
        over_ms: millis(sources.now.saturating_sub(start)),
        some_ns: change(now.some_ns, then.pressure.some_ns),
        full_ns: change(now.full_ns, then.pressure.full_ns),
    };
    (before.some_ns.is_some() || before.full_ns.is_some()).then_some(before)
}

fn allocations(sources: &Sources<'_>, below: &HashSet<u64>) -> Option<AllocationsBefore> {
    let mut before = AllocationsBefore {
        over_ms: 0,
        mmap_bytes: 0,
        munmap_bytes: 0,
        brk_grow_bytes: 0,
        brk_shrink_bytes: 0,
        madvise_free_bytes: 0,
    };
    let mut known = false;
    let cgroups = below.iter().filter_map(|id| sources.cgroups.get(*id));
    for (index, cgroup) in cgroups.enumerate() {
        let fresh = (index < MOST_FRESH)
            .then(|| sources.counts.cgroup(cgroup.id))
            .flatten();
        let now = fresh.map_or(cgroup.heap, |counts| heap::totals(&counts.heap));
        // A cgroup without an interval yet has only ever allocated in this one.
        let (start, then) = cgroup.counters_before().unwrap_or_default();
        if start > Duration::ZERO {
            let over = millis(sources.now.saturating_sub(start));
            before.over_ms = before.over_ms.max(over);
        }
        known = true;
        let then = then.heap;
        before.mmap_bytes += now.mmap_bytes.saturating_sub(then.mmap_bytes);
        before.munmap_bytes += now.munmap_bytes.saturating_sub(then.munmap_bytes);
        before.brk_grow_bytes += now.brk_grow_bytes.saturating_sub(then.brk_grow_bytes);
        before.brk_shrink_bytes += (now.brk_shrink_bytes).saturating_sub(then.brk_shrink_bytes);
        before.madvise_free_bytes +=
            (now.madvise_free_bytes).saturating_sub(then.madvise_free_bytes);
    }
    if before.over_ms == 0 {
        before.over_ms = millis(sources.now);
    }
    known.then_some(before)
}

/// The files as they are now, else as the last interval found them.
fn memory_stat(
    sources: &Sources<'_>,
    id: u64,
    fresh: Option<MemoryReading>,
    since: Duration,
    at: Duration,
) -> Option<MemoryStat> {
    let (reading, read_after_ms) = match fresh {
        Some(reading) => (reading, signed(millis(since))),
        None => {
            let reading = sources.cgroups.get(id)?.memory;
            let end = sources.cgroups.last_interval()?;
            (reading, -signed(millis(at.saturating_sub(end))))
        }
    };
    // Nothing was ever read of a cgroup that came and went within an interval.
    reading.usage_bytes.or(reading.anon_bytes)?;
    Some(MemoryStat {
        read_after_ms,
        usage_bytes: reading.usage_bytes,
        anon_bytes: reading.anon_bytes,
        file_bytes: reading.file_bytes,
        shmem_bytes: reading.shmem_bytes,
        kernel_bytes: reading.kernel_bytes,
        slab_bytes: reading.slab_bytes,
        sock_bytes: reading.sock_bytes,
        swap_bytes: reading.swap_bytes,
    })
}

/// What a stall or missed kills have of their cgroup's files. Where swap is counted with memory (v1) these do
/// not tell the two together.
pub fn charged_by_files(cgroup: &Cgroup, swap_counts_memory: bool) -> ChargedCgroup {
    use crate::{incident::record::KnownBy, model::snapshot::Limit};
    let reading = &cgroup.memory;
    ChargedCgroup {
        cgroup_id: cgroup.id,
        cgroup: Some(cgroup.display.to_string()),
        names: None,
        usage_bytes: reading.usage_bytes,
        limit_bytes: reading.limit.and_then(Limit::bytes),
        swap_usage_bytes: reading.swap_bytes.filter(|_| !swap_counts_memory),
        swap_limit_bytes: None,
        failcnt: reading.events_local.max,
        oom_events: reading.events_local.oom,
        known_by: KnownBy::CgroupFiles,
    }
}

/// `memtrace.oom.scope` of a kill.
pub fn scope(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::CgroupOom => Some("cgroup"),
        Kind::CpusetOom => Some("cpuset"),
        Kind::MempolicyOom => Some("mempolicy"),
        Kind::GlobalOom => Some("global"),
        _ => None,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn duration_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
