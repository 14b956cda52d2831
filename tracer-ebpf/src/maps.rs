//! Every map. Sizes are defaults; user space sets them from its options before loading.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use memtrace_ebpf::{
    COMM_LEN,
    counts::{CgroupCounts, Drop, HeapCounts, ProcessKey, ReclaimCounts},
    oom::Command,
    stack::{CHUNK_BYTES, STACK_BYTES, StackControl, StackHead},
};

/// Values are allocated when needed: memory grows with use, not with the bound.
const BPF_F_NO_PREALLOC: u32 = 1;

/// Totals per memory cgroup id.
#[map]
pub static CGROUPS: HashMap<u64, CgroupCounts> = HashMap::with_max_entries(8192, 0);

/// Totals per process and cgroup; an entry goes when its process ends.
#[map]
pub static PROCESSES: HashMap<ProcessKey, HeapCounts> = HashMap::with_max_entries(16384, 0);

/// Reclaim per memory cgroup id.
#[map]
pub static RECLAIM: HashMap<u64, ReclaimCounts> = HashMap::with_max_entries(2048, 0);

/// Thread id to the start of the reclaim it is in, `CLOCK_MONOTONIC` ns.
#[map]
pub static RECLAIM_STARTS: HashMap<u32, u64> = HashMap::with_max_entries(4096, 0);

/// Process id to its program break. LRU, so that a process whose end was missed costs nothing.
#[map]
pub static BREAKS: LruHashMap<u32, u64> = LruHashMap::with_max_entries(16384, 0);

/// A process, for as long as its number stands for it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ProcessId {
    pub start_boottime: u64,
    pub tgid: u64,
}

/// What the first thread that saw nobody left has told.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ended {
    /// `u64::MAX` until that thread has read it.
    pub peak_rss_pages: u64,
    pub minor_faults: u64,
    pub major_faults: u64,
}

/// Processes whose end was taken note of: several of the last threads see that nobody is left.
#[map]
pub static ENDED: LruHashMap<ProcessId, Ended> = LruHashMap::with_max_entries(1024, 0);

/// Faults seen by this CPU: decides which one is sampled.
#[map]
pub static FAULTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// What was lost, by `Drop`.
#[map]
pub static DROPS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Drop::ALL.len() as u32, 0);

/// Process id to what it was started as; an entry goes when its process ends.
#[map]
pub static COMMANDS: HashMap<u32, Command> = HashMap::with_max_entries(16384, BPF_F_NO_PREALLOC);

/// Where a [`Command`] is put together: too big for the stack.
#[map]
pub static COMMAND_SCRATCH: PerCpuArray<Command> = PerCpuArray::with_max_entries(1, 0);

/// The last SIGKILL that the kernel itself sent on this CPU: sender's thread << 32 | target process.
#[map]
pub static KERNEL_SIGKILL: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Thread whose `oom_kill_process` was the last; at most one runs at a time (`oom_lock`).
#[map]
pub static OOM_TRIGGER: Array<u32> = Array::with_max_entries(1, 0);

/// Process names of user-space OOM killers.
#[map]
pub static OOM_KILLERS: HashMap<[u8; COMM_LEN], u8> = HashMap::with_max_entries(64, 0);

/// Processes that an OOM killer signalled: their end is told.
#[map]
pub static SIGNALLED: LruHashMap<u32, u8> = LruHashMap::with_max_entries(1024, 0);

/// How densely pages are sampled.
#[map]
pub static STACK_CONTROL: Array<StackControl> = Array::with_max_entries(1, 0);

/// Memory cgroup id to the shift of its pages.
#[map]
pub static STACK_SHIFTS: HashMap<u64, u32> = HashMap::with_max_entries(8192, BPF_F_NO_PREALLOC);

/// A sample as it is put together; the last chunk may reach beyond what is kept.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct StackScratch {
    pub head: StackHead,
    pub stack: [u8; STACK_BYTES + CHUNK_BYTES],
    /// 1 while a program fills it.
    pub busy: u64,
}

#[map]
pub static STACK_SCRATCH: PerCpuArray<StackScratch> = PerCpuArray::with_max_entries(1, 0);

/// Sampled pages with their stacks.
#[map]
pub static STACK_SAMPLES: RingBuf = RingBuf::with_byte_size(2 * 1024 * 1024, 0);

/// Everything about OOMs, alone, so that nothing else can crowd it out.
#[map]
pub static OOM_EVENTS: RingBuf = RingBuf::with_byte_size(1024 * 1024, 0);

/// Cgroups made and removed, processes ended.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(512 * 1024, 0);
