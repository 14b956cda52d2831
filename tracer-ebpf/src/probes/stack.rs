//! Sampled pages with the user stack that touched them: which code grows.
//!
//! Hooks: those of `fault` (write faults of user addresses) and of `heap`
//! (mmap and brk that succeeded). Faults with address and registers: x86-64. Pages are chosen by a hash of process
//! and page number, so that a page that is given back and touched again
//! is chosen again. User registers are the tracepoint's argument, or those of
//! `bpf_task_pt_regs` (5.15) where the kernel itself touched the page.
//! Cost per event: a hash in registers; a chosen one walks to the cgroup and
//! copies at most 16 KiB of the user stack into the ring.

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_get_current_task_btf, bpf_ktime_get_boot_ns, bpf_task_pt_regs,
    generated::bpf_probe_read_user,
};
use memtrace_ebpf::{
    counts::Drop,
    stack::{CHUNK_BYTES, KIND_FAULT, OFF, STACK_BYTES, StackHead, lot, threshold},
};

use crate::{
    bare::{self, Bare},
    counters::dropped,
    globals::*,
    maps::{STACK_CONTROL, STACK_SAMPLES, STACK_SCRATCH, STACK_SHIFTS, StackScratch},
    task::{self, Kernel},
};

/// `X86_PF_WRITE` (arch/x86/include/asm/trap_pf.h): only writes make anonymous memory.
const FAULT_WRITE: u64 = 2;
/// `X86_PF_PROT`: the page is there.
const FAULT_PROTECTION: u64 = 1;

/// A page fault of the running task. `regs`: where it was in user code; `None`: it was in the kernel.
#[inline(always)]
pub fn fault(address: u64, regs: Option<*const u8>, error_code: u64) {
    if STACKS.load() == 0 || error_code & FAULT_WRITE == 0 {
        return;
    }
    let Some(control) = STACK_CONTROL.get(0) else {
        return;
    };
    let Some(task) = task::current() else { return };
    let tgid = task::tgid(task);
    if control.only_tgid != 0 && control.only_tgid != tgid {
        return;
    }
    let page = page(address);
    let boost = if page & (HUGE_PAGES.load() - 1) == 0 {
        control.boundary_shift
    } else {
        0
    };
    let lot = lot(STACK_SEED.load(), u64::from(tgid), page);
    if control.floor_shift >= OFF || lot > threshold(control.floor_shift.saturating_sub(boost)) {
        return;
    }
    let Some(cgroup_id) = task::memory_cgroup(task) else {
        dropped(Drop::CgroupUnknown);
        return;
    };
    let shift = shift_of(cgroup_id, control.usual_shift);
    if shift >= OFF {
        return;
    }
    let shift = shift.saturating_sub(boost);
    if lot > threshold(shift) {
        return;
    }
    let regs = match regs {
        Some(regs) => Bare::new(regs),
        None => user_regs(),
    };
    let protected = (error_code & FAULT_PROTECTION) as u32;
    let sample = Sample {
        kind: KIND_FAULT,
        cgroup_id,
        shift,
        address,
        bytes: 0,
        protected,
    };
    send(task, regs, sample, control.least_age_ns);
}

/// Address space that the running task was given; `regs` as it entered the kernel.
#[inline(always)]
pub fn mapped(kind: u32, regs: Kernel, start: u64, bytes: u64) {
    if STACKS.load() == 0 || bytes == 0 {
        return;
    }
    let Some(control) = STACK_CONTROL.get(0) else {
        return;
    };
    let Some(task) = task::current() else { return };
    let tgid = task::tgid(task);
    if control.only_tgid != 0 && control.only_tgid != tgid {
        return;
    }
    let page = page(start);
    let pages = self::page(bytes);
    let lot = lot(STACK_SEED.load(), u64::from(tgid), page);
    if control.floor_shift >= OFF || !drawn(lot, pages, control.floor_shift) {
        return;
    }
    let Some(cgroup_id) = task::memory_cgroup(task) else {
        dropped(Drop::CgroupUnknown);
        return;
    };
    let shift = shift_of(cgroup_id, control.usual_shift);
    if shift >= OFF || !drawn(lot, pages, shift) {
        return;
    }
    let regs = Bare::new(regs.address());
    let sample = Sample {
        kind,
        cgroup_id,
        shift,
        address: start,
        bytes,
        protected: 0,
    };
    send(task, regs, sample, control.least_age_ns);
}

/// Whether a range of pages is sampled: as likely as one page of it, and always from `2^shift` on.
#[inline(always)]
fn drawn(lot: u64, pages: u64, shift: u32) -> bool {
    let shift = shift & 63;
    pages >> shift != 0 || lot <= threshold(shift).wrapping_mul(pages)
}

/// A shift, because a division would have to fear a zero.
#[inline(always)]
fn page(address: u64) -> u64 {
    address >> (PAGE_SHIFT.load() & 63)
}

#[inline(always)]
fn shift_of(cgroup_id: u64, usual: u32) -> u32 {
    match STACK_SHIFTS.get_ptr(cgroup_id) {
        // SAFETY: a live map value.
        Some(shift) => unsafe { *shift },
        None => usual,
    }
}

/// The registers with which the running task entered the kernel.
#[inline(always)]
fn user_regs() -> Bare {
    if TASK_REGS.load() == 0 {
        return Bare::NONE;
    }
    // SAFETY: takes a trusted task pointer, which the other helper returns.
    Bare::new(unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) as *const u8 })
}

/// What was sampled.
#[derive(Clone, Copy)]
struct Sample {
    kind: u32,
    cgroup_id: u64,
    shift: u32,
    address: u64,
    bytes: u64,
    protected: u32,
}

#[inline(always)]
fn send(task: Kernel, regs: Bare, sample: Sample, least_age_ns: u64) {
    let Some(scratch) = STACK_SCRATCH.get_ptr_mut(0) else {
        return;
    };
    let task = Bare::new(task.address());
    let leader = task.follow(&OFF_TASK_GROUP_LEADER);
    let process_start_ns = leader.value(&OFF_TASK_START_BOOTTIME, 0);
    // SAFETY: takes no argument.
    let now_ns = unsafe { bpf_ktime_get_boot_ns() };
    if now_ns.wrapping_sub(process_start_ns) < least_age_ns {
        return;
    }
    let sp: u64 = regs.value(&OFF_REGS_SP, 0);
    if sp == 0 {
        dropped(Drop::StackUnreadable);
        return;
    }
    let ids = bpf_get_current_pid_tgid();
    let mm = task.follow(&OFF_TASK_MM);
    if mm.is_none() {
        return;
    }
    // SAFETY: a per-CPU value, and `busy` keeps programs away that preempt this one.
    unsafe {
        if (&raw mut (*scratch).busy).read_volatile() != 0 {
            dropped(Drop::StackUnreadable);
            return;
        }
        (&raw mut (*scratch).busy).write_volatile(1);
        let head = &raw mut (*scratch).head;
        head.write(StackHead {
            kind: sample.kind,
            tgid: (ids >> 32) as u32,
            tid: ids as u32,
            shift: sample.shift,
            cgroup_id: sample.cgroup_id,
            mm: mm.address() as u64,
            start_stack: mm.value(&OFF_MM_START_STACK, 0),
            address: sample.address,
            bytes: sample.bytes,
            time_ns: now_ns,
            ip: regs.value(&OFF_REGS_IP, 0),
            sp,
            bp: regs.value(&OFF_REGS_BP, 0),
            lr: regs.value(&OFF_REGS_LR, 0),
            process_start_ns,
            stack_len: 0,
            protected: sample.protected,
            comm: bare::comm(task),
        });
        let len = copy_stack(scratch, sp) as u32;
        (*head).stack_len = len;
        let record = core::slice::from_raw_parts(
            head.cast::<u8>(),
            size_of::<StackHead>() + (len as usize & (2 * STACK_BYTES - 1)),
        );
        if STACK_SAMPLES.output::<[u8]>(record, 0).is_err() {
            dropped(Drop::StackRingFull);
        }
        (&raw mut (*scratch).busy).write_volatile(0);
    }
}

/// Copies the stack upwards from `sp`, a page at a time: the first unreadable one ends it.
///
/// # Safety
/// `scratch` is a live value that nobody else writes.
#[inline(always)]
unsafe fn copy_stack(scratch: *mut StackScratch, sp: u64) -> u64 {
    let mut len: u64 = 0;
    let first = CHUNK_BYTES as u64 - (sp & (CHUNK_BYTES as u64 - 1));
    // SAFETY: by contract; the copy is bounded by the buffer, and the helper tolerates any source.
    unsafe {
        let stack = (&raw mut (*scratch).stack).cast::<u8>();
        if bpf_probe_read_user(stack.cast(), first as u32, sp as *const _) != 0 {
            return 0;
        }
        len += first;
        let mut chunk = 0;
        while chunk < STACK_BYTES / CHUNK_BYTES - 1 {
            let at = (len & (STACK_BYTES as u64 - 1)) as usize;
            let failed = bpf_probe_read_user(
                stack.add(at).cast(),
                CHUNK_BYTES as u32,
                (sp + len) as *const _,
            );
            if failed != 0 {
                break;
            }
            len += CHUNK_BYTES as u64;
            chunk += 1;
        }
    }
    len
}
