//! OTLP: from snapshot to backend.
//!
//! - `config`: flags and `OTEL_*` variables, made into one checked `OtlpConfig`.
//! - `metrics`: pure mapping from a snapshot to OTLP resources.
//! - `client`: one export call: chunks, transport, retries.
//! - `exporter`: the thread that decides when, and counts what was lost.
//! - `own`: the agent's telemetry about itself, through the OpenTelemetry SDK.
//!
//! The requests are built by hand because the SDK has one resource per provider,
//! and memtrace has one per cgroup. Only this module knows OTLP.

pub mod client;
pub mod config;
pub mod exporter;
pub mod metrics;
pub mod own;

pub use config::{ConfigError, OtlpConfig, OtlpFlags};
pub use exporter::{ExportCounters, Exporter, StartError};
pub use metrics::{HostInfo, ResourceContext};
pub use own::{OwnError, OwnReading, OwnTelemetry};
