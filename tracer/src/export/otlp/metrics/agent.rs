//! Metrics of memtrace itself: names, units and which field fills them. A scrape has them from here, an
//! OTLP backend from the SDK (`own`) under the same names.

use std::time::SystemTime;

use opentelemetry_proto::tonic::metrics::v1::Metric;

use super::point::{Descriptor, Metrics, Span, Value, metric};
use crate::{export::otlp::wire, model::snapshot::SelfReading};

pub(in crate::export::otlp) const RSS: Descriptor =
    metric("memtrace.agent.rss", "By", "Resident memory of memtrace");
pub(in crate::export::otlp) const CGROUPS: Descriptor = metric(
    "memtrace.agent.cgroups",
    "{cgroup}",
    "Cgroups that memtrace follows",
);
pub(in crate::export::otlp) const CPU: Descriptor = metric(
    "memtrace.agent.cpu.time",
    "s",
    "User and system time of memtrace",
);
pub(in crate::export::otlp) const LOSSES: Descriptor = metric(
    "memtrace.agent.losses",
    "{loss}",
    "What memtrace dropped, by cause",
);
pub(in crate::export::otlp) const PROBE_TIME: Descriptor = metric(
    "memtrace.probe.run.time",
    "s",
    "Time the kernel spent in a probe; absent without kernel.bpf_stats_enabled",
);
pub(in crate::export::otlp) const PROBE_RUNS: Descriptor = metric(
    "memtrace.probe.run.count",
    "{run}",
    "Runs of a probe; absent without kernel.bpf_stats_enabled",
);
pub(in crate::export::otlp) const CAUSE: &str = "memtrace.loss.cause";
pub(in crate::export::otlp) const PROBE: &str = "memtrace.probe";

/// All that is known of memtrace itself.
pub(super) fn metrics(own: &SelfReading, started: SystemTime, time: SystemTime) -> Vec<Metric> {
    let mut metrics = Metrics::new();
    let span = Span {
        start: Some(started),
        time,
    };
    metrics.up_down(&RSS, span, own.rss_bytes);
    metrics.up_down(&CGROUPS, span, Some(own.cgroups_tracked));
    metrics.counter(&CPU, span, own.cpu_ns.map(Value::Nanoseconds));
    let losses = own.losses.iter();
    let losses = losses.map(|loss| {
        (
            vec![wire::string(CAUSE, loss.cause)],
            Value::Count(loss.count),
        )
    });
    metrics.counter_by_all(&LOSSES, span, losses);
    let probe = |name: &str| vec![wire::string(PROBE, name)];
    let times = own.probes.iter();
    let times =
        times.filter_map(|run| Some((probe(&run.probe), Value::Nanoseconds(run.run_time_ns?))));
    metrics.counter_by_all(&PROBE_TIME, span, times);
    let runs = own.probes.iter();
    let runs = runs.filter_map(|run| Some((probe(&run.probe), Value::Count(run.run_count?))));
    metrics.counter_by_all(&PROBE_RUNS, span, runs);
    metrics.finish()
}
