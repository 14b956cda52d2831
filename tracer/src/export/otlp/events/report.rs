//! The log record of what Kubernetes says of a kill that was sent before.

use std::time::SystemTime;

use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};

use super::name;
use crate::{
    export::{console::incident, otlp::wire},
    incident::Incident,
};

/// The record: informational where Kubernetes tells the kill, a warning where it hides it.
pub(super) fn record(told: &Incident, observed: SystemTime) -> LogRecord {
    let report = told.kubernetes.as_ref();
    let reported = report.is_some_and(|report| report.reported);
    let mut attributes = vec![
        wire::string("memtrace.incident.id", &told.id),
        wire::boolean("memtrace.oom.reported", reported),
    ];
    if let Some(report) = report {
        let reason = report.reason.as_deref();
        attributes.extend(
            reason
                .map(|reason| wire::string("k8s.container.status.last_terminated_reason", reason)),
        );
        attributes.extend(
            report
                .exit_code
                .map(|code| wire::signed("memtrace.oom.container.exit.code", code.into())),
        );
        attributes.extend(
            report
                .restart_count
                .map(|count| wire::integer("k8s.container.restart_count", count.into())),
        );
    }
    let finished = report.and_then(|report| report.finished);
    LogRecord {
        time_unix_nano: wire::unix_nano(finished.unwrap_or(told.time).into()),
        observed_time_unix_nano: wire::unix_nano(observed),
        severity_number: if reported {
            SeverityNumber::Info.into()
        } else {
            SeverityNumber::Warn.into()
        },
        body: Some(wire::text(&incident::reported(told))),
        attributes,
        event_name: name::REPORTED.to_owned(),
        ..Default::default()
    }
}
