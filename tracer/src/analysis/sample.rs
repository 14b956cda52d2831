//! One reading of a cgroup, as the analysis takes it. Owns no reading: callers fill it in from
//! cgroup files, a recording or a query.

/// One reading of one cgroup at one time. A field that is not known is `None`, never 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    /// Time of the reading in milliseconds; wall clock or any monotonic clock, the same for one analyzer.
    pub time_ms: i64,
    /// `memory.stat` `anon`.
    pub anon_bytes: Option<u64>,
    /// `memory.stat` `file`: page cache, tmpfs included.
    pub file_bytes: Option<u64>,
    /// `memory.stat` `shmem`: tmpfs and shared memory.
    pub shmem_bytes: Option<u64>,
    /// `memory.stat` `kernel`, without what the kernel can shrink where the caller knows it.
    pub kernel_bytes: Option<u64>,
    /// `memory.current`.
    pub usage_bytes: Option<u64>,
    /// `memory.current` less `inactive_file`, as the kubelet counts it.
    pub working_set_bytes: Option<u64>,
    /// The effective limit: the least `memory.max` of the cgroup and its ancestors.
    /// `u64::MAX` (`max`) and 0 are no limit; `None` is unknown, and the last known one holds.
    pub limit_bytes: Option<u64>,
    /// `memory.swap.current`.
    pub swap_bytes: Option<u64>,
    /// `cpu.stat` `usage_usec` in nanoseconds, cumulative: the proxy of load.
    pub cpu_ns: Option<u64>,
    /// `memory.stat` `pgfault`, cumulative: the proxy of load where there is no CPU figure.
    pub faults: Option<u64>,
    /// `memory.pressure` `some` `total` in microseconds, cumulative.
    pub stall_us: Option<u64>,
    /// `memory.stat` `pgsteal` in pages, cumulative.
    pub reclaimed_pages: Option<u64>,
    /// Which life of the container this is: a new number (a restart, a new main program) starts an epoch.
    pub epoch: Option<u32>,
}
