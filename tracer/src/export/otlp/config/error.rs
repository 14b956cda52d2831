//! Why the configuration of OTLP export cannot be used.

use std::path::PathBuf;

/// A value that cannot be used. `name` is the flag or variable it came from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("{name}: {reason}; use a URL such as {example}")]
    Endpoint {
        name: String,
        reason: String,
        example: &'static str,
    },
    /// A certificate or key that cannot be used; never carries what is in the file.
    #[error("{name}: {} {reason}", path.display())]
    Pem {
        name: String,
        path: PathBuf,
        reason: String,
    },
    #[error("{name}: it needs {missing} too")]
    Half { name: String, missing: String },
    #[error("{name}: the endpoint {endpoint} is not https")]
    PlainText { name: String, endpoint: String },
    #[error("{name}: {value:?} is not known; use {known}")]
    Choice {
        name: String,
        value: String,
        known: &'static str,
    },
    #[error(
        "{name}: {value:?} is not a whole number of milliseconds above 0; use for example {example}"
    )]
    Milliseconds {
        name: String,
        value: String,
        example: u64,
    },
    /// Never carries a header's value, which may be a secret.
    #[error(
        "{name}: entry {position} {reason}; use key=value pairs separated by commas, values percent-encoded"
    )]
    Pairs {
        name: String,
        /// Counted from 1.
        position: usize,
        reason: &'static str,
    },
}
