//! What outputs get when a verdict changes: the `leak` line and the log event. Types and their making.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    analysis::{Considered, Estimate, Evidence, NearLimit, Signal, State, Verdict},
    identity::names::Names,
    model::{cgroup::Cgroup, snapshot::LeakSnapshot},
    stacks::told::StackRecord,
};

use super::Moment;

/// A change that operators are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrowthEvent {
    Suspected,
    Confirmed,
    /// No longer a leak.
    Cleared,
    LimitNear,
}

/// A process and what it grew.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GrowthShare {
    pub pid: u32,
    /// Escaped for display.
    pub comm: Option<String>,
    /// Of anonymous memory, since the growth of the cgroup began, or since the process was first seen.
    pub growth_bytes: u64,
    /// Part of what all processes of the cgroup grew that were seen.
    pub share: f64,
    pub rss_anon_bytes: u64,
    /// Time over which it grew, seconds.
    pub over_s: f64,
}

/// One change of the verdict on a cgroup, or of its nearness to its limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GrowthChange {
    pub time: Timestamp,
    pub cgroup: String,
    pub cgroup_id: u64,
    /// Whose cgroup that is; `None` if nothing is known.
    pub names: Option<Box<Names>>,
    /// What it is to an operator; `None`: a change on the way.
    pub event: Option<GrowthEvent>,
    /// The state before; `None` where only nearness to the limit changed.
    pub from: Option<State>,
    /// `None` where it did not change.
    pub near_limit_changed_to: Option<bool>,
    pub state: State,
    /// `None` while the state is unknown.
    pub state_since: Option<Timestamp>,
    pub signal: Option<Signal>,
    pub rate_bytes_per_hour: Option<Estimate>,
    /// Since when it grows, give or take `since_uncertainty_s`.
    pub since: Option<Timestamp>,
    pub since_uncertainty_s: Option<f64>,
    pub time_to_limit_s: Option<Estimate>,
    pub limit_bytes: Option<u64>,
    /// Whose limit that is; `None` with a limit: the machine's memory.
    pub limit_cgroup: Option<String>,
    pub usage_bytes: Option<u64>,
    pub near_limit: Option<NearLimit>,
    pub evidence: Option<Evidence>,
    pub considered: Vec<Considered>,
    /// Those that grew most.
    pub processes: Vec<GrowthShare>,
    /// The code that holds what grew, the first suspect first; empty if nothing was sampled.
    pub stacks: Vec<StackRecord>,
}

/// What changed.
#[derive(Debug, Clone, Copy)]
pub struct What {
    pub event: Option<GrowthEvent>,
    pub from: Option<State>,
    pub near_limit: Option<bool>,
}

/// The record of a change.
pub fn change(
    cgroup: &Cgroup,
    leak: &LeakSnapshot,
    verdict: &Verdict,
    processes: Vec<GrowthShare>,
    what: What,
    now: Moment,
) -> GrowthChange {
    let unix = |ms: i64| Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH);
    let sampled = |ms: i64| unix(ms.saturating_add(now.to_unix_ms));
    let limit = cgroup.effective_limit.as_ref();
    GrowthChange {
        time: sampled(now.sample_ms),
        cgroup: cgroup.display.to_string(),
        cgroup_id: cgroup.id,
        names: (!cgroup.names.is_empty()).then(|| Box::new(Names::clone(&cgroup.names))),
        event: what.event,
        from: what.from,
        near_limit_changed_to: what.near_limit,
        state: leak.state,
        state_since: (leak.state != State::Unknown).then(|| sampled(verdict.state_since_ms)),
        signal: leak.signal,
        rate_bytes_per_hour: leak.rate_bytes_per_hour,
        since: leak.since.map(|since| unix(since.time_ms)),
        since_uncertainty_s: leak.since.map(|since| since.uncertainty_ms as f64 / 1000.0),
        time_to_limit_s: leak.time_to_limit.map(|time| time.seconds),
        limit_bytes: limit.map(|limit| limit.bytes),
        limit_cgroup: limit.and_then(|limit| limit.cgroup.clone()),
        usage_bytes: cgroup.memory.usage_bytes,
        near_limit: leak.near_limit,
        evidence: verdict.evidence,
        considered: verdict.considered.clone(),
        processes,
        stacks: Vec::new(),
    }
}
