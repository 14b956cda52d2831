//! User page faults, sampled 1 in N: who is touching new memory now.
//!
//! Hooks: `tp_btf/page_fault_user` and `tp_btf/page_fault_kernel` (user addresses
//! touched by the kernel for a process, as in `read(2)` into a fresh buffer);
//! x86-64, 5.5. Fallback: the software page-fault perf event with period N.
//! Exact counts are the kernel's own (`memory.stat`, `/proc/PID/stat`, at exit).
//! Both also feed `stack`. Cost per event: one per-CPU counter; every N-th walks to the cgroup and adds to two maps.

use aya_ebpf::{
    helpers::bpf_get_current_pid_tgid,
    macros::{btf_tracepoint, perf_event},
    programs::{BtfTracePointContext, PerfEventContext},
};
use memtrace_ebpf::counts::Drop;

use crate::{
    counters::{add, cgroup, dropped, process},
    globals::FAULT_SAMPLE_MASK,
    maps::FAULTS,
    probes::stack,
    task,
};

#[btf_tracepoint(function = "page_fault_user")]
pub fn fault_user(ctx: BtfTracePointContext) -> i32 {
    count_and_sample();
    stack::fault(ctx.arg(0), Some(ctx.arg(1)), ctx.arg(2));
    0
}

#[btf_tracepoint(function = "page_fault_kernel")]
pub fn fault_kernel(ctx: BtfTracePointContext) -> i32 {
    // The upper half of the address space is the kernel's own.
    if (ctx.arg::<u64>(0) as i64) >= 0 {
        count_and_sample();
        stack::fault(ctx.arg(0), None, ctx.arg(2));
    }
    0
}

#[perf_event]
pub fn fault_perf(_ctx: PerfEventContext) -> i32 {
    sample(FAULT_SAMPLE_MASK.load() + 1);
    0
}

#[inline(always)]
fn count_and_sample() {
    let Some(count) = FAULTS.get_ptr_mut(0) else {
        return;
    };
    let mask = FAULT_SAMPLE_MASK.load();
    // SAFETY: per-CPU value, and programs do not migrate while they run.
    let seen = unsafe {
        *count += 1;
        *count
    };
    if seen & mask == 0 {
        sample(mask + 1);
    }
}

/// One sample that stands for `weight` faults.
#[inline(always)]
fn sample(weight: u64) {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    if tgid == 0 {
        return;
    }
    let Some(id) = task::current().and_then(task::memory_cgroup) else {
        dropped(Drop::CgroupUnknown);
        return;
    };
    if let Some(counts) = cgroup(id) {
        // SAFETY: a live map value.
        unsafe { add(&raw mut (*counts).heap.sampled_faults, weight) };
    }
    if let Some(counts) = process(id, tgid) {
        // SAFETY: a live map value.
        unsafe { add(&raw mut (*counts).sampled_faults, weight) };
    }
}
