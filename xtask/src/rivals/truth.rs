//! What the load did, by the kernel's word to the parent of each process. Must not know who watches.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One process that the kernel killed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Kill {
    pub pid: u32,
    /// The victim's, from the root of the hierarchy.
    pub cgroup: String,
    /// Whose limit it was.
    pub limit_cgroup: String,
    /// The process that ran out.
    pub trigger_pid: u32,
    /// What it had written when it was killed: at most so much.
    pub anon_bytes: u64,
    pub manner: Manner,
}

/// How a kill came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Manner {
    /// One container over its limit; its cgroup goes with it.
    Container,
    /// The same, of a service whose cgroup stays.
    Service,
    /// Many services within a second.
    Storm,
    /// Another container of the pod ran out.
    Elsewhere,
    /// `memory.oom.group`: all of a cgroup.
    Group,
}

/// One process that lived for milliseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Short {
    pub pid: u32,
    pub cgroup: String,
    /// Minor and major, from `wait4(2)`.
    pub faults: u64,
    pub lived: Duration,
}

/// All of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Truth {
    pub kills: Vec<Kill>,
    pub shorts: Vec<Short>,
    /// Number of each cgroup's directory to its path.
    pub cgroups: BTreeMap<u64, String>,
    /// What `oom_kill` of /proc/vmstat rose by: on the whole machine.
    pub kernel_kills: u64,
    /// When the load began, seconds since 1970.
    pub begun_unix_s: f64,
    pub length: Duration,
    /// How much the leak kept, and where.
    pub leak: Growth,
    /// Cgroups that fill and do not leak.
    pub innocent: Vec<String>,
}

/// A cgroup that grows.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Growth {
    pub cgroup: String,
    pub bytes_per_second: u64,
    pub limit_bytes: u64,
}

impl Truth {
    pub fn kills_in(&self, manner: Manner) -> usize {
        let same = |kill: &&Kill| kill.manner == manner;
        self.kills.iter().filter(same).count()
    }

    pub fn path(&self, id: u64) -> Option<String> {
        self.cgroups.get(&id).cloned()
    }
}
