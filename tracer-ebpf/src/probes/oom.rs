//! Every victim mark of the OOM killer, with what the kernel knows at that moment.
//!
//! Hooks, in order: `tp_btf/mark_victim` where its argument is the task (by BTF,
//! never by version); `fentry`, then `kprobe`, on `mark_oom_victim(task)`;
//! `tp_btf/mark_victim` where it is only a thread id (fields then stay absent).
//! All run in the context of the task that triggered the OOM, so `current` is not
//! the victim. Cost: none until an OOM happens.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_boot_ns, bpf_probe_read_kernel},
    macros::{btf_tracepoint, fentry, kprobe},
    programs::{BtfTracePointContext, FEntryContext, ProbeContext},
};
use memtrace_ebpf::{
    COMM_LEN,
    counts::Drop,
    event::{ABSENT, OomMark},
};

use crate::{
    counters::dropped,
    globals::*,
    maps::OOM_EVENTS,
    task::{self, Kernel},
};

#[btf_tracepoint(function = "mark_victim")]
pub fn oom_mark_victim_task(ctx: BtfTracePointContext) -> i32 {
    if let Some(victim) = Kernel::new(ctx.arg::<*const u8>(0)) {
        marked(victim);
    }
    0
}

#[fentry]
pub fn oom_mark_victim_fentry(ctx: FEntryContext) -> i32 {
    if let Some(victim) = Kernel::new(ctx.arg::<*const u8>(0)) {
        marked(victim);
    }
    0
}

#[btf_tracepoint(function = "mark_victim")]
pub fn oom_mark_victim_pid(ctx: BtfTracePointContext) -> i32 {
    send(OomMark {
        victim_tid: ctx.arg::<u32>(0),
        ..nothing_known()
    });
    0
}

#[kprobe]
pub fn oom_mark_victim_kprobe(ctx: ProbeContext) -> u32 {
    let Some(victim) = ctx.arg::<*const u8>(0) else {
        return 0;
    };
    // A kprobe's argument is a bare number to the verifier: read by helper.
    let tid = raw::<u32>(victim, OFF_TASK_PID.load());
    let tgid = raw::<u32>(victim, OFF_TASK_TGID.load());
    let comm = raw::<[u8; COMM_LEN]>(victim, OFF_TASK_COMM.load());
    send(OomMark {
        victim_tid: tid.unwrap_or(0),
        victim_tgid: tgid.unwrap_or(0),
        victim_comm: comm.unwrap_or([0; COMM_LEN]),
        ..nothing_known()
    });
    0
}

#[inline(always)]
fn raw<T: Copy>(base: *const u8, offset: u32) -> Option<T> {
    if offset == memtrace_ebpf::offsets::ABSENT {
        return None;
    }
    // SAFETY: the helper tolerates any address.
    unsafe { bpf_probe_read_kernel(base.add(offset as usize).cast::<T>()).ok() }
}

#[inline(always)]
fn marked(victim: Kernel) {
    let mut mark = nothing_known();
    mark.victim_tid = victim.read(&OFF_TASK_PID).unwrap_or(0);
    mark.victim_tgid = victim.read(&OFF_TASK_TGID).unwrap_or(0);
    mark.victim_comm = task::comm(victim);
    mark.victim_cgroup_id = task::memory_cgroup(victim).unwrap_or(ABSENT);
    if let Some(cred) = victim.follow(&OFF_TASK_CRED) {
        mark.victim_uid = cred.read(&OFF_CRED_UID).unwrap_or(u32::MAX);
    }
    if let Some(signal) = victim.follow(&OFF_TASK_SIGNAL) {
        if let Some(adjustment) = signal.read::<i16>(&OFF_SIGNAL_OOM_SCORE_ADJ) {
            mark.oom_score_adj = i32::from(adjustment);
        }
    }
    if let Some(mm) = victim.follow(&OFF_TASK_MM) {
        mark.total_vm_pages = mm.read(&OFF_MM_TOTAL_VM).unwrap_or(ABSENT);
        mark.page_table_bytes = mm.read_by_helper(&OFF_MM_PGTABLES_BYTES).unwrap_or(ABSENT);
        mark.anon_pages = not_negative(mm.read_by_helper(&OFF_MM_ANON_PAGES));
        mark.file_pages = not_negative(mm.read_by_helper(&OFF_MM_FILE_PAGES));
        mark.shmem_pages = not_negative(mm.read_by_helper(&OFF_MM_SHMEM_PAGES));
        mark.swap_pages = not_negative(mm.read_by_helper(&OFF_MM_SWAP_PAGES));
    }
    send(mark);
}

/// Counters kept per CPU may be below zero for a moment; the kernel log shows 0 then.
#[inline(always)]
fn not_negative(pages: Option<i64>) -> u64 {
    match pages {
        Some(pages) if pages < 0 => 0,
        Some(pages) => pages as u64,
        None => ABSENT,
    }
}

/// A mark with the trigger filled in and nothing known of the victim.
#[inline(always)]
fn nothing_known() -> OomMark {
    let pid_tgid = bpf_get_current_pid_tgid();
    let trigger = task::current();
    OomMark {
        // SAFETY: takes no argument.
        time_ns: unsafe { bpf_ktime_get_boot_ns() },
        victim_cgroup_id: ABSENT,
        trigger_cgroup_id: trigger.and_then(task::memory_cgroup).unwrap_or(ABSENT),
        total_vm_pages: ABSENT,
        anon_pages: ABSENT,
        file_pages: ABSENT,
        shmem_pages: ABSENT,
        swap_pages: ABSENT,
        page_table_bytes: ABSENT,
        victim_tid: 0,
        victim_tgid: 0,
        victim_uid: u32::MAX,
        trigger_tgid: (pid_tgid >> 32) as u32,
        trigger_tid: pid_tgid as u32,
        oom_score_adj: i32::MAX,
        victim_comm: [0; COMM_LEN],
        trigger_comm: trigger.map_or([0; COMM_LEN], task::comm),
    }
}

#[inline(always)]
fn send(mark: OomMark) {
    match OOM_EVENTS.reserve::<OomMark>(0) {
        Some(mut entry) => {
            entry.write(mark);
            entry.submit(0);
        }
        None => dropped(Drop::OomRingFull),
    }
}
