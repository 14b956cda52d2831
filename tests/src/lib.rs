//! Harness of the end-to-end tests: real cgroups, a real workload, real oracles.
//! Must not link memtrace: tests see it only as its users do.

pub mod agent;
pub mod backend;
pub mod calls;
pub mod capability;
pub mod cgroup;
pub mod compiled;
pub mod containerd;
pub mod freezer;
pub mod incident;
pub mod kernel_log;
pub mod kube_api;
pub mod leak;
pub mod machine;
pub mod matrix;
pub mod oom_report;
pub mod own_mounts;
pub mod processes;
pub mod profiles_backend;
pub mod program;
pub mod prometheus;
pub mod recording;
pub mod refused_calls;
pub mod storm;
pub mod strace;
pub mod swap;
pub mod tls;
pub mod verifier;
pub mod workload;
