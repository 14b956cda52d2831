//! A process about to die: everything that is gone once it is dead.

use aya_ebpf::{
    Global,
    bindings::BPF_RB_FORCE_WAKEUP,
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_boot_ns, generated::bpf_probe_read_kernel},
};
use memtrace_ebpf::{
    counts::Drop,
    offsets,
    oom::{ABSENT, ABSENT_I32, ABSENT_U32, Command, KIND_MARK, KIND_SIGNAL, OomVictim},
};

use crate::{
    bare::{self, Bare},
    counters::dropped,
    globals::*,
    maps::{COMMANDS, OOM_EVENTS, OOM_KILLERS, SIGNALLED},
};

/// PID namespaces below one another (`MAX_PID_NS_LEVEL`, include/linux/pid_namespace.h).
const MOST_NAMESPACES: u32 = 32;
/// include/uapi/linux/capability.h
const CAP_KILL: u32 = 5;

/// The kernel marked a task.
#[inline(always)]
pub fn marked(victim: Bare, signal: u32) {
    tell(KIND_MARK, victim, 0, signal);
}

/// The kernel marked a task of which only the thread is known.
#[inline(always)]
pub fn marked_thread(tid: u32) {
    tell(KIND_MARK, Bare::NONE, tid, 0);
}

/// A task was sent a deadly signal by user space: told if the sender is an OOM killer.
#[inline(always)]
pub fn signalled(target: Bare, signal: u32) {
    let mut name = bare::comm(Bare::current().follow(&OFF_TASK_GROUP_LEADER));
    // Before 6.x a shorter name leaves the rest of a longer one behind its NUL.
    let mut ended = false;
    for byte in &mut name {
        ended |= *byte == 0;
        if ended {
            *byte = 0;
        }
    }
    if OOM_KILLERS.get_ptr(name).is_none() || !may_kill_any() {
        return;
    }
    let tgid = target.u32(&OFF_TASK_TGID, 0);
    if tgid == (bpf_get_current_pid_tgid() >> 32) as u32 {
        return;
    }
    // One that waits for its parent to take note of its end cannot be killed.
    if target.follow(&OFF_TASK_SIGNAL).u32(&OFF_SIGNAL_LIVE, 1) == 0 {
        return;
    }
    let _ = SIGNALLED.insert(tgid, 1, 0);
    tell(KIND_SIGNAL, target, 0, signal);
}

/// Whether the running task may kill every process of the host: any process may take the name of one that does.
#[inline(always)]
fn may_kill_any() -> bool {
    let sender = Bare::current();
    let credentials = sender.follow(&OFF_TASK_CRED);
    // Two words before 6.3, then one of twice the size: this one is the lower half of both.
    let capabilities = credentials.u32(&OFF_CRED_CAP_EFFECTIVE, 0);
    let users = credentials
        .follow(&OFF_CRED_USER_NS)
        .u32(&OFF_USER_NS_LEVEL, ABSENT_U32);
    let pid = sender.follow(&OFF_TASK_SIGNAL).follow(&OFF_SIGNAL_PID);
    capabilities & 1 << CAP_KILL != 0 && users == 0 && pid.u32(&OFF_PID_LEVEL, ABSENT_U32) == 0
}

#[inline(always)]
fn tell(kind: u32, victim: Bare, tid: u32, signal: u32) {
    let Some(mut entry) = OOM_EVENTS.reserve::<OomVictim>(0) else {
        dropped(Drop::OomRingFull);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the record is ours until submitted, and every field is written.
    unsafe {
        (*record).kind = kind;
        (*record).signal = signal;
        (*record).time_ns = bpf_ktime_get_boot_ns();
        tell_sender(record);
        tell_identity(record, victim, tid);
        tell_memory(record, victim.follow(&OFF_TASK_MM));
        tell_command(record);
    }
    // A death that woke nobody may lie in the ring still, and would keep this one from being told at once.
    entry.submit(BPF_RB_FORCE_WAKEUP.into());
}

/// # Safety
/// `record` is a record of ours, here and below.
#[inline(always)]
unsafe fn tell_sender(record: *mut OomVictim) {
    let pid_tgid = bpf_get_current_pid_tgid();
    let sender = Bare::current();
    // SAFETY: by contract.
    unsafe {
        (*record).sender_tgid = (pid_tgid >> 32) as u32;
        (*record).sender_tid = pid_tgid as u32;
        (*record).sender_cgroup_id = bare::css_cgroup_id(bare::memory_css(sender));
        (*record).sender_comm = bare::comm(sender);
        (*record).sender_process_comm = bare::comm(sender.follow(&OFF_TASK_GROUP_LEADER));
    }
}

/// `tid` stands for a victim of which nothing else is known.
#[inline(always)]
unsafe fn tell_identity(record: *mut OomVictim, victim: Bare, tid: u32) {
    let leader = victim.follow(&OFF_TASK_GROUP_LEADER);
    let signal = victim.follow(&OFF_TASK_SIGNAL);
    let pid = signal.follow(&OFF_SIGNAL_PID);
    let level = pid.u32(&OFF_PID_LEVEL, ABSENT_U32);
    let adjustment = signal.value::<i16>(&OFF_SIGNAL_OOM_SCORE_ADJ, i16::MAX);
    // SAFETY: by contract.
    unsafe {
        (*record).tid = victim.u32(&OFF_TASK_PID, tid);
        (*record).tgid = victim.u32(&OFF_TASK_TGID, 0);
        (*record).comm = bare::comm(victim);
        (*record).cgroup_id = bare::css_cgroup_id(bare::memory_css(victim));
        (*record).leaf_cgroup_id = bare::default_cgroup_id(victim);
        (*record).uid = victim.follow(&OFF_TASK_CRED).u32(&OFF_CRED_UID, ABSENT_U32);
        (*record).started_ns = leader.u64(&OFF_TASK_START_BOOTTIME);
        // The kernel allows -1000 to 1000.
        (*record).oom_score_adj = if adjustment == i16::MAX {
            ABSENT_I32
        } else {
            adjustment as i32
        };
        (*record).namespace_level = level;
        (*record).namespace_pid = namespace_pid(pid, level);
    }
}

/// `pid->numbers[level].nr`.
#[inline(always)]
fn namespace_pid(pid: Bare, level: u32) -> u32 {
    let size = SIZE_UPID.load();
    let numbers = OFF_PID_NUMBERS.load();
    if size == offsets::ABSENT || numbers == offsets::ABSENT || level > MOST_NAMESPACES {
        return ABSENT_U32;
    }
    pid.add(numbers as usize + level as usize * size as usize)
        .u32(&OFF_UPID_NR, ABSENT_U32)
}

#[inline(always)]
unsafe fn tell_memory(record: *mut OomVictim, mm: Bare) {
    // SAFETY: by contract.
    unsafe {
        (*record).total_vm_pages = mm.u64(&OFF_MM_TOTAL_VM);
        (*record).page_table_bytes = mm.u64(&OFF_MM_PGTABLES_BYTES);
        (*record).anon_pages = pages(mm, &OFF_MM_ANON_PAGES);
        (*record).file_pages = pages(mm, &OFF_MM_FILE_PAGES);
        (*record).shmem_pages = pages(mm, &OFF_MM_SHMEM_PAGES);
        (*record).swap_pages = pages(mm, &OFF_MM_SWAP_PAGES);
    }
}

/// Counters kept per CPU may be below zero for a moment; the kernel log shows 0 then.
#[inline(always)]
fn pages(mm: Bare, offset: &Global<u32>) -> u64 {
    // No count is that low.
    let pages = mm.value::<i64>(offset, i64::MIN);
    if pages == i64::MIN {
        ABSENT
    } else if pages < 0 {
        0
    } else {
        pages as u64
    }
}

#[inline(always)]
unsafe fn tell_command(record: *mut OomVictim) {
    // SAFETY: by contract; the helper bounds the copy.
    unsafe {
        let tgid = (*record).tgid;
        let known = match COMMANDS.get_ptr(tgid) {
            Some(command) => {
                bpf_probe_read_kernel(
                    (&raw mut (*record).command).cast(),
                    size_of::<Command>() as u32,
                    command.cast(),
                ) == 0
            }
            None => false,
        };
        if !known {
            (*record).command.args_len = ABSENT_U32;
            (*record).command.executable_len = 0;
        }
    }
}
