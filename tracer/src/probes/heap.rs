//! Heap counts of a cgroup or process as model totals.

use memtrace_ebpf::counts::HeapCounts;

use crate::model::snapshot::HeapTotals;

/// The part of the counts that system calls made.
pub fn totals(counts: &HeapCounts) -> HeapTotals {
    HeapTotals {
        mmap_bytes: counts.mmap_bytes,
        munmap_bytes: counts.munmap_bytes,
        brk_grow_bytes: counts.brk_grow_bytes,
        brk_shrink_bytes: counts.brk_shrink_bytes,
        madvise_free_bytes: counts.madvise_free_bytes,
    }
}
