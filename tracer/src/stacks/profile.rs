//! What the samples say at one moment: resident bytes by stack, with error, growth and age.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::host::process::Program;

use super::code::Root;

/// Stacks of the resident memory of some processes.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Whose: a cgroup's path, or a process. Untrusted.
    pub scope: String,
    /// Sampling began.
    pub from: SystemTime,
    /// Residency was last verified.
    pub until: SystemTime,
    /// Growth is counted from here; [`from`](Self::from) if nothing was remembered before.
    pub base: SystemTime,
    /// Most pages that one sample stands for.
    pub pages_per_sample: u64,
    /// Anonymous memory of the processes by the kernel's own count, bytes; `None` if not readable.
    pub anon_bytes: Option<u64>,
    /// Samples that were lost, for all causes: what they stood for is missing here.
    pub lost_samples: u64,
    /// Of which it is, as of [`until`](Self::until).
    pub programs: Vec<Program>,
    /// In no order.
    pub stacks: Vec<ProfileStack>,
}

/// One call path of one process.
#[derive(Debug, Clone, PartialEq)]
pub struct ProfileStack {
    pub pid: u32,
    /// Name of the process. Untrusted.
    pub comm: String,
    pub kind: Kind,
    /// The innermost function first.
    pub frames: Frames,
    pub root: Root,
    pub resident: Estimate,
    /// Since the profile's base; negative if it shrank.
    pub growth: Estimate,
    /// All that was sampled here since the profile began, resident or not.
    pub touched: Estimate,
    /// Sampled pages behind `resident`.
    pub samples: u64,
    /// Age of the oldest page that is still resident.
    pub oldest: Duration,
    /// Median age of the bytes that are still resident.
    pub median_age: Duration,
}

/// What the samples of a stack are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Anonymous pages that were written to first on this path.
    Resident,
    /// Address space that `mmap` or `brk` gave, whether touched or not.
    Mapped,
}

/// An estimate from samples.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Estimate {
    pub bytes: f64,
    /// Standard error, bytes.
    pub error_bytes: f64,
}

/// Frames of a call path. Call paths share most of theirs, and processes of one program share call paths:
/// each is held once.
pub type Frames = Arc<[Arc<Frame>]>;

/// A function on a stack.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frame {
    /// Demangled; `None` where nothing names it. Untrusted.
    pub function: Option<String>,
    /// File name of the module it lies in, `[jit]`, or `[unknown]`. Untrusted.
    pub module: String,
    /// Offset in the module's file, or the address where there is no file.
    pub offset: u64,
    /// Source file and line. Untrusted.
    pub source: Option<(String, u32)>,
    /// Inlined into the next frame.
    pub inlined: bool,
}
