//! What an agent is asked to do, and why it may not be able to.

use std::{io, path::PathBuf, time::Duration};

use globset::GlobMatcher;
use thiserror::Error;

use crate::{
    export::otlp::OtlpConfig,
    host::HostError,
    loader::{LoadError, Options},
};

/// Where the interval's numbers go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    Table,
    Json,
    None,
}

/// What to trace and where to tell it.
#[derive(Debug)]
pub struct Config {
    pub output: Output,
    pub interval: Duration,
    pub duration: Option<Duration>,
    /// Only cgroups whose path matches are told.
    pub cgroup: Option<GlobMatcher>,
    pub cgroup_root: Option<PathBuf>,
    pub kernel: Options,
    pub otlp: Option<OtlpConfig>,
}

/// memtrace cannot run.
#[derive(Debug, Error)]
pub enum RunError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error("the OTLP export cannot start: {0}")]
    Otlp(String),
    #[error("cannot write the output: {0}")]
    Output(io::Error),
    #[error("signals cannot be handled: {0}")]
    Signals(io::Error),
    #[error("a ring buffer cannot be read: {0}")]
    Ring(io::Error),
}
