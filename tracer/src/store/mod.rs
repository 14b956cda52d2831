//! Incidents on disk: bounded, intact after a crash, readable while no agent runs.
//!
//! Owns `<state directory>/incidents/`: segments `00000001.jsonl`, … of JSON lines, one [`Incident`]
//! a line, only ever appended to. An agent locks the segment that it appends to (`flock`), so that
//! none prunes or repairs what another writes, where the lock on the directory cannot be had.
//!
//! - `lock`: one agent to a state directory.
//! - `owners`: warns of a state directory that others may write to.
//! - `directory`: opens, lists, creates and removes segments, and follows no symbolic link.
//! - `segment`: one record is one `write(2)`; what a crash tore is cut off.
//! - `prune`: the caps on size and age.
//! - `writer`: the thread behind a bounded queue; nothing here ever makes the agent wait.
//! - `kernel_count`: the count of kills when memtrace last looked, beside that directory.
//! - `growth`: what the growth analysis knows, beside that directory.
//! - `timelines`: the history of each cgroup, beside that directory.
//! - `shards`: the files, the checksum and the thread of what is replaced as a whole.
//! - `reader`: folds the records of an incident into one, or hands out one at a time.
//! - `index`: which incidents there are, without holding them.
//!
//! Must not decide what an incident is, nor format for people.
//!
//! [`Incident`]: crate::incident::Incident

mod directory;
pub mod growth;
pub mod index;
mod kernel_count;
mod lock;
mod owners;
mod prune;
mod queue;
mod reader;
mod record_time;
mod segment;
pub mod shards;
pub mod timelines;
mod writer;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod disk_tests;
#[cfg(test)]
mod fixture;

pub use kernel_count::KernelCount;
pub use lock::StateLock;
pub use reader::{Incidents, each_record, read};
pub use writer::{Store, StoreCounters};

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

/// Below the state directory.
const DIRECTORY: &str = "incidents";

/// Longest record, its newline included; longer lines are damage to a reader.
pub const MOST_LINE_BYTES: usize = 4 << 20;

/// What the store may take on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreLimits {
    /// A segment that would grow beyond is closed. A single longer record still gets one of its own.
    pub segment_bytes: u64,
    /// Of all segments together; the oldest segments go first.
    pub total_bytes: u64,
    /// Segments whose newest incident is older go.
    pub age: Duration,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self {
            segment_bytes: 4 << 20,
            total_bytes: 64 << 20,
            age: Duration::from_secs(30 * 86400),
        }
    }
}

/// Why the store could not be opened, written or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot start the thread that writes to disk: {0}")]
    Thread(#[source] io::Error),
    #[error("{} is a symbolic link, which is not followed", path.display())]
    SymbolicLink { path: PathBuf },
    #[error("{} is not a {expected}", path.display())]
    WrongType {
        path: PathBuf,
        expected: &'static str,
    },
    #[error("another memtrace{} keeps its state in {}", who(*holder), path.display())]
    InUse {
        path: PathBuf,
        /// Its process, if it said so.
        holder: Option<u32>,
    },
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("no segment number is left in {}", path.display())]
    NumbersExhausted { path: PathBuf },
    /// Not even without its victims does it fit into [`MOST_LINE_BYTES`].
    #[error("incident {id} is too long to be stored")]
    TooLong { id: String },
    #[error("an incident cannot be written as JSON: {0}")]
    Encode(#[from] serde_json::Error),
}

fn who(holder: Option<u32>) -> String {
    holder.map_or_else(String::new, |pid| format!(" (PID {pid})"))
}

impl StoreError {
    fn io(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        StoreError::Io {
            action,
            path: path.to_owned(),
            source: source.into(),
        }
    }

    /// Whether more privileges would help (`EACCES`, `EPERM`).
    pub fn is_permission(&self) -> bool {
        matches!(self, StoreError::Io { source, .. }
            if source.kind() == io::ErrorKind::PermissionDenied)
    }

    /// What a person can do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            StoreError::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    "free space there, or choose another --state-dir"
                }
                io::ErrorKind::ReadOnlyFilesystem => {
                    "mount it writable, or choose another --state-dir"
                }
                io::ErrorKind::PermissionDenied => {
                    "run as root, or choose a --state-dir that this user may use"
                }
                _ => "check that directory and its disk, or choose another --state-dir",
            },
            StoreError::SymbolicLink { .. } | StoreError::WrongType { .. } => {
                "remove it, or choose another --state-dir"
            }
            StoreError::InUse { .. } => {
                "stop it, or choose another --state-dir; `memtrace incidents` reads what it stores"
            }
            StoreError::NumbersExhausted { .. } => "move the segments away",
            StoreError::Thread(_) => "raise the limit on tasks (TasksMax=, pids.max)",
            StoreError::TooLong { .. } | StoreError::Encode(_) => "please report this as a bug",
        }
    }
}
