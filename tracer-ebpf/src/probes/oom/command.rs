//! What each process was started as, kept while it lives: `/proc` is too late once it is killed.

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel_str, bpf_probe_read_user};
use memtrace_ebpf::{
    counts::Drop,
    oom::{ABSENT_U32, ARGS_LEN, Command, EXECUTABLE_LEN},
};

use crate::{
    bare::Bare,
    counters::dropped,
    globals::*,
    maps::{COMMAND_SCRATCH, COMMANDS},
    task::{self, Kernel},
};

/// The running task has just become another program.
#[inline(always)]
pub fn executed(task: Kernel, program: Bare) {
    let tgid = task::tgid(task);
    let Some(command) = COMMAND_SCRATCH.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: a per-CPU value, and programs do not migrate while they run; the
    // helpers bound their copies.
    unsafe {
        (*command).args_len = if COMMAND_LINES.load() != 0 {
            copy_args(task, command)
        } else {
            ABSENT_U32
        };
        (*command).executable_len = copy_executable(program, command);
        if COMMANDS.insert(tgid, &*command, 0).is_err() {
            dropped(Drop::CommandsFull);
        }
    }
}

/// A child runs its parent's program until it executes another.
#[inline(always)]
pub fn forked(parent: Kernel, child: Kernel) {
    let (parent, child) = (task::tgid(parent), task::tgid(child));
    match COMMANDS.get_ptr(parent) {
        Some(command) => {
            // SAFETY: a live map value.
            if COMMANDS.insert(child, unsafe { &*command }, 0).is_err() {
                dropped(Drop::CommandsFull);
            }
        }
        None => {
            let _ = COMMANDS.remove(child);
        }
    }
}

/// A process is gone.
#[inline(always)]
pub fn ended(tgid: u32) {
    let _ = COMMANDS.remove(tgid);
}

/// # Safety
/// `command` is a live value that nobody else writes; the same below.
#[inline(always)]
unsafe fn copy_args(task: Kernel, command: *mut Command) -> u32 {
    let mm = Bare::new(task.address()).follow(&OFF_TASK_MM);
    let start = mm.value::<u64>(&OFF_MM_ARG_START, 0);
    let end = mm.value::<u64>(&OFF_MM_ARG_END, 0);
    if start == 0 {
        return ABSENT_U32;
    }
    if end <= start {
        return 0;
    }
    let length = end - start;
    let kept = if length < ARGS_LEN as u64 {
        length
    } else {
        ARGS_LEN as u64
    };
    // SAFETY: by contract; the helper tolerates any address of user space.
    let failed = unsafe {
        bpf_probe_read_user(
            (&raw mut (*command).args).cast(),
            kept as u32,
            start as *const _,
        )
    };
    if failed != 0 {
        return ABSENT_U32;
    }
    if length < u64::from(ABSENT_U32) {
        length as u32
    } else {
        ABSENT_U32 - 1
    }
}

#[inline(always)]
unsafe fn copy_executable(program: Bare, command: *mut Command) -> u32 {
    let path = program.follow(&OFF_BPRM_INTERP);
    if path.is_none() {
        return 0;
    }
    // SAFETY: by contract.
    let copied = unsafe {
        bpf_probe_read_kernel_str(
            (&raw mut (*command).executable).cast(),
            EXECUTABLE_LEN as u32,
            path.address().cast(),
        )
    };
    // The helper counts the terminating NUL.
    if copied > 0 { copied as u32 - 1 } else { 0 }
}
