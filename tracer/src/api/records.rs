//! What the API tells, as both sides read it.
//!
//! An interface: within `/v1` fields are added, never renamed or given another meaning; unknown is
//! `null`, never 0. Paths and names are escaped for display. Each field is in docs/api.md.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    analysis::{Estimate, Signal, State},
    growth::GrowthChange,
    identity::names::Names,
    incident::Incident,
    stacks::told::StackRecord,
};

/// Name of the socket under `/run/memtrace`.
pub const DEFAULT_SOCKET: &str = "/run/memtrace/agent.sock";

/// `/v1/agent`: the agent and its host, as of the last interval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentRecord {
    pub version: String,
    /// `uname -r`.
    pub kernel: String,
    pub cgroup_mode: String,
    pub hostname: Option<String>,
    pub time: Timestamp,
    pub started: Timestamp,
    pub interval_seconds: f64,
    pub pid: u32,
    pub rss_bytes: Option<u64>,
    pub cpu_ns: Option<u64>,
    pub cgroups: u64,
    /// Whether growth is judged, and whether pages are sampled.
    pub leaks: bool,
    pub stacks: bool,
    pub state_dir: Option<String>,
    pub mem_total_bytes: Option<u64>,
    pub mem_available_bytes: Option<u64>,
    pub swap_total_bytes: Option<u64>,
    pub swap_free_bytes: Option<u64>,
    /// Of the host, since boot.
    pub oom_kills: Option<u64>,
    /// Probe to the hook that serves it; `null` where none does.
    pub probes: BTreeMap<String, Option<String>>,
    /// Cause to count; what is 0 is told too.
    pub losses: BTreeMap<String, u64>,
}

/// A list that may have been cut.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Listed<T> {
    /// Of the interval that it tells.
    pub time: Timestamp,
    pub items: Vec<T>,
    /// More that match and are not told: `limit` was reached.
    pub left_out: u64,
}

/// An item of `/v1/cgroups`: one memory cgroup as of the last interval, in short.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CgroupRow {
    pub cgroup_id: u64,
    /// Path from the root of the memory hierarchy.
    pub cgroup: String,
    /// Directly or through others it holds other cgroups, whose memory is in its numbers too.
    pub has_children: bool,
    pub namespace: Option<String>,
    pub pod: Option<String>,
    pub container: Option<String>,
    pub workload_kind: Option<String>,
    pub workload: Option<String>,
    pub systemd_unit: Option<String>,
    /// The cgroup is gone: these are its last numbers.
    pub removed: bool,
    pub usage_bytes: Option<u64>,
    pub anon_bytes: Option<u64>,
    pub working_set_bytes: Option<u64>,
    /// Its own limit; `null` where it has none.
    pub limit_bytes: Option<u64>,
    /// The smallest over itself, those above and the machine, and whose that is (`null`: the machine's).
    pub effective_limit_bytes: Option<u64>,
    pub effective_limit_cgroup: Option<String>,
    /// Change of `usage_bytes` over the last interval.
    pub growth_bytes_per_second: Option<f64>,
    pub faults_per_second: Option<f64>,
    pub major_faults_per_second: Option<f64>,
    /// Time that its tasks stalled in reclaim in each second of the last interval, 0 and up (all tasks
    /// together); `null` without the probe and at first sight.
    pub reclaim_stall_ratio: Option<f64>,
    /// Share of the time since it was read before in which some, or all, tasks waited for memory; v2 only, `null`
    /// in intervals in between.
    pub pressure_some_ratio: Option<f64>,
    pub pressure_full_ratio: Option<f64>,
    /// Kills by the kernel's OOM killer that were seen here.
    pub oom_kills: Option<u64>,
    /// `null` while it is not judged.
    pub leak: Option<LeakRow>,
    /// Largest `usage_bytes` of each of the last intervals, the oldest first, at most 60; asked for with
    /// `recent=N`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recent_usage_bytes: Vec<Option<u64>>,
}

/// The verdict in short.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LeakRow {
    pub state: State,
    pub signal: Option<Signal>,
    pub rate_bytes_per_hour: Option<Estimate>,
    pub since: Option<Timestamp>,
    pub time_to_limit_s: Option<Estimate>,
    pub near_limit: Option<bool>,
}

/// `/v1/cgroups/ID`: all that is known of one cgroup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CgroupDetails {
    /// Of the interval that it tells.
    pub time: Timestamp,
    pub row: CgroupRow,
    pub names: Option<Names>,
    /// When memtrace began to count here.
    pub since: Timestamp,
    pub file_bytes: Option<u64>,
    pub shmem_bytes: Option<u64>,
    pub kernel_bytes: Option<u64>,
    pub swap_bytes: Option<u64>,
    pub peak_bytes: Option<u64>,
    pub high_bytes: Option<u64>,
    /// Fastest growing first, at most 10.
    pub processes: Vec<ProcessRow>,
    /// The verdict with evidence, as a `leak` line has it; its `event` is `null`.
    pub leak: Option<Box<GrowthChange>>,
    /// Which code holds its anonymous memory, the first suspect first, at most 5; `null` where pages are
    /// not sampled.
    pub stacks: Option<Vec<StackRecord>>,
    /// Its history; `null` where none is kept.
    pub timeline: Option<Timeline>,
}

/// A process of a cgroup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessRow {
    pub pid: u32,
    pub comm: Option<String>,
    pub rss_bytes: Option<u64>,
    pub rss_anon_bytes: Option<u64>,
    pub growth_bytes_per_second: Option<f64>,
}

/// An item of `/v1/leaks`: a verdict with its evidence, as a `leak` line has it, with `event` `null`.
pub type LeakRecord = GrowthChange;

/// An item of `/v1/incidents`, and `/v1/incidents/ID`: as `memtrace incidents --json` prints it.
pub type IncidentRecord = Incident;

/// The history of one cgroup at several resolutions, and what happened in it.
///
/// A container that is restarted under the same path, or the same pod and container name, goes on with
/// the timeline of the former.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    /// Of the cgroup that bears it now, or last did.
    pub cgroup_id: u64,
    pub cgroup: String,
    pub names: Option<Names>,
    /// When memtrace first saw it.
    pub first_seen: Timestamp,
    /// `null` while it lives.
    pub gone: Option<Timestamp>,
    /// The finest first.
    pub series: Vec<Series>,
    /// The oldest first.
    pub marks: Vec<Mark>,
    /// Marks that were forgotten for newer ones.
    pub marks_left_out: u64,
}

/// Readings at one resolution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    pub step_seconds: f64,
    /// The oldest first; at most one a step, none where nothing was read.
    pub points: Vec<Point>,
}

/// What was read in one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// End of the step.
    pub time: Timestamp,
    /// The largest in the step, to 4 KiB.
    pub usage_bytes: u64,
    /// The last in the step, to 4 KiB.
    pub anon_bytes: Option<u64>,
    /// Own or above, as of that step; `null`: unknown.
    pub effective_limit_bytes: Option<u64>,
}

/// Something that happened to a cgroup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    pub time: Timestamp,
    pub kind: MarkKind,
    /// One sentence for a person, with its numbers.
    pub text: String,
    /// Where there is more to read: the id of an incident.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<String>,
}

/// What a mark is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MarkKind {
    /// The cgroup was made, or first seen.
    Started,
    /// The cgroup was removed.
    Gone,
    /// The same container, or the same path, again.
    Restarted,
    /// The onset that the growth analysis dates: lies before the verdict that told it.
    GrowthBegan,
    /// The verdict changed, or nearness to the limit.
    Verdict,
    LimitChanged,
    /// Pinned at its limit in reclaim.
    Stall,
    /// Any other incident.
    Oom,
    /// What Kubernetes said of a kill.
    Report,
    /// The outcome of a command of `[[on_event]]`.
    Action,
    /// The agent began or ended: nothing is known between.
    AgentStarted,
    AgentStopped,
}
