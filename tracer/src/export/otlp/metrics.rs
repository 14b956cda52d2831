//! Pure mapping: snapshot in, OTLP resources out.
//!
//! Owns resource identity and the shape of a request: one resource per cgroup, one for the
//! host. Must not read a clock, the host or the environment, and must never turn an
//! unmeasured value into 0: an absent value has no data point.
//!
//! Start times: what memtrace counts itself starts at `CgroupSnapshot::since`. What the kernel
//! counts starts when the cgroup was born: that is `since` too if memtrace saw the birth, else 0,
//! OTLP's "unknown". A false start would make Prometheus' zero injection and
//! cumulative-to-delta converters report the cgroup's whole past as one jump.

mod cgroup;
mod host;
mod point;
#[cfg(test)]
mod tests;

use std::time::SystemTime;

use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics, ScopeMetrics, metric};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::config::OtlpConfig;
use crate::model::snapshot::{CgroupSnapshot, Snapshot};

/// Version of the semantic conventions that the names follow.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";
/// Instrumentation scope of every metric.
pub const SCOPE: &str = "memtrace";

/// Who this host is. An unknown field is left out of the resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostInfo {
    /// `host.id`: `/etc/machine-id`.
    pub id: Option<String>,
    /// `host.name`: the host's name, not a container's.
    pub name: Option<String>,
    /// When the kernel booted: start of the host's counters.
    pub booted: Option<SystemTime>,
}

/// What all resources of one memtrace have in common.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceContext {
    pub service_name: String,
    pub host: HostInfo,
    /// The operator's own attributes; they beat `host.*`, never memtrace's identity.
    pub attributes: Vec<(String, String)>,
}

impl ResourceContext {
    /// Joins the operator's configuration with the host's identity.
    pub fn new(config: &OtlpConfig, host: HostInfo) -> Self {
        ResourceContext {
            service_name: config.service_name.clone(),
            host,
            attributes: config.resource_attributes.clone(),
        }
    }

    /// `<host>:<part>`, or `<host>` for an empty part. Unique per resource, because Prometheus
    /// makes `instance` of it and would merge the series of two resources that share one.
    /// Source: semconv registry, `service.instance.id`.
    pub fn instance_id(&self, part: &str) -> String {
        let host = self.host.id.as_deref().or(self.host.name.as_deref());
        match (host, part) {
            (Some(host), "") => host.to_owned(),
            (Some(host), part) => format!("{host}:{part}"),
            (None, "") => "host".to_owned(),
            (None, part) => part.to_owned(),
        }
    }

    /// Attributes of the resource `part` belongs to, each key once.
    pub(super) fn string_attributes(&self, part: &str) -> Vec<(String, String)> {
        let mut attributes = vec![
            ("service.name".to_owned(), self.service_name.clone()),
            ("service.instance.id".to_owned(), self.instance_id(part)),
        ];
        let detected = [("host.id", &self.host.id), ("host.name", &self.host.name)]
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value.clone()?)));
        for (key, value) in self.attributes.iter().cloned().chain(detected) {
            let reserved = key.starts_with("memtrace.");
            if !reserved && attributes.iter().all(|(known, _)| *known != key) {
                attributes.push((key, value));
            }
        }
        attributes
    }
}

/// The whole snapshot: first the host's resource, then one per cgroup.
pub fn resource_metrics(snapshot: &Snapshot, context: &ResourceContext) -> Vec<ResourceMetrics> {
    let mut resources = Vec::with_capacity(snapshot.cgroups.len() + 1);
    let host = host::metrics(&snapshot.host, context.host.booted, snapshot.time);
    resources.extend(resource(context, "", Vec::new(), host));
    resources.extend(
        snapshot
            .cgroups
            .iter()
            .filter_map(|cgroup| cgroup_metrics(cgroup, snapshot.time, snapshot.started, context)),
    );
    resources
}

/// One cgroup as measured at `time`; `None` when nothing could be measured.
/// `started` is when this memtrace started.
pub fn cgroup_metrics(
    cgroup: &CgroupSnapshot,
    time: SystemTime,
    started: SystemTime,
    context: &ResourceContext,
) -> Option<ResourceMetrics> {
    let identity = vec![
        point::string("memtrace.cgroup.path", &cgroup.cgroup),
        point::integer("memtrace.cgroup.id", cgroup.cgroup_id),
    ];
    let metrics = cgroup::metrics(cgroup, time, started);
    resource(context, &cgroup.cgroup, identity, metrics)
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

fn resource(
    context: &ResourceContext,
    part: &str,
    identity: Vec<KeyValue>,
    metrics: Vec<Metric>,
) -> Option<ResourceMetrics> {
    if metrics.is_empty() {
        return None;
    }
    let common = context.string_attributes(part);
    let mut attributes: Vec<KeyValue> = common
        .iter()
        .map(|(key, value)| point::string(key, value))
        .collect();
    attributes.extend(identity);
    Some(ResourceMetrics {
        resource: Some(Resource {
            attributes,
            ..Default::default()
        }),
        scope_metrics: vec![ScopeMetrics {
            scope: Some(InstrumentationScope {
                name: SCOPE.to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                ..Default::default()
            }),
            metrics,
            schema_url: SCHEMA_URL.to_owned(),
        }],
        schema_url: SCHEMA_URL.to_owned(),
    })
}
