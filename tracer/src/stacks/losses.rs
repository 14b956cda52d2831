//! What stack sampling lost in user space, by cause.

/// What was lost, and why; since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StackLosses {
    /// Records that could not be decoded.
    pub undecoded: u64,
    /// Samples of processes that were gone before they were looked at.
    pub process_gone: u64,
    /// Samples of processes that cannot be read.
    pub process_unreadable: u64,
    /// Address spaces forgotten for room.
    pub spaces_evicted: u64,
    /// Call paths forgotten for room, with their pages.
    pub call_paths_evicted: u64,
    /// Sampled pages and mappings that went with either.
    pub pages_evicted: u64,
    /// Files forgotten for room.
    pub modules_evicted: u64,
    /// Unwind tables of files that are too large, or for which there is no room in their cgroup's share.
    pub tables_refused: u64,
    /// Executable mappings that were left out, again whenever their process is read.
    pub code_left_out: u64,
    /// Call paths that end early: to unwind them costs too much.
    pub paths_cut: u64,
    /// Lists of mappings that were read in part, again whenever they are read.
    pub lists_cut: u64,
    /// Page tables that could not be read.
    pub page_tables_unreadable: u64,
    /// Densities that the kernel has no room for.
    pub densities_refused: u64,
}

impl StackLosses {
    /// Samples that did not become pages.
    pub fn samples(&self) -> u64 {
        self.undecoded + self.process_gone + self.process_unreadable + self.pages_evicted
    }
}
