//! The loads that a measurement re-executes this program for (`cargo xtask bench-load`, hidden):
//! tight loops over one kernel path, and processes that only hold or grow memory.
//! Must not know which tracer runs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::rounds::median;

const FAULT_BYTES: usize = 64 << 20;
const GETPPID_CALLS: usize = 100_000;
const MAP_PAIRS: usize = 20_000;
const GROWTH_STEP: usize = 64 << 10;
const GROWTH_PAUSE: Duration = Duration::from_millis(250);

/// Arguments of `cargo xtask bench-load`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    load: Load,
}

#[derive(clap::Subcommand)]
enum Load {
    /// Run the loops and print what they cost
    Loops {
        /// Repetitions of each loop, of which the median counts
        #[arg(long)]
        batches: usize,
    },
    /// Enter a cgroup and live there until the parent dies
    Live {
        #[arg(long)]
        cgroup: PathBuf,
        /// Touch new memory all the time, slowly
        #[arg(long)]
        grow: bool,
    },
}

/// Nanoseconds of this thread's CPU time per operation.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Loops {
    pub fault: f64,
    pub getppid: f64,
    pub map: f64,
}

/// Runs one load in this process.
pub fn run(args: &Args) -> Result<()> {
    match &args.load {
        Load::Loops { batches } => loops(*batches),
        Load::Live { cgroup, grow } => live(cgroup, *grow),
    }
}

fn loops(batches: usize) -> Result<()> {
    pin()?;
    let page = page_size();
    let cost = Loops {
        fault: batch(batches, FAULT_BYTES / page, || touch(FAULT_BYTES, page))?,
        getppid: batch(batches, GETPPID_CALLS, || {
            // Not `for`: without optimization its iterator would cost as much as a hook.
            let mut left = GETPPID_CALLS;
            while left > 0 {
                // SAFETY: getppid takes no argument and cannot fail.
                unsafe { libc::syscall(libc::SYS_getppid) };
                left -= 1;
            }
            Ok(())
        })?,
        map: batch(batches, MAP_PAIRS, || {
            let mut left = MAP_PAIRS;
            while left > 0 {
                Mapping::new(page)?;
                left -= 1;
            }
            Ok(())
        })?,
    };
    println!("{}", serde_json::to_string(&cost)?);
    Ok(())
}

/// The median over the batches, of CPU time: what others do meanwhile costs wall time only.
fn batch(batches: usize, operations: usize, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    work()?;
    let mut costs = Vec::with_capacity(batches);
    for _ in 0..batches {
        let before = thread_cpu_ns()?;
        work()?;
        costs.push((thread_cpu_ns()? - before) as f64 / operations as f64);
    }
    Ok(median(&costs))
}

fn touch(bytes: usize, page: usize) -> Result<()> {
    let mapping = Mapping::new(bytes)?;
    // SAFETY: the mapping is ours and this long; advice changes no content.
    if unsafe { libc::madvise(mapping.start, bytes, libc::MADV_NOHUGEPAGE) } != 0 {
        // EINVAL: a kernel without huge pages needs no advice.
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINVAL) {
            return Err(error).context("madvise");
        }
    }
    let mut offset = 0;
    while offset < bytes {
        // SAFETY: inside the writable mapping; volatile, or nothing would be touched.
        unsafe { mapping.start.cast::<u8>().add(offset).write_volatile(1) };
        offset += page;
    }
    Ok(())
}

fn live(cgroup: &Path, grow: bool) -> Result<()> {
    // SAFETY: takes plain numbers; the process has one thread.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let procs = cgroup.join("cgroup.procs");
    fs::write(&procs, std::process::id().to_string())
        .with_context(|| format!("cannot enter {}", cgroup.display()))?;
    println!("entered");
    let mut held = Vec::new();
    loop {
        if grow {
            let mapping = Mapping::new(GROWTH_STEP)?;
            // SAFETY: the mapping is ours, writable and this long.
            unsafe { mapping.start.cast::<u8>().write_bytes(1, GROWTH_STEP) };
            held.push(mapping);
            thread::sleep(GROWTH_PAUSE);
        } else {
            thread::park();
        }
    }
}

/// Anonymous private memory, unmapped when dropped.
struct Mapping {
    start: *mut libc::c_void,
    bytes: usize,
}

impl Mapping {
    fn new(bytes: usize) -> Result<Self> {
        // SAFETY: a new private mapping at a place of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error()).context("mmap");
        }
        Ok(Self { start, bytes })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length, and nothing points into it any more.
        unsafe { libc::munmap(self.start, self.bytes) };
    }
}

/// To the last CPU that this process may use: the first one often serves interrupts.
fn pin() -> Result<()> {
    // SAFETY: a zeroed cpu_set_t is an empty set, and both calls get its true size.
    unsafe {
        let mut allowed: libc::cpu_set_t = std::mem::zeroed();
        let size = std::mem::size_of::<libc::cpu_set_t>();
        if libc::sched_getaffinity(0, size, &raw mut allowed) != 0 {
            return Err(io::Error::last_os_error()).context("sched_getaffinity");
        }
        let last = (0..libc::CPU_SETSIZE as usize)
            .rev()
            .find(|&cpu| libc::CPU_ISSET(cpu, &allowed));
        let Some(last) = last else {
            bail!("this process may run on no CPU");
        };
        let mut one: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(last, &mut one);
        if libc::sched_setaffinity(0, size, &raw const one) != 0 {
            return Err(io::Error::last_os_error()).context("sched_setaffinity");
        }
    }
    Ok(())
}

fn thread_cpu_ns() -> Result<u64> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a live timespec.
    if unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error()).context("clock_gettime");
    }
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

fn page_size() -> usize {
    // SAFETY: takes a plain number.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}
