//! Pure mapping: incident or change of a verdict in, OTLP log records out.
//!
//! Owns the names of events, their severity, and what goes into one request. One record per
//! victim, each on the resource of the victim's cgroup; one record for an incident without
//! victims, and one for a change of a verdict. Must not read a clock, the host or the environment.
//!
//! Sources: OpenTelemetry semantic conventions, "Semantic conventions for events" and
//! "Semantic conventions for exceptions in logs" (severities).

mod attributes;
mod growth;
mod limit;
mod report;
mod stack;
#[cfg(test)]
mod tests;

use std::{path::Path, sync::Arc, time::SystemTime};

use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use prost::Message;

use super::resource::{ResourceContext, SCHEMA_URL, scope};
use super::wire;
use crate::growth::GrowthChange;
use crate::identity::names::Names;
use crate::incident::record::{Incident, Kind, Victim};
use crate::model::snapshot::LimitChange;

/// The names of the events: what a backend searches for.
pub mod name {
    pub const KILL: &str = "memtrace.oom.kill";
    pub const MARK: &str = "memtrace.oom.mark";
    pub const USER_SPACE_KILL: &str = "memtrace.oom.user_space_kill";
    pub const STALL: &str = "memtrace.oom.stall";
    pub const MISSED: &str = "memtrace.oom.missed";
    pub const REPORTED: &str = "memtrace.oom.reported";
    pub const LEAK_SUSPECTED: &str = "memtrace.memory.leak.suspected";
    pub const LEAK_CONFIRMED: &str = "memtrace.memory.leak.confirmed";
    pub const LEAK_CLEARED: &str = "memtrace.memory.leak.cleared";
    pub const LIMIT_CHANGED: &str = "memtrace.memory.limit.changed";
    pub const LIMIT_NEAR: &str = "memtrace.memory.limit.near";
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    Incident(Arc<Incident>),
    Growth(Arc<GrowthChange>),
    /// What Kubernetes says of an incident that was sent before.
    Report(Arc<Incident>),
    Limit(Arc<LimitChange>),
}

impl Event {
    /// Records that it makes; at least one.
    pub fn record_count(&self) -> usize {
        match self {
            Event::Incident(incident) => incident.victims.len().max(1),
            Event::Growth(_) | Event::Report(_) | Event::Limit(_) => 1,
        }
    }

    fn cgroup(&self, index: usize) -> Cgroup {
        match self {
            Event::Incident(incident) => cgroup(incident, incident.victims.get(index)),
            Event::Report(incident) => cgroup(incident, incident.victims.first()),
            Event::Limit(change) => Some((
                change.cgroup.clone(),
                Some(change.cgroup_id),
                Names::clone(&change.names),
            )),
            Event::Growth(change) => {
                let names = change.names.as_deref();
                let names = named(&change.cgroup, names);
                Some((change.cgroup.clone(), Some(change.cgroup_id), names))
            }
        }
    }

    fn record(&self, index: usize, observed: SystemTime) -> LogRecord {
        match self {
            Event::Incident(incident) => record(incident, incident.victims.get(index), observed),
            Event::Growth(change) => growth::record(change, observed),
            Event::Report(incident) => report::record(incident, observed),
            Event::Limit(change) => limit::record(change, observed),
        }
    }
}

/// All records of one event; `observed` is when the exporter got it.
pub fn resource_logs(
    event: &Event,
    observed: SystemTime,
    context: &ResourceContext,
) -> Vec<ResourceLogs> {
    let mut batch = Batch::new(context, usize::MAX);
    batch.add(event, 0, observed);
    batch.finish()
}

/// Records of several events, up to a size.
pub struct Batch<'a> {
    context: &'a ResourceContext,
    max_bytes: usize,
    bytes: usize,
    resources: Vec<ResourceLogs>,
    /// Of the last resource.
    cgroup: Option<Cgroup>,
}

/// Whose resource a record is on; `None` is the host's.
type Cgroup = Option<(String, Option<u64>, Names)>;

impl<'a> Batch<'a> {
    /// `max_bytes` bounds the encoded size, except of a first record that is larger alone.
    pub fn new(context: &'a ResourceContext, max_bytes: usize) -> Self {
        Batch {
            context,
            max_bytes,
            bytes: 0,
            resources: Vec::new(),
            cgroup: None,
        }
    }

    /// Adds records of `event`, the first `from` left out; gives how many had room.
    pub fn add(&mut self, event: &Event, from: usize, observed: SystemTime) -> usize {
        let mut added = 0;
        for index in from..event.record_count() {
            if !self.push(event.cgroup(index), event.record(index, observed)) {
                break;
            }
            added += 1;
        }
        added
    }

    pub fn finish(self) -> Vec<ResourceLogs> {
        self.resources
    }

    fn push(&mut self, cgroup: Cgroup, record: LogRecord) -> bool {
        let mut bytes = framed(record.encoded_len());
        let new = if self.cgroup.as_ref() == Some(&cgroup) {
            None
        } else {
            let new = self.resource(&cgroup);
            bytes += framed(new.encoded_len());
            Some(new)
        };
        if self.bytes + bytes > self.max_bytes && self.bytes > 0 {
            return false;
        }
        self.bytes += bytes;
        if let Some(new) = new {
            self.resources.push(new);
            self.cgroup = Some(cgroup);
        }
        let scopes = self.resources.last_mut().map(|last| &mut last.scope_logs);
        if let Some(scope) = scopes.and_then(|scopes| scopes.last_mut()) {
            scope.log_records.push(record);
        }
        true
    }

    fn resource(&self, cgroup: &Cgroup) -> ResourceLogs {
        let resource = match cgroup {
            Some((path, id, names)) => self.context.cgroup_resource(path, *id, names),
            None => self.context.host_resource(),
        };
        ResourceLogs {
            resource: Some(resource),
            scope_logs: vec![ScopeLogs {
                scope: Some(scope()),
                schema_url: SCHEMA_URL.to_owned(),
                ..Default::default()
            }],
            schema_url: SCHEMA_URL.to_owned(),
        }
    }
}

/// An upper bound of what a message costs within another two.
fn framed(bytes: usize) -> usize {
    // A tag and a length of at most ten bytes on each level.
    bytes + 3 * 11
}

fn cgroup(incident: &Incident, victim: Option<&Victim>) -> Cgroup {
    if let Some(victim) = victim {
        let path = victim.cgroup.clone()?;
        let names = named(&path, victim.names.as_deref());
        return Some((path, victim.cgroup_id, names));
    }
    let charged = incident.charged.as_ref()?;
    let path = charged.cgroup.clone()?;
    let names = named(&path, charged.names.as_deref());
    Some((path, Some(charged.cgroup_id), names))
}

/// Where nobody named it, the path does. Escapes touch no name that a runtime or kubelet gives.
fn named(path: &str, names: Option<&Names>) -> Names {
    names.map_or_else(|| Names::of_path(Path::new(path)), Names::clone)
}

fn record(incident: &Incident, victim: Option<&Victim>, observed: SystemTime) -> LogRecord {
    let (event_name, severity) = event(incident, victim);
    let time = victim.map_or(incident.time, |victim| victim.marked);
    let summary = &incident.meaning.summary;
    LogRecord {
        time_unix_nano: wire::unix_nano(time.into()),
        observed_time_unix_nano: wire::unix_nano(observed),
        severity_number: severity.into(),
        body: (!summary.is_empty()).then(|| wire::text(summary)),
        attributes: attributes::of(incident, victim),
        event_name: event_name.to_owned(),
        ..Default::default()
    }
}

fn event(incident: &Incident, victim: Option<&Victim>) -> (&'static str, SeverityNumber) {
    // A task that only was marked did not die of it, whatever became of others.
    let spared = victim.is_some_and(|victim| victim.killed == Some(false));
    match incident.kind {
        Kind::Stall => (name::STALL, SeverityNumber::Warn),
        Kind::MissedKills => (name::MISSED, SeverityNumber::Error),
        Kind::MarkedExiting => (name::MARK, SeverityNumber::Info),
        Kind::UserSpaceKill => (name::USER_SPACE_KILL, SeverityNumber::Error),
        _ if spared => (name::MARK, SeverityNumber::Info),
        Kind::CgroupOom
        | Kind::CpusetOom
        | Kind::MempolicyOom
        | Kind::GlobalOom
        | Kind::KernelOom => {
            let container_ends = incident.group_kill == Some(true)
                || incident
                    .victims
                    .iter()
                    .any(|victim| victim.container_init == Some(true));
            let severity = if container_ends {
                SeverityNumber::Fatal
            } else {
                SeverityNumber::Error
            };
            (name::KILL, severity)
        }
    }
}
