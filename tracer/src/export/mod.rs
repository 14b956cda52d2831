//! Where a snapshot leaves memtrace.
//!
//! Owns the wire formats. Each output reads the same `model::snapshot::Snapshot`
//! and nothing else. Must not measure, keep model state, or hold up the caller:
//! an output that cannot keep up drops and counts.
//!
//! - `console`: JSON lines and the live table on standard output.
//! - `otlp`: OTLP metrics and OOM events over gRPC or HTTP/protobuf.
//! - `prometheus`: the HTTP endpoint.
//! - `plot`: SVG pictures of judged series.
//! - `profile`: which code holds memory: flame graphs, pprof and others.

pub mod console;
pub mod otlp;
pub mod plot;
pub mod profile;
pub mod prometheus;
