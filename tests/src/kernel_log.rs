//! The kernel log as oracle of OOM kills.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::machine::poll;

/// Kernel messages since it was opened.
#[derive(Debug)]
pub struct KernelLog {
    file: File,
}

impl KernelLog {
    /// Starts behind the newest message.
    pub fn open() -> Result<Self> {
        let mut file = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg")
            .context("cannot open /dev/kmsg")?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self { file })
    }

    /// Waits for the kill of that process.
    pub fn kill_of(&mut self, pid: u32) -> Result<Kill> {
        poll("the kernel's message", Duration::from_secs(20), || {
            while let Some(record) = self.next()? {
                if let Some(kill) = Kill::parse(&record).filter(|kill| kill.pid == pid) {
                    return Ok(Some(kill));
                }
            }
            Ok(None)
        })
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

/// One `Killed process` message, in its own units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kill {
    pub pid: u32,
    /// As /dev/kmsg escapes it.
    pub comm: String,
    pub total_vm_kib: u64,
    pub anon_kib: u64,
    pub file_kib: u64,
    pub shmem_kib: u64,
    pub uid: u32,
    pub page_tables_kib: u64,
    pub oom_score_adj: i64,
}

impl Kill {
    fn parse(record: &str) -> Option<Self> {
        // Source: mm/oom_kill.c, __oom_kill_process.
        let (_, rest) = record.split_once("Memory cgroup out of memory: Killed process ")?;
        let (pid, rest) = rest.split_once(" (")?;
        let (comm, rest) = rest.split_once(") total-vm:")?;
        let number = |name: &str| -> Option<i64> {
            let rest = match name {
                "" => rest,
                name => rest.split_once(name)?.1,
            };
            let end = rest
                .find(|character: char| !character.is_ascii_digit() && character != '-')
                .unwrap_or(rest.len());
            rest[..end].parse().ok()
        };
        let kib = |name: &str| number(name).and_then(|value| u64::try_from(value).ok());
        Some(Self {
            pid: pid.parse().ok()?,
            comm: comm.to_owned(),
            total_vm_kib: kib("")?,
            anon_kib: kib("anon-rss:")?,
            file_kib: kib("file-rss:")?,
            shmem_kib: kib("shmem-rss:")?,
            uid: u32::try_from(number("UID:")?).ok()?,
            page_tables_kib: kib("pgtables:")?,
            oom_score_adj: number("oom_score_adj:")?,
        })
    }
}
