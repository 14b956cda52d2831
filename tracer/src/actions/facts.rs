//! What a command is told of an event: variables, and the event's JSON line. Pure.

use std::{path::PathBuf, sync::Arc};

use crate::{
    export::console::{json::Json, leak},
    growth::GrowthChange,
    host::escape,
    identity::names::Names,
    incident::{Incident, Kind},
};

use super::rule::Trigger;

/// Longest value of a variable, characters.
const MOST_CHARS: usize = 4096;

/// Facts that arguments may have in braces. Not the name of a process: anybody chooses that, an option too.
pub const IN_ARGUMENTS: [&str; 13] = [
    "event",
    "time",
    "cgroup",
    "cgroup_id",
    "namespace",
    "pod",
    "container",
    "container_id",
    "pid",
    "usage_bytes",
    "limit_bytes",
    "incident_id",
    "incident_kind",
];

/// An event as commands are told of it.
#[derive(Debug, Clone)]
pub struct Facts {
    pub trigger: Trigger,
    /// Of an incident.
    pub kind: Option<Kind>,
    pub cgroup_id: Option<u64>,
    /// Every cgroup that has to do with it; a rule's glob has to match one.
    pub paths: Vec<PathBuf>,
    /// Whose runs are counted together: the same after a restart of the container.
    pub container: String,
    /// Name to value; what is unknown is not among them.
    values: Vec<(&'static str, String)>,
    /// As `run --output json` prints it.
    pub line: Arc<[u8]>,
}

impl Facts {
    /// Of a change of a verdict; `None` for one that is no event to an operator.
    pub fn of_growth(change: &GrowthChange, path: Option<PathBuf>) -> Option<Self> {
        let trigger = Trigger::Growth(change.event?);
        let first = change.processes.first();
        let mut facts = Self::new(
            trigger,
            line(|json| json.leak(change)),
            change.cgroup.clone(),
        );
        facts.cgroup_id = Some(change.cgroup_id);
        facts.paths = vec![path.unwrap_or_else(|| PathBuf::from(&change.cgroup))];
        facts.set("time", Some(change.time));
        facts.set("cgroup", Some(&change.cgroup));
        facts.set("cgroup_id", Some(change.cgroup_id));
        facts.name(change.names.as_deref());
        facts.set("pid", first.map(|process| process.pid));
        facts.set("comm", first.and_then(|process| process.comm.as_ref()));
        facts.set("usage_bytes", change.usage_bytes);
        facts.set("limit_bytes", change.limit_bytes);
        let rate = change.rate_bytes_per_hour.map(|rate| rate.mid.round());
        facts.set("rate_bytes_per_hour", rate);
        let left = change.time_to_limit_s.map(|time| time.mid.round());
        facts.set("time_to_limit_s", left);
        facts.set("summary", leak::line(change));
        Some(facts)
    }

    /// Of an incident; `None` while it is under way. `path` gives the path of a cgroup that is known.
    pub fn of_incident(incident: &Incident, path: impl Fn(u64) -> Option<PathBuf>) -> Option<Self> {
        if !incident.complete {
            return None;
        }
        let charged = incident.charged.as_ref();
        let victim = incident.victims.first();
        let of_charged = charged.map(|charged| (Some(charged.cgroup_id), charged.cgroup.as_ref()));
        let of_victims = incident
            .victims
            .iter()
            .map(|victim| (victim.cgroup_id, victim.cgroup.as_ref()));
        let involved: Vec<_> = of_charged.into_iter().chain(of_victims).collect();
        let (cgroup_id, cgroup) = involved.first().copied().unwrap_or_default();
        let names = victim
            .and_then(|victim| victim.names.as_deref())
            .or(charged.and_then(|charged| charged.names.as_deref()));
        let whose = cgroup.cloned().unwrap_or_default();
        let mut facts = Self::new(
            Trigger::Incident,
            line(|json| json.incident(incident)),
            whose,
        );
        facts.kind = Some(incident.kind);
        facts.cgroup_id = cgroup_id;
        facts.paths = involved
            .iter()
            .filter_map(|(id, shown)| id.and_then(&path).or(shown.map(PathBuf::from)))
            .collect();
        facts.paths.dedup();
        facts.set("time", Some(incident.time));
        facts.set("cgroup", cgroup);
        facts.set("cgroup_id", cgroup_id);
        facts.name(names);
        facts.set("pid", victim.and_then(|victim| victim.pid));
        facts.set("comm", victim.and_then(|victim| victim.comm.as_ref()));
        facts.set(
            "usage_bytes",
            charged.and_then(|charged| charged.usage_bytes),
        );
        facts.set(
            "limit_bytes",
            charged.and_then(|charged| charged.limit_bytes),
        );
        facts.set("incident_id", Some(&incident.id));
        facts.set("incident_kind", Some(incident.kind.name()));
        facts.set("summary", Some(&incident.meaning.summary));
        Some(facts)
    }

    fn new(trigger: Trigger, line: Arc<[u8]>, container: String) -> Self {
        let mut facts = Self {
            trigger,
            kind: None,
            cgroup_id: None,
            paths: Vec::new(),
            container,
            values: Vec::new(),
            line,
        };
        facts.set("event", Some(trigger.name()));
        facts
    }

    fn name(&mut self, names: Option<&Names>) {
        let Some(names) = names else {
            return;
        };
        if let Some(lineage) = names.lineage() {
            self.container = lineage;
        }
        self.set("namespace", names.namespace.as_ref());
        self.set("pod", names.pod.as_ref());
        self.set("container", names.container.as_ref());
        self.set("container_id", names.container_id.as_ref());
        self.set("workload", names.workload.as_ref());
        self.set("systemd_unit", names.systemd_unit.as_ref());
    }

    fn set(&mut self, name: &'static str, value: Option<impl ToString>) {
        let Some(value) = value else {
            return;
        };
        let mut value = value.to_string();
        // Names were escaped where they were read. No process can be started with a NUL in its environment.
        if value.contains('\0') || value.len() > MOST_CHARS {
            value = escape::display(value.as_bytes(), MOST_CHARS);
        }
        self.values.push((name, value));
    }

    /// A fact by its name; `None`: it is unknown, or does not apply.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut values = self.values.iter();
        let found = values.find(|(known, _)| *known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// `MEMTRACE_…` variables.
    pub fn environment(&self) -> impl Iterator<Item = (String, &str)> {
        self.values.iter().map(|(name, value)| {
            let variable = format!("MEMTRACE_{}", name.to_ascii_uppercase());
            (variable, value.as_str())
        })
    }
}

fn line(write: impl FnOnce(&mut Json<Vec<u8>>) -> std::io::Result<()>) -> Arc<[u8]> {
    let mut json = Json::new(Vec::new());
    match write(&mut json) {
        Ok(()) => std::mem::take(json.out()).into(),
        // A record that cannot be told leaves the input empty.
        Err(_) => Arc::default(),
    }
}
