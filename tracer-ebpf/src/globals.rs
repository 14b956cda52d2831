//! Constants that user space freezes into the object before it is loaded.
//!
//! `OFF_<STRUCT>_<FIELD>` are bytes from the start of the struct, `ABSENT`
//! where the kernel has no such field. The verifier sees them as constants and
//! prunes every branch that a kernel cannot take.

use aya_ebpf::Global;
use memtrace_ebpf::offsets::ABSENT;

macro_rules! globals {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $value:expr;)*) => {
        $($(#[$doc])* #[unsafe(no_mangle)] pub static $name: Global<$type> = Global::new($value);)*
    };
}

globals! {
    /// 1 where `bpf_get_current_task_btf` exists (5.11) and pointers may be followed by plain loads.
    TRUSTED_TASK: u32 = 0;
    /// Bytes of a page.
    PAGE_SIZE: u64 = 4096;
    /// A fault is sampled when the CPU's fault count has none of these bits.
    FAULT_SAMPLE_MASK: u64 = 63;
    /// Peak RSS, in pages, from which the end of a process is told one by one.
    EXIT_MIN_PEAK_PAGES: u64 = 4096;
    /// `memory_cgrp_id` of `enum cgroup_subsys_id`.
    MEMORY_CGRP_ID: u32 = 0;

    OFF_TASK_CGROUPS: u32 = ABSENT;
    OFF_TASK_COMM: u32 = ABSENT;
    OFF_TASK_PID: u32 = ABSENT;
    OFF_TASK_TGID: u32 = ABSENT;
    OFF_TASK_MM: u32 = ABSENT;
    OFF_TASK_CRED: u32 = ABSENT;
    OFF_TASK_SIGNAL: u32 = ABSENT;
    OFF_TASK_GROUP_LEADER: u32 = ABSENT;
    OFF_TASK_MIN_FLT: u32 = ABSENT;
    OFF_TASK_MAJ_FLT: u32 = ABSENT;
    OFF_CRED_UID: u32 = ABSENT;
    OFF_SIGNAL_LIVE: u32 = ABSENT;
    OFF_SIGNAL_MAXRSS: u32 = ABSENT;
    OFF_SIGNAL_MIN_FLT: u32 = ABSENT;
    OFF_SIGNAL_MAJ_FLT: u32 = ABSENT;
    OFF_SIGNAL_OOM_SCORE_ADJ: u32 = ABSENT;
    OFF_CSS_SET_MEMORY: u32 = ABSENT;
    OFF_CSS_CGROUP: u32 = ABSENT;
    OFF_CGROUP_KN: u32 = ABSENT;
    OFF_CGROUP_ROOT: u32 = ABSENT;
    OFF_KERNFS_NODE_ID: u32 = ABSENT;
    OFF_CGROUP_ROOT_SUBSYS_MASK: u32 = ABSENT;
    OFF_MM_TOTAL_VM: u32 = ABSENT;
    OFF_MM_BRK: u32 = ABSENT;
    OFF_MM_PGTABLES_BYTES: u32 = ABSENT;
    OFF_MM_FILE_PAGES: u32 = ABSENT;
    OFF_MM_ANON_PAGES: u32 = ABSENT;
    OFF_MM_SWAP_PAGES: u32 = ABSENT;
    OFF_MM_SHMEM_PAGES: u32 = ABSENT;
    /// System call arguments in `struct pt_regs`.
    OFF_REGS_ARG0: u32 = ABSENT;
    OFF_REGS_ARG1: u32 = ABSENT;
    OFF_REGS_ARG2: u32 = ABSENT;
    OFF_REGS_ARG3: u32 = ABSENT;
    /// Where a system call leaves its result in `struct pt_regs`.
    OFF_REGS_RET: u32 = ABSENT;
}
