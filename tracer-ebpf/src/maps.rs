//! Every map. Sizes are defaults; user space sets them from its options before loading.

use aya_ebpf::{
    macros::map,
    maps::{HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use memtrace_ebpf::counts::{CgroupCounts, Drop, HeapCounts, ProcessKey, ReclaimCounts};

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

/// Faults seen by this CPU: decides which one is sampled.
#[map]
pub static FAULTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// What was lost, by `Drop`.
#[map]
pub static DROPS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Drop::ALL.len() as u32, 0);

/// Victim marks, alone, so that nothing else can crowd them out.
#[map]
pub static OOM_EVENTS: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);

/// Cgroups made and removed, processes ended.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(512 * 1024, 0);
