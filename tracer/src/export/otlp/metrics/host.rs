//! Metrics of the host: names, units and which field fills them.
//!
//! Owns the table of host metrics. Must not decide the resource's identity.

use std::time::SystemTime;

use opentelemetry_proto::tonic::metrics::v1::Metric;

use super::cgroup::{faults, pressure};
use super::point::{Descriptor, Metrics, Span, Value, metric};
use crate::model::snapshot::HostReading;

// Semantic conventions 1.44.0, model/system/metrics.yaml.
const USAGE: Descriptor = metric("system.memory.usage", "By", "Memory in use by state");
const LIMIT: Descriptor = metric("system.memory.limit", "By", "Total memory of the host");
const AVAILABLE: Descriptor = metric(
    "system.memory.linux.available",
    "By",
    "Memory that new programs can have without swapping",
);
const SHARED: Descriptor = metric(
    "system.memory.linux.shared",
    "By",
    "Shared memory and tmpfs",
);
const PAGING: Descriptor = metric("system.paging.usage", "By", "Swap space by state");
const FAULTS: Descriptor = metric("system.paging.faults", "{fault}", "Page faults of the host");

const OOM_KILLS: Descriptor = metric(
    "memtrace.host.oom.kills",
    "{kill}",
    "Processes killed by the kernel for want of memory, since boot",
);

/// All host metrics that were measured; `booted` starts the kernel's counters.
pub(super) fn metrics(
    host: &HostReading,
    booted: Option<SystemTime>,
    time: SystemTime,
) -> Vec<Metric> {
    let mut metrics = Metrics::new();
    let span = Span {
        start: booted,
        time,
    };
    let states = [
        ("used", used(host)),
        ("free", host.mem_free_bytes),
        ("buffers", host.buffers_bytes),
        ("cached", host.cached_bytes),
    ];
    metrics.up_down_by(
        &USAGE,
        span,
        states.map(|(state, bytes)| (("system.memory.state", state), bytes)),
    );
    metrics.up_down(&LIMIT, span, host.mem_total_bytes);
    metrics.up_down(&AVAILABLE, span, host.mem_available_bytes);
    metrics.up_down(&SHARED, span, host.shmem_bytes);
    let swap_used = host
        .swap_total_bytes
        .zip(host.swap_free_bytes)
        .map(|(total, free)| total.saturating_sub(free));
    let swap = [("used", swap_used), ("free", host.swap_free_bytes)];
    metrics.up_down_by(
        &PAGING,
        span,
        swap.map(|(state, bytes)| (("system.paging.state", state), bytes)),
    );
    let minor = host
        .faults
        .zip(host.major_faults)
        .map(|(all, major)| all.saturating_sub(major));
    faults(&mut metrics, &FAULTS, span, minor, host.major_faults);
    metrics.counter(&OOM_KILLS, span, host.oom_kills.map(Value::Count));
    pressure(&mut metrics, span, host.pressure);
    metrics.finish()
}

/// What the other states leave, so that the states add up to the limit.
fn used(host: &HostReading) -> Option<u64> {
    let others = host
        .mem_free_bytes?
        .saturating_add(host.buffers_bytes?)
        .saturating_add(host.cached_bytes?);
    Some(host.mem_total_bytes?.saturating_sub(others))
}
