//! What happened to a container, in order of time. Joins the agent's timeline with the incidents stored.

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    analysis::State,
    api::records::{Mark, MarkKind},
    export::console::{
        incident::{self, shown},
        verdict,
    },
    incident::{Incident, Kind, meaning, record::Victim},
    moment::Zone,
    size,
};

use super::facts::{Facts, RECLAIMED_AFTER_KILL};

/// Told, the newest.
const MOST_EVENTS: usize = 200;
/// Victims whose end is told of one incident.
const MOST_VICTIMS: usize = 5;
/// How the marks of verdicts begin: a mark has no more than its text.
const LEAK: &str = "leak ";
const NO_LEAK: &str = "no leak any more in ";

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    pub time: Timestamp,
    pub kind: MarkKind,
    pub text: String,
    /// What it rests on, a line each.
    pub evidence: Vec<String>,
    /// Id of the incident that it is.
    pub incident: Option<String>,
}

/// The newest, the oldest of them first.
#[derive(Debug)]
pub struct Events {
    pub told: Vec<Event>,
    pub left_out: u64,
}

/// In words for a table.
pub fn name(kind: MarkKind) -> &'static str {
    match kind {
        MarkKind::Started => "started",
        MarkKind::Gone => "gone",
        MarkKind::Restarted => "restarted",
        MarkKind::GrowthBegan => "growth began",
        MarkKind::Verdict => "verdict",
        MarkKind::LimitChanged => "limit changed",
        MarkKind::Stall => "stall",
        MarkKind::Oom => "OOM",
        MarkKind::Report => "Kubernetes",
        MarkKind::Action => "action",
        MarkKind::AgentStarted => "agent started",
        MarkKind::AgentStopped => "agent stopped",
    }
}

/// All that is told.
pub fn events(facts: &Facts, zone: &Zone) -> Events {
    let marks = facts.timeline().map_or(&[][..], |known| &known.marks);
    let is_stored = |mark: &&Mark| {
        let id = mark.incident.as_ref();
        id.is_some_and(|id| facts.incidents.iter().any(|known| known.id == *id))
    };
    let mut all: Vec<Event> = marks
        .iter()
        // What is stored tells more.
        .filter(|mark| !(is_stored(mark) && matches!(mark.kind, MarkKind::Oom | MarkKind::Stall)))
        .filter(|mark| !(is_stored(mark) && mark.kind == MarkKind::Report))
        .map(|mark| Event {
            time: mark.time,
            kind: mark.kind,
            text: shown(&ended_by_kill(facts, marks, mark).unwrap_or_else(|| mark.text.clone())),
            evidence: Vec::new(),
            incident: mark.incident.clone(),
        })
        .collect();
    for incident in &facts.incidents {
        all.push(happened(incident));
        all.extend(said(incident));
        if facts.timeline().is_none() {
            all.extend(starts(incident));
        }
    }
    all.extend(growth(facts, marks, zone));
    all.retain(|event| {
        let id = event.incident.as_deref();
        id.is_some_and(|id| facts.is_asked(id)) || facts.is_told(event.time)
    });
    all.sort_by_key(|event| event.time);
    all.dedup();
    let forgotten = facts.timeline().map_or(0, |known| known.marks_left_out);
    let over = all.len().saturating_sub(MOST_EVENTS);
    all.drain(..over);
    Events {
        told: all,
        left_out: forgotten.saturating_add(over as u64),
    }
}

/// In place of the mark of a leak that is reclaimed, where a kill freed what grew: nothing was given back.
fn ended_by_kill(facts: &Facts, marks: &[Mark], mark: &Mark) -> Option<String> {
    if mark.kind != MarkKind::Verdict || !mark.text.starts_with(NO_LEAK) {
        return None;
    }
    let begin = mark.text.strip_suffix(State::Reclaimed.name())?;
    let leak = marks
        .iter()
        .filter(|one| one.kind == MarkKind::Verdict && one.text.starts_with(LEAK))
        .filter(|one| one.time <= mark.time)
        .max_by_key(|one| one.time);
    let kills = facts.incidents.iter().filter(|one| {
        one.kind.is_kernel_kill()
            && one.time <= mark.time
            && leak.is_none_or(|leak| one.time >= leak.time)
            && mark.time.duration_since(one.time) <= RECLAIMED_AFTER_KILL
    });
    let kills: Vec<&Incident> = kills.collect();
    if kills.is_empty() {
        return None;
    }
    let mut pids = kills
        .iter()
        .flat_map(|kill| &kill.victims)
        .filter_map(|victim| victim.pid);
    let is_leaker =
        leak.is_some_and(|leak| pids.any(|pid| leak.text.contains(&format!("(pid {pid})"))));
    let how = match is_leaker {
        true => "the leaking process was killed",
        false => "what grew was freed by a kill",
    };
    Some(format!("{begin}{how}"))
}

fn happened(incident: &Incident) -> Event {
    let kind = match incident.kind {
        Kind::Stall => MarkKind::Stall,
        _ => MarkKind::Oom,
    };
    let summary = shown(&incident.meaning.summary);
    let text = if summary.is_empty() {
        let place = incident::place(incident);
        let place = place.unwrap_or_else(|| "an unknown cgroup".into());
        format!("{} in {place}", incident.kind.name())
    } else {
        summary
    };
    let mut evidence = Vec::new();
    if let Some(charged) = &incident.charged
        && let (Some(usage), Some(limit)) = (charged.usage_bytes, charged.limit_bytes)
    {
        let path = charged.cgroup.as_deref().map_or("?".into(), shown);
        let (usage, limit) = (size::bytes(usage), size::bytes(limit));
        evidence.push(format!("{usage} of {limit} used in {path}"));
    }
    evidence.extend(incident.victims.iter().take(MOST_VICTIMS).map(victim));
    let more = (incident.victims.len().saturating_sub(MOST_VICTIMS) as u64)
        .saturating_add(incident.victims_left_out);
    if more > 0 {
        evidence.push(format!("{more} more processes"));
    }
    if let Some(pressure) = &incident.evidence.pressure
        && let Some(full) = pressure.full_ns
    {
        evidence.push(format!(
            "all tasks waited for memory for {} of the last {}",
            incident::nanoseconds(full),
            incident::milliseconds(pressure.over_ms)
        ));
    } else if let Some(reclaim) = &incident.evidence.reclaim {
        evidence.push(format!(
            "reclaim stalled tasks {} times, {} in all, in the last {}",
            reclaim.count,
            incident::nanoseconds(reclaim.stall_ns),
            incident::milliseconds(reclaim.over_ms)
        ));
    }
    Event {
        time: incident.time,
        kind,
        text,
        evidence,
        incident: Some(incident.id.clone()),
    }
}

fn victim(victim: &Victim) -> String {
    let mut text = incident::process(victim);
    if let Some(anon) = victim.anon_bytes {
        text += &format!(", {} anonymous", size::bytes(anon));
    }
    text += match (victim.killed, victim.died_after_ns) {
        (Some(false), _) => ", only marked",
        (_, Some(_)) => ", dead after ",
        (Some(true), None) => ", killed",
        (None, None) => "",
    };
    if let (Some(ns), true) = (victim.died_after_ns, victim.killed != Some(false)) {
        text += &incident::nanoseconds(ns);
    }
    text
}

/// What Kubernetes said.
fn said(incident: &Incident) -> Option<Event> {
    let report = incident.kubernetes.as_ref()?;
    Some(Event {
        time: report.finished.unwrap_or(incident.time).max(incident.time),
        kind: MarkKind::Report,
        text: shown(&meaning::reported(report)),
        evidence: Vec::new(),
        incident: Some(incident.id.clone()),
    })
}

/// Where no timeline tells it: when the init of the container, else the process that was killed, began.
fn starts(incident: &Incident) -> Option<Event> {
    let init = incident
        .victims
        .iter()
        .find(|one| one.container_init == Some(true));
    let first = init.or(incident.victims.first())?;
    let what = match init {
        Some(_) => "the container's init",
        None => "the process that was killed",
    };
    Some(Event {
        time: first.started.filter(|started| *started <= incident.time)?,
        kind: MarkKind::Started,
        text: format!("{what} began: {}", incident::process(first)),
        evidence: first
            .command_line
            .as_deref()
            .map(shown)
            .into_iter()
            .collect(),
        incident: None,
    })
}

/// What the verdict says and no mark does.
fn growth(facts: &Facts, marks: &[Mark], zone: &Zone) -> Vec<Event> {
    let Some(leak) = facts.leak().filter(|leak| leak.state.is_leak()) else {
        return Vec::new();
    };
    let has = |kind, from: Option<Timestamp>| {
        let mut of_kind = marks.iter().filter(|mark| mark.kind == kind);
        of_kind.any(|mark| from.is_none_or(|from| mark.time >= from))
    };
    let mut events = Vec::new();
    let mut add = |time, kind, text, evidence| {
        events.push(Event {
            time,
            kind,
            text,
            evidence,
            incident: None,
        });
    };
    let signal = leak.signal.map_or("memory", verdict::signal);
    if let Some(since) = leak.since.filter(|_| !has(MarkKind::GrowthBegan, None)) {
        let rate = leak.rate_bytes_per_hour.map(verdict::rate);
        let evidence = verdict::since(leak, zone).into_iter().chain(rate).collect();
        let text = format!("{signal} began to grow");
        add(since, MarkKind::GrowthBegan, text, evidence);
    }
    if let Some(since) = leak
        .state_since
        .filter(|_| !has(MarkKind::Verdict, leak.since))
    {
        let evidence = leak.evidence.as_ref().map(verdict::evidence);
        let text = format!("leak {}: {signal}", leak.state.name());
        add(
            since,
            MarkKind::Verdict,
            text,
            evidence.into_iter().collect(),
        );
    }
    events
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
