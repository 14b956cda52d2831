//! Reclaim counts of a cgroup as model totals.

use memtrace_ebpf::counts::ReclaimCounts;

use crate::model::snapshot::{ReclaimTotals, STALL_BUCKETS};

const _: () = assert!(STALL_BUCKETS == memtrace_ebpf::counts::STALL_BUCKETS);

/// Counts, stall time and its histogram.
pub fn totals(counts: &ReclaimCounts) -> ReclaimTotals {
    ReclaimTotals {
        direct: counts.direct,
        memcg: counts.memcg,
        stall_ns: counts.stall_ns,
        reclaimed_pages: counts.reclaimed_pages,
        stall_histogram: counts.stall_histogram,
    }
}
