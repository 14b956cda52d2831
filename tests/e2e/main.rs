//! End-to-end tests: memtrace on a real kernel, one module per scenario.
//!
//! `MEMTRACE_BIN` and `MEMTRACE_WORKLOAD` name the programs; `MEMTRACE_VM=1` says that there is
//! only busybox beside them.

mod alternatives;
mod analyze;
mod api;
mod cli;
mod config;
mod effective_limit;
mod fault;
mod faults;
mod heap;
mod identity_cri;
mod identity_kubernetes;
mod identity_podman;
mod incident_evidence;
mod incident_kinds;
mod incident_limit;
mod incident_store;
mod incident_storm;
mod incident_victims;
mod leak_programs;
mod leak_state;
mod least_privilege;
mod lifecycle;
mod listen;
mod metrics_documented;
mod names;
mod oom;
mod otlp;
mod otlp_outage;
mod otlp_profiles;
mod otlp_tls;
mod reclaim;
mod report;
mod secrets;
mod security;
mod stacks_agent;
mod stacks_exact;
mod stacks_hostile;
mod stacks_languages;
mod top;
