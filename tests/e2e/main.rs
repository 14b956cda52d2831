//! End-to-end tests: memtrace on a real kernel, one module per scenario.
//!
//! `MEMTRACE_BIN` and `MEMTRACE_WORKLOAD` name the programs; `MEMTRACE_VM=1` says that there is
//! only busybox beside them.

mod cli;
mod effective_limit;
mod fault;
mod heap;
mod lifecycle;
mod names;
mod oom;
mod otlp;
mod reclaim;
