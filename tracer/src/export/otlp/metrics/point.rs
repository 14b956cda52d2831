//! Builds single OTLP metrics: instrument kinds, temporality, times.
//!
//! Owns the protobuf details. Must not know a metric's name. A metric without a data point is
//! not built, so that an absent value stays absent.

use std::time::SystemTime;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum,
    metric, number_data_point,
};

use crate::export::otlp::wire::{saturate, string, unix_nano};
use crate::model::snapshot::STALL_BUCKETS;

/// Name, unit (UCUM) and description of a metric.
pub(in crate::export::otlp) struct Descriptor {
    pub(in crate::export::otlp) name: &'static str,
    pub(in crate::export::otlp) unit: &'static str,
    pub(in crate::export::otlp) description: &'static str,
}

pub(super) const fn metric(
    name: &'static str,
    unit: &'static str,
    description: &'static str,
) -> Descriptor {
    Descriptor {
        name,
        unit,
        description,
    }
}

/// Start and end of a cumulative stream; `start` `None` is OTLP's "unknown".
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) start: Option<SystemTime>,
    pub(super) time: SystemTime,
}

/// A measured number.
pub(super) enum Value {
    Count(u64),
    /// Sent in seconds.
    Nanoseconds(u64),
}

/// An attribute and its value.
pub(super) type Attribute = (&'static str, &'static str);

/// Metrics of one resource under construction.
pub(super) struct Metrics {
    list: Vec<Metric>,
}

impl Metrics {
    pub(super) fn new() -> Self {
        Metrics { list: Vec::new() }
    }

    pub(super) fn finish(self) -> Vec<Metric> {
        self.list
    }

    /// UpDownCounter without attributes: a Sum that may fall.
    pub(super) fn up_down(&mut self, metric: &Descriptor, span: Span, value: Option<u64>) {
        let points = value.map(|value| (Vec::new(), Value::Count(value)));
        self.sum(metric, span, false, points);
    }

    /// UpDownCounter with one point per attribute.
    pub(super) fn up_down_by(
        &mut self,
        metric: &Descriptor,
        span: Span,
        points: impl IntoIterator<Item = (Attribute, Option<u64>)>,
    ) {
        let points = points
            .into_iter()
            .filter_map(|(attribute, value)| Some((one(attribute), Value::Count(value?))));
        self.sum(metric, span, false, points);
    }

    /// Counter without attributes.
    pub(super) fn counter(&mut self, metric: &Descriptor, span: Span, value: Option<Value>) {
        self.sum(metric, span, true, value.map(|value| (Vec::new(), value)));
    }

    /// Counter with one point per attribute.
    pub(super) fn counter_by(
        &mut self,
        metric: &Descriptor,
        span: Span,
        points: impl IntoIterator<Item = (Attribute, Option<Value>)>,
    ) {
        let points = points
            .into_iter()
            .filter_map(|(attribute, value)| Some((one(attribute), value?)));
        self.sum(metric, span, true, points);
    }

    /// Counter with one point per set of attributes.
    pub(super) fn counter_by_all(
        &mut self,
        metric: &Descriptor,
        span: Span,
        points: impl IntoIterator<Item = (Vec<KeyValue>, Value)>,
    ) {
        self.sum(metric, span, true, points);
    }

    /// Gauge with one point per set of attributes: an estimate or a state, which has no start.
    pub(super) fn gauge(
        &mut self,
        metric: &Descriptor,
        time: SystemTime,
        points: impl IntoIterator<Item = (Vec<KeyValue>, number_data_point::Value)>,
    ) {
        let data_points: Vec<NumberDataPoint> = points
            .into_iter()
            .map(|(attributes, value)| NumberDataPoint {
                attributes,
                time_unix_nano: unix_nano(time),
                value: Some(value),
                ..Default::default()
            })
            .collect();
        if !data_points.is_empty() {
            self.push(metric, metric::Data::Gauge(Gauge { data_points }));
        }
    }

    fn sum(
        &mut self,
        metric: &Descriptor,
        span: Span,
        is_monotonic: bool,
        points: impl IntoIterator<Item = (Vec<KeyValue>, Value)>,
    ) {
        let data_points: Vec<NumberDataPoint> = points
            .into_iter()
            .map(|(attributes, value)| NumberDataPoint {
                attributes,
                start_time_unix_nano: span.start.map_or(0, unix_nano),
                time_unix_nano: unix_nano(span.time),
                value: Some(match value {
                    Value::Count(count) => number_data_point::Value::AsInt(saturate(count)),
                    Value::Nanoseconds(ns) => number_data_point::Value::AsDouble(seconds(ns)),
                }),
                ..Default::default()
            })
            .collect();
        if data_points.is_empty() {
            return;
        }
        let sum = Sum {
            data_points,
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
            is_monotonic,
        };
        self.push(metric, metric::Data::Sum(sum));
    }

    /// Stall times from log2 buckets. Nothing is sent before the first stall, as an SDK would.
    pub(super) fn stall_histogram(
        &mut self,
        metric: &Descriptor,
        span: Span,
        stall_ns: u64,
        buckets: &[u64; STALL_BUCKETS],
    ) {
        let bucket_counts = merge_buckets(buckets);
        let count = bucket_counts
            .iter()
            .fold(0u64, |sum, bucket| sum.saturating_add(*bucket));
        if count == 0 {
            return;
        }
        let point = HistogramDataPoint {
            start_time_unix_nano: span.start.map_or(0, unix_nano),
            time_unix_nano: unix_nano(span.time),
            count,
            sum: Some(seconds(stall_ns)),
            bucket_counts,
            explicit_bounds: bound_exponents()
                .map(|exponent| seconds(1 << exponent))
                .collect(),
            ..Default::default()
        };
        let histogram = Histogram {
            data_points: vec![point],
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
        };
        self.push(metric, metric::Data::Histogram(histogram));
    }

    fn push(&mut self, metric: &Descriptor, data: metric::Data) {
        self.list.push(Metric {
            name: metric.name.to_owned(),
            unit: metric.unit.to_owned(),
            description: metric.description.to_owned(),
            data: Some(data),
            ..Default::default()
        });
    }
}

/// Bounds are 2^10 ns (1 us) to 2^34 ns (17 s) in steps of four: a bucket is a series in
/// Prometheus, for each cgroup, and 40 of them would cost more than they tell.
fn bound_exponents() -> impl Iterator<Item = usize> {
    (10..=34).step_by(2)
}

/// The kernel side counts `[2^i, 2^(i+1))`, OTLP `(lower, upper]`: only a stall of exactly
/// a power of two nanoseconds sits one bucket high.
fn merge_buckets(buckets: &[u64; STALL_BUCKETS]) -> Vec<u64> {
    let mut merged = Vec::new();
    let mut from = 0;
    for to in bound_exponents().chain([STALL_BUCKETS]) {
        let part = buckets.get(from..to).unwrap_or_default();
        merged.push(
            part.iter()
                .fold(0u64, |sum, bucket| sum.saturating_add(*bucket)),
        );
        from = to;
    }
    merged
}

fn one((key, value): Attribute) -> Vec<KeyValue> {
    vec![string(key, value)]
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}
