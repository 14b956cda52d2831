//! Warnings and errors to standard error, one line each, with a level that can be seen.

use std::io::{IsTerminal as _, Write as _};

use log::{Level, LevelFilter, Log, Metadata, Record};

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
        // A closed standard error must not end the tracing.
        let _ = writeln!(
            std::io::stderr(),
            "{colour}memtrace: {name}: {}{reset}",
            record.args()
        );
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
