//! How much may be kept, and whose pages are sampled.

use std::{collections::HashSet, time::Duration};

use super::density::DensityLimits;

/// Bounds of what is kept, and whose pages are sampled.
#[derive(Debug, Clone)]
pub struct CollectorLimits {
    pub most_spaces: usize,
    /// Sampled pages of all address spaces together.
    pub most_pages: usize,
    pub most_call_paths: usize,
    pub most_modules: usize,
    /// Executable mappings of all processes together, about 400 bytes each.
    pub most_code: usize,
    pub most_cgroups: usize,
    pub density: DensityLimits,
    /// Processes that are younger are not sampled: most do not live for long, and to look at one
    /// costs as much as a hundred samples.
    pub least_age: Duration,
    /// Only these are sampled; all if `None`.
    pub only: Option<Only>,
}

/// Whose pages are sampled, one in `2^shift`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Only {
    /// In these memory cgroups.
    pub cgroups: HashSet<u64>,
    /// `Some`: of these only the given processes.
    pub pids: Option<HashSet<u32>>,
}

impl Default for CollectorLimits {
    fn default() -> Self {
        Self {
            most_spaces: 512,
            most_pages: 65_536,
            most_call_paths: 10_000,
            most_modules: 512,
            most_code: 32_768,
            most_cgroups: 8192,
            density: DensityLimits::default(),
            least_age: Duration::ZERO,
            only: None,
        }
    }
}
