//! The log record of a limit that changed.

use std::time::SystemTime;

use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};

use super::name;
use crate::{
    export::{console::limit, otlp::wire},
    model::snapshot::LimitChange,
};

/// The record. An attribute is absent where there was, or is, no limit.
pub(super) fn record(change: &LimitChange, observed: SystemTime) -> LogRecord {
    let attributes = [
        ("memtrace.memory.limit.before", change.from.bytes()),
        ("memtrace.memory.limit", change.to.bytes()),
        ("memtrace.memory.usage", change.usage_bytes),
    ];
    LogRecord {
        time_unix_nano: wire::unix_nano(change.time),
        observed_time_unix_nano: wire::unix_nano(observed),
        severity_number: SeverityNumber::Info.into(),
        body: Some(wire::text(&limit::line(change))),
        attributes: attributes
            .into_iter()
            .filter_map(|(key, value)| Some(wire::integer(key, value?)))
            .collect(),
        event_name: name::LIMIT_CHANGED.to_owned(),
        ..Default::default()
    }
}
