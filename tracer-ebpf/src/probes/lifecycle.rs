//! Cgroups made and removed, processes execed and ended.
//!
//! Hooks: `tp_btf/cgroup_mkdir`, `cgroup_rmdir`, `sched_process_exec`,
//! `sched_process_exit` (5.5). No fallback: without them short-lived cgroups
//! and processes are only seen if a reading falls into their life.
//! Cost per event: one hash look-up; a ring record for cgroups and big processes.

use aya_ebpf::{
    helpers::{bpf_ktime_get_boot_ns, generated::bpf_probe_read_kernel_str},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use memtrace_ebpf::{
    counts::{Drop, ProcessKey},
    event::{
        CGROUP_PATH_LEN, CgroupChange, KIND_CGROUP_MADE, KIND_CGROUP_REMOVED, KIND_PROCESS_EXITED,
        ProcessExit,
    },
};

use crate::{
    counters::{add, cgroup, dropped},
    globals::*,
    maps::{BREAKS, EVENTS, PROCESSES},
    probes::oom,
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
        thread_ended(task);
    }
    0
}

#[inline(always)]
fn thread_ended(task: Kernel) {
    let Some(signal) = task.follow(&OFF_TASK_SIGNAL) else {
        return;
    };
    // The process ends with the last of its threads.
    if signal.read::<u32>(&OFF_SIGNAL_LIVE) != Some(0) {
        return;
    }
    let tgid = task.read::<u32>(&OFF_TASK_TGID).unwrap_or(0);
    let _ = BREAKS.remove(tgid);
    oom::process_ended(tgid, signal);
    let Some(id) = task::memory_cgroup(task) else {
        dropped(Drop::CgroupUnknown);
        return;
    };
    let key = ProcessKey {
        cgroup_id: id,
        tgid,
        padding: 0,
    };
    let _ = PROCESSES.remove(key);

    // Threads that ended before are in `signal`; this one still has its own.
    let minor_faults = signal.read::<u64>(&OFF_SIGNAL_MIN_FLT).unwrap_or(0)
        + task.read::<u64>(&OFF_TASK_MIN_FLT).unwrap_or(0);
    let major_faults = signal.read::<u64>(&OFF_SIGNAL_MAJ_FLT).unwrap_or(0)
        + task.read::<u64>(&OFF_TASK_MAJ_FLT).unwrap_or(0);
    let peak_rss_pages = signal.read::<u64>(&OFF_SIGNAL_MAXRSS).unwrap_or(0);
    if let Some(counts) = cgroup(id) {
        // SAFETY: a live map value. The maximum may lose a race; the sums may not.
        unsafe {
            add(&raw mut (*counts).lifecycle.exits, 1);
            add(
                &raw mut (*counts).lifecycle.exited_minor_faults,
                minor_faults,
            );
            add(
                &raw mut (*counts).lifecycle.exited_major_faults,
                major_faults,
            );
            let peak = &raw mut (*counts).lifecycle.exited_peak_rss_pages;
            if peak_rss_pages > *peak {
                *peak = peak_rss_pages;
            }
        }
    }
    if peak_rss_pages < EXIT_MIN_PEAK_PAGES.load() {
        return;
    }
    // A process is known by its leader's name; the last thread to end may have another.
    let named = task.follow(&OFF_TASK_GROUP_LEADER).unwrap_or(task);
    let Some(mut entry) = EVENTS.reserve::<ProcessExit>(0) else {
        dropped(Drop::EventRingFull);
        return;
    };
    entry.write(ProcessExit {
        kind: KIND_PROCESS_EXITED,
        tgid,
        cgroup_id: id,
        // SAFETY: takes no argument.
        time_ns: unsafe { bpf_ktime_get_boot_ns() },
        peak_rss_pages,
        minor_faults,
        major_faults,
        comm: task::comm(named),
    });
    entry.submit(0);
}
