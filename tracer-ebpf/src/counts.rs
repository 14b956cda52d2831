//! Map keys and values: what is frequent is summed up in the kernel.

/// Number of log2 buckets of reclaim stalls: bucket `i` counts `[2^i, 2^(i+1))` ns.
pub const STALL_BUCKETS: usize = 40;

/// Key of per-process counts: one process may count in several cgroups over its life.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ProcessKey {
    pub cgroup_id: u64,
    pub tgid: u32,
    pub padding: u32,
}

/// Bytes asked for and given back by system calls that succeeded, and sampled page faults.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeapCounts {
    pub mmap_bytes: u64,
    pub munmap_bytes: u64,
    pub brk_grow_bytes: u64,
    pub brk_shrink_bytes: u64,
    pub madvise_free_bytes: u64,
    /// Page faults that the samples taken here stand for.
    pub sampled_faults: u64,
}

/// Processes that execed and ended in a cgroup.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LifecycleCounts {
    pub execs: u64,
    pub exits: u64,
    pub exited_minor_faults: u64,
    pub exited_major_faults: u64,
    /// Largest `signal_struct::maxrss` of a process that ended, pages.
    pub exited_peak_rss_pages: u64,
}

/// What is summed up per memory cgroup; key: cgroup id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupCounts {
    pub heap: HeapCounts,
    pub lifecycle: LifecycleCounts,
}

/// Reclaim done by the tasks of a cgroup.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReclaimCounts {
    pub direct: u64,
    pub memcg: u64,
    pub stall_ns: u64,
    pub reclaimed_pages: u64,
    pub stall_histogram: [u64; STALL_BUCKETS],
}

/// Why something was not counted or not sent. Index into the `DROPS` per-CPU array.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drop {
    /// The ring of OOM records was full.
    OomRingFull = 0,
    /// The ring of lifecycle records was full.
    EventRingFull = 1,
    /// The map of cgroup totals was full.
    CgroupsFull = 2,
    /// The map of process totals was full.
    ProcessesFull = 3,
    /// The map of reclaim totals was full.
    ReclaimFull = 4,
    /// The map of reclaims under way was full.
    ReclaimStartsFull = 5,
    /// A brk moved whose former break was not known.
    BreakUnknown = 6,
    /// The map of process breaks was full.
    BreaksFull = 7,
    /// The task had no readable memory cgroup.
    CgroupUnknown = 8,
    /// The map of command lines was full.
    CommandsFull = 9,
    /// The ring of stack samples was full.
    StackRingFull = 10,
    /// The registers of a sampled thread could not be read.
    StackUnreadable = 11,
    /// A process ended with more threads than are looked at for their page faults.
    ExitThreadsLeftOut = 12,
}

impl Drop {
    pub const ALL: [(Drop, &'static str); 13] = [
        (Drop::OomRingFull, "oom_ring_full"),
        (Drop::EventRingFull, "event_ring_full"),
        (Drop::CgroupsFull, "cgroup_map_full"),
        (Drop::ProcessesFull, "process_map_full"),
        (Drop::ReclaimFull, "reclaim_map_full"),
        (Drop::ReclaimStartsFull, "reclaim_start_map_full"),
        (Drop::BreakUnknown, "break_unknown"),
        (Drop::BreaksFull, "break_map_full"),
        (Drop::CgroupUnknown, "cgroup_unknown"),
        (Drop::CommandsFull, "command_map_full"),
        (Drop::StackRingFull, "stack_ring_full"),
        (Drop::StackUnreadable, "stack_unreadable"),
        (Drop::ExitThreadsLeftOut, "exit_threads_left_out"),
    ];
}

const _: () = {
    assert!(size_of::<ProcessKey>() == 16);
    assert!(size_of::<HeapCounts>() == 48);
    assert!(size_of::<LifecycleCounts>() == 40);
    assert!(size_of::<CgroupCounts>() == 88);
    assert!(size_of::<ReclaimCounts>() == 32 + 8 * STALL_BUCKETS);
};

#[cfg(feature = "user")]
mod user {
    use super::{CgroupCounts, HeapCounts, ProcessKey, ReclaimCounts};

    // SAFETY: repr(C), integers only, no implicit padding (sizes asserted above).
    unsafe impl aya::Pod for ProcessKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for HeapCounts {}
    // SAFETY: as above.
    unsafe impl aya::Pod for CgroupCounts {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ReclaimCounts {}
}

#[cfg(test)]
mod tests {
    use super::Drop;

    #[test]
    fn drop_causes_are_indexed_by_their_number() {
        for (index, (cause, _)) in Drop::ALL.iter().enumerate() {
            assert_eq!(*cause as usize, index);
        }
    }
}
