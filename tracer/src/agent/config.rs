//! What an agent is asked to do, and why it may not be able to.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use globset::GlobMatcher;
use thiserror::Error;

use crate::{
    actions::Rule,
    analysis::Thresholds,
    api::server::ApiError,
    config::reload::Reloader,
    export::{otlp::OtlpConfig, prometheus::ListenError},
    host::HostError,
    identity::{options::NamingConfig, sources::SourcesError},
    loader::{LoadError, Options},
    store::StoreError,
};

/// Where the interval's numbers go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    Table,
    Json,
    /// Only incidents, a line each.
    Incidents,
    /// The same as JSON lines.
    IncidentsJson,
    None,
}

/// What to trace and where to tell it.
pub struct Config {
    pub output: Output,
    pub interval: Duration,
    pub duration: Option<Duration>,
    /// Only cgroups whose path matches are told.
    pub cgroup: Option<GlobMatcher>,
    pub cgroup_root: Option<PathBuf>,
    /// Where incidents and analyses are kept; `None`: nowhere.
    pub state_dir: Option<PathBuf>,
    /// Pinned at a limit for this long without an OOM is told as a stall.
    pub stall_after: Duration,
    /// By which growth is judged; `None`: it is not.
    pub thresholds: Option<Thresholds>,
    pub kernel: Options,
    /// Pages sampled a second with the stacks that touched them; `None`: none are.
    pub stack_samples_per_second: Option<f64>,
    pub otlp: Option<OtlpConfig>,
    /// Who names containers.
    pub naming: NamingConfig,
    /// Where HTTP requests are answered; `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// Which events run which commands.
    pub rules: Vec<Rule>,
    /// Reads the configuration again; `None`: there is none to read.
    pub reloader: Option<Reloader>,
    pub api: ApiAt,
}

/// Where other programs of this host are answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiAt {
    /// There, or not at all.
    Usual(PathBuf),
    /// Nowhere else: without it the agent does not start.
    Only(PathBuf),
    Nowhere,
}

/// memtrace cannot run.
#[derive(Debug, Error)]
pub enum RunError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error("this kernel lets no program see OOM kills; `memtrace doctor` says why")]
    NoOomHook,
    #[error("{error}\n{remedy}", error = .0, remedy = .0.remedy())]
    Store(#[from] StoreError),
    #[error("the OTLP export cannot start: {0}")]
    Otlp(String),
    #[error(transparent)]
    Names(#[from] SourcesError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("cannot write the output: {0}")]
    Output(io::Error),
    #[error("no thread can be started: {0}")]
    Threads(io::Error),
    #[error("signals cannot be handled: {0}")]
    Signals(io::Error),
    #[error("a ring buffer cannot be read: {0}")]
    Ring(io::Error),
}
