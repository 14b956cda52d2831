//! Metrics of one cgroup: names, units and which field fills them.
//!
//! Owns the table of cgroup metrics. The `container.*` names serve every cgroup, because to the
//! kernel a container *is* a cgroup: one name, one dashboard, whether or not a runtime made it.
//! What no convention covers is named `memtrace.*`. Must not decide a resource's identity.

use std::time::SystemTime;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::Metric;

use super::point::{Descriptor, Metrics, Span, Value, metric};
use super::{kubernetes, leak};
use crate::export::otlp::wire;
use crate::model::snapshot::{
    CgroupSnapshot, HeapTotals, Limit, MemoryReading, OomKillCount, Pressure, ReclaimTotals,
};

// Semantic conventions 1.44.0, model/container/metrics.yaml.
const USAGE: Descriptor = metric(
    "container.memory.usage",
    "By",
    "Memory usage of the cgroup with its descendants",
);
const RSS: Descriptor = metric(
    "container.memory.rss",
    "By",
    "Anonymous memory of the cgroup with its descendants",
);
const WORKING_SET: Descriptor = metric(
    "container.memory.working_set",
    "By",
    "Usage without inactive file pages",
);
const AVAILABLE: Descriptor = metric(
    "container.memory.available",
    "By",
    "Limit minus working set; absent without a limit",
);
const FAULTS: Descriptor = metric(
    "container.paging.faults",
    "{fault}",
    "Page faults of the cgroup with its descendants",
);

const LIMIT: Descriptor = metric(
    "memtrace.memory.limit",
    "By",
    "The cgroup's own memory limit; absent when unlimited",
);
const EFFECTIVE_LIMIT: Descriptor = metric(
    "memtrace.memory.effective_limit",
    "By",
    "Smallest limit over the cgroup, its ancestors and the machine",
);
const FILE: Descriptor = metric(
    "memtrace.memory.file",
    "By",
    "Page cache, shared memory included",
);
const SHMEM: Descriptor = metric("memtrace.memory.shmem", "By", "Shared memory and tmpfs");
const KERNEL: Descriptor = metric(
    "memtrace.memory.kernel",
    "By",
    "Kernel memory charged to the cgroup",
);
const SLAB: Descriptor = metric(
    "memtrace.memory.slab",
    "By",
    "Slab memory charged to the cgroup",
);
const SOCK: Descriptor = metric(
    "memtrace.memory.sock",
    "By",
    "Network buffers charged to the cgroup",
);
const SWAP: Descriptor = metric(
    "memtrace.swap.usage",
    "By",
    "Swap used by the cgroup with its descendants",
);
const EVENTS: Descriptor = metric(
    "memtrace.cgroup.memory.events",
    "{event}",
    "The kernel's memory.events of the cgroup with its descendants",
);
pub(super) const PRESSURE: Descriptor = metric(
    "memtrace.pressure.memory.time",
    "s",
    "Time that some or all tasks stalled on memory",
);

const MAPPED: Descriptor = metric(
    "memtrace.heap.mapped",
    "By",
    "Anonymous memory mapped by the cgroup's own processes",
);
const UNMAPPED: Descriptor = metric(
    "memtrace.heap.unmapped",
    "By",
    "Memory unmapped by the cgroup's own processes",
);
const BRK_GROWN: Descriptor = metric("memtrace.heap.brk.grown", "By", "Growth of the brk heap");
const BRK_SHRUNK: Descriptor = metric(
    "memtrace.heap.brk.shrunk",
    "By",
    "Shrinking of the brk heap",
);
const MADVISE_FREED: Descriptor = metric(
    "memtrace.heap.madvise.freed",
    "By",
    "Memory given back with madvise",
);
const RECLAIM_TIME: Descriptor = metric(
    "memtrace.reclaim.time",
    "s",
    "Time the cgroup's own tasks stalled reclaiming memory",
);
const RECLAIM_COUNT: Descriptor = metric(
    "memtrace.reclaim.count",
    "{reclaim}",
    "Reclaims the cgroup's own tasks had to do",
);
const RECLAIM_PAGES: Descriptor = metric(
    "memtrace.reclaim.pages",
    "{page}",
    "Pages the cgroup's own tasks reclaimed",
);
const RECLAIM_DURATION: Descriptor = metric(
    "memtrace.reclaim.duration",
    "s",
    "Stall per reclaim by the cgroup's own tasks",
);
const EXITS: Descriptor = metric(
    "memtrace.process.exits",
    "{process}",
    "Processes that ended in the cgroup itself",
);
const EXECS: Descriptor = metric(
    "memtrace.process.execs",
    "{exec}",
    "Programs executed in the cgroup itself",
);

const OOM_KILLS: Descriptor = metric(
    "memtrace.oom.kills",
    "{kill}",
    "Processes of the cgroup itself that the kernel killed for want of memory",
);

/// Source: semconv registry, `system.paging.fault.type`.
pub(super) const FAULT_TYPE: &str = "system.paging.fault.type";

/// All metrics of `cgroup` that were measured. `started` is when memtrace started: what was there before
/// counts since that very moment.
pub(super) fn metrics(
    cgroup: &CgroupSnapshot,
    time: SystemTime,
    started: SystemTime,
) -> Vec<Metric> {
    let mut metrics = Metrics::new();
    // Not by which is later: the wall clock may have been set back in between.
    let born = (cgroup.since != started).then_some(cgroup.since);
    let kernel = Span { start: born, time };
    let own = Span {
        start: Some(cgroup.since),
        time,
    };

    memory(&mut metrics, kernel, &cgroup.memory);
    let effective = cgroup.effective_limit.as_ref().map(|limit| limit.bytes);
    metrics.up_down(&EFFECTIVE_LIMIT, kernel, effective);
    events(&mut metrics, kernel, &cgroup.memory);
    pressure(&mut metrics, kernel, cgroup.memory.pressure);
    if let Some(totals) = &cgroup.heap {
        heap(&mut metrics, own, totals);
    }
    if let Some(totals) = &cgroup.reclaim {
        reclaim(&mut metrics, own, totals);
    }
    let exits = cgroup.exits.map(|exits| exits.processes);
    metrics.counter(&EXITS, own, exits.map(Value::Count));
    metrics.counter(&EXECS, own, cgroup.execs.map(Value::Count));
    let kills = cgroup.oom_kills.iter().flatten();
    metrics.counter_by_all(&OOM_KILLS, own, kills.map(oom_kills));
    if let Some(container) = cgroup.container.as_ref().filter(|_| !cgroup.removed) {
        kubernetes::metrics(&mut metrics, container, own);
    }
    // The last numbers of a removed cgroup tell no verdict: what leaked is gone.
    if let Some(leak) = cgroup.leak.as_ref().filter(|_| !cgroup.removed) {
        leak::metrics(&mut metrics, leak, time);
        leak::growers(&mut metrics, &cgroup.growers, time);
    }
    metrics.finish()
}

fn memory(metrics: &mut Metrics, span: Span, memory: &MemoryReading) {
    let limit = memory.limit.and_then(Limit::bytes);
    let working_set = memory.working_set_bytes();
    let available = limit
        .zip(working_set)
        .map(|(limit, used)| limit.saturating_sub(used));
    for (descriptor, value) in [
        (&USAGE, memory.usage_bytes),
        (&RSS, memory.anon_bytes),
        (&WORKING_SET, working_set),
        (&AVAILABLE, available),
        (&LIMIT, limit),
        (&FILE, memory.file_bytes),
        (&SHMEM, memory.shmem_bytes),
        (&KERNEL, memory.kernel_bytes),
        (&SLAB, memory.slab_bytes),
        (&SOCK, memory.sock_bytes),
        (&SWAP, memory.swap_bytes),
    ] {
        metrics.up_down(descriptor, span, value);
    }
    faults(
        metrics,
        &FAULTS,
        span,
        memory.minor_faults(),
        memory.major_faults,
    );
}

/// Minor and major page faults as one metric.
pub(super) fn faults(
    metrics: &mut Metrics,
    descriptor: &Descriptor,
    span: Span,
    minor: Option<u64>,
    major: Option<u64>,
) {
    let points = [
        ((FAULT_TYPE, "minor"), minor.map(Value::Count)),
        ((FAULT_TYPE, "major"), major.map(Value::Count)),
    ];
    metrics.counter_by(descriptor, span, points);
}

fn events(metrics: &mut Metrics, span: Span, memory: &MemoryReading) {
    let events = &memory.events;
    let points = [
        ("low", events.low),
        ("high", events.high),
        ("max", events.max),
        ("oom", events.oom),
        ("oom_kill", events.oom_kill),
        ("oom_group_kill", events.oom_group_kill),
    ];
    let points = points.map(|(event, count)| {
        (
            ("memtrace.cgroup.memory.event", event),
            count.map(Value::Count),
        )
    });
    metrics.counter_by(&EVENTS, span, points);
}

/// Stall time of a cgroup or of the host.
pub(super) fn pressure(metrics: &mut Metrics, span: Span, pressure: Pressure) {
    let points = [("some", pressure.some_ns), ("full", pressure.full_ns)];
    let points =
        points.map(|(kind, ns)| (("memtrace.pressure.type", kind), ns.map(Value::Nanoseconds)));
    metrics.counter_by(&PRESSURE, span, points);
}

/// What is not known of a kill is no attribute.
fn oom_kills(kills: &OomKillCount) -> (Vec<KeyValue>, Value) {
    let scope = kills
        .scope
        .map(|scope| wire::string("memtrace.oom.scope", scope));
    let group = kills
        .group
        .map(|group| wire::boolean("memtrace.oom.group", group));
    let attributes = scope.into_iter().chain(group).collect();
    (attributes, Value::Count(kills.count))
}

fn heap(metrics: &mut Metrics, span: Span, heap: &HeapTotals) {
    for (descriptor, bytes) in [
        (&MAPPED, heap.mmap_bytes),
        (&UNMAPPED, heap.munmap_bytes),
        (&BRK_GROWN, heap.brk_grow_bytes),
        (&BRK_SHRUNK, heap.brk_shrink_bytes),
        (&MADVISE_FREED, heap.madvise_free_bytes),
    ] {
        metrics.counter(descriptor, span, Some(Value::Count(bytes)));
    }
}

fn reclaim(metrics: &mut Metrics, span: Span, reclaim: &ReclaimTotals) {
    metrics.counter(
        &RECLAIM_TIME,
        span,
        Some(Value::Nanoseconds(reclaim.stall_ns)),
    );
    let counts = [("direct", reclaim.direct), ("memcg", reclaim.memcg)]
        .map(|(kind, count)| (("memtrace.reclaim.type", kind), Some(Value::Count(count))));
    metrics.counter_by(&RECLAIM_COUNT, span, counts);
    metrics.counter(
        &RECLAIM_PAGES,
        span,
        Some(Value::Count(reclaim.reclaimed_pages)),
    );
    metrics.stall_histogram(
        &RECLAIM_DURATION,
        span,
        reclaim.stall_ns,
        &reclaim.stall_histogram,
    );
}
