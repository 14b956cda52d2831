//! Warnings and errors to standard error, one line each, with a level that can be seen.
//!
//! While the screen is drawn on they are held.

use std::{
    collections::VecDeque,
    io::{IsTerminal as _, Write as _},
    sync::{Mutex, PoisonError},
};

use log::{Level, LevelFilter, Log, Metadata, Record};

/// Lines that are held at most; the oldest go.
const MOST_HELD: usize = 50;

static HELD: Mutex<Option<Held>> = Mutex::new(None);

#[derive(Default)]
struct Held {
    lines: VecDeque<String>,
    dropped: u64,
}

impl Held {
    fn add(&mut self, line: String) {
        if self.lines.len() == MOST_HELD {
            self.lines.pop_front();
            self.dropped += 1;
        }
        self.lines.push_back(line);
    }
}

/// Holds what is logged from here on, for [`release`].
pub fn hold() {
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    held.get_or_insert_default();
}

/// Writes what was held, and what comes from here on at once.
pub fn release() {
    let held = HELD.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(held) = held else { return };
    if held.dropped > 0 {
        write(&format!(
            "memtrace: {} earlier lines were dropped",
            held.dropped
        ));
    }
    held.lines.iter().for_each(|line| write(line));
}

fn write(line: &str) {
    // A closed standard error must not end the tracing.
    let _ = writeln!(std::io::stderr(), "{line}");
}

struct Stderr {
    colour: bool,
}

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Libraries speak only when something is wrong. kube would at each retry, and cites whole answers,
        // in which pods have their secrets; its errors are told as states of the source.
        let target = metadata.target();
        target.starts_with("memtrace")
            || metadata.level() <= Level::Warn && !target.starts_with("kube_")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let (colour, name) = match record.level() {
            Level::Error => ("\x1b[31m", "error"),
            Level::Warn => ("\x1b[33m", "warning"),
            _ => ("", "note"),
        };
        let (colour, reset) = if self.colour {
            (colour, "\x1b[0m")
        } else {
            ("", "")
        };
        let line = format!("{colour}memtrace: {name}: {}{reset}", record.args());
        match &mut *HELD.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(held) => held.add(line),
            None => write(&line),
        }
    }

    fn flush(&self) {}
}

/// Installs the logger. Later calls do nothing.
pub fn install() {
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    if log::set_boxed_logger(Box::new(Stderr { colour })).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_bounded_and_the_newest_stays() {
        let mut held = Held::default();
        (0..MOST_HELD + 3).for_each(|n| held.add(n.to_string()));
        assert_eq!((held.lines.len(), held.dropped), (MOST_HELD, 3));
        assert_eq!(held.lines.back(), Some(&(MOST_HELD + 2).to_string()));
    }

    #[test]
    fn only_errors_of_libraries_are_told_and_none_that_cite_answers() {
        let told = |target, level| {
            let metadata = Metadata::builder().target(target).level(level).build();
            Stderr { colour: false }.enabled(&metadata)
        };
        assert!(told("memtrace::agent", Level::Info));
        assert!(told("aya::bpf", Level::Warn));
        assert!(!told("aya::bpf", Level::Info));
        assert!(!told("kube_client::client", Level::Warn));
        assert!(!told("kube_runtime::watcher", Level::Error));
    }
}
