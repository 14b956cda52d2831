//! The log record of a change of a verdict: event name, severity, attributes.
//!
//! Severities as the research of event conventions has them: a warning before anything is lost.

use std::time::SystemTime;

use opentelemetry_proto::tonic::{
    common::v1::KeyValue,
    logs::v1::{LogRecord, SeverityNumber},
};

use super::{name, stack};
use crate::{
    analysis::Estimate,
    export::{console::leak, otlp::wire},
    growth::{GrowthChange, GrowthEvent},
};

/// The record. Only events are exported: a change that is none has no name.
pub(super) fn record(change: &GrowthChange, observed: SystemTime) -> LogRecord {
    let (event_name, severity) = match change.event {
        Some(GrowthEvent::Suspected) => (name::LEAK_SUSPECTED, SeverityNumber::Warn),
        Some(GrowthEvent::Confirmed) => (name::LEAK_CONFIRMED, SeverityNumber::Warn2),
        Some(GrowthEvent::Cleared) => (name::LEAK_CLEARED, SeverityNumber::Info),
        Some(GrowthEvent::LimitNear) => (name::LIMIT_NEAR, SeverityNumber::Warn),
        None => ("", SeverityNumber::Unspecified),
    };
    LogRecord {
        time_unix_nano: wire::unix_nano(change.time.into()),
        observed_time_unix_nano: wire::unix_nano(observed),
        severity_number: severity.into(),
        body: leak::line(change).map(|line| wire::text(&line)),
        attributes: attributes(change),
        event_name: event_name.to_owned(),
        ..Default::default()
    }
}

fn attributes(change: &GrowthChange) -> Vec<KeyValue> {
    let mut list = Vec::with_capacity(32);
    let text = |key: &str, value: &str| wire::string(key, value);
    list.push(text("memtrace.leak.state", change.state.name()));
    list.extend(
        change
            .from
            .map(|from| text("memtrace.leak.state.before", from.name())),
    );
    list.extend(
        change
            .signal
            .map(|signal| text("memtrace.leak.signal", signal.name())),
    );
    estimate(
        &mut list,
        "memtrace.leak.rate_bytes_per_hour",
        change.rate_bytes_per_hour,
    );
    list.extend(
        change
            .since
            .map(|since| text("memtrace.leak.since", &since.to_string())),
    );
    list.extend(
        change
            .since_uncertainty_s
            .map(|s| wire::double("memtrace.leak.since_uncertainty_s", s)),
    );
    estimate(
        &mut list,
        "memtrace.memory.time_to_limit_s",
        change.time_to_limit_s,
    );
    for (key, value) in [
        ("memtrace.memory.usage_bytes", change.usage_bytes),
        ("memtrace.memory.limit_bytes", change.limit_bytes),
        (
            "memtrace.memory.unreclaimable_bytes",
            change.near_limit.map(|near| near.unreclaimable_bytes),
        ),
    ] {
        list.extend(value.map(|value| wire::integer(key, value)));
    }
    let owner = change.limit_cgroup.as_deref();
    list.extend(owner.map(|owner| text("memtrace.memory.limit.cgroup.path", owner)));
    if let Some(process) = change.processes.first() {
        list.push(wire::integer("process.pid", process.pid.into()));
        let comm = process.comm.as_deref();
        list.extend(comm.map(|comm| text("memtrace.leak.process.comm", comm)));
        list.push(wire::integer(
            "memtrace.leak.process.growth_bytes",
            process.growth_bytes,
        ));
        list.push(wire::double("memtrace.leak.process.share", process.share));
    }
    // What is no leak any more needs no culprit.
    let is_over = change.event == Some(GrowthEvent::Cleared);
    let stack = change.stacks.first().filter(|_| !is_over);
    list.extend(stack.into_iter().flat_map(stack::attributes));
    list
}

fn estimate(list: &mut Vec<KeyValue>, key: &str, estimate: Option<Estimate>) {
    if let Some(estimate) = estimate {
        list.push(wire::double(key, estimate.mid));
        list.push(wire::double(&format!("{key}.low"), estimate.low));
        list.extend(
            estimate
                .high
                .map(|high| wire::double(&format!("{key}.high"), high)),
        );
    }
}
