//! Reading `task_struct` and what hangs on it, by offsets from BTF.
//!
//! Where the kernel gives a trusted task pointer, fields are plain loads that
//! the verifier checks against its own BTF: a wrong offset does not load.
//! Elsewhere (5.10) the same walk goes through `bpf_probe_read_kernel`.

use aya_ebpf::{
    Global,
    helpers::{bpf_get_current_task, bpf_get_current_task_btf, bpf_probe_read_kernel},
};
use memtrace_ebpf::{COMM_LEN, offsets::ABSENT};

use crate::globals::*;

/// A kernel struct at an address that the kernel itself gave us.
#[derive(Clone, Copy)]
pub struct Kernel(*const u8);

impl Kernel {
    #[inline(always)]
    pub fn new(address: *const u8) -> Option<Self> {
        if address.is_null() {
            None
        } else {
            Some(Self(address))
        }
    }

    #[inline(always)]
    pub fn address(self) -> *const u8 {
        self.0
    }

    /// The field at a frozen offset; `None` where the kernel has no such field.
    #[inline(always)]
    pub fn read<T: Copy>(self, offset: &Global<u32>) -> Option<T> {
        let offset = offset.load();
        if offset == ABSENT {
            return None;
        }
        // SAFETY: the offset comes from this kernel's BTF; the verifier checks
        // the plain load, and the helper tolerates any address.
        unsafe {
            let field = self.0.add(offset as usize).cast::<T>();
            if TRUSTED_TASK.load() != 0 {
                Some(field.read_volatile())
            } else {
                bpf_probe_read_kernel(field).ok()
            }
        }
    }

    /// The struct that a pointer field leads to.
    #[inline(always)]
    pub fn follow(self, offset: &Global<u32>) -> Option<Kernel> {
        Kernel::new(self.read::<*const u8>(offset)?)
    }
}

/// The running task.
#[inline(always)]
pub fn current() -> Option<Kernel> {
    // SAFETY: both helpers take no argument and return the running task.
    unsafe {
        if TRUSTED_TASK.load() != 0 {
            Kernel::new(bpf_get_current_task_btf() as *const u8)
        } else {
            Kernel::new(bpf_get_current_task() as *const u8)
        }
    }
}

/// `signal_struct` of the process of a thread that exits, if no other is left. Counted down before the hook of
/// its end: all threads between the two find nobody left.
#[inline(always)]
pub fn ended_process(task: Kernel) -> Option<Kernel> {
    let signal = task.follow(&OFF_TASK_SIGNAL)?;
    (signal.read::<u32>(&OFF_SIGNAL_LIVE) == Some(0)).then_some(signal)
}

/// Process id of a task, 0 where not readable.
#[inline(always)]
pub fn tgid(task: Kernel) -> u32 {
    task.read(&OFF_TASK_TGID).unwrap_or(0)
}

/// Id of a task's memory cgroup: `task → cgroups → subsys[memory] → cgroup → kn → id`.
/// The same on cgroup v1, hybrid and v2; the inode of the cgroup's directory.
#[inline(always)]
pub fn memory_cgroup(task: Kernel) -> Option<u64> {
    let css = task
        .follow(&OFF_TASK_CGROUPS)?
        .follow(&OFF_CSS_SET_MEMORY)?;
    cgroup_id(css.follow(&OFF_CSS_CGROUP)?)
}

/// Id of a `struct cgroup`.
#[inline(always)]
pub fn cgroup_id(cgroup: Kernel) -> Option<u64> {
    cgroup.follow(&OFF_CGROUP_KN)?.read(&OFF_KERNFS_NODE_ID)
}

/// Whether a `struct cgroup` is in the hierarchy of the memory controller.
#[inline(always)]
pub fn in_memory_hierarchy(cgroup: Kernel) -> bool {
    let mask = cgroup
        .follow(&OFF_CGROUP_ROOT)
        .and_then(|root| root.read::<u32>(&OFF_CGROUP_ROOT_SUBSYS_MASK));
    match mask {
        Some(mask) => mask & (1 << (MEMORY_CGRP_ID.load() & 31)) != 0,
        None => false,
    }
}

/// `task->comm`, NUL-padded.
#[inline(always)]
pub fn comm(task: Kernel) -> [u8; COMM_LEN] {
    task.read(&OFF_TASK_COMM)
        .map_or([0; COMM_LEN], |words: [u64; 2]| {
            // SAFETY: both are 16 plain bytes.
            unsafe { core::mem::transmute::<[u64; 2], [u8; COMM_LEN]>(words) }
        })
}
