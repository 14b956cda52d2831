//! What the figures were measured on, and how busy it was with other things.
//! Must not contain anything that only makes sense on that machine.

use std::fmt;
use std::fs;
use std::process::Command;

use anyhow::Result;

use crate::process;

/// Known at the start; [`Machine::finished`] adds the load at the end.
#[derive(Debug)]
pub struct Machine {
    date: String,
    commit: Option<String>,
    kernel: String,
    processor: String,
    cores: usize,
    load_before: String,
    load_after: String,
}

impl Machine {
    pub fn read() -> Result<Self> {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
        let processor = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
            .map_or("unknown processor", |(_, name)| name.trim());
        Ok(Self {
            date: today()?,
            commit: None,
            kernel: kernel.trim().to_owned(),
            processor: processor.to_owned(),
            cores: cpuinfo
                .lines()
                .filter(|line| line.starts_with("processor"))
                .count(),
            load_before: load(),
            load_after: String::new(),
        })
    }

    /// What was measured.
    pub fn at(mut self, commit: Option<String>) -> Self {
        self.commit = commit;
        self
    }

    /// Date, commit, kernel and processor.
    pub fn place(&self) -> String {
        let commit = self.commit.as_ref();
        format!(
            "{}{}, Linux {}, {} cores ({}).",
            self.date,
            commit.map_or_else(String::new, |commit| format!(", commit {commit}")),
            self.kernel,
            self.cores,
            self.processor
        )
    }

    /// Before and after, which is empty until [`Self::finished`].
    pub fn load_averages(&self) -> String {
        format!(
            "Load average {} before, {} after",
            self.load_before, self.load_after
        )
    }

    pub fn finished(&mut self) {
        self.load_after = load();
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\n\
             {}: what\n\
             exceeds the one core that the benchmark keeps busy (under *full load* every core) was other\n\
             work on the machine.",
            self.place(),
            self.load_averages()
        )
    }
}

/// As 2026-01-31, in UTC.
pub fn today() -> Result<String> {
    let date = process::stdout(Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
    Ok(date.trim().to_owned())
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace()
        .next()
        .unwrap_or("unknown")
        .to_owned()
}
