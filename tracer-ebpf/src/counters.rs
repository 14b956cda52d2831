//! Adding to the maps: get or make the entry, count what does not fit.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::maps::HashMap;
use memtrace_ebpf::counts::{CgroupCounts, Drop, HeapCounts, LifecycleCounts, ProcessKey};

use crate::maps::{CGROUPS, DROPS, PROCESSES};

const BPF_NOEXIST: u64 = 1;

/// Adds to a map value that other CPUs add to as well.
///
/// # Safety
/// `counter` points into a live map value.
#[inline(always)]
pub unsafe fn add(counter: *mut u64, value: u64) {
    // SAFETY: map values are 8-byte aligned and live for the whole program run.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, value) };
}

/// Counts a loss.
#[inline(always)]
pub fn dropped(cause: Drop) {
    if let Some(count) = DROPS.get_ptr_mut(cause as u32) {
        // SAFETY: per-CPU value, and programs do not migrate while they run.
        unsafe { *count += 1 };
    }
}

/// The value of `key`, made from `zero` if it is new; `None` and a counted drop if the map is full.
#[inline(always)]
pub fn entry<K, V>(map: &HashMap<K, V>, key: &K, zero: &V, full: Drop) -> Option<*mut V> {
    if let Some(value) = map.get_ptr_mut(key) {
        return Some(value);
    }
    // Another CPU may have made it meanwhile: the look-up decides.
    let _ = map.insert(key, zero, BPF_NOEXIST);
    let value = map.get_ptr_mut(key);
    if value.is_none() {
        dropped(full);
    }
    value
}

const ZERO_HEAP: HeapCounts = HeapCounts {
    mmap_bytes: 0,
    munmap_bytes: 0,
    brk_grow_bytes: 0,
    brk_shrink_bytes: 0,
    madvise_free_bytes: 0,
    sampled_faults: 0,
};

static ZERO_CGROUP: CgroupCounts = CgroupCounts {
    heap: ZERO_HEAP,
    lifecycle: LifecycleCounts {
        execs: 0,
        exits: 0,
        exited_minor_faults: 0,
        exited_major_faults: 0,
        exited_peak_rss_pages: 0,
    },
};

static ZERO_PROCESS: HeapCounts = ZERO_HEAP;

/// The totals of a memory cgroup.
#[inline(always)]
pub fn cgroup(id: u64) -> Option<*mut CgroupCounts> {
    entry(&CGROUPS, &id, &ZERO_CGROUP, Drop::CgroupsFull)
}

/// The totals of a process in a memory cgroup.
#[inline(always)]
pub fn process(cgroup_id: u64, tgid: u32) -> Option<*mut HeapCounts> {
    let key = ProcessKey {
        cgroup_id,
        tgid,
        padding: 0,
    };
    entry(&PROCESSES, &key, &ZERO_PROCESS, Drop::ProcessesFull)
}
