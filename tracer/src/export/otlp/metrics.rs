//! Pure mapping: snapshot in, OTLP resources out.
//!
//! Owns the shape of a request: one resource per cgroup, one for the host. Must not read a
//! clock, the host or the environment, and must never turn an unmeasured value into 0: an
//! absent value has no data point.
//!
//! Start times: what memtrace counts itself starts at `CgroupSnapshot::since`. What the kernel
//! counts starts when the cgroup was born: that is `since` too if memtrace saw the birth, else 0,
//! OTLP's "unknown". A false start would make Prometheus' zero injection and
//! cumulative-to-delta converters report the cgroup's whole past as one jump.

pub(super) mod agent;
mod cgroup;
mod host;
mod kubernetes;
mod leak;
mod point;
#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics, ScopeMetrics, metric};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::resource::{ResourceContext, SCHEMA_URL, scope};
use crate::model::snapshot::{CgroupSnapshot, Snapshot};

/// By this the last numbers of what is gone are older than those of what took its place.
const LAST_LIFE: Duration = Duration::from_millis(1);

/// The whole snapshot: first the host's resource, then one per cgroup. Each is made when it is asked for:
/// all at once would be several times the snapshot.
pub fn resource_metrics<'a>(
    snapshot: &'a Snapshot,
    context: &'a ResourceContext,
) -> impl Iterator<Item = ResourceMetrics> + 'a {
    // Lives of one container are one service instance: each ends before the next in time and order.
    let (mut removed, live): (Vec<_>, Vec<_>) =
        (snapshot.cgroups.iter()).partition(|one| one.removed);
    removed.sort_by_key(|cgroup| cgroup.since);
    let times = (0..removed.len() as u32).rev().map(|after| {
        let before = snapshot.time.checked_sub(LAST_LIFE * (after + 1));
        before.unwrap_or(snapshot.time)
    });
    let ended = removed.into_iter().zip(times);
    let living = live.into_iter().map(|cgroup| (cgroup, snapshot.time));
    let cgroups = ended
        .chain(living)
        .filter_map(|(cgroup, time)| cgroup_metrics(cgroup, time, snapshot.started, context));
    host(snapshot, context).into_iter().chain(cgroups)
}

fn host(snapshot: &Snapshot, context: &ResourceContext) -> Option<ResourceMetrics> {
    let metrics = host::metrics(&snapshot.host, context.host.booted, snapshot.time);
    resource(context.host_resource(), metrics)
}

/// What a scrape gives: the snapshot, of removed cgroups only what they counted, and memtrace itself.
pub fn scraped<'a>(
    snapshot: &'a Snapshot,
    context: &'a ResourceContext,
) -> impl Iterator<Item = ResourceMetrics> + 'a {
    let cgroups = snapshot.cgroups.iter().filter_map(move |cgroup| {
        let mut metrics = cgroup::metrics(cgroup, snapshot.time, snapshot.started);
        if cgroup.removed {
            metrics.retain(
                |metric| matches!(&metric.data, Some(metric::Data::Sum(sum)) if sum.is_monotonic),
            );
        }
        resource(cgroup_resource(cgroup, context), metrics)
    });
    let own = agent::metrics(&snapshot.own, snapshot.started, snapshot.time);
    let own = resource(context.host_resource(), own);
    host(snapshot, context)
        .into_iter()
        .chain(cgroups)
        .chain(own)
}

/// One cgroup as measured at `time`; `None` when nothing could be measured.
/// `started` is when this memtrace started.
pub fn cgroup_metrics(
    cgroup: &CgroupSnapshot,
    time: SystemTime,
    started: SystemTime,
    context: &ResourceContext,
) -> Option<ResourceMetrics> {
    let metrics = cgroup::metrics(cgroup, time, started);
    let identity = cgroup_resource(cgroup, context);
    resource(identity, metrics)
}

/// Data points in `resources`, counted as OTLP's partial success counts them.
pub fn point_count(resources: &[ResourceMetrics]) -> u64 {
    let metrics = resources
        .iter()
        .flat_map(|resource| &resource.scope_metrics)
        .flat_map(|scope| &scope.metrics);
    let points: usize = metrics
        .map(|metric| match &metric.data {
            Some(metric::Data::Gauge(gauge)) => gauge.data_points.len(),
            Some(metric::Data::Sum(sum)) => sum.data_points.len(),
            Some(metric::Data::Histogram(histogram)) => histogram.data_points.len(),
            Some(metric::Data::ExponentialHistogram(histogram)) => histogram.data_points.len(),
            Some(metric::Data::Summary(summary)) => summary.data_points.len(),
            None => 0,
        })
        .sum();
    points as u64
}

fn cgroup_resource(cgroup: &CgroupSnapshot, context: &ResourceContext) -> Resource {
    context.cgroup_resource(&cgroup.cgroup, Some(cgroup.cgroup_id), &cgroup.names)
}

fn resource(identity: Resource, metrics: Vec<Metric>) -> Option<ResourceMetrics> {
    if metrics.is_empty() {
        return None;
    }
    Some(ResourceMetrics {
        resource: Some(identity),
        scope_metrics: vec![ScopeMetrics {
            scope: Some(scope()),
            metrics,
            schema_url: SCHEMA_URL.to_owned(),
        }],
        schema_url: SCHEMA_URL.to_owned(),
    })
}
