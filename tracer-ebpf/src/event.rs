//! Records of the event ring: cgroups and processes that come and go.

use crate::COMM_LEN;

/// Longest cgroup path carried in a record (`TRACE_CGROUP_PATH_LEN`, kernel/cgroup/cgroup-internal.h).
pub const CGROUP_PATH_LEN: usize = 1024;

/// What a lifecycle record tells; first field of each.
pub const KIND_CGROUP_MADE: u32 = 1;
pub const KIND_CGROUP_REMOVED: u32 = 2;
pub const KIND_PROCESS_EXITED: u32 = 3;

/// A memory cgroup was made or removed.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CgroupChange {
    pub kind: u32,
    /// Bytes of `path` in use, without the terminating NUL.
    pub path_len: u32,
    pub cgroup_id: u64,
    pub time_ns: u64,
    pub path: [u8; CGROUP_PATH_LEN],
}

/// A process ended whose peak RSS reached the threshold.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessExit {
    pub kind: u32,
    pub tgid: u32,
    pub cgroup_id: u64,
    pub time_ns: u64,
    pub peak_rss_pages: u64,
    pub minor_faults: u64,
    pub major_faults: u64,
    pub comm: [u8; COMM_LEN],
}

const _: () = {
    assert!(size_of::<CgroupChange>() == 24 + CGROUP_PATH_LEN);
    assert!(size_of::<ProcessExit>() == 48 + COMM_LEN);
};

// SAFETY: repr(C), integers only, no implicit padding (sizes asserted above).
unsafe impl crate::Record for CgroupChange {}
// SAFETY: as above.
unsafe impl crate::Record for ProcessExit {}
