//! The only mutable state: the cgroup tree with totals, rates and a short history, and processes.
//!
//! Everything here is bounded. Must not read the kernel: readings are handed in.

pub mod cgroup;
pub mod cgroups;
pub mod history;
pub mod looks;
pub mod processes;
pub mod snapshot;
pub mod window;
