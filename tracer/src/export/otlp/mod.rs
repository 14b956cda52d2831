//! OTLP: from snapshot and incident to backend.
//!
//! - `config`: flags and `OTEL_*` variables, made into one checked `OtlpConfig`.
//! - `resource`: whose numbers and events these are.
//! - `metrics`: pure mapping from a snapshot to OTLP metrics.
//! - `events`: pure mapping from an incident or a change of a verdict to OTLP log records.
//! - `client`: one export call: chunks, transport, retries.
//! - `exporter`: the thread that decides when, and counts what was lost.
//! - `own`: the agent's telemetry about itself, through the OpenTelemetry SDK.
//!
//! The requests are built by hand because the SDK has one resource per provider,
//! and memtrace has one per cgroup. Only this module knows OTLP.

pub mod client;
pub mod config;
pub mod events;
pub mod exporter;
pub mod metrics;
pub mod own;
pub mod resource;
mod wire;

pub use config::{ConfigError, Fallback, OtlpConfig, OtlpFlags};
pub use events::Event;
pub use exporter::{CgroupProfile, ExportCounters, Exporter, StartError};
pub use own::{OwnError, OwnReading, OwnTelemetry};
pub use resource::{HostInfo, ResourceContext};
