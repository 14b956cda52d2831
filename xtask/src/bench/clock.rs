//! The clocks that figures are taken with.
//! Must not reduce or judge what they say.

use std::fs;
use std::io;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// `CLOCK_BOOTTIME`, which memtrace stamps kernel events with, nanoseconds.
pub fn boot_time_ns() -> io::Result<u64> {
    read(libc::CLOCK_BOOTTIME)
}

/// CPU time of the calling thread, nanoseconds.
pub fn thread_cpu_ns() -> Result<u64> {
    read(libc::CLOCK_THREAD_CPUTIME_ID).context("clock_gettime")
}

/// User and system time of all children that were waited for.
pub fn children_cpu() -> Result<Duration> {
    // SAFETY: all-zero is a valid rusage, and the call gets a pointer to it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        if libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) != 0 {
            return Err(io::Error::last_os_error()).context("getrusage");
        }
        usage
    };
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
    };
    Ok(time(usage.ru_utime) + time(usage.ru_stime))
}

/// User and system time of a process so far, and of its children that it waited for.
pub fn process_cpu(pid: u32) -> Result<(Duration, Duration)> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // The name, in parentheses, may contain anything. utime, stime, cutime, cstime: proc_pid_stat(5).
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = behind_name.split_whitespace().skip(11).take(4);
    let ticks: Vec<u64> = ticks.filter_map(|text| text.parse().ok()).collect();
    let [user, system, children_user, children_system] = ticks[..] else {
        bail!("{path} has no CPU time");
    };
    // SAFETY: takes a plain number.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    let time = |ticks: u64| Duration::from_secs_f64(ticks as f64 / per_second);
    Ok((time(user + system), time(children_user + children_system)))
}

fn read(clock: libc::clockid_t) -> io::Result<u64> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a live timespec.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}
