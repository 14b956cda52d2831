//! Who a cgroup is to an operator: container, pod, workload, service.
//!
//! - `path`: what the cgroup's path says, for every layout.
//! - `facts`: what sources tell of pods and containers.
//! - `directory`: what is known by all sources together; `names`, `service`: what is told of it.
//! - `options`: which sources are asked.
//! - `sources`: those that run beside the agent, on a thread of their own: `kubernetes` (the API), `cri` (the
//!   runtime's socket), `files` (of Docker, Podman and CRI-O); `wants`: who is looked for, `bounds`: how much is
//!   taken.
//!
//! Must not decide what is told of it, nor read memory.

mod bounds;
pub mod cri;
pub mod directory;
pub mod facts;
pub mod files;
pub mod kubernetes;
pub mod names;
pub mod options;
pub mod path;
pub mod pod_name;
pub mod service;
pub mod sources;
mod wants;
