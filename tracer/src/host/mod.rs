//! Readers of cgroupfs, procfs and PSI.
//!
//! Owns the knowledge of which kernel file holds which number and how to read it cheaply. Every
//! reader takes a root path, returns `Option` fields and never panics on a malformed file. Must not
//! keep history, compute rates or know about BPF, containers and exports.
//!
//! - [`hierarchy`]: where the memory controller is mounted (v1, hybrid, v2)
//! - [`cgroup`]: the numbers of one memory cgroup, over [`cgroup_v1`] and [`cgroup_v2`]
//! - [`fd_budget`]: how many file descriptors the cgroup readers may keep
//! - [`mod@walk`]: all cgroups with their ids
//! - [`mod@effective_limit`]: the smallest limit that binds a cgroup
//! - [`process`], [`mappings`], [`machine`]: processes, what they map, the whole host
//! - [`open_in_root`]: files as a process sees them
//! - [`own_limit`]: how much memory memtrace itself may use
//! - [`pattern`]: patterns that choose cgroups
//! - [`escape`]: untrusted names made safe to show
//! - [`trust`]: who could change a file, or put another in its place
//! - [`pseudo_file`], [`fields`]: reading and taking apart small kernel files

pub mod cgroup;
pub mod cgroup_v1;
pub mod cgroup_v2;
pub mod effective_limit;
pub mod escape;
pub mod fd_budget;
pub mod fields;
pub mod hierarchy;
pub mod machine;
pub mod mappings;
pub mod open_in_root;
pub mod own_limit;
pub mod pattern;
pub mod process;
pub mod pseudo_file;
pub mod trust;
pub mod walk;

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub use cgroup::{CgroupPids, CgroupReader, ReadDepth};
pub use effective_limit::effective_limit;
pub use fd_budget::FdBudget;
pub use hierarchy::{CgroupHierarchy, CgroupMode};
pub use process::{ProcRoot, ProcessReading, SelfUsage};
pub use walk::{Walk, WalkedCgroup, walk};

/// Why the host could not be read.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The kernel refused a file or directory that exists.
    #[error("cannot read {}", shown(path))]
    Read { path: PathBuf, source: io::Error },
    /// The cgroup was removed or the process ended: not a fault, forget it.
    #[error("{} is gone", shown(path))]
    Gone { path: PathBuf },
    /// A cgroup path that leaves the hierarchy.
    #[error("{} is not a path inside the cgroup hierarchy", shown(path))]
    OutsideHierarchy { path: PathBuf },
    /// No cgroup file system is visible.
    #[error(
        "no cgroup file system is mounted{}: mount it (`mount -t cgroup2 none /sys/fs/cgroup`), or, in \
         a container, mount the host's /sys/fs/cgroup and name that path with --cgroup-root",
        below(under.as_deref())
    )]
    NotMounted { under: Option<PathBuf> },
    /// cgroupfs is mounted without the memory controller.
    #[error(
        "the memory controller is absent from the cgroup mounts{}: boot without `cgroup_disable=memory` \
         (some boards need `cgroup_enable=memory`), or mount it (`mount -t cgroup -o memory`)",
        below(under.as_deref())
    )]
    NoMemoryController { under: Option<PathBuf> },
    /// Only part of the memory hierarchy is visible: a cgroup namespace or a bind mount.
    #[error(
        "{} shows only a part of the memory cgroups (a cgroup namespace or bind mount): run in the \
         host's cgroup namespace, or mount the host's /sys/fs/cgroup and name that path with --cgroup-root",
        shown(path)
    )]
    PartOfHierarchy { path: PathBuf },
    /// The mount table lists the cgroup mount, but its files are not there.
    #[error(
        "the cgroup mount at {} is hidden by another mount: name a path where the host's \
         /sys/fs/cgroup is visible with --cgroup-root",
        shown(path)
    )]
    Hidden { path: PathBuf },
}

impl HostError {
    fn read(path: &Path, source: io::Error) -> Self {
        HostError::Read {
            path: path.to_owned(),
            source,
        }
    }

    /// Whether the cgroup or process ended while it was read.
    pub fn is_gone(&self) -> bool {
        matches!(self, HostError::Gone { .. })
    }
}

fn shown(path: &Path) -> String {
    escape::display(path.as_os_str().as_bytes(), 4096)
}

fn below(root: Option<&Path>) -> String {
    root.map_or_else(String::new, |root| format!(" at or below {}", shown(root)))
}

fn path_from_bytes(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}
