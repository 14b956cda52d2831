//! What symbolization could not do, by cause.

/// Counters since the start of memtrace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Losses {
    /// Workers that ended in the middle of a request: corrupt or truncated files, too large ones.
    pub worker_deaths: u64,
    /// Requests that took too much CPU time or time; their worker was killed.
    pub worker_timeouts: u64,
    /// Workers that could not be started; what was asked stays unnamed for now.
    pub worker_start_failures: u64,
    /// Modules whose debug information killed a worker: named from their symbol tables only.
    pub modules_without_debug_information: u64,
    /// Modules that killed a worker even so: their places stay unnamed.
    pub modules_given_up: u64,
    /// Modules whose file is not the one that was mapped: another build-id.
    pub changed_modules: u64,
    /// Debug files that were found, but are of another build, or unreadable.
    pub rejected_debug_files: u64,
    /// Processes whose perf map or mappings killed a worker.
    pub processes_given_up: u64,
    /// Perf maps that were found, but belong to somebody else or are no regular file.
    pub rejected_perf_maps: u64,
    /// Places that were forgotten for want of room, to be looked up again.
    pub cache_evictions: u64,
    /// Frames that came without name because an answer was full.
    pub frames_over_budget: u64,
}
