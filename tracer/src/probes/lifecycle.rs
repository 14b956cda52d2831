//! Cgroups made and removed, processes ended.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, path::PathBuf};

use memtrace_ebpf::{
    counts::LifecycleCounts,
    event::{
        CgroupChange, KIND_CGROUP_MADE, KIND_CGROUP_REMOVED, KIND_PROCESS_EXITED, ProcessExit,
    },
};

use crate::model::snapshot::{ExitTotals, LifecycleTotals};

use super::{record, text};

/// One lifecycle record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LifecycleEvent {
    /// Raw path from the root of the hierarchy, with a leading `/`.
    CgroupMade {
        id: u64,
        path: PathBuf,
        time_ns: u64,
    },
    CgroupRemoved {
        id: u64,
    },
    ProcessExited {
        tgid: u32,
        /// Escaped for display.
        comm: String,
        cgroup_id: u64,
        time_ns: u64,
        peak_rss_bytes: u64,
        minor_faults: u64,
        major_faults: u64,
    },
}

/// `None` if the record is cut short or of no known kind.
pub fn decode(bytes: &[u8], page_size: u64) -> Option<LifecycleEvent> {
    let kind = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    match kind {
        KIND_CGROUP_MADE => {
            let change: CgroupChange = record(bytes)?;
            let path = change.path.get(..change.path_len as usize)?;
            Some(LifecycleEvent::CgroupMade {
                id: change.cgroup_id,
                path: PathBuf::from(OsStr::from_bytes(path)),
                time_ns: change.time_ns,
            })
        }
        KIND_CGROUP_REMOVED => {
            let change: CgroupChange = record(bytes)?;
            Some(LifecycleEvent::CgroupRemoved {
                id: change.cgroup_id,
            })
        }
        KIND_PROCESS_EXITED => {
            let exit: ProcessExit = record(bytes)?;
            Some(LifecycleEvent::ProcessExited {
                tgid: exit.tgid,
                comm: text(&exit.comm, 64),
                cgroup_id: exit.cgroup_id,
                time_ns: exit.time_ns,
                peak_rss_bytes: exit.peak_rss_pages.saturating_mul(page_size),
                minor_faults: exit.minor_faults,
                major_faults: exit.major_faults,
            })
        }
        _ => None,
    }
}

/// Counts of a cgroup as model totals.
pub fn totals(counts: &LifecycleCounts, page_size: u64) -> LifecycleTotals {
    LifecycleTotals {
        execs: counts.execs,
        exits: ExitTotals {
            processes: counts.exits,
            minor_faults: counts.exited_minor_faults,
            major_faults: counts.exited_major_faults,
            peak_rss_bytes: counts.exited_peak_rss_pages.saturating_mul(page_size),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_is_cut_short_or_unknown_is_refused() {
        let mut bytes = vec![0; size_of::<CgroupChange>()];
        bytes[..4].copy_from_slice(&KIND_CGROUP_MADE.to_ne_bytes());
        assert!(decode(&bytes, 4096).is_some());
        assert_eq!(decode(&bytes[..40], 4096), None);
        assert_eq!(decode(&bytes[..3], 4096), None);
        bytes[0] = 99;
        assert_eq!(decode(&bytes, 4096), None);
    }

    #[test]
    fn a_path_length_beyond_the_record_is_refused() {
        let mut bytes = vec![0; size_of::<CgroupChange>()];
        bytes[..4].copy_from_slice(&KIND_CGROUP_MADE.to_ne_bytes());
        bytes[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(decode(&bytes, 4096), None);
    }
}
