//! The OOM killer, and those of user space: whose limit, which victims, when they were gone.
//!
//! Hooks, in order of preference:
//! - charge: `fentry`, then `kprobe` on `oom_kill_process(oom_control)`; without both the cgroups
//!   above the trigger are told with each mark, and user space finds the full one;
//! - mark: `tp_btf/mark_victim` where its argument is the task (by BTF, never by version);
//!   `fentry`, then `kprobe` on `mark_oom_victim(task)`; `tp_btf/mark_victim` where it is only a
//!   thread id (fields then stay absent);
//! - signal: `tp_btf/signal_generate` (5.5), which tells a kill from a mere mark;
//! - death: `tp_btf/sched_process_exit` (5.5);
//! - reaping: `tp_btf/finish_task_reaping` (5.5);
//! - command lines: `tp_btf/sched_process_exec`, `sched_process_fork` (5.5).
//!
//! Marks run in the context of the task that triggered the OOM, so `current` is not the victim.
//! They read by helper: that every field is there matters here, nanoseconds do not.
//! Cost: none until an OOM happens, but for a comparison with each signal sent, two reads with each end of
//! a thread, a look-up in a map that is empty by then with each end of a process, and for the command lines:
//! about a microsecond per exec, a look-up and a copy per fork.

mod charge;
mod command;
mod victim;

use aya_ebpf::{
    bindings::BPF_RB_NO_WAKEUP,
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_boot_ns},
    macros::{btf_tracepoint, fentry, kprobe},
    programs::{BtfTracePointContext, FEntryContext, ProbeContext},
};
use memtrace_ebpf::{
    counts::Drop,
    oom::{KIND_DEATH, KIND_KILLED_AGAIN, KIND_REAPED, OomEnd},
};

use crate::{
    bare::Bare,
    counters::dropped,
    globals::*,
    maps::{KERNEL_SIGKILL, OOM_EVENTS, SIGNALLED},
    registers,
    task::{self, Kernel},
};

/// User space is woken if it has taken all records before.
const IF_READ_SO_FAR: u32 = 0;
const SIGKILL: u32 = 9;
const SIGTERM: u32 = 15;
/// `SEND_SIG_PRIV` (include/linux/sched/signal.h): the kernel itself sends.
const SEND_SIG_PRIV: usize = 1;

#[fentry]
pub fn oom_kill_process_fentry(ctx: FEntryContext) -> i32 {
    charge::of_oom_control(Bare::new(ctx.arg::<*const u8>(0)));
    0
}

#[kprobe]
pub fn oom_kill_process_kprobe(ctx: ProbeContext) -> u32 {
    charge::of_oom_control(registers::first_argument(&ctx));
    0
}

#[btf_tracepoint(function = "mark_victim")]
pub fn oom_mark_victim_task(ctx: BtfTracePointContext) -> i32 {
    marked(Bare::new(ctx.arg::<*const u8>(0)));
    0
}

#[fentry]
pub fn oom_mark_victim_fentry(ctx: FEntryContext) -> i32 {
    marked(Bare::new(ctx.arg::<*const u8>(0)));
    0
}

#[kprobe]
pub fn oom_mark_victim_kprobe(ctx: ProbeContext) -> u32 {
    let victim = registers::first_argument(&ctx);
    if !victim.is_none() {
        marked(victim);
    }
    0
}

#[btf_tracepoint(function = "mark_victim")]
pub fn oom_mark_victim_pid(ctx: BtfTracePointContext) -> i32 {
    charge::of_trigger();
    victim::marked_thread(ctx.arg::<u32>(0));
    0
}

#[inline(always)]
fn marked(victim: Bare) {
    charge::of_trigger();
    victim::marked(victim, take_kernel_signal(victim));
}

/// Which signals end a process, and who sent them.
#[btf_tracepoint(function = "signal_generate")]
pub fn oom_signal(ctx: BtfTracePointContext) -> i32 {
    let signal = ctx.arg::<u32>(0);
    if signal != SIGKILL && signal != SIGTERM {
        return 0;
    }
    let target = Bare::new(ctx.arg::<*const u8>(2));
    if ctx.arg::<usize>(1) == SEND_SIG_PRIV {
        if signal == SIGKILL {
            kernel_killed(target);
        }
    } else {
        victim::signalled(target, signal);
    }
    0
}

#[inline(always)]
fn kernel_killed(target: Bare) {
    let marked = target.follow(&OFF_TASK_SIGNAL).follow(&OFF_SIGNAL_OOM_MM);
    // A dying PID 1, which has no memory any more, kills its namespace the same way.
    let by_oom = !Bare::current().follow(&OFF_TASK_MM).is_none();
    let tgid = target.u32(&OFF_TASK_TGID, 0);
    if marked.is_none() {
        note_kernel_signal(target);
        if by_oom {
            // Since 6.16 an exit is traced before it waits for the mark.
            let _ = SIGNALLED.insert(tgid, 1, 0);
        }
    } else if by_oom {
        end(KIND_KILLED_AGAIN, tgid, IF_READ_SO_FAR);
    }
}

/// The kill sends its signal just before the mark, under the victim's lock: on this CPU.
#[inline(always)]
fn note_kernel_signal(target: Bare) {
    if let Some(slot) = KERNEL_SIGKILL.get_ptr_mut(0) {
        // SAFETY: per-CPU value, and programs do not migrate while they run.
        unsafe { *slot = sender_and(target) };
    }
}

/// `SIGKILL` if the running task has just sent it to that process.
#[inline(always)]
fn take_kernel_signal(victim: Bare) -> u32 {
    let expected = sender_and(victim);
    let Some(slot) = KERNEL_SIGKILL.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: per-CPU value, and programs do not migrate while they run.
    unsafe {
        let sent = *slot;
        *slot = 0;
        if sent == expected { SIGKILL } else { 0 }
    }
}

#[inline(always)]
fn sender_and(target: Bare) -> u64 {
    let tid = bpf_get_current_pid_tgid() as u32;
    u64::from(tid) << 32 | u64::from(target.u32(&OFF_TASK_TGID, 0))
}

/// A program of its own, short, that wakes nobody: where programs can be preempted, the kernel skips those of
/// the same kind that begin on that CPU meanwhile, and the ends of a killed group come together.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn oom_process_exit(ctx: BtfTracePointContext) -> i32 {
    let task = Kernel::new(ctx.arg::<*const u8>(0));
    if let Some((task, signal)) = task.and_then(|task| Some((task, task::ended_process(task)?))) {
        process_ended(task::tgid(task), signal);
    }
    0
}

/// Told if the process was a victim. Several of the last threads may tell it: the first record counts.
#[inline(always)]
fn process_ended(tgid: u32, signal: Kernel) {
    // `mark_oom_victim` leaves the memory that it is to free here.
    let marked = Bare::new(signal.address()).value::<u64>(&OFF_SIGNAL_OOM_MM, 0) != 0;
    // Whatever its exit code: who handles SIGTERM ends by itself.
    if SIGNALLED.remove(tgid).is_ok() || marked {
        end(KIND_DEATH, tgid, BPF_RB_NO_WAKEUP);
    }
    command::ended(tgid);
}

#[btf_tracepoint(function = "finish_task_reaping")]
pub fn oom_finish_task_reaping(ctx: BtfTracePointContext) -> i32 {
    end(KIND_REAPED, ctx.arg::<u32>(0), IF_READ_SO_FAR);
    0
}

#[btf_tracepoint(function = "sched_process_exec")]
pub fn oom_command_exec(ctx: BtfTracePointContext) -> i32 {
    let task = Kernel::new(ctx.arg::<*const u8>(0));
    if let (Some(task), Some(program)) = (task, Kernel::new(ctx.arg::<*const u8>(2))) {
        command::executed(task, Bare::new(program.address()));
    }
    0
}

#[btf_tracepoint(function = "sched_process_fork")]
pub fn oom_command_fork(ctx: BtfTracePointContext) -> i32 {
    let parent = Kernel::new(ctx.arg::<*const u8>(0));
    let child = Kernel::new(ctx.arg::<*const u8>(1));
    if let (Some(parent), Some(child)) = (parent, child) {
        // A new thread runs the program of its process.
        if child.read::<u32>(&OFF_TASK_PID).unwrap_or(0) == task::tgid(child) {
            command::forked(parent, child);
        }
    }
    0
}

#[inline(always)]
fn end(kind: u32, id: u32, wakeup: u32) {
    let Some(mut entry) = OOM_EVENTS.reserve::<OomEnd>(0) else {
        dropped(Drop::OomRingFull);
        return;
    };
    entry.write(OomEnd {
        kind,
        id,
        // SAFETY: takes no argument.
        time_ns: unsafe { bpf_ktime_get_boot_ns() },
    });
    entry.submit(wakeup.into());
}
