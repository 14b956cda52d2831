//! What memtrace reads of others, as fuzz targets: each takes any bytes, hands them to the code that an agent
//! or a command runs on them, and panics where that breaks a promise.
//!
//! Owns the list of targets and the promises that many of them check. Must not know libFuzzer: `main.rs`
//! does, and tests run the corpora without it.

pub mod promise;
pub mod scratch;
mod targets;

/// One fuzz target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Also the directory of its corpus.
    pub name: &'static str,
    pub run: fn(&[u8]),
}

/// All of them, by name.
pub const TARGETS: &[Target] = &[
    of("api", targets::api::run),
    of("btf", targets::btf::run),
    of("cgroup", targets::cgroup::run),
    of("config", targets::config::run),
    of("containers", targets::containers::run),
    of("incidents", targets::incidents::run),
    of("names", targets::names::run),
    of("otlp", targets::otlp::run),
    of("proc", targets::proc::run),
    of("recording", targets::recording::run),
    of("ring", targets::ring::run),
    of("state", targets::state::run),
    of("symbols", targets::symbols::run),
    of("unwind", targets::unwind::run),
];

const fn of(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run }
}
