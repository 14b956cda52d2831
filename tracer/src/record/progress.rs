//! What is told on a terminal while it records: one line, rewritten.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use terminal_size::{Width, terminal_size_of};

use crate::{export::console::duration, stacks::service::StackSizes};

/// Where the terminal does not say.
const USUAL_COLUMNS: u16 = 80;

/// The line on standard error, if that is a terminal.
pub struct Progress {
    duration: Duration,
    shown: bool,
}

impl Progress {
    pub fn new(duration: Duration) -> Self {
        Self {
            duration,
            shown: io::stderr().is_terminal(),
        }
    }

    pub fn tell(&self, elapsed: Duration, sizes: StackSizes) {
        if !self.shown {
            return;
        }
        let columns =
            terminal_size_of(io::stderr()).map_or(USUAL_COLUMNS, |(Width(width), _)| width);
        let line = line(elapsed, self.duration, sizes, columns.into());
        let _ = write!(io::stderr(), "\r\x1b[K{line}");
    }

    pub fn end(&self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// Always short of the last column: a line that fills it may wrap, and could not be rewritten. What matters
/// most comes first.
fn line(elapsed: Duration, all: Duration, sizes: StackSizes, columns: usize) -> String {
    let mut line = format!(
        "memtrace: {} of {}, Ctrl-C ends it; {} processes, {} pages, {} paths",
        duration::rough(elapsed.as_secs_f64()),
        duration::rough(all.as_secs_f64()),
        sizes.address_spaces,
        sizes.pages,
        sizes.call_paths,
    );
    line.truncate(columns.saturating_sub(1));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_never_reaches_the_last_column() {
        let sizes = StackSizes {
            address_spaces: 12_345,
            pages: 262_144,
            call_paths: 65_536,
            ..StackSizes::default()
        };
        let (elapsed, all) = (Duration::from_secs(3_590), Duration::from_secs(7_200));
        let whole = line(elapsed, all, sizes, 200);
        assert!(whole.ends_with("65536 paths"), "{whole}");
        let usual = StackSizes {
            address_spaces: 12,
            pages: 4_096,
            call_paths: 512,
            ..StackSizes::default()
        };
        assert!(line(elapsed, all, usual, 80).ends_with("512 paths"));
        for columns in [0, 1, 20, 40, 80] {
            let line = line(elapsed, all, sizes, columns);
            assert!(line.len() <= columns.saturating_sub(1), "{line}");
        }
    }
}
