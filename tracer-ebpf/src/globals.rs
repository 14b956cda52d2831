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
    /// Its logarithm.
    PAGE_SHIFT: u32 = 12;
    /// A fault is sampled when the CPU's fault count has none of these bits.
    FAULT_SAMPLE_MASK: u64 = 63;
    /// Peak RSS, in pages, from which the end of a process is told one by one.
    EXIT_MIN_PEAK_PAGES: u64 = 4096;
    /// 1: pages are sampled with stacks; what depends on it is pruned otherwise.
    STACKS: u32 = 0;
    /// 1 where `bpf_task_pt_regs` exists (5.15).
    TASK_REGS: u32 = 0;
    /// Makes the choice of pages unforeseeable.
    STACK_SEED: u64 = 0;
    /// Pages of a huge page.
    HUGE_PAGES: u64 = 512;
    /// `memory_cgrp_id` of `enum cgroup_subsys_id`.
    MEMORY_CGRP_ID: u32 = 0;
    /// 0: command lines are not kept, only the path of the executable.
    COMMAND_LINES: u32 = 1;
    /// Bytes of `struct upid`.
    SIZE_UPID: u32 = ABSENT;

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
    OFF_CRED_CAP_EFFECTIVE: u32 = ABSENT;
    OFF_CRED_USER_NS: u32 = ABSENT;
    OFF_USER_NS_LEVEL: u32 = ABSENT;
    OFF_SIGNAL_LIVE: u32 = ABSENT;
    OFF_SIGNAL_MAXRSS: u32 = ABSENT;
    OFF_SIGNAL_MIN_FLT: u32 = ABSENT;
    OFF_SIGNAL_MAJ_FLT: u32 = ABSENT;
    OFF_SIGNAL_NR_THREADS: u32 = ABSENT;
    OFF_SIGNAL_THREAD_HEAD: u32 = ABSENT;
    OFF_TASK_THREAD_NODE: u32 = ABSENT;
    OFF_SIGNAL_OOM_SCORE_ADJ: u32 = ABSENT;
    OFF_CSS_SET_MEMORY: u32 = ABSENT;
    OFF_CSS_CGROUP: u32 = ABSENT;
    OFF_CGROUP_KN: u32 = ABSENT;
    OFF_CGROUP_ROOT: u32 = ABSENT;
    OFF_KERNFS_NODE_ID: u32 = ABSENT;
    OFF_CGROUP_ROOT_SUBSYS_MASK: u32 = ABSENT;
    OFF_TASK_ACTIVE_MEMCG: u32 = ABSENT;
    OFF_TASK_START_BOOTTIME: u32 = ABSENT;
    OFF_SIGNAL_OOM_MM: u32 = ABSENT;
    OFF_SIGNAL_PID: u32 = ABSENT;
    OFF_PID_LEVEL: u32 = ABSENT;
    OFF_PID_NUMBERS: u32 = ABSENT;
    OFF_UPID_NR: u32 = ABSENT;
    OFF_CSS_SET_DFL_CGRP: u32 = ABSENT;
    OFF_CSS_PARENT: u32 = ABSENT;
    OFF_MEMCG_CSS: u32 = ABSENT;
    OFF_MEMCG_USAGE: u32 = ABSENT;
    OFF_MEMCG_MAX: u32 = ABSENT;
    OFF_MEMCG_PARENT: u32 = ABSENT;
    OFF_MEMCG_FAILCNT: u32 = ABSENT;
    OFF_MEMCG_SWAP_USAGE: u32 = ABSENT;
    OFF_MEMCG_SWAP_MAX: u32 = ABSENT;
    OFF_MEMCG_OOM_EVENTS: u32 = ABSENT;
    OFF_MEMCG_OOM_KILLS: u32 = ABSENT;
    OFF_OC_MEMCG: u32 = ABSENT;
    OFF_OC_GFP_MASK: u32 = ABSENT;
    OFF_OC_ORDER: u32 = ABSENT;
    OFF_OC_TOTALPAGES: u32 = ABSENT;
    OFF_OC_CHOSEN_POINTS: u32 = ABSENT;
    OFF_OC_CONSTRAINT: u32 = ABSENT;
    OFF_BPRM_INTERP: u32 = ABSENT;
    OFF_MM_OWNER: u32 = ABSENT;
    OFF_MM_ARG_START: u32 = ABSENT;
    OFF_MM_ARG_END: u32 = ABSENT;
    OFF_MM_TOTAL_VM: u32 = ABSENT;
    OFF_MM_BRK: u32 = ABSENT;
    OFF_MM_START_STACK: u32 = ABSENT;
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
    OFF_REGS_IP: u32 = ABSENT;
    OFF_REGS_SP: u32 = ABSENT;
    OFF_REGS_BP: u32 = ABSENT;
    OFF_REGS_LR: u32 = ABSENT;
    /// First argument of a function of the kernel in `struct pt_regs`.
    OFF_REGS_FUNCTION_ARG0: u32 = ABSENT;
    /// Where a system call or a function leaves its result in `struct pt_regs`.
    OFF_REGS_RET: u32 = ABSENT;
}
