//! What is wrong with a configuration file, all of it at once.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::host::escape;

/// Problems that are told of one file; the rest is counted.
pub const MOST: usize = 50;
const MOST_CHARS: usize = 400;
const MOST_LINE_CHARS: usize = 1000;
const MOST_CITED_CHARS: usize = 100;

/// One problem and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub line: usize,
    /// What it cites of the file is [`cited`].
    pub text: String,
}

impl Problem {
    pub fn new(line: usize, text: impl Into<String>) -> Self {
        Self {
            line,
            text: text.into(),
        }
    }
}

/// A file that cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error(
        "{}: cannot be read: {cause}\n  \
         make it readable, or name another file, or none, by --config or MEMTRACE_CONFIG", shown(.path)
    )]
    Unreadable { path: PathBuf, cause: io::Error },
    #[error("{}: larger than {most} bytes: no configuration is that long", shown(.path))]
    TooLarge { path: PathBuf, most: u64 },
    #[error("{}: not UTF-8 text", shown(.path))]
    NotText { path: PathBuf },
    #[error(
        "{}: refused, because it has [[on_event]] and {why}: whoever may write it could run commands as memtrace\n  \
         sudo chown root:root {} && sudo chmod go-w {}",
        shown(.path), shown(.path), shown(.path)
    )]
    NotTrusted { path: PathBuf, why: String },
    #[error("the configuration cannot be used:\n{}", Listed(.path, .problems))]
    Wrong {
        path: PathBuf,
        problems: Vec<Problem>,
    },
    /// Options that are each right and do not go together.
    #[error("{}", lines(.0))]
    Together(String),
}

/// A name of the file: one line, whatever it has.
pub fn cited(name: &str) -> String {
    escape::display(name.as_bytes(), MOST_CITED_CHARS)
}

pub fn shown(path: &Path) -> String {
    escape::display(path.as_os_str().as_encoded_bytes(), MOST_CHARS)
}

/// What may cite values of the file, line by line.
fn lines(text: &str) -> String {
    let safe = text
        .lines()
        .map(|line| escape::again(line, MOST_LINE_CHARS));
    safe.collect::<Vec<_>>().join("\n")
}

struct Listed<'a>(&'a Path, &'a [Problem]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Listed(path, problems) = self;
        let path = shown(path);
        for (index, problem) in problems.iter().take(MOST).enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            let text: Vec<String> = problem
                .text
                .lines()
                .map(|line| escape::again(line, MOST_CHARS))
                .collect();
            write!(
                f,
                "{separator}{path}:{}: {}",
                problem.line,
                text.join("\n  ")
            )?;
        }
        match problems.len().saturating_sub(MOST) {
            0 => Ok(()),
            more => write!(f, "\n{path}: {more} more problems"),
        }
    }
}
