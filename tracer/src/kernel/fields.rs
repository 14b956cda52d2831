//! The kernel fields that memtrace's programs read, and where this kernel has them.
//!
//! One table: name of the global in the BPF object, struct, paths in order of
//! preference. A path that no kernel version has is simply never found.

use memtrace_ebpf::offsets::ABSENT;

use super::btf::Btf;

/// One field and the globals that wait for its offset.
#[derive(Debug)]
pub struct Field {
    /// `OFF_…` in `tracer-ebpf/src/globals.rs`.
    pub global: &'static str,
    pub strukt: &'static str,
    /// The first that exists is used.
    pub paths: &'static [&'static str],
    /// Without it memory cannot be attributed to a cgroup at all.
    pub required: bool,
}

const fn required(
    global: &'static str,
    strukt: &'static str,
    paths: &'static [&'static str],
) -> Field {
    Field {
        global,
        strukt,
        paths,
        required: true,
    }
}

const fn optional(
    global: &'static str,
    strukt: &'static str,
    paths: &'static [&'static str],
) -> Field {
    Field {
        global,
        strukt,
        paths,
        required: false,
    }
}

/// Every field. `rss_stat` became per-CPU counters in 6.2.
pub const FIELDS: &[Field] = &[
    required("OFF_TASK_CGROUPS", "task_struct", &["cgroups"]),
    required("OFF_TASK_TGID", "task_struct", &["tgid"]),
    required("OFF_CSS_SET_MEMORY", "css_set", &["subsys[memory_cgrp_id]"]),
    required("OFF_CSS_CGROUP", "cgroup_subsys_state", &["cgroup"]),
    required("OFF_CGROUP_KN", "cgroup", &["kn"]),
    required("OFF_KERNFS_NODE_ID", "kernfs_node", &["id"]),
    optional("OFF_CGROUP_ROOT", "cgroup", &["root"]),
    optional(
        "OFF_CGROUP_ROOT_SUBSYS_MASK",
        "cgroup_root",
        &["subsys_mask"],
    ),
    optional("OFF_TASK_COMM", "task_struct", &["comm"]),
    optional("OFF_TASK_PID", "task_struct", &["pid"]),
    optional("OFF_TASK_MM", "task_struct", &["mm"]),
    optional("OFF_TASK_CRED", "task_struct", &["cred"]),
    optional("OFF_TASK_SIGNAL", "task_struct", &["signal"]),
    optional("OFF_TASK_GROUP_LEADER", "task_struct", &["group_leader"]),
    optional("OFF_TASK_MIN_FLT", "task_struct", &["min_flt"]),
    optional("OFF_TASK_MAJ_FLT", "task_struct", &["maj_flt"]),
    optional("OFF_CRED_UID", "cred", &["uid"]),
    optional("OFF_CRED_CAP_EFFECTIVE", "cred", &["cap_effective"]),
    optional("OFF_CRED_USER_NS", "cred", &["user_ns"]),
    optional("OFF_USER_NS_LEVEL", "user_namespace", &["level"]),
    optional("OFF_SIGNAL_LIVE", "signal_struct", &["live"]),
    optional("OFF_SIGNAL_MAXRSS", "signal_struct", &["maxrss"]),
    optional("OFF_SIGNAL_MIN_FLT", "signal_struct", &["min_flt"]),
    optional("OFF_SIGNAL_MAJ_FLT", "signal_struct", &["maj_flt"]),
    optional("OFF_SIGNAL_NR_THREADS", "signal_struct", &["nr_threads"]),
    optional("OFF_SIGNAL_THREAD_HEAD", "signal_struct", &["thread_head"]),
    optional("OFF_TASK_THREAD_NODE", "task_struct", &["thread_node"]),
    optional(
        "OFF_SIGNAL_OOM_SCORE_ADJ",
        "signal_struct",
        &["oom_score_adj"],
    ),
    optional("OFF_TASK_ACTIVE_MEMCG", "task_struct", &["active_memcg"]),
    optional(
        "OFF_TASK_START_BOOTTIME",
        "task_struct",
        &["start_boottime"],
    ),
    optional("OFF_SIGNAL_OOM_MM", "signal_struct", &["oom_mm"]),
    optional("OFF_SIGNAL_PID", "signal_struct", &["pids[PIDTYPE_TGID]"]),
    optional("OFF_PID_LEVEL", "pid", &["level"]),
    optional("OFF_PID_NUMBERS", "pid", &["numbers"]),
    optional("OFF_UPID_NR", "upid", &["nr"]),
    optional("OFF_CSS_SET_DFL_CGRP", "css_set", &["dfl_cgrp"]),
    optional("OFF_CSS_PARENT", "cgroup_subsys_state", &["parent"]),
    optional("OFF_MEMCG_CSS", "mem_cgroup", &["css"]),
    optional("OFF_MEMCG_USAGE", "mem_cgroup", &["memory.usage"]),
    optional("OFF_MEMCG_MAX", "mem_cgroup", &["memory.max"]),
    optional("OFF_MEMCG_PARENT", "mem_cgroup", &["memory.parent"]),
    optional("OFF_MEMCG_FAILCNT", "mem_cgroup", &["memory.failcnt"]),
    optional("OFF_MEMCG_SWAP_USAGE", "mem_cgroup", &["swap.usage"]),
    optional("OFF_MEMCG_SWAP_MAX", "mem_cgroup", &["swap.max"]),
    optional(
        "OFF_MEMCG_OOM_EVENTS",
        "mem_cgroup",
        &["memory_events_local[MEMCG_OOM]"],
    ),
    optional(
        "OFF_MEMCG_OOM_KILLS",
        "mem_cgroup",
        &["memory_events_local[MEMCG_OOM_KILL]"],
    ),
    optional("OFF_OC_MEMCG", "oom_control", &["memcg"]),
    optional("OFF_OC_GFP_MASK", "oom_control", &["gfp_mask"]),
    optional("OFF_OC_ORDER", "oom_control", &["order"]),
    optional("OFF_OC_TOTALPAGES", "oom_control", &["totalpages"]),
    optional("OFF_OC_CHOSEN_POINTS", "oom_control", &["chosen_points"]),
    optional("OFF_OC_CONSTRAINT", "oom_control", &["constraint"]),
    optional("OFF_BPRM_INTERP", "linux_binprm", &["interp"]),
    optional("OFF_MM_OWNER", "mm_struct", &["owner"]),
    optional("OFF_MM_ARG_START", "mm_struct", &["arg_start"]),
    optional("OFF_MM_ARG_END", "mm_struct", &["arg_end"]),
    optional("OFF_MM_TOTAL_VM", "mm_struct", &["total_vm"]),
    optional("OFF_MM_BRK", "mm_struct", &["brk"]),
    optional("OFF_MM_START_STACK", "mm_struct", &["start_stack"]),
    optional("OFF_MM_PGTABLES_BYTES", "mm_struct", &["pgtables_bytes"]),
    optional("OFF_MM_FILE_PAGES", "mm_struct", RSS_FILE),
    optional("OFF_MM_ANON_PAGES", "mm_struct", RSS_ANON),
    optional("OFF_MM_SWAP_PAGES", "mm_struct", RSS_SWAP),
    optional("OFF_MM_SHMEM_PAGES", "mm_struct", RSS_SHMEM),
    optional("OFF_REGS_ARG0", "pt_regs", ARG0),
    optional("OFF_REGS_ARG1", "pt_regs", ARG1),
    optional("OFF_REGS_ARG2", "pt_regs", ARG2),
    optional("OFF_REGS_ARG3", "pt_regs", ARG3),
    optional("OFF_REGS_IP", "pt_regs", IP),
    optional("OFF_REGS_SP", "pt_regs", &["sp"]),
    optional("OFF_REGS_BP", "pt_regs", BP),
    #[cfg(target_arch = "aarch64")]
    optional("OFF_REGS_LR", "pt_regs", &["regs[30]"]),
    optional("OFF_REGS_FUNCTION_ARG0", "pt_regs", FUNCTION_ARG0),
    optional("OFF_REGS_RET", "pt_regs", RET),
];

const RSS_FILE: &[&str] = &[
    "rss_stat[MM_FILEPAGES].count",
    "rss_stat.count[MM_FILEPAGES]",
];
const RSS_ANON: &[&str] = &[
    "rss_stat[MM_ANONPAGES].count",
    "rss_stat.count[MM_ANONPAGES]",
];
const RSS_SWAP: &[&str] = &["rss_stat[MM_SWAPENTS].count", "rss_stat.count[MM_SWAPENTS]"];
const RSS_SHMEM: &[&str] = &[
    "rss_stat[MM_SHMEMPAGES].count",
    "rss_stat.count[MM_SHMEMPAGES]",
];

#[cfg(target_arch = "x86_64")]
mod args {
    pub const ARG0: &[&str] = &["di"];
    pub const FUNCTION_ARG0: &[&str] = ARG0;
    pub const ARG1: &[&str] = &["si"];
    pub const ARG2: &[&str] = &["dx"];
    pub const ARG3: &[&str] = &["r10"];
    pub const RET: &[&str] = &["ax"];
    pub const IP: &[&str] = &["ip"];
    pub const BP: &[&str] = &["bp"];
}

#[cfg(target_arch = "aarch64")]
mod args {
    // x0 is overwritten by the return value; the kernel keeps the argument.
    pub const ARG0: &[&str] = &["orig_x0"];
    pub const FUNCTION_ARG0: &[&str] = &["regs[0]"];
    pub const ARG1: &[&str] = &["regs[1]"];
    pub const ARG2: &[&str] = &["regs[2]"];
    pub const ARG3: &[&str] = &["regs[3]"];
    pub const RET: &[&str] = &["regs[0]"];
    pub const IP: &[&str] = &["pc"];
    pub const BP: &[&str] = &["regs[29]"];
}

use args::{ARG0, ARG1, ARG2, ARG3, BP, FUNCTION_ARG0, IP, RET};

/// `enum oom_constraint` (include/linux/oom.h); `None` where this kernel has no such value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OomConstraints {
    pub none: Option<u32>,
    pub cpuset: Option<u32>,
    pub memory_policy: Option<u32>,
    pub memcg: Option<u32>,
}

/// What this kernel has of [`FIELDS`].
#[derive(Debug, Clone, Default)]
pub struct Offsets {
    /// Global name and its value; `ABSENT` where the kernel has no such field.
    pub values: Vec<(&'static str, u32)>,
    /// Bytes of `struct upid`, an array of which is stepped through.
    pub upid_bytes: Option<u32>,
    pub constraints: OomConstraints,
    /// `memory_cgrp_id`; `None` without the memory controller.
    pub memory_cgrp_id: Option<u32>,
}

impl Offsets {
    /// Looks every field up. Never guesses.
    pub fn resolve(btf: &Btf<'_>) -> Self {
        let values = FIELDS
            .iter()
            .map(|field| {
                let offset = field
                    .paths
                    .iter()
                    .find_map(|path| btf.offset_of(field.strukt, path));
                (field.global, offset.unwrap_or(ABSENT))
            })
            .collect();
        Self {
            values,
            upid_bytes: btf.size_of("upid"),
            constraints: OomConstraints {
                none: btf.enumerator("CONSTRAINT_NONE"),
                cpuset: btf.enumerator("CONSTRAINT_CPUSET"),
                memory_policy: btf.enumerator("CONSTRAINT_MEMORY_POLICY"),
                memcg: btf.enumerator("CONSTRAINT_MEMCG"),
            },
            memory_cgrp_id: btf.enumerator("memory_cgrp_id"),
        }
    }

    /// Required fields that this kernel lacks, as `struct.path`.
    pub fn missing_required(&self) -> Vec<String> {
        self.missing(true)
    }

    /// Optional fields that this kernel lacks, as `struct.path`.
    pub fn missing_optional(&self) -> Vec<String> {
        self.missing(false)
    }

    fn missing(&self, required: bool) -> Vec<String> {
        FIELDS
            .iter()
            .zip(&self.values)
            .filter(|(field, (_, value))| field.required == required && *value == ABSENT)
            .map(|(field, _)| format!("{}.{}", field.strukt, field.paths[0]))
            .collect()
    }
}
