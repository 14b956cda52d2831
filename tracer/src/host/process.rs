//! Reads processes, and memtrace itself, from procfs.
//!
//! Owns `/proc/PID/{stat,statm,cgroup}`. Must not decide which processes are worth reading.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

use super::fields::number;
use super::pseudo_file::{read_record, read_stream};
use super::{CgroupMode, HostError, path_from_bytes};

/// Longest name of a process shown, characters.
const COMM_CHARS: usize = 64;

/// Of the flags in `stat`; include/linux/sched.h.
const PF_KTHREAD: u64 = 0x0020_0000;

/// Where procfs is mounted; `/proc` by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcRoot {
    root: PathBuf,
}

impl Default for ProcRoot {
    fn default() -> Self {
        ProcRoot::new("/proc")
    }
}

/// A process at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessReading {
    /// Raw and untrusted; show it through [`super::escape::display`].
    pub comm: Option<Vec<u8>>,
    /// Of all threads, ended ones included; cumulative.
    pub minor_faults: Option<u64>,
    pub major_faults: Option<u64>,
    /// Clock ticks since boot: with the pid this names a process for good.
    pub start_ticks: Option<u64>,
    pub rss_bytes: Option<u64>,
    /// `resident - shared` of statm: anonymous pages, exactly what `RssAnon` of `status` counts,
    /// at half its cost. Since 6.2 both may lag by some tens of pages per CPU.
    pub rss_anon_bytes: Option<u64>,
}

/// What a process runs: differs between two processes of the same pid, and before and after an exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    pub pid: u32,
    /// Clock ticks since boot.
    pub start_ticks: Option<u64>,
    /// Where its first stack begins (`startstack`); `None` without the right to trace it.
    pub start_stack: Option<u64>,
}

/// What memtrace itself uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SelfUsage {
    /// Resident pages (`VmRSS`).
    pub rss_bytes: Option<u64>,
    /// User and system time since start, in steps of one clock tick (usually 10 ms).
    pub cpu_ns: Option<u64>,
}

impl ProcRoot {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        ProcRoot { root: root.into() }
    }

    /// A path below the root.
    pub fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    /// Reads `stat` and `statm` of a process. [`HostError::Gone`] when it has ended.
    /// Source: `do_task_stat` and `proc_pid_statm` in fs/proc/array.c.
    pub fn process(&self, pid: u32, buffer: &mut Vec<u8>) -> Result<ProcessReading, HostError> {
        let mut reading = ProcessReading::default();
        if let Some(stat) = Stat::parse(read(&self.path(&format!("{pid}/stat")), buffer)?) {
            reading.comm = Some(stat.comm.to_vec());
            reading.minor_faults = stat.field(10);
            reading.major_faults = stat.field(12);
            reading.start_ticks = stat.field(22);
        }
        let memory = statm(read(&self.path(&format!("{pid}/statm")), buffer)?);
        reading.rss_bytes = memory.0;
        reading.rss_anon_bytes = memory.1;
        Ok(reading)
    }

    /// What a process runs, and its name, escaped for display.
    pub fn program_of(&self, pid: u32) -> Result<(Program, String), HostError> {
        let mut buffer = Vec::new();
        let text = read(&self.path(&format!("{pid}/stat")), &mut buffer)?;
        let stat = Stat::parse(text);
        let program = Program {
            pid,
            start_ticks: stat.and_then(|stat| stat.field(22)),
            start_stack: stat.and_then(|stat| stat.field(28)).filter(|at| *at > 1),
        };
        let comm = stat.map_or(&b""[..], |stat| stat.comm);
        Ok((program, super::escape::display(comm, COMM_CHARS)))
    }

    /// Whether its process is there, and still runs it. One that cannot be read may.
    pub fn is_running(&self, program: &Program) -> bool {
        let same = |was: Option<u64>, is: Option<u64>| was.is_none() || was == is;
        match self.program_of(program.pid) {
            Ok((now, _)) => {
                // A zombie has no stack.
                same(program.start_ticks, now.start_ticks)
                    && same(program.start_stack, now.start_stack)
            }
            Err(error) => !error.is_gone(),
        }
    }

    /// Whether it is a thread of the kernel, which has no memory of its own.
    pub fn is_kernel_thread(&self, pid: u32) -> Result<bool, HostError> {
        let mut buffer = Vec::new();
        let stat = Stat::parse(read(&self.path(&format!("{pid}/stat")), &mut buffer)?);
        let flags = stat.and_then(|stat| stat.field(9));
        Ok(flags.is_some_and(|flags| flags & PF_KTHREAD != 0))
    }

    /// Arguments of a process, each with its NUL, at most 64 KiB. Untrusted.
    pub fn command_line<'b>(
        &self,
        pid: u32,
        buffer: &'b mut Vec<u8>,
    ) -> Result<&'b [u8], HostError> {
        let path = self.path(&format!("{pid}/cmdline"));
        File::open(&path)
            .and_then(|file| read_stream(&file, buffer, 64 * 1024))
            .map_err(|error| HostError::read(&path, error))
    }

    /// Path of a process in the memory hierarchy as this cgroup namespace sees it: it starts with
    /// `/`, and with `/..` when the process is outside the namespace. `None` when the file does not
    /// tell. A removed cgroup2 ends in ` (deleted)`.
    pub fn memory_cgroup(
        &self,
        pid: u32,
        mode: CgroupMode,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<PathBuf>, HostError> {
        let text = read(&self.path(&format!("{pid}/cgroup")), buffer)?;
        Ok(memory_cgroup(text, mode).map(path_from_bytes))
    }

    /// What this very process uses.
    pub fn self_usage(&self, buffer: &mut Vec<u8>) -> Result<SelfUsage, HostError> {
        let stat = Stat::parse(read(&self.path("self/stat"), buffer)?);
        let ticks = stat.and_then(|stat| stat.field(14)?.checked_add(stat.field(15)?));
        let per_second = ticks_per_second();
        let cpu_ns = ticks.map(|ticks| {
            let nanoseconds = u128::from(ticks) * 1_000_000_000 / u128::from(per_second);
            u64::try_from(nanoseconds).unwrap_or(u64::MAX)
        });
        let (rss_bytes, _) = statm(read(&self.path("self/statm"), buffer)?);
        Ok(SelfUsage { rss_bytes, cpu_ns })
    }
}

/// Of the clock that start times and CPU times are told in.
pub fn ticks_per_second() -> u64 {
    system_value(SysconfVar::CLK_TCK, 100)
}

/// A time since boot as `/proc/PID/stat` tells it.
pub fn ticks(since_boot: Duration) -> u64 {
    let ticks = since_boot.as_nanos() * u128::from(ticks_per_second()) / 1_000_000_000;
    u64::try_from(ticks).unwrap_or(u64::MAX)
}

/// Bytes in a page.
pub(super) fn page_size() -> u64 {
    static SIZE: OnceLock<u64> = OnceLock::new();
    *SIZE.get_or_init(|| system_value(SysconfVar::PAGE_SIZE, 4096))
}

fn system_value(name: SysconfVar, usual: u64) -> u64 {
    let value = sysconf(name)
        .ok()
        .flatten()
        .and_then(|value| u64::try_from(value).ok());
    value.filter(|value| *value > 0).unwrap_or(usual)
}

fn read<'b>(path: &Path, buffer: &'b mut Vec<u8>) -> Result<&'b [u8], HostError> {
    File::open(path)
        .and_then(|file| read_record(&file, buffer))
        .map_err(|error| match (error.kind(), error.raw_os_error()) {
            (io::ErrorKind::NotFound, _) | (_, Some(libc::ESRCH)) => HostError::Gone {
                path: path.to_owned(),
            },
            _ => HostError::read(path, error),
        })
}

/// `/proc/PID/stat` taken apart; the name may itself contain parentheses, spaces and newlines.
#[derive(Debug, Clone, Copy)]
struct Stat<'t> {
    comm: &'t [u8],
    after: &'t [u8],
}

impl<'t> Stat<'t> {
    fn parse(text: &'t [u8]) -> Option<Self> {
        let open = text.iter().position(|byte| *byte == b'(')?;
        let close = text
            .iter()
            .rposition(|byte| *byte == b')')
            .filter(|close| *close > open)?;
        Some(Stat {
            comm: &text[open + 1..close],
            after: text[close + 1..].trim_ascii(),
        })
    }

    /// A field by its number in proc_pid_stat(5), from 3 on.
    fn field(&self, number_in_manual: usize) -> Option<u64> {
        let index = number_in_manual.checked_sub(3)?;
        number(self.after.split(|byte| *byte == b' ').nth(index)?)
    }
}

/// Resident and anonymous bytes.
fn statm(text: &[u8]) -> (Option<u64>, Option<u64>) {
    let mut pages = text
        .trim_ascii()
        .split(|byte| *byte == b' ')
        .skip(1)
        .map(number);
    let (resident, shared) = (pages.next().flatten(), pages.next().flatten());
    let bytes = |pages: u64| pages.checked_mul(page_size());
    let anonymous = resident
        .zip(shared)
        .map(|(resident, shared)| resident.saturating_sub(shared));
    (resident.and_then(bytes), anonymous.and_then(bytes))
}

/// The path part of the line that carries the memory controller. The kernel allows no newline in a
/// cgroup's name (`cgroup_mkdir`), so lines are safe to split.
fn memory_cgroup(text: &[u8], mode: CgroupMode) -> Option<&[u8]> {
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let mut parts = line.splitn(3, |byte| *byte == b':');
        let (id, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let is_memory = match mode {
            CgroupMode::V2 => id == b"0" && controllers.is_empty(),
            CgroupMode::V1 | CgroupMode::Hybrid => controllers
                .split(|byte| *byte == b',')
                .any(|name| name == b"memory"),
        };
        (is_memory && path.starts_with(b"/")).then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &[u8] =
        b"1234 (a) S 9 (x y\n) R 1 1234 1234 0 -1 4194560 41370 55 7 3 120 31 0 0 20 0 4 0 \
        98765 12345678 2222 18446744073709551615 1 1 0 0 0 0 0 4096 0 0 0 0 17 1 0 0 0 0 0\n";

    fn root_with(files: &[(&str, &[u8])]) -> (tempfile::TempDir, ProcRoot) {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let root = ProcRoot::new(directory.path());
        (directory, root)
    }

    #[test]
    fn a_process_with_a_hostile_name() {
        let (_directory, root) =
            root_with(&[("7/stat", STAT), ("7/statm", b"3014 2222 222 1 0 9 0\n")]);
        let expected = ProcessReading {
            comm: Some(b"a) S 9 (x y\n".to_vec()),
            minor_faults: Some(41370),
            major_faults: Some(7),
            start_ticks: Some(98765),
            rss_bytes: Some(2222 * page_size()),
            rss_anon_bytes: Some(2000 * page_size()),
        };
        assert_eq!(root.process(7, &mut Vec::new()).unwrap(), expected);
        assert!(root.process(8, &mut Vec::new()).unwrap_err().is_gone());
    }

    #[test]
    fn a_thread_of_the_kernel_is_known_by_its_flags() {
        let kernel = b"2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 1 0 0";
        let (_directory, root) = root_with(&[("2/stat", kernel), ("7/stat", STAT)]);
        assert!(root.is_kernel_thread(2).unwrap());
        assert!(!root.is_kernel_thread(7).unwrap());
        assert!(root.is_kernel_thread(8).unwrap_err().is_gone());
    }

    #[test]
    fn malformed_files_yield_nothing() {
        for text in [
            &b""[..],
            b"1 ()",
            b")(",
            b"1 (x",
            b"1 (x) R -1 \xff",
            b"99999999999999999999999 1",
        ] {
            let files = [
                ("7/stat", text),
                ("7/statm", text),
                ("self/stat", text),
                ("self/statm", text),
            ];
            let (_directory, root) = root_with(&files);
            let reading = root.process(7, &mut Vec::new()).unwrap();
            let rest = ProcessReading {
                comm: None,
                rss_bytes: None,
                ..reading.clone()
            };
            assert_eq!(rest, ProcessReading::default(), "{text:?}");
            assert_eq!(root.self_usage(&mut Vec::new()).unwrap().cpu_ns, None);
        }
        assert_eq!(statm(b"1 18446744073709551615 0"), (None, None));
        assert_eq!(statm(b"1 5 9"), (Some(5 * page_size()), Some(0)));
    }

    #[test]
    fn memory_line_of_each_version() {
        let v1 = b"9:name=systemd:/\n4:cpu,memory:/a:b/memory\n3:memory_x:/no\n0::/unified\n";
        assert_eq!(
            memory_cgroup(v1, CgroupMode::Hybrid),
            Some(&b"/a:b/memory"[..])
        );
        assert_eq!(memory_cgroup(v1, CgroupMode::V1), Some(&b"/a:b/memory"[..]));
        assert_eq!(memory_cgroup(v1, CgroupMode::V2), Some(&b"/unified"[..]));
        for text in [
            &b""[..],
            b"0::",
            b"::",
            b"0:",
            b"4:memory:relative",
            b"\xff",
        ] {
            assert_eq!(memory_cgroup(text, CgroupMode::V2), None);
            assert_eq!(memory_cgroup(text, CgroupMode::V1), None);
        }
    }

    #[test]
    fn the_real_self() {
        let (root, mut buffer) = (ProcRoot::default(), Vec::new());
        let own = root.process(std::process::id(), &mut buffer).unwrap();
        assert!(own.comm.is_some() && own.start_ticks.is_some());
        assert!(own.rss_anon_bytes < own.rss_bytes && own.rss_bytes > Some(1 << 16));
        let usage = root.self_usage(&mut buffer).unwrap();
        assert!(usage.rss_bytes > Some(1 << 16) && usage.cpu_ns.is_some());
    }
}
