//! Where the tests run: programs by environment variable, the CPU, patience, skipping.

use std::env;
use std::ffi::{CString, OsString};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

pub const PAGE: u64 = 4096;
pub const MIB: u64 = 1 << 20;

/// The CPU that this runs on.
pub fn cpu() -> Result<usize> {
    Ok(sched_getcpu()?)
}

/// Starts a process that stays on one CPU.
pub fn on_cpu<T>(cpu: usize, start: impl FnOnce() -> Result<T>) -> Result<T> {
    let own = Pid::from_raw(0);
    let usual = sched_getaffinity(own)?;
    let mut one = CpuSet::new();
    one.set(cpu)?;
    sched_setaffinity(own, &one)?;
    let started = start();
    sched_setaffinity(own, &usual)?;
    started
}

/// Whether this is a test machine with nothing but busybox, emulated and slow.
pub fn is_vm() -> bool {
    env::var_os("MEMTRACE_VM").is_some_and(|value| value == "1")
}

/// The memtrace binary under test.
pub fn memtrace() -> Result<PathBuf> {
    program("MEMTRACE_BIN")
}

/// The workload binary.
pub fn workload() -> Result<PathBuf> {
    program("MEMTRACE_WORKLOAD")
}

fn program(variable: &str) -> Result<PathBuf> {
    let path = env::var_os(variable)
        .map(PathBuf::from)
        .with_context(|| format!("{variable} must name a program (`cargo xtask test` sets it)"))?;
    ensure!(
        path.is_file(),
        "{variable}={} is not a file",
        path.display()
    );
    Ok(path)
}

/// How long to wait for something that takes `usual` at most on a loaded host.
pub fn patience(usual: Duration) -> Duration {
    if is_vm() { usual * 8 } else { usual }
}

/// Polls until `ready` gives a value.
pub fn poll<T>(
    what: &str,
    usual: Duration,
    mut ready: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + patience(usual);
    loop {
        if let Some(value) = ready()? {
            return Ok(value);
        }
        if Instant::now() > deadline {
            bail!("gave up waiting for {what}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// A number of bytes from /proc/meminfo.
pub fn memory_info(field: &str) -> Result<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    let value = meminfo.lines().find_map(|line| {
        let value = line.strip_prefix(field)?.strip_prefix(':')?;
        value.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    });
    Ok(value.with_context(|| format!("no {field} in /proc/meminfo"))? * 1024)
}

/// The kernel's own count of OOM kills, of the whole machine.
pub fn oom_kills() -> Result<u64> {
    let vmstat = fs::read_to_string("/proc/vmstat")?;
    let mut lines = vmstat.lines();
    let count = lines.find_map(|line| line.strip_prefix("oom_kill "));
    Ok(count.context("no oom_kill in /proc/vmstat")?.parse()?)
}

/// Whether this process may lower its oom_score_adj.
pub fn may_protect() -> Result<bool> {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = fs::read_to_string("/proc/self/status")?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.context("no CapEff")?;
    let effective = u64::from_str_radix(effective.trim(), 16)?;
    Ok(effective & (1 << CAP_SYS_RESOURCE) != 0)
}

/// Finds a tool in `PATH`. Where it is missing: `None` and a message in a VM, an error on a host.
pub fn tool(name: &str) -> Result<Option<PathBuf>> {
    if let Some(found) = in_path(name) {
        return Ok(Some(found));
    }
    ensure!(
        is_vm(),
        "{name} is not installed (apt-get install {name}, or linux-perf for perf)"
    );
    skip(&format!("no {name}"));
    Ok(None)
}

/// The first executable of that name in `PATH`.
pub fn in_path(name: &str) -> Option<PathBuf> {
    let path: OsString = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

/// Says on the real stderr why a scenario did not run.
pub fn skip(reason: &str) {
    // The test framework captures `eprintln!` of tests that pass, but not this.
    let _ = writeln!(std::io::stderr(), "skipped: {reason}");
}

/// Whether the file system there keeps files in memory only, so that their pages cannot be reclaimed.
pub fn is_memory_only(directory: &Path) -> Result<bool> {
    const TMPFS: i64 = 0x0102_1994;
    const RAMFS: i64 = 0x8584_58f6;
    use std::os::unix::ffi::OsStrExt;
    let path = CString::new(directory.as_os_str().as_bytes())?;
    // SAFETY: plain data, for which zero is valid.
    let mut answer: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: a NUL-terminated path and a struct of the right type.
    let status = unsafe { libc::statfs(path.as_ptr(), &raw mut answer) };
    ensure!(status == 0, std::io::Error::last_os_error());
    Ok(answer.f_type == TMPFS || answer.f_type == RAMFS)
}

/// Whether the running kernel is older than this version.
pub fn kernel_before(major: u32, minor: u32) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|part| part.trim().parse::<u32>().ok());
    (numbers.next(), numbers.next()) < (Some(major), Some(minor))
}
