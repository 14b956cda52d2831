//! Output on standard output: JSON lines for programs, a live table for people.

pub mod columns;
pub mod duration;
pub mod incident;
pub mod json;
pub mod leak;
pub mod limit;
pub mod table;
pub mod verdict;
pub mod writer;

use std::time::SystemTime;

pub use crate::size;

/// RFC 3339 in UTC with microseconds.
pub fn timestamp(time: SystemTime) -> String {
    match jiff::Timestamp::try_from(time) {
        Ok(time) => format!("{time:.6}"),
        Err(_) => String::new(),
    }
}
