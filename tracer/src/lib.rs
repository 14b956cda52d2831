//! memtrace: why memory grows, and why the kernel killed.
//!
//! # Layout
//!
//! Data flows one way; each arrow is an import:
//!
//! ```text
//! kernel ─► loader ─► probes ─┐
//! (facts)   (attach)  (decode) ├─► model ─► incident, growth ─► export (otlp, console), store
//! host (cgroupfs, procfs, psi)─┘   (state)
//! ```
//!
//! [`agent`] runs it, [`doctor`] examines the host, [`cli`] is the command line.
//! Only [`loader`] knows aya, only [`export`] knows OTLP. See ARCHITECTURE.md.

pub mod actions;
pub mod agent;
pub mod analysis;
pub mod analyze;
pub mod api;
pub mod cli;
pub mod config;
pub mod doctor;
pub mod export;
pub mod growth;
pub mod grpc_answer;
pub mod host;
pub mod identity;
pub mod incident;
pub mod incidents;
pub mod kernel;
pub mod leaks;
pub mod loader;
pub mod logger;
pub mod model;
pub mod moment;
pub mod probes;
pub mod record;
pub mod redact;
pub mod report;
pub mod size;
pub mod stacks;
pub mod store;
pub mod symbols;
pub mod timeline;
pub mod top;
