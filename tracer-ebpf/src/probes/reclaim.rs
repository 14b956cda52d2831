//! Tasks that had to reclaim memory themselves: how often, how long, how much.
//!
//! Hooks: `tp_btf/mm_vmscan_{direct,memcg}_reclaim_{begin,end}` (5.5). No
//! fallback. The cgroup is that of the task that stalls. Cost per reclaim: a
//! hash insert, look-up and delete, beside work of tens of microseconds or more.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use memtrace_ebpf::counts::{Drop, ReclaimCounts, STALL_BUCKETS};

use crate::{
    counters::{add, dropped, entry},
    maps::{RECLAIM, RECLAIM_STARTS},
    task,
};

static ZERO: ReclaimCounts = ReclaimCounts {
    direct: 0,
    memcg: 0,
    stall_ns: 0,
    reclaimed_pages: 0,
    stall_histogram: [0; STALL_BUCKETS],
};

#[btf_tracepoint(function = "mm_vmscan_direct_reclaim_begin")]
pub fn reclaim_direct_begin(_ctx: BtfTracePointContext) -> i32 {
    begin();
    0
}

#[btf_tracepoint(function = "mm_vmscan_direct_reclaim_end")]
pub fn reclaim_direct_end(ctx: BtfTracePointContext) -> i32 {
    end(ctx.arg::<u64>(0), true);
    0
}

#[btf_tracepoint(function = "mm_vmscan_memcg_reclaim_begin")]
pub fn reclaim_memcg_begin(_ctx: BtfTracePointContext) -> i32 {
    begin();
    0
}

#[btf_tracepoint(function = "mm_vmscan_memcg_reclaim_end")]
pub fn reclaim_memcg_end(ctx: BtfTracePointContext) -> i32 {
    end(ctx.arg::<u64>(0), false);
    0
}

#[inline(always)]
fn begin() {
    let tid = bpf_get_current_pid_tgid() as u32;
    // SAFETY: takes no argument.
    let now = unsafe { bpf_ktime_get_ns() };
    if RECLAIM_STARTS.insert(tid, now, 0).is_err() {
        dropped(Drop::ReclaimStartsFull);
    }
}

#[inline(always)]
fn end(reclaimed_pages: u64, direct: bool) {
    let tid = bpf_get_current_pid_tgid() as u32;
    // SAFETY: takes no argument.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: only this task writes its own entry.
    let Some(started) = (unsafe { RECLAIM_STARTS.get(tid).copied() }) else {
        return;
    };
    let _ = RECLAIM_STARTS.remove(tid);
    let Some(id) = task::current().and_then(task::memory_cgroup) else {
        dropped(Drop::CgroupUnknown);
        return;
    };
    let Some(counts) = entry(&RECLAIM, &id, &ZERO, Drop::ReclaimFull) else {
        return;
    };
    let stall_ns = now.saturating_sub(started);
    let bucket = log2(stall_ns).min(STALL_BUCKETS as u32 - 1) as usize;
    // SAFETY: a live map value; the bucket is below the length.
    unsafe {
        if direct {
            add(&raw mut (*counts).direct, 1);
        } else {
            add(&raw mut (*counts).memcg, 1);
        }
        add(&raw mut (*counts).stall_ns, stall_ns);
        add(&raw mut (*counts).reclaimed_pages, reclaimed_pages);
        add(
            (&raw mut (*counts).stall_histogram)
                .cast::<u64>()
                .add(bucket),
            1,
        );
    }
}

/// Floor of the binary logarithm, 0 for 0; no loop, so that every verifier takes it.
#[inline(always)]
fn log2(value: u64) -> u32 {
    let mut value = value;
    let mut log = 0;
    macro_rules! halve {
        ($($bits:literal)*) => {
            $(if value >> $bits != 0 { value >>= $bits; log += $bits; })*
        };
    }
    halve!(32 16 8 4 2 1);
    log
}
