//! The loads that a measurement re-executes this program for (`cargo xtask bench-load`, hidden):
//! tight loops over one kernel path, and processes that hold, grow or use up memory or CPU.
//! Must not know which tracer runs.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::ptr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::clock::{children_cpu, thread_cpu_ns};
use super::rounds::median;

const FAULT_BYTES: usize = 64 << 20;
const GETPPID_CALLS: usize = 100_000;
const MAP_PAIRS: usize = 20_000;
const SIGNALS: usize = 20_000;
const FORKS: usize = 500;
const EXECS: usize = 200;
const PROGRAM: &CStr = c"/bin/true";
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
    /// Run the loops over the life of a process and print what they cost
    Lifecycle {
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
    /// Enter a cgroup and touch that much memory
    Fill {
        #[arg(long)]
        cgroup: PathBuf,
        #[arg(long)]
        bytes: usize,
    },
    /// Keep a CPU busy until the parent dies
    Spin,
}

/// Nanoseconds of this thread's CPU time per operation.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Loops {
    pub fault: f64,
    pub getppid: f64,
    pub map: f64,
}

/// Nanoseconds of CPU time per operation, children included.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Lifecycle {
    /// A signal to oneself, with a handler.
    pub signal: f64,
    /// fork, _exit and wait.
    pub fork: f64,
    /// fork, exec of `/bin/true` and wait.
    pub exec: f64,
}

/// Runs one load in this process.
pub fn run(args: &Args) -> Result<()> {
    match &args.load {
        Load::Loops { batches } => loops(*batches),
        Load::Lifecycle { batches } => lifecycle(*batches),
        Load::Live { cgroup, grow } => live(cgroup, *grow),
        Load::Fill { cgroup, bytes } => fill(cgroup, *bytes),
        Load::Spin => spin(),
    }
}

fn loops(batches: usize) -> Result<()> {
    pin()?;
    let page = page_size();
    let cost = Loops {
        fault: batch(batches, FAULT_BYTES / page, thread_cpu_ns, || {
            touch(FAULT_BYTES, page)
        })?,
        getppid: batch(batches, GETPPID_CALLS, thread_cpu_ns, || {
            // Not `for`: without optimization its iterator would cost as much as a hook.
            let mut left = GETPPID_CALLS;
            while left > 0 {
                // SAFETY: getppid takes no argument and cannot fail.
                unsafe { libc::syscall(libc::SYS_getppid) };
                left -= 1;
            }
            Ok(())
        })?,
        map: batch(batches, MAP_PAIRS, thread_cpu_ns, || {
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

fn lifecycle(batches: usize) -> Result<()> {
    extern "C" fn ignore(_signal: libc::c_int) {}
    pin()?;
    let handler = ignore as extern "C" fn(libc::c_int);
    // SAFETY: the handler does nothing.
    unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) };
    let own_id = std::process::id() as libc::pid_t;
    let repeat = |count: usize, work: &dyn Fn() -> Result<()>| (0..count).try_for_each(|_| work());
    let cost = Lifecycle {
        signal: batch(batches, SIGNALS, thread_cpu_ns, || {
            let mut left = SIGNALS;
            while left > 0 {
                // SAFETY: plain numbers; the signal has a handler.
                unsafe { libc::kill(own_id, libc::SIGUSR1) };
                left -= 1;
            }
            Ok(())
        })?,
        fork: batch(batches, FORKS, family_cpu_ns, || {
            repeat(FORKS, &|| forked(None))
        })?,
        exec: batch(batches, EXECS, family_cpu_ns, || {
            repeat(EXECS, &|| forked(Some(PROGRAM)))
        })?,
    };
    println!("{}", serde_json::to_string(&cost)?);
    Ok(())
}

/// Makes a process that ends at once, or becomes `program`, and waits for its end.
fn forked(program: Option<&CStr>) -> Result<()> {
    let arguments = [program.map_or(ptr::null(), CStr::as_ptr), ptr::null()];
    // SAFETY: the child only makes calls that are async-signal-safe, on pointers made before.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: the path and the null-terminated array outlive the call; _exit does not return.
        unsafe {
            if !arguments[0].is_null() {
                libc::execv(arguments[0], arguments.as_ptr());
                libc::_exit(127);
            }
            libc::_exit(0);
        }
    }
    if child < 0 {
        return Err(io::Error::last_os_error()).context("fork");
    }
    let mut status = 0;
    // SAFETY: our own child that nobody else waits for, and a live integer.
    if unsafe { libc::waitpid(child, &raw mut status, 0) } != child {
        return Err(io::Error::last_os_error()).context("waitpid");
    }
    if status != 0 {
        bail!("a child that should do nothing failed (status {status:#x})");
    }
    Ok(())
}

/// CPU time of this process's only thread and of the children that it waited for.
fn family_cpu_ns() -> Result<u64> {
    Ok(thread_cpu_ns()? + children_cpu()?.as_nanos() as u64)
}

/// The median over the batches, of CPU time: what others do meanwhile costs wall time only.
fn batch(
    batches: usize,
    operations: usize,
    cpu_ns: fn() -> Result<u64>,
    mut work: impl FnMut() -> Result<()>,
) -> Result<f64> {
    work()?;
    let mut costs = Vec::with_capacity(batches);
    for _ in 0..batches {
        let before = cpu_ns()?;
        work()?;
        costs.push((cpu_ns()? - before) as f64 / operations as f64);
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

fn enter(cgroup: &Path) -> Result<()> {
    end_with_parent();
    let procs = cgroup.join("cgroup.procs");
    fs::write(&procs, std::process::id().to_string())
        .with_context(|| format!("cannot enter {}", cgroup.display()))
}

fn end_with_parent() {
    // SAFETY: takes plain numbers; the process has one thread.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

fn fill(cgroup: &Path, bytes: usize) -> Result<()> {
    enter(cgroup)?;
    touch(bytes, page_size())
}

fn spin() -> ! {
    end_with_parent();
    loop {
        std::hint::spin_loop();
    }
}

fn live(cgroup: &Path, grow: bool) -> Result<()> {
    enter(cgroup)?;
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

fn page_size() -> usize {
    // SAFETY: takes a plain number.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}
