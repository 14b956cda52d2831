//! What a tool told of the load. Must not compare it with anything.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// By the tool's own output; what it does not tell by design is `None`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Seen {
    pub kills: Kills,
    pub processes: Processes,
    pub leak: Option<Leak>,
    /// What it said besides, for a reader of the table.
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub enum Kills {
    #[default]
    NotTold,
    /// A number for the whole machine, and the kernel's own of the same time.
    OfMachine {
        told: u64,
        kernel: u64,
    },
    /// A number for each cgroup.
    OfCgroups(BTreeMap<String, u64>),
    Each(Vec<Kill>),
}

/// Of a kill what the tool tells.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Kill {
    pub pid: u32,
    pub cgroup: Option<String>,
    pub limit_cgroup: Option<String>,
    pub trigger_pid: Option<u32>,
    pub anon_bytes: Option<u64>,
}

/// Processes that ended.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub enum Processes {
    #[default]
    NotTold,
    /// One by one.
    Each(BTreeMap<u32, Process>),
    /// How many ended in each cgroup.
    OfCgroups(BTreeMap<String, Ended>),
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Process {
    pub faults: Option<u64>,
    pub cgroup: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Ended {
    pub processes: u64,
    pub faults: u64,
}

/// Of a tool that judges growth.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Leak {
    /// How long after the load began it said so.
    pub told_after: Option<Duration>,
    /// Cgroups that do not leak, of which it said the same.
    pub false_alarms: Vec<String>,
}
