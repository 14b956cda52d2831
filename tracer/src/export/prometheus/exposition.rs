//! OTLP metrics as text for Prometheus.
//!
//! Source: Prometheus text format 0.0.4; OpenMetrics 1.0.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::{self, Write as _},
};

use opentelemetry_proto::tonic::{
    common::v1::{KeyValue, any_value},
    metrics::v1::{HistogramDataPoint, Metric, ResourceMetrics, metric, number_data_point},
};

use super::names::{family, sanitized};

/// Attributes that are not labels: Prometheus has `job` and `instance` for them.
const NOT_LABELS: [&str; 3] = ["service.name", "service.namespace", "service.instance.id"];

/// Attributes of a cgroup that are labels of each of its series: what people select and join by. All
/// others are labels of [`INFO`] alone.
const SELECTED: [&str; 8] = [
    "memtrace.cgroup.path",
    "memtrace.cgroup.id",
    "container.id",
    "container.name",
    "k8s.namespace.name",
    "k8s.pod.name",
    "k8s.container.name",
    "k8s.node.name",
];
/// Always 1, with all that is known of who a cgroup is.
const INFO: &str = "memtrace_cgroup_info";

/// What the scraper can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    OpenMetrics,
}

impl Format {
    /// What an `Accept` header asks for.
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") {
            Format::OpenMetrics
        } else {
            Format::Text
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Series of one name, which must stand together.
struct Family {
    kind: &'static str,
    help: String,
    lines: String,
}

/// The metrics of all resources, with what selects each as labels.
pub fn text(resources: impl IntoIterator<Item = ResourceMetrics>, format: Format) -> String {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for resource in resources {
        let attributes = resource
            .resource
            .as_ref()
            .map_or(&[][..], |resource| &resource.attributes);
        let known = || attributes.iter().filter(|attribute| is_label(attribute));
        let is_cgroup = known().any(|attribute| attribute.key == "memtrace.cgroup.path");
        let is_selected = |key: &str| !is_cgroup || SELECTED.contains(&key);
        let labels = labels(known().filter(|attribute| is_selected(&attribute.key)));
        if is_cgroup && is_live(&resource) {
            // Of names that become the same the measured one counts, and it comes first.
            let (ours, others): (Vec<_>, Vec<_>) = known().partition(|known| is_ours(&known.key));
            let all = ours.into_iter().chain(others);
            add_info(&mut families, &self::labels(all));
        }
        for metric in resource
            .scope_metrics
            .iter()
            .flat_map(|scope| &scope.metrics)
        {
            add(&mut families, metric, &labels, format);
        }
    }
    let mut out = String::with_capacity(
        families
            .values()
            .map(|family| family.lines.len() + 200)
            .sum(),
    );
    // Each is let go of as soon as it is copied: a scrape of many cgroups takes megabytes.
    for (name, family) in families {
        // The text format has the suffix of a counter in its type line, OpenMetrics has not.
        let named = match (format, family.kind) {
            (Format::Text, "counter") => format!("{name}_total"),
            _ => name.clone(),
        };
        let _ = writeln!(out, "# HELP {named} {}", family.help);
        let _ = writeln!(out, "# TYPE {named} {}", family.kind);
        out.push_str(&family.lines);
    }
    if format == Format::OpenMetrics {
        out.push_str("# EOF\n");
    }
    out
}

fn is_ours(key: &str) -> bool {
    let free = ["k8s.pod.label.", "k8s.pod.annotation."];
    let ours = ["memtrace.", "container.", "k8s."];
    ours.iter().any(|prefix| key.starts_with(prefix))
        && !free.iter().any(|prefix| key.starts_with(prefix))
}

/// What is gone has counters only.
fn is_live(resource: &ResourceMetrics) -> bool {
    let mut metrics = resource
        .scope_metrics
        .iter()
        .flat_map(|scope| &scope.metrics);
    metrics.any(|metric| !matches!(&metric.data, Some(metric::Data::Sum(sum)) if sum.is_monotonic))
}

fn add_info(families: &mut BTreeMap<String, Family>, labels: &str) {
    let family = families.entry(INFO.to_owned()).or_insert_with(|| Family {
        kind: "gauge",
        help: "Who the cgroup is: container, image, pod, workload, unit".to_owned(),
        lines: String::new(),
    });
    let _ = writeln!(family.lines, "{INFO}{} 1", Braces(&[labels]));
}

fn add(families: &mut BTreeMap<String, Family>, metric: &Metric, labels: &str, format: Format) {
    let name = family(&metric.name, &metric.unit);
    let kind = match &metric.data {
        Some(metric::Data::Gauge(_)) => "gauge",
        Some(metric::Data::Sum(sum)) if sum.is_monotonic => "counter",
        Some(metric::Data::Sum(_)) => "gauge",
        Some(metric::Data::Histogram(_)) => "histogram",
        _ => return,
    };
    let family = families.entry(name.clone()).or_insert_with(|| Family {
        kind,
        help: escaped(&metric.description, format == Format::OpenMetrics),
        lines: String::new(),
    });
    let lines = &mut family.lines;
    let points = match &metric.data {
        Some(metric::Data::Gauge(gauge)) => &gauge.data_points,
        Some(metric::Data::Sum(sum)) => &sum.data_points,
        Some(metric::Data::Histogram(histogram)) => {
            for point in &histogram.data_points {
                add_histogram(lines, &name, labels, point);
            }
            return;
        }
        _ => return,
    };
    let suffix = if kind == "counter" { "_total" } else { "" };
    for point in points {
        let own = self::labels(point.attributes.iter());
        let value = match point.value {
            Some(number_data_point::Value::AsInt(value)) => Number::Integer(value),
            Some(number_data_point::Value::AsDouble(value)) => Number::Double(value),
            None => continue,
        };
        let _ = writeln!(lines, "{name}{suffix}{} {value}", Braces(&[labels, &own]));
    }
}

fn add_histogram(lines: &mut String, name: &str, labels: &str, point: &HistogramDataPoint) {
    let own = self::labels(point.attributes.iter());
    let bounds = point.explicit_bounds.iter().copied().map(Number::Double);
    let bounds = bounds.chain([Number::Double(f64::INFINITY)]);
    let mut below = 0u64;
    for (bound, count) in bounds.zip(&point.bucket_counts) {
        below = below.saturating_add(*count);
        let le = format!("le=\"{bound}\"");
        let _ = writeln!(
            lines,
            "{name}_bucket{} {below}",
            Braces(&[labels, &own, &le])
        );
    }
    if let Some(sum) = point.sum {
        let sum = Number::Double(sum);
        let _ = writeln!(lines, "{name}_sum{} {sum}", Braces(&[labels, &own]));
    }
    let _ = writeln!(
        lines,
        "{name}_count{} {}",
        Braces(&[labels, &own]),
        point.count
    );
}

fn is_label(attribute: &KeyValue) -> bool {
    !NOT_LABELS.contains(&attribute.key.as_str()) && !attribute.key.starts_with("host.")
}

/// `a="b",c="d"`.
fn labels<'a>(attributes: impl Iterator<Item = &'a KeyValue>) -> String {
    let mut text = String::new();
    let mut named = HashSet::new();
    for attribute in attributes {
        // One label twice makes the whole scrape invalid.
        let name = sanitized(&attribute.key);
        if !named.insert(name.clone()) {
            continue;
        }
        let value = attribute
            .value
            .as_ref()
            .and_then(|value| value.value.as_ref());
        let value = match value {
            Some(any_value::Value::StringValue(value)) => escaped(value, true),
            Some(any_value::Value::IntValue(value)) => value.to_string(),
            Some(any_value::Value::DoubleValue(value)) => value.to_string(),
            Some(any_value::Value::BoolValue(value)) => value.to_string(),
            _ => continue,
        };
        if !text.is_empty() {
            text.push(',');
        }
        let _ = write!(text, "{name}=\"{value}\"");
    }
    text
}

fn escaped(text: &str, quotes: bool) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => clean.push_str("\\\\"),
            '\n' => clean.push_str("\\n"),
            '"' if quotes => clean.push_str("\\\""),
            c => clean.push(c),
        }
    }
    clean
}

/// Groups of labels, of which some may be empty.
struct Braces<'a>(&'a [&'a str]);

impl fmt::Display for Braces<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut groups = self.0.iter().filter(|group| !group.is_empty());
        let Some(first) = groups.next() else {
            return Ok(());
        };
        write!(out, "{{{first}")?;
        for group in groups {
            write!(out, ",{group}")?;
        }
        out.write_str("}")
    }
}

enum Number {
    Integer(i64),
    Double(f64),
}

impl fmt::Display for Number {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number::Integer(value) => write!(out, "{value}"),
            Number::Double(value) if *value == f64::INFINITY => out.write_str("+Inf"),
            Number::Double(value) if *value == f64::NEG_INFINITY => out.write_str("-Inf"),
            Number::Double(value) if value.is_nan() => out.write_str("NaN"),
            Number::Double(value) => write!(out, "{value}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::{
        common::v1::AnyValue,
        metrics::v1::{
            AggregationTemporality, Gauge, Histogram, NumberDataPoint, ScopeMetrics, Sum,
        },
        resource::v1::Resource,
    };

    fn attribute(key: &str, value: &str) -> KeyValue {
        KeyValue {
            key: key.into(),
            value: Some(AnyValue {
                value: Some(any_value::Value::StringValue(value.into())),
            }),
            ..Default::default()
        }
    }

    fn number(value: i64) -> NumberDataPoint {
        NumberDataPoint {
            value: Some(number_data_point::Value::AsInt(value)),
            ..Default::default()
        }
    }

    fn metric(name: &str, unit: &str, data: metric::Data) -> Metric {
        Metric {
            name: name.into(),
            unit: unit.into(),
            description: "What \\ it is".into(),
            data: Some(data),
            ..Default::default()
        }
    }

    fn resource(path: &str, metrics: Vec<Metric>) -> ResourceMetrics {
        ResourceMetrics {
            resource: Some(Resource {
                attributes: vec![
                    attribute("service.name", "memtrace"),
                    attribute("host.id", "h"),
                    attribute("memtrace.cgroup.path", path),
                    attribute("container.image.name", "cart"),
                ],
                ..Default::default()
            }),
            scope_metrics: vec![ScopeMetrics {
                metrics,
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    fn counter(value: i64) -> metric::Data {
        metric::Data::Sum(Sum {
            data_points: vec![number(value)],
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
            is_monotonic: true,
        })
    }

    fn sample() -> Vec<ResourceMetrics> {
        let gauge = |value| {
            metric::Data::Gauge(Gauge {
                data_points: vec![number(value)],
            })
        };
        let histogram = metric::Data::Histogram(Histogram {
            data_points: vec![HistogramDataPoint {
                count: 3,
                sum: Some(0.5),
                bucket_counts: vec![1, 2],
                explicit_bounds: vec![0.001],
                ..Default::default()
            }],
            ..Default::default()
        });
        vec![
            resource(
                "/a\"\n\\",
                vec![
                    metric("x.usage", "By", gauge(5)),
                    metric("x.kills", "{kill}", counter(1)),
                ],
            ),
            resource(
                "/b",
                vec![
                    metric("x.usage", "By", gauge(6)),
                    metric("x.stall", "s", histogram),
                ],
            ),
        ]
    }

    #[test]
    fn series_of_a_name_stand_together_with_escaped_labels() {
        let expected = "\
# HELP memtrace_cgroup_info Who the cgroup is: container, image, pod, workload, unit
# TYPE memtrace_cgroup_info gauge
memtrace_cgroup_info{memtrace_cgroup_path=\"/a\\\"\\n\\\\\",container_image_name=\"cart\"} 1
memtrace_cgroup_info{memtrace_cgroup_path=\"/b\",container_image_name=\"cart\"} 1
# HELP x_kills_total What \\\\ it is
# TYPE x_kills_total counter
x_kills_total{memtrace_cgroup_path=\"/a\\\"\\n\\\\\"} 1
# HELP x_stall_seconds What \\\\ it is
# TYPE x_stall_seconds histogram
x_stall_seconds_bucket{memtrace_cgroup_path=\"/b\",le=\"0.001\"} 1
x_stall_seconds_bucket{memtrace_cgroup_path=\"/b\",le=\"+Inf\"} 3
x_stall_seconds_sum{memtrace_cgroup_path=\"/b\"} 0.5
x_stall_seconds_count{memtrace_cgroup_path=\"/b\"} 3
# HELP x_usage_bytes What \\\\ it is
# TYPE x_usage_bytes gauge
x_usage_bytes{memtrace_cgroup_path=\"/a\\\"\\n\\\\\"} 5
x_usage_bytes{memtrace_cgroup_path=\"/b\"} 6
";
        assert_eq!(text(sample(), Format::Text), expected);
    }

    #[test]
    fn attributes_whose_names_become_the_same_are_one_label_and_the_measured_one_wins() {
        let mut resource = resource("/a", Vec::new());
        if let Some(identity) = &mut resource.resource {
            for (key, value) in [("a.b", "1"), ("a_b", "2"), ("k8s_pod_name", "false")] {
                identity.attributes.insert(0, attribute(key, value));
            }
            identity.attributes.push(attribute("k8s.pod.name", "true"));
        }
        resource.scope_metrics.push(ScopeMetrics {
            metrics: vec![metric(
                "x",
                "By",
                metric::Data::Gauge(Gauge {
                    data_points: Vec::new(),
                }),
            )],
            ..Default::default()
        });
        let text = text([resource], Format::Text);
        assert_eq!(text.matches("a_b=").count(), 1, "{text}");
        assert_eq!(text.matches("k8s_pod_name=").count(), 1, "{text}");
        assert!(text.contains("k8s_pod_name=\"true\""), "{text}");
    }

    #[test]
    fn openmetrics_names_the_family_of_a_counter_without_its_suffix_and_ends() {
        let text = text(sample(), Format::OpenMetrics);
        assert!(text.contains("# TYPE x_kills counter\nx_kills_total{"));
        assert!(text.ends_with("\n# EOF\n"));
    }
}
