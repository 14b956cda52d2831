//! Address space asked for and given back: mmap, munmap, mremap, brk, madvise.
//!
//! Hooks, in order: `fexit` on the system call functions (5.5, costs other calls
//! nothing); `kretprobe` on the same (5.15, for `bpf_task_pt_regs`);
//! `syscalls:sys_exit_*` (5.15; every system call of the host pays for it).
//! Only calls that succeeded count; lengths are whole pages, as the kernel takes
//! them. The break before a `brk` is known from the former call, fork or exec.
//! Cost per event: two hash look-ups and an atomic add each.

use aya_ebpf::{
    EbpfContext as _,
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_task_pt_regs,
    },
    macros::{btf_tracepoint, fexit, kretprobe, tracepoint},
    programs::{BtfTracePointContext, FExitContext, RetProbeContext, TracePointContext},
};
use memtrace_ebpf::{
    counts::{Drop, HeapCounts},
    stack::{KIND_BRK, KIND_MMAP},
};

use crate::{
    counters::{add, cgroup, dropped, process},
    globals::*,
    maps::BREAKS,
    probes::stack,
    registers,
    task::{self, Kernel},
};

const MREMAP_DONTUNMAP: u64 = 4;
/// Advice that gives memory back (include/uapi/asm-generic/mman-common.h):
/// DONTNEED, FREE, REMOVE, DONTNEED_LOCKED, GUARD_INSTALL.
const ADVICE_FREES: [u64; 5] = [4, 8, 9, 24, 102];
const MAX_ERRNO: u64 = 4095;

macro_rules! syscall_exit {
    ($call:ident, $fexit:ident, $kretprobe:ident, $tracepoint:ident) => {
        #[fexit]
        pub fn $fexit(ctx: FExitContext) -> i32 {
            if let Some(regs) = fexit_regs(&ctx) {
                $call(regs, fexit_ret(&ctx));
            }
            0
        }

        #[kretprobe]
        pub fn $kretprobe(ctx: RetProbeContext) -> u32 {
            if let Some(regs) = user_regs() {
                $call(regs, registers::returned(&ctx));
            }
            0
        }

        #[tracepoint]
        pub fn $tracepoint(_ctx: TracePointContext) -> u32 {
            if let Some(regs) = user_regs() {
                if let Some(ret) = regs.read::<u64>(&OFF_REGS_RET) {
                    $call(regs, ret);
                }
            }
            0
        }
    };
}

syscall_exit!(mmap, heap_mmap_fexit, heap_mmap_kretprobe, heap_mmap_exit);
syscall_exit!(
    munmap,
    heap_munmap_fexit,
    heap_munmap_kretprobe,
    heap_munmap_exit
);
syscall_exit!(
    mremap,
    heap_mremap_fexit,
    heap_mremap_kretprobe,
    heap_mremap_exit
);
syscall_exit!(brk, heap_brk_fexit, heap_brk_kretprobe, heap_brk_exit);
syscall_exit!(
    madvise,
    heap_madvise_fexit,
    heap_madvise_kretprobe,
    heap_madvise_exit
);

/// A new process starts with its parent's break.
#[btf_tracepoint(function = "sched_process_fork")]
pub fn heap_break_fork(ctx: BtfTracePointContext) -> i32 {
    let (Some(parent), Some(child)) = (
        Kernel::new(ctx.arg::<*const u8>(0)),
        Kernel::new(ctx.arg::<*const u8>(1)),
    ) else {
        return 0;
    };
    let Some(parent_tgid) = parent.read::<u32>(&OFF_TASK_TGID) else {
        return 0;
    };
    let Some(tgid) = child.read::<u32>(&OFF_TASK_TGID) else {
        return 0;
    };
    // Same tgid: a thread, which shares the break it already has.
    if tgid != parent_tgid {
        remember_break(child, tgid);
    }
    0
}

/// A program image starts with a break of its own.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn heap_break_exec(ctx: BtfTracePointContext) -> i32 {
    let Some(task) = Kernel::new(ctx.arg::<*const u8>(0)) else {
        return 0;
    };
    if let Some(tgid) = task.read::<u32>(&OFF_TASK_TGID) {
        remember_break(task, tgid);
    }
    0
}

#[inline(always)]
fn remember_break(task: Kernel, tgid: u32) {
    let Some(mm) = task.follow(&OFF_TASK_MM) else {
        return;
    };
    let Some(brk) = mm.read::<u64>(&OFF_MM_BRK) else {
        return;
    };
    if BREAKS.insert(tgid, brk, 0).is_err() {
        dropped(Drop::BreaksFull);
    }
}

/// A system call function takes the registers and returns a long. In the BTF of 5.10 some
/// take a struct that is only declared, which the verifier does not let through: read by helper.
#[inline(always)]
fn fexit_regs(ctx: &FExitContext) -> Option<Kernel> {
    if TRUSTED_TASK.load() != 0 {
        return Kernel::new(ctx.arg::<*const u8>(0));
    }
    // SAFETY: the helper tolerates any address; the context is readable memory.
    let regs = unsafe { bpf_probe_read_kernel(ctx.as_ptr().cast::<*const u8>()) };
    Kernel::new(regs.ok()?)
}

/// The return value is the slot behind the only argument, on every kernel; the helper for it is newer.
#[inline(always)]
fn fexit_ret(ctx: &FExitContext) -> u64 {
    ctx.arg::<u64>(1)
}

/// The registers with which the running task entered the kernel (5.15).
#[inline(always)]
fn user_regs() -> Option<Kernel> {
    // SAFETY: takes a trusted task pointer, which the other helper returns.
    unsafe { Kernel::new(bpf_task_pt_regs(bpf_get_current_task_btf()) as *const u8) }
}

#[inline(always)]
fn failed(ret: u64) -> bool {
    ret > u64::MAX - MAX_ERRNO
}

/// Up to whole pages, as mm/mmap.c does.
#[inline(always)]
fn pages(length: u64) -> u64 {
    let page = PAGE_SIZE.load();
    length.wrapping_add(page - 1) & !(page - 1)
}

#[inline(always)]
fn mmap(regs: Kernel, ret: u64) {
    if !failed(ret) {
        let bytes = pages(regs.read(&OFF_REGS_ARG1).unwrap_or(0));
        count(Field::Mmap, bytes);
        stack::mapped(KIND_MMAP, regs, ret, bytes);
    }
}

#[inline(always)]
fn munmap(regs: Kernel, ret: u64) {
    if ret == 0 {
        count(Field::Munmap, pages(regs.read(&OFF_REGS_ARG1).unwrap_or(0)));
    }
}

#[inline(always)]
fn mremap(regs: Kernel, ret: u64) {
    if failed(ret) {
        return;
    }
    let old = pages(regs.read(&OFF_REGS_ARG1).unwrap_or(0));
    let new = pages(regs.read(&OFF_REGS_ARG2).unwrap_or(0));
    let flags: u64 = regs.read(&OFF_REGS_ARG3).unwrap_or(0);
    if flags & MREMAP_DONTUNMAP != 0 {
        // The old range stays mapped beside the new one.
        count(Field::Mmap, new);
    } else if new > old {
        count(Field::Mmap, new - old);
    } else if new < old {
        count(Field::Munmap, old - new);
    }
}

#[inline(always)]
fn madvise(regs: Kernel, ret: u64) {
    let advice: u64 = regs.read(&OFF_REGS_ARG2).unwrap_or(0) & 0xffff_ffff;
    if ret == 0 && frees(advice) {
        count(
            Field::MadviseFree,
            pages(regs.read(&OFF_REGS_ARG1).unwrap_or(0)),
        );
    }
}

#[inline(always)]
fn frees(advice: u64) -> bool {
    advice == ADVICE_FREES[0]
        || advice == ADVICE_FREES[1]
        || advice == ADVICE_FREES[2]
        || advice == ADVICE_FREES[3]
        || advice == ADVICE_FREES[4]
}

/// `brk` returns the break that now holds; a refused call returns the old one.
#[inline(always)]
fn brk(regs: Kernel, ret: u64) {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let asked: u64 = regs.read(&OFF_REGS_ARG0).unwrap_or(0);
    let before = BREAKS.get_ptr_mut(tgid);
    match before {
        Some(before) => {
            // SAFETY: a live map value; brk calls of one process take its mmap lock.
            let old = unsafe { core::mem::replace(&mut *before, ret) };
            if ret != asked {
                return;
            }
            if ret > old {
                count(Field::BrkGrow, ret - old);
                stack::mapped(KIND_BRK, regs, old, ret - old);
            } else if ret < old {
                count(Field::BrkShrink, old - ret);
            }
        }
        None => {
            if ret == asked {
                dropped(Drop::BreakUnknown);
            }
            if BREAKS.insert(tgid, ret, 0).is_err() {
                dropped(Drop::BreaksFull);
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Field {
    Mmap,
    Munmap,
    BrkGrow,
    BrkShrink,
    MadviseFree,
}

/// Adds to the totals of the running task's cgroup and process.
#[inline(always)]
fn count(field: Field, bytes: u64) {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let Some(id) = task::current().and_then(task::memory_cgroup) else {
        dropped(Drop::CgroupUnknown);
        return;
    };
    if let Some(counts) = cgroup(id) {
        // SAFETY: a live map value.
        unsafe { add(slot(&raw mut (*counts).heap, field), bytes) };
    }
    if let Some(counts) = process(id, tgid) {
        // SAFETY: a live map value.
        unsafe { add(slot(counts, field), bytes) };
    }
}

/// # Safety
/// `counts` is a live map value.
#[inline(always)]
unsafe fn slot(counts: *mut HeapCounts, field: Field) -> *mut u64 {
    // SAFETY: field addresses of a live value.
    unsafe {
        match field {
            Field::Mmap => &raw mut (*counts).mmap_bytes,
            Field::Munmap => &raw mut (*counts).munmap_bytes,
            Field::BrkGrow => &raw mut (*counts).brk_grow_bytes,
            Field::BrkShrink => &raw mut (*counts).brk_shrink_bytes,
            Field::MadviseFree => &raw mut (*counts).madvise_free_bytes,
        }
    }
}
