//! Harness of the end-to-end tests: real cgroups, a real workload, real oracles.
//! Must not link memtrace: tests see it only as its users do.

pub mod agent;
pub mod backend;
pub mod calls;
pub mod cgroup;
pub mod kernel_log;
pub mod machine;
pub mod strace;
pub mod workload;
