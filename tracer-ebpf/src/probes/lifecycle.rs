//! Cgroups made and removed, processes execed and ended.
//!
//! Hooks: `tp_btf/cgroup_mkdir`, `cgroup_rmdir`, `sched_process_exec`,
//! `sched_process_exit` (5.5). No fallback: without them short-lived cgroups
//! and processes are only seen if a reading falls into their life.
//! Cost per event: one hash look-up, for the end of a process six more; a ring record for cgroups and big
//! processes.

mod ended;

use aya_ebpf::{
    helpers::{bpf_ktime_get_boot_ns, generated::bpf_probe_read_kernel_str},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use memtrace_ebpf::{
    counts::Drop,
    event::{CGROUP_PATH_LEN, CgroupChange, KIND_CGROUP_MADE, KIND_CGROUP_REMOVED},
};

use crate::{
    counters::{add, cgroup, dropped},
    maps::EVENTS,
    task::{self, Kernel},
};

#[btf_tracepoint(function = "cgroup_mkdir")]
pub fn lifecycle_cgroup_mkdir(ctx: BtfTracePointContext) -> i32 {
    cgroup_changed(&ctx, KIND_CGROUP_MADE);
    0
}

#[btf_tracepoint(function = "cgroup_rmdir")]
pub fn lifecycle_cgroup_rmdir(ctx: BtfTracePointContext) -> i32 {
    cgroup_changed(&ctx, KIND_CGROUP_REMOVED);
    0
}

#[inline(always)]
fn cgroup_changed(ctx: &BtfTracePointContext, kind: u32) {
    let Some(cgroup) = Kernel::new(ctx.arg::<*const u8>(0)) else {
        return;
    };
    if !task::in_memory_hierarchy(cgroup) {
        return;
    }
    let Some(id) = task::cgroup_id(cgroup) else {
        dropped(Drop::CgroupUnknown);
        return;
    };
    let path = ctx.arg::<*const u8>(1);
    let Some(mut entry) = EVENTS.reserve::<CgroupChange>(0) else {
        dropped(Drop::EventRingFull);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the record is ours until submitted; the helper bounds the copy.
    unsafe {
        (*record).kind = kind;
        (*record).cgroup_id = id;
        (*record).time_ns = bpf_ktime_get_boot_ns();
        let copied = bpf_probe_read_kernel_str(
            (&raw mut (*record).path).cast(),
            CGROUP_PATH_LEN as u32,
            path.cast(),
        );
        // The helper counts the terminating NUL.
        (*record).path_len = if copied > 0 { copied as u32 - 1 } else { 0 };
    }
    entry.submit(0);
}

#[btf_tracepoint(function = "sched_process_exec")]
pub fn lifecycle_process_exec(ctx: BtfTracePointContext) -> i32 {
    let task = Kernel::new(ctx.arg::<*const u8>(0));
    let Some(id) = task.and_then(task::memory_cgroup) else {
        dropped(Drop::CgroupUnknown);
        return 0;
    };
    if let Some(counts) = cgroup(id) {
        // SAFETY: a live map value.
        unsafe { add(&raw mut (*counts).lifecycle.execs, 1) };
    }
    0
}

#[btf_tracepoint(function = "sched_process_exit")]
pub fn lifecycle_process_exit(ctx: BtfTracePointContext) -> i32 {
    if let Some(task) = Kernel::new(ctx.arg::<*const u8>(0)) {
        ended::thread(task);
    }
    0
}
