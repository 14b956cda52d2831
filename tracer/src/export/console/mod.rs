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

/// A pattern as it was written: a name without `/` is read as one below `*/`.
pub fn pattern(glob: &str) -> &str {
    let name = glob.strip_prefix("*/");
    name.filter(|name| !name.contains('/')).unwrap_or(glob)
}

/// RFC 3339 in UTC with microseconds.
pub fn timestamp(time: SystemTime) -> String {
    match jiff::Timestamp::try_from(time) {
        Ok(time) => format!("{time:.6}"),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::pattern::cgroup_glob;

    #[test]
    fn a_pattern_is_told_as_it_was_written() {
        for written in ["*", "shop*", "/kubepods*", "*/a/b"] {
            let glob = cgroup_glob(written).unwrap();
            assert_eq!(pattern(glob.glob().glob()), written);
        }
    }
}
