//! The kernel log as oracle of OOM kills.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::time::{ClockId, clock_gettime};

use crate::machine::poll;
use crate::oom_report::Message;
pub use crate::oom_report::{Kill, Report};

/// The kernel writes ten whole reports in this time, then only the `Killed process` messages.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// So many of them that the next might not be whole.
const MANY_REPORTS: usize = 5;

/// Kernel messages since it was opened.
#[derive(Debug)]
pub struct KernelLog {
    file: File,
    reports: Vec<Report>,
}

impl KernelLog {
    /// Starts behind the newest message, at a moment when the kernel will report the next OOMs whole.
    pub fn open() -> Result<Self> {
        let mut log = Self::from_the_oldest()?;
        let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
        let mut recent = 0;
        while let Some(record) = log.next()? {
            let killed = matches!(Message::parse(&record), Some(Message::Kill(_)));
            let fresh =
                written_at(&record).is_some_and(|at| now.saturating_sub(at) < REPORT_INTERVAL);
            recent += usize::from(killed && fresh);
        }
        if recent >= MANY_REPORTS {
            thread::sleep(REPORT_INTERVAL);
            log.file.seek(SeekFrom::End(0))?;
        }
        Ok(log)
    }

    fn from_the_oldest() -> Result<Self> {
        let mut file = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg")
            .context("cannot open /dev/kmsg")?;
        file.seek(SeekFrom::Start(0))?;
        Ok(Self {
            file,
            reports: Vec::new(),
        })
    }

    /// Waits for the kill of that process.
    pub fn kill_of(&mut self, pid: u32) -> Result<Kill> {
        let report = self.oom_of(pid)?;
        report.kill_of(pid).cloned().context("no such kill")
    }

    /// Waits for the report of the OOM that killed that process; its kills are those so far.
    pub fn oom_of(&mut self, pid: u32) -> Result<Report> {
        poll("the kernel's message", Duration::from_secs(20), || {
            self.read()?;
            let about = |report: &&Report| report.kill_of(pid).is_some();
            Ok(self.reports.iter().rfind(about).cloned())
        })
    }

    /// The same, with all that the kernel leaves out when it reports often.
    pub fn whole_oom_of(&mut self, pid: u32) -> Result<Report> {
        let report = self.oom_of(pid)?;
        ensure!(
            report.invocation.is_some() && report.choice.is_some(),
            "the kernel left out a part of {report:?}"
        );
        Ok(report)
    }

    /// All kills so far, oldest first.
    pub fn kills(&mut self) -> Result<Vec<Kill>> {
        self.read()?;
        let kills = self.reports.iter().flat_map(|report| &report.kills);
        Ok(kills.cloned().collect())
    }

    fn read(&mut self) -> Result<()> {
        while let Some(record) = self.next()? {
            let Some(message) = Message::parse(&record) else {
                continue;
            };
            match self.reports.last_mut() {
                Some(report) if !report.ends_before(&message) => report.take(message),
                _ => {
                    let mut report = Report::default();
                    report.take(message);
                    self.reports.push(report);
                }
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<String>> {
        let mut record = [0; 8192];
        loop {
            match self.file.read(&mut record) {
                Ok(length) => {
                    return Ok(Some(
                        String::from_utf8_lossy(&record[..length]).into_owned(),
                    ));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                // The ring overwrote what was next: go on with what is left.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                Err(error) => return Err(error).context("cannot read /dev/kmsg"),
            }
        }
    }
}

/// The time of a record `priority,sequence,microseconds,…;text`.
fn written_at(record: &str) -> Option<Duration> {
    let microseconds = record.split(',').nth(2)?.parse().ok()?;
    Some(Duration::from_micros(microseconds))
}
