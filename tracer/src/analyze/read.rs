//! Opens recordings and finds out by their first bytes what they are.
//!
//! Owns the error that names file and line. Must not interpret a format.

use std::{
    fmt::Display,
    fs::File,
    io::{self, Read},
    path::Path,
};

use super::{
    history::{Column, History},
    number::Wrong,
    prometheus, table,
};
use crate::host::escape::display;

/// `-` reads standard input.
const STDIN: &str = "-";
const HEAD_BYTES: u64 = 4096;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
const GZIP: &[u8] = b"\x1f\x8b";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";
/// Characters of a text that an error quotes.
const MOST_QUOTED: usize = 60;
const MOST_TOLD: usize = 400;
/// A longer line is no row.
const MOST_LINE_BYTES: usize = 1 << 20;

/// Why a recording was not read. Each names the file, and the line where there is one.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("{file}: {source}")]
    Io {
        file: String,
        #[source]
        source: io::Error,
    },
    #[error("{file}: {why}")]
    Refused { file: String, why: String },
    #[error("{file}:{line}: {why}")]
    Line {
        file: String,
        line: u64,
        why: String,
    },
}

/// Where a recording comes from, for names and errors.
#[derive(Debug)]
pub struct Source {
    /// Safe to show.
    pub name: String,
}

impl Source {
    /// Of the file `name`.
    pub fn named(name: &str) -> Self {
        Source {
            name: display(name.as_bytes(), MOST_TOLD),
        }
    }

    /// Reading failed.
    pub fn io(&self, source: io::Error) -> ReadError {
        ReadError::Io {
            file: self.name.clone(),
            source,
        }
    }

    /// The whole file is refused.
    pub fn refused(&self, why: impl Display) -> ReadError {
        ReadError::Refused {
            file: self.name.clone(),
            why: why.to_string(),
        }
    }

    /// A line is refused.
    pub fn at(&self, line: u64, why: impl Display) -> ReadError {
        ReadError::Line {
            file: self.name.clone(),
            line,
            why: why.to_string(),
        }
    }

    /// A cell is refused.
    pub fn cell(&self, line: u64, column: &str, text: &[u8], wrong: Wrong) -> ReadError {
        self.at(line, format!("{column}: {} {wrong}", self.shown(text)))
    }

    /// Untrusted text, quoted and short.
    pub fn shown(&self, text: &[u8]) -> String {
        format!("\"{}\"", display(text, MOST_QUOTED))
    }

    /// Untrusted text, a line at most.
    pub fn plain(&self, text: &[u8]) -> String {
        display(text, MOST_TOLD)
    }
}

/// Reads the file at `path`, or standard input for `-`.
///
/// # Errors
/// What cannot be opened or read, or is neither CSV nor an answer of Prometheus.
pub fn read_path(
    path: &Path,
    signal: Option<Column>,
    history: &mut History,
    remarks: &mut Vec<String>,
) -> Result<(), ReadError> {
    if path.as_os_str() == STDIN {
        let source = Source::named("stdin");
        return read(io::stdin().lock(), &source, signal, history, remarks);
    }
    let source = Source::named(&path.to_string_lossy());
    let file = File::open(path).map_err(|error| source.io(error))?;
    read(file, &source, signal, history, remarks)
}

/// Reads a recording of any known format.
///
/// # Errors
/// What cannot be read or is neither CSV nor an answer of Prometheus.
pub fn read(
    mut input: impl Read,
    source: &Source,
    signal: Option<Column>,
    history: &mut History,
    remarks: &mut Vec<String>,
) -> Result<(), ReadError> {
    let mut head = Vec::new();
    input
        .by_ref()
        .take(HEAD_BYTES)
        .read_to_end(&mut head)
        .map_err(|error| source.io(error))?;
    if head.starts_with(GZIP) || head.starts_with(ZSTD) {
        return Err(source.refused("is compressed: unpack it first, `-` reads standard input"));
    }
    if head.starts_with(BYTE_ORDER_MARK) {
        head.drain(..BYTE_ORDER_MARK.len());
    }
    let first = head
        .iter()
        .copied()
        .find(|byte| !byte.is_ascii_whitespace());
    let json = matches!(first, Some(b'{' | b'['));
    // Names of series may hold anything, the header may not.
    let header = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if !json && header.contains(&0) {
        return Err(source.refused("is binary, neither CSV nor JSON of Prometheus"));
    }
    let input = io::Cursor::new(head).chain(input);
    if json {
        prometheus::read(
            io::BufReader::with_capacity(1 << 16, input),
            source,
            signal,
            history,
            remarks,
        )
    } else {
        table::read(Lines { input, length: 0 }, source, history)
    }
}

/// Ends with an error where a line is so long that it is none.
struct Lines<R> {
    input: R,
    length: usize,
}

impl<R: Read> Read for Lines<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        let taken = buffer.get(..read).unwrap_or_default();
        self.length = match memchr::memrchr(b'\n', taken) {
            Some(end) => read - end,
            None => self.length + read,
        };
        if self.length > MOST_LINE_BYTES {
            let why = format!("a line is longer than {MOST_LINE_BYTES} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(read)
    }
}
