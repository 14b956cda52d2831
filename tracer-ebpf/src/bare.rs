//! Kernel structs read by helper only, for paths where nothing is hot.
//!
//! There is no `Option` here: older verifiers (before 6.3) refuse to copy its unused half.

use aya_ebpf::{Global, helpers::generated::bpf_probe_read_kernel};
use memtrace_ebpf::{COMM_LEN, offsets, oom::ABSENT};

use crate::{globals::*, task};

/// A kernel struct. Null stands for one that is not there: all that is read of it is absent.
#[derive(Clone, Copy)]
pub struct Bare(*const u8);

impl Bare {
    pub const NONE: Self = Self(core::ptr::null());

    #[inline(always)]
    pub fn new(address: *const u8) -> Self {
        Self(address)
    }

    /// The running task.
    #[inline(always)]
    pub fn current() -> Self {
        match task::current() {
            Some(task) => Self(task.address()),
            None => Self::NONE,
        }
    }

    #[inline(always)]
    pub fn is_none(self) -> bool {
        self.0.is_null()
    }

    #[inline(always)]
    pub fn address(self) -> *const u8 {
        self.0
    }

    /// The field at a frozen offset, `absent` where there is none.
    #[inline(always)]
    pub fn value<T: Copy>(self, offset: &Global<u32>, absent: T) -> T {
        let offset = offset.load();
        if offset == offsets::ABSENT || self.0.is_null() {
            return absent;
        }
        let mut value = absent;
        // SAFETY: the helper tolerates any source; the target is ours.
        let failed = unsafe {
            bpf_probe_read_kernel(
                (&raw mut value).cast(),
                size_of::<T>() as u32,
                self.0.add(offset as usize).cast(),
            )
        };
        if failed != 0 { absent } else { value }
    }

    #[inline(always)]
    pub fn u64(self, offset: &Global<u32>) -> u64 {
        self.value(offset, ABSENT)
    }

    #[inline(always)]
    pub fn u32(self, offset: &Global<u32>, absent: u32) -> u32 {
        self.value(offset, absent)
    }

    /// The struct that a pointer field leads to.
    #[inline(always)]
    pub fn follow(self, offset: &Global<u32>) -> Self {
        Self(self.value(offset, core::ptr::null()))
    }

    /// The address `bytes` further.
    #[inline(always)]
    pub fn add(self, bytes: usize) -> Self {
        if self.0.is_null() {
            return self;
        }
        // SAFETY: only dereferenced by a helper that tolerates any address.
        Self(unsafe { self.0.add(bytes) })
    }

    /// The struct that this one is a member of, `offset` bytes from its start.
    #[inline(always)]
    pub fn container(self, offset: &Global<u32>) -> Self {
        if self.0.is_null() {
            return self;
        }
        // SAFETY: as above.
        Self(unsafe { self.0.sub(offset.load() as usize) })
    }
}

/// `task_struct::comm`, NUL-padded; all NUL where not readable.
#[inline(always)]
pub fn comm(task: Bare) -> [u8; COMM_LEN] {
    task.value(&OFF_TASK_COMM, [0; COMM_LEN])
}

/// State of a task in the memory controller: of its own cgroup or the nearest above that has one.
#[inline(always)]
pub fn memory_css(task: Bare) -> Bare {
    task.follow(&OFF_TASK_CGROUPS).follow(&OFF_CSS_SET_MEMORY)
}

/// Id of the cgroup of a `cgroup_subsys_state`.
#[inline(always)]
pub fn css_cgroup_id(css: Bare) -> u64 {
    cgroup_id(css.follow(&OFF_CSS_CGROUP))
}

/// Id of a task's cgroup in the default hierarchy (cgroup2).
#[inline(always)]
pub fn default_cgroup_id(task: Bare) -> u64 {
    cgroup_id(task.follow(&OFF_TASK_CGROUPS).follow(&OFF_CSS_SET_DFL_CGRP))
}

#[inline(always)]
fn cgroup_id(cgroup: Bare) -> u64 {
    cgroup.follow(&OFF_CGROUP_KN).u64(&OFF_KERNFS_NODE_ID)
}
