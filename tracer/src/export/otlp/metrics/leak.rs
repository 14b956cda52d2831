//! Metrics of the verdict on a cgroup: names, units and which field fills them.
//!
//! All are gauges: estimates and states. What is not known has no point.

use std::time::SystemTime;

use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;

use super::point::{Descriptor, Metrics, metric};
use crate::{
    analysis::State,
    export::otlp::wire,
    model::snapshot::{GrowerSnapshot, LeakSnapshot},
};

const STATE: Descriptor = metric(
    "memtrace.leak.state",
    "{cgroup}",
    "1 for the state that the verdict is in, 0 for the others",
);
const RATE: Descriptor = metric(
    "memtrace.leak.rate",
    "By/s",
    "Growth of the floor of memory; absent without a trend",
);
const DURATION: Descriptor = metric(
    "memtrace.leak.duration",
    "s",
    "Time since the growth began; absent without a trend",
);
const TIME_TO_LIMIT: Descriptor = metric(
    "memtrace.memory.time_to_limit",
    "s",
    "Time until the growth reaches the effective limit; absent unless it is a leak",
);
const UNRECLAIMABLE: Descriptor = metric(
    "memtrace.memory.unreclaimable",
    "By",
    "Anonymous, kernel and shared memory held against the cgroup's own limit",
);
const NEAR_LIMIT: Descriptor = metric(
    "memtrace.memory.near_limit",
    "{cgroup}",
    "1 while unreclaimable memory is near the cgroup's own limit",
);

const PROCESS_ANON: Descriptor = metric(
    "memtrace.leak.process.memory.anon",
    "By",
    "Anonymous memory of the processes that grew most in a cgroup that leaks",
);

/// States with a series; in all others each of them is 0.
const STATES: [State; 3] = [State::Growing, State::Suspected, State::Confirmed];

/// The verdict.
pub(super) fn metrics(metrics: &mut Metrics, leak: &LeakSnapshot, time: SystemTime) {
    let signal = || {
        let signal = leak.signal.map(|signal| signal.name());
        signal
            .map(|signal| wire::string("memtrace.leak.signal", signal))
            .into_iter()
            .collect::<Vec<_>>()
    };
    let states = STATES.map(|state| {
        let attribute = wire::string("memtrace.leak.state", state.name());
        (vec![attribute], Value::AsInt((state == leak.state).into()))
    });
    metrics.gauge(&STATE, time, states);
    let rate = leak.rate_bytes_per_hour.map(|rate| rate.mid / 3600.0);
    metrics.gauge(
        &RATE,
        time,
        rate.map(|rate| (signal(), Value::AsDouble(rate))),
    );
    let duration = leak.since.map(|since| seconds_since(time, since.time_ms));
    metrics.gauge(
        &DURATION,
        time,
        duration.map(|s| (signal(), Value::AsDouble(s))),
    );
    let left = leak.time_to_limit.map(|time| time.seconds.mid);
    metrics.gauge(
        &TIME_TO_LIMIT,
        time,
        left.map(|s| (Vec::new(), Value::AsDouble(s))),
    );
    if let Some(near) = leak.near_limit {
        let bytes = wire::saturate(near.unreclaimable_bytes);
        metrics.gauge(&UNRECLAIMABLE, time, [(Vec::new(), Value::AsInt(bytes))]);
        metrics.gauge(
            &NEAR_LIMIT,
            time,
            [(Vec::new(), Value::AsInt(near.near.into()))],
        );
    }
}

fn seconds_since(time: SystemTime, unix_ms: i64) -> f64 {
    let now = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    (now.as_secs_f64() - unix_ms as f64 / 1000.0).max(0.0)
}

/// Who grows. The attributes are of the point: one resource a process would be one series in Prometheus.
pub(super) fn growers(metrics: &mut Metrics, growers: &[GrowerSnapshot], time: SystemTime) {
    let points = growers.iter().map(|grower| {
        let mut attributes = vec![wire::integer("process.pid", grower.tgid.into())];
        let comm = grower.comm.as_deref();
        attributes.extend(comm.map(|comm| wire::string("memtrace.leak.process.comm", comm)));
        (
            attributes,
            Value::AsInt(wire::saturate(grower.rss_anon_bytes)),
        )
    });
    metrics.gauge(&PROCESS_ANON, time, points);
}
