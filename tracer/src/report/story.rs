//! What a report tells, whatever its format. Owns the order and the sentence that comes first.

mod calm;

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    analysis::{Signal, State},
    api::records::LeakRecord,
    export::console::{
        duration,
        incident::{self, shown},
        verdict,
    },
    identity::names::Names,
    incident::{Incident, Kind},
    moment::Zone,
    size,
    stacks::told::{StackRecord, by_code},
};

use super::{
    advice::{self, Advice},
    events::{self, Event, Events},
    facts::Facts,
    graph::{self, Graph},
};

/// Call paths told.
const MOST_STACKS: usize = 5;
/// Processes told.
const MOST_PROCESSES: usize = 10;
/// Functions of a call path in a sentence.
const MOST_FUNCTIONS: usize = 4;
/// The agent tells no more processes of a cgroup: fewer are all.
const MOST_LIVE: usize = 10;
/// Incidents told at length, the newest.
const MOST_INCIDENTS: usize = 20;

/// A report. As JSON it is an interface: fields are added, never renamed. Its times are UTC.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// `memtrace.report/1`.
    pub format: &'static str,
    pub made: Timestamp,
    /// Version of memtrace that made it.
    pub memtrace: &'static str,
    /// Namespace, pod and container, or the cgroup's path.
    pub name: String,
    pub cgroup: Option<String>,
    pub cgroup_id: Option<u64>,
    pub names: Option<Names>,
    pub hostname: Option<String>,
    pub kernel: Option<String>,
    /// The verdict now; `None` where it is not judged or no agent was asked.
    pub state: Option<State>,
    /// The kernel killed: what is reclaimed was not given back.
    #[serde(skip)]
    pub freed_by_kill: bool,
    /// One sentence.
    pub conclusion: String,
    /// Label and value, for people.
    pub figures: Vec<(&'static str, String)>,
    /// The oldest first.
    pub events: Vec<Event>,
    /// Older ones that are not told.
    pub events_left_out: u64,
    pub graphs: Vec<Graph>,
    pub processes: Vec<Grown>,
    pub stacks: Vec<StackRecord>,
    /// What to do next, the most useful first.
    pub advice: Vec<Advice>,
    /// As a `leak` line has it.
    pub leak: Option<LeakRecord>,
    /// The oldest first.
    pub incidents: Vec<Incident>,
    /// Older ones that are not told.
    pub incidents_left_out: u64,
    /// What could not be had, a sentence each.
    pub missing: Vec<String>,
    #[serde(skip)]
    pub flamegraph: Option<String>,
}

/// A process and what it grew.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Grown {
    pub pid: u32,
    pub comm: Option<String>,
    pub grown_bytes: Option<i64>,
    /// Over that time.
    pub over_seconds: Option<f64>,
    /// Of the growth of all.
    pub share: Option<f64>,
    pub rss_anon_bytes: Option<u64>,
}

/// The report; times in words are in `zone`.
pub fn report(facts: Facts, zone: &Zone) -> Report {
    let Events {
        told: events,
        left_out: events_left_out,
    } = events::events(&facts, zone);
    let graphs = graph::graphs(&facts, &events, zone);
    let row = facts.details.as_ref().map(|details| &details.row);
    let charged = facts.incident().and_then(|known| known.charged.as_ref());
    let told = facts.incidents.iter().filter(|one| facts.tells(one));
    let mut incidents: Vec<Incident> = told.cloned().collect();
    let over = incidents.len().saturating_sub(MOST_INCIDENTS);
    let mut incidents_left_out = 0;
    incidents.retain(|one| {
        let is_over = incidents_left_out < over && !facts.is_asked(&one.id);
        incidents_left_out += usize::from(is_over);
        !is_over
    });
    let names = facts.names().cloned();
    let short = names.as_ref().and_then(Names::short);
    let name = short
        .or_else(|| facts.cgroup().map(str::to_owned))
        .or_else(|| missed(&facts));
    Report {
        format: "memtrace.report/1",
        made: facts.made,
        memtrace: env!("CARGO_PKG_VERSION"),
        name: name.map_or("(cgroup unknown)".into(), |name| shown(&name)),
        cgroup: facts.cgroup().map(str::to_owned),
        cgroup_id: row
            .map(|row| row.cgroup_id)
            .or(charged.map(|charged| charged.cgroup_id)),
        hostname: facts
            .agent
            .as_ref()
            .and_then(|agent| agent.hostname.clone()),
        kernel: facts.agent.as_ref().map(|agent| agent.kernel.clone()),
        state: facts.leak().map(|leak| leak.state),
        freed_by_kill: facts.freed_by_kill(),
        conclusion: conclusion(&facts, zone),
        figures: figures(&facts, names.as_ref(), zone),
        events,
        events_left_out,
        graphs,
        processes: processes(&facts),
        stacks: stacks(&facts),
        advice: advice::advice(&facts),
        leak: facts.leak().cloned(),
        incidents,
        incidents_left_out: incidents_left_out as u64,
        missing: facts.missing,
        flamegraph: facts.flamegraph,
        names,
    }
}

/// What a report of no cgroup in particular is of.
fn missed(facts: &Facts) -> Option<String> {
    let incident = facts.incident()?;
    let is_missed = incident.kind == Kind::MissedKills;
    is_missed.then(|| match incident.kernel_counts.missed {
        Some(1) => "1 OOM kill that memtrace missed".to_owned(),
        Some(count) => format!("{count} OOM kills that memtrace missed"),
        None => "OOM kills that memtrace missed".to_owned(),
    })
}

/// The incident that is asked for; else the leak that goes on; else the last incident; else that all is well.
fn conclusion(facts: &Facts, zone: &Zone) -> String {
    let leak = facts.leak().filter(|leak| leak.state.is_leak());
    let last = facts.incident().filter(|one| facts.tells(one));
    match (leak, last) {
        (_, Some(incident)) if facts.asked.is_some() => ended(facts, incident, zone),
        (Some(leak), _) => leaking(leak, &stacks(facts), zone),
        (None, Some(incident)) => ended(facts, incident, zone),
        (None, None) => calm::calm(facts, zone),
    }
}

fn ended(facts: &Facts, incident: &Incident, zone: &Zone) -> String {
    let summary = shown(incident.meaning.summary.trim_end_matches('.'));
    let mut text = match (summary.is_empty(), incident::place(incident)) {
        (false, _) => summary,
        (true, place) => format!(
            "{} in {}",
            incident.kind.name(),
            place.unwrap_or_else(|| "an unknown cgroup".into())
        ),
    };
    let usage = &incident.evidence.usage;
    if let (Some(first), Some(last)) = (usage.first(), usage.last())
        && last.usage_bytes > first.usage_bytes
    {
        text += &format!(
            ", after its memory grew from {} to {} in {}",
            size::bytes(first.usage_bytes),
            size::bytes(last.usage_bytes),
            incident::milliseconds(first.before_ms.saturating_sub(last.before_ms))
        );
        if let Some(grower) = incident.evidence.growers.first()
            && let Some(share) = grower.share
        {
            let comm = grower.comm.as_deref().map_or("?".into(), shown);
            text += &format!(
                ", {:.0} % of it by {comm} (pid {})",
                share * 100.0,
                grower.pid
            );
        }
    }
    if let Some(stack) = stacks(facts).first().filter(|stack| stack.surely_grew()) {
        text += &format!(", in {}", call_path(stack));
    }
    if let Some(since) = facts.leaked_since(incident) {
        text += &format!("; it leaked since {}", zone.seconds(since));
    }
    sentence(text)
}

/// With its end, where it has none.
fn sentence(text: String) -> String {
    if text.ends_with('…') {
        text
    } else {
        text + "."
    }
}

fn leaking(leak: &LeakRecord, stacks: &[StackRecord], zone: &Zone) -> String {
    let certainty = match leak.state {
        State::Confirmed => "A leak",
        _ => "A suspected leak",
    };
    let signal = leak.signal.map_or("memory", verdict::signal);
    let mut text = format!("{certainty}: {signal} grows");
    if let Some(rate) = leak.rate_bytes_per_hour {
        text += &format!(" by {}", verdict::rate(rate));
    }
    if let Some(since) = verdict::since(leak, zone) {
        text += &format!(" since {since}");
    }
    if let Some(process) = leak.processes.first() {
        let comm = process.comm.as_deref().map_or("?".into(), shown);
        let share = process.share * 100.0;
        text += &format!(", {share:.0} % of it by {comm} (pid {})", process.pid);
    }
    let sampled = !matches!(
        leak.signal,
        Some(Signal::Shmem | Signal::Kernel | Signal::File)
    );
    if let Some(stack) = stacks
        .first()
        .filter(|stack| sampled && stack.surely_grew())
    {
        text += &format!(", in {}", call_path(stack));
    }
    if let (Some(time), Some(limit)) = (leak.time_to_limit_s, verdict::limit(leak)) {
        text += &format!("; it reaches {limit} in {}", verdict::time_left(time));
    }
    sentence(text)
}

fn figures(facts: &Facts, names: Option<&Names>, zone: &Zone) -> Vec<(&'static str, String)> {
    let mut figures = Vec::new();
    let mut add = |label, value: Option<String>| {
        if let Some(value) = value {
            figures.push((label, shown(&value)));
        }
    };
    if let Some(names) = names {
        add("namespace", names.namespace.clone());
        add("pod", names.pod.clone());
        add("container", names.container.clone());
        add("image", names.image.clone());
        let workload = names.workload_kind.as_ref().zip(names.workload.as_ref());
        add(
            "workload",
            workload.map(|(kind, name)| format!("{kind} {name}")),
        );
        add("QoS class", names.pod_qos_class.clone());
        add("systemd unit", names.systemd_unit.clone());
    }
    let agent = facts.agent.as_ref();
    let node = names.and_then(|names| names.node.clone());
    add(
        "node",
        node.or_else(|| agent.and_then(|agent| agent.hostname.clone())),
    );
    add("kernel", agent.map(|agent| agent.kernel.clone()));
    add("cgroup", facts.cgroup().map(str::to_owned));
    if let Some(leak) = facts.leak() {
        let since = leak.state_since;
        let since = since.map(|since| format!(" since {}", zone.seconds(since)));
        let by = if facts.freed_by_kill() {
            " by a kill"
        } else {
            ""
        };
        let verdict = format!("{}{by}{}", leak.state.name(), since.unwrap_or_default());
        add("verdict", Some(verdict));
    }
    if let Some(details) = &facts.details {
        let row = &details.row;
        let when = if row.removed {
            "memory, at its end"
        } else {
            "memory now"
        };
        let parts = [
            ("usage", row.usage_bytes),
            ("anonymous", row.anon_bytes),
            ("file", details.file_bytes),
            ("shared", details.shmem_bytes),
            ("kernel", details.kernel_bytes),
            ("swap", details.swap_bytes),
            ("peak", details.peak_bytes),
        ];
        let known: Vec<String> = parts
            .into_iter()
            .filter_map(|(name, bytes)| Some(format!("{name} {}", size::bytes(bytes?))))
            .collect();
        add(when, (!known.is_empty()).then(|| known.join(", ")));
        let whose = match &row.effective_limit_cgroup {
            Some(owner) if *owner == row.cgroup => "its own".to_owned(),
            Some(owner) => format!("of {owner}"),
            None => "the machine's memory".to_owned(),
        };
        let limit = row.effective_limit_bytes;
        add(
            "limit",
            limit.map(|limit| format!("{} ({whose})", size::bytes(limit))),
        );
    } else if let Some(charged) = facts.incident().and_then(|one| one.charged.as_ref()) {
        let at = |bytes: Option<u64>| bytes.map_or("unknown".into(), size::bytes);
        let memory = format!("{} of {}", at(charged.usage_bytes), at(charged.limit_bytes));
        add("memory, at the incident", Some(memory));
    }
    if let Some(leak) = facts.leak() {
        add("growth", leak.rate_bytes_per_hour.map(verdict::rate));
        add("grows since", verdict::since(leak, zone));
        add("to the limit", leak.time_to_limit_s.map(verdict::time_left));
        add("evidence", leak.evidence.as_ref().map(verdict::evidence));
        for (label, weighed) in verdict::weighed_by_outcome(&leak.considered) {
            add(label, (!weighed.is_empty()).then(|| weighed.join("; ")));
        }
    }
    figures
}

/// Of the incident that is asked for, else by the verdict, else as the agent sees them now.
fn processes(facts: &Facts) -> Vec<Grown> {
    let grower = facts.incident().map(|incident| &incident.evidence.growers);
    let leak = facts.leak().map(|leak| &leak.processes);
    let of_incident = grower.filter(|growers| !growers.is_empty()).map(|growers| {
        growers.iter().map(|grower| Grown {
            pid: grower.pid,
            comm: grower.comm.clone(),
            grown_bytes: Some(grower.grown_bytes),
            over_seconds: Some(grower.over_ms as f64 / 1000.0),
            share: grower.share,
            rss_anon_bytes: None,
        })
    });
    let of_leak = leak.filter(|shares| !shares.is_empty()).map(|shares| {
        shares.iter().map(|share| Grown {
            pid: share.pid,
            comm: share.comm.clone(),
            grown_bytes: i64::try_from(share.growth_bytes).ok(),
            over_seconds: Some(share.over_s),
            share: Some(share.share),
            rss_anon_bytes: Some(share.rss_anon_bytes),
        })
    });
    let live = facts.details.iter().flat_map(|details| &details.processes);
    let live = live.map(|process| Grown {
        pid: process.pid,
        comm: process.comm.clone(),
        grown_bytes: None,
        over_seconds: None,
        share: None,
        rss_anon_bytes: process.rss_anon_bytes,
    });
    match (facts.asked.is_some(), of_incident, of_leak) {
        (true, Some(of), _) | (false, Some(of), None) => of.take(MOST_PROCESSES).collect(),
        (_, _, Some(of)) => of.take(MOST_PROCESSES).collect(),
        _ => live.take(MOST_PROCESSES).collect(),
    }
}

/// Call paths of the same.
pub fn stacks(facts: &Facts) -> Vec<StackRecord> {
    let incident = facts.incident().map(|one| one.evidence.stacks.as_slice());
    let leak = facts.leak().map(|leak| leak.stacks.as_slice());
    let details = facts.details.as_ref();
    let live = details.and_then(|known| known.stacks.as_deref());
    let order = match facts.asked {
        Some(_) => [incident, leak, live],
        None => [leak, live, incident],
    };
    let found = order
        .into_iter()
        .flatten()
        .find(|stacks| !stacks.is_empty());
    // Of another life of the container than the one that is told.
    let is_told = |pid: u32| match (facts.asked.as_ref().and(facts.incident()), details) {
        (Some(incident), _) => {
            let mut victims = incident.victims.iter();
            let mut growers = incident.evidence.growers.iter();
            victims.any(|victim| victim.pid == Some(pid)) || growers.any(|one| one.pid == pid)
        }
        (None, Some(known)) if (1..MOST_LIVE).contains(&known.processes.len()) => {
            known.processes.iter().any(|process| process.pid == pid)
        }
        (None, _) => true,
    };
    let found = found.unwrap_or_default().iter();
    let mut stacks = by_code(found.filter(|stack| is_told(stack.process.pid)).cloned());
    stacks.truncate(MOST_STACKS);
    stacks
}

/// `leak < serve < main`, the first functions.
pub fn call_path(stack: &StackRecord) -> String {
    let line = shown(&stack.line());
    let mut functions: Vec<&str> = line.split(" < ").collect();
    if functions.len() > MOST_FUNCTIONS {
        functions.truncate(MOST_FUNCTIONS);
        functions.push("…");
    }
    functions.join(" < ")
}

/// `+60.1M in 5h00m`.
pub fn grown(process: &Grown) -> String {
    let Some(bytes) = process.grown_bytes else {
        return "?".into();
    };
    let sign = if bytes < 0 { '-' } else { '+' };
    let over = process.over_seconds.map_or(String::new(), |over| {
        if over < 60.0 {
            format!(" in {over:.1} s")
        } else {
            format!(" in {}", duration::rough(over))
        }
    });
    format!("{sign}{}{over}", size::bytes(bytes.unsigned_abs()))
}
