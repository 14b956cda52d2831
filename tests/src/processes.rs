//! Families of processes and threads that run out of memory, for the workload binary.
//!
//! Forks without `exec`, in a program of one thread.

use std::fs;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pipe};
use serde_json::{Value, json};

use crate::calls::touch;
use crate::machine::PAGE;

/// The function of this program that keeps what it takes, as a symbol names it.
pub const LEAKING_FUNCTION: &str = "memtrace_tests::processes::leak_part";

/// Writes one line of JSON.
pub fn report(report: &Value) -> Result<()> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{report}")?;
    Ok(stdout.flush()?)
}

/// Waits for a byte on stdin or its end; a bare read(2), which allocates nothing.
pub fn pause() -> Result<()> {
    read_byte(0).map(drop)
}

/// Puts this process into a cgroup.
pub fn join(directory: &Path) -> Result<()> {
    let file = directory.join("cgroup.procs");
    // A single write(2) of "0": the tests look for it in strace's output.
    fs::write(&file, "0").with_context(|| format!("cannot write {}", file.display()))
}

/// Names this thread.
pub fn set_comm(name: &[u8]) {
    let mut bytes = [0u8; 16];
    let length = name.len().min(15);
    bytes[..length].copy_from_slice(&name[..length]);
    // SAFETY: a NUL-terminated name of at most 16 bytes.
    unsafe { libc::prctl(libc::PR_SET_NAME, bytes.as_ptr()) };
}

/// Keeps `rate` more bytes each second, from `calm_ms` on, until stdin says or ends.
pub fn leak(calm_ms: u64, rate: u64) -> Result<()> {
    if wait_for_input(calm_ms)? {
        return Ok(());
    }
    report(&json!({ "leaks": true }))?;
    leak_until(rate, || wait_for_input(10))
}

/// The same at once and until it is killed, for where stdin is closed.
pub fn leak_on(rate: u64) -> Result<()> {
    leak_until(rate, || {
        std::thread::sleep(std::time::Duration::from_millis(10));
        Ok(false)
    })
}

fn leak_until(rate: u64, ends: impl Fn() -> Result<bool>) -> Result<()> {
    const PART: u64 = 16 * PAGE;
    let begin = Instant::now();
    let mut leaked = 0;
    while !ends()? {
        let due = (begin.elapsed().as_secs_f64() * rate as f64) as u64;
        while leaked < due {
            leak_part(PART)?;
            leaked += PART;
        }
    }
    Ok(())
}

/// What tests look for by [`LEAKING_FUNCTION`].
#[inline(never)]
fn leak_part(bytes: u64) -> Result<()> {
    // Used, so that the call is no tail call and this function is on the stack.
    let pages = std::hint::black_box(touch(bytes)?);
    ensure!(pages > 0, "nothing was written");
    Ok(())
}

/// Whether within so many milliseconds stdin has something, or has ended.
fn wait_for_input(milliseconds: u64) -> Result<bool> {
    let mut stdin = libc::pollfd {
        fd: 0,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one struct of the right type.
    let ready = unsafe { libc::poll(&raw mut stdin, 1, i32::try_from(milliseconds)?) };
    ensure!(ready >= 0, std::io::Error::last_os_error());
    Ok(ready > 0)
}

/// A child writes `bytes`; the parent tells of its end and goes on.
pub fn child_first(bytes: u64) -> Result<()> {
    let child = spawn(|| {
        set_comm(b"mt-child");
        wait_for_start()?;
        touch(bytes)?;
        Ok(())
    })?;
    report(&json!({ "child": child.as_raw() }))?;
    tell_end_of(child)?;
    pause()
}

/// `count` processes, this one included, hold `bytes` each; then this one writes `more`.
pub fn family(count: u64, bytes: u64, more: u64) -> Result<()> {
    let (ready, tell) = pipe()?;
    let mut pids = vec![std::process::id() as i32];
    for _ in 1..count {
        let child = spawn(|| {
            set_comm(b"mt-member");
            touch(bytes)?;
            write_byte(&tell)?;
            sleep_for_ever()
        })?;
        read_byte(ready.as_raw_fd())?;
        pids.push(child.as_raw());
    }
    touch(bytes)?;
    report(&json!({ "pids": pids }))?;
    pause()?;
    touch(more)?;
    report(&json!({ "alive": true }))?;
    pause()
}

/// As many threads beside the first write `bytes` each, and all end at once.
pub fn threads(count: u64, bytes: u64) -> Result<()> {
    let all_touched = Arc::new(Barrier::new(count as usize + 1));
    for _ in 0..count {
        let all_touched = Arc::clone(&all_touched);
        thread::Builder::new().spawn(move || {
            if touch(bytes).is_err() {
                process::abort();
            }
            all_touched.wait();
            thread::park();
        })?;
    }
    all_touched.wait();
    Ok(())
}

/// A thread that is not the leader writes `bytes`.
pub fn second_thread(bytes: u64) -> Result<()> {
    let thread = thread::Builder::new()
        .name("mt-thread".into())
        .spawn(move || {
            // SAFETY: only asks.
            let tid = unsafe { libc::gettid() };
            report(&json!({ "pid": process::id(), "tid": tid }))?;
            wait_for_start()?;
            Ok(touch(bytes)?)
        })?;
    let written: Result<u64> = thread.join().expect("the thread panicked");
    bail!("alive after writing {} pages", written?);
}

/// In a PID namespace of its own, process 1 or its child writes `bytes`. Process 1 tells of the
/// end of its child and goes on; the caller's process tells of the end of process 1.
pub fn namespace(bytes: u64, in_child: bool) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWPID).context("cannot make a PID namespace")?;
    let init = spawn(|| {
        set_comm(b"mt-init");
        if !in_child {
            wait_for_start()?;
            touch(bytes)?;
            return Ok(());
        }
        let child = spawn(|| {
            set_comm(b"mt-inner");
            wait_for_start()?;
            touch(bytes)?;
            Ok(())
        })?;
        ensure!(child.as_raw() == 2, "the child is {child}");
        tell_end_of(child)?;
        pause()
    })?;
    tell_end_of(init)
}

/// In a PID namespace of its own, process 1, of that name, kills its child.
pub fn namespace_kill(killer: &[u8]) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWPID).context("cannot make a PID namespace")?;
    let init = spawn(|| {
        set_comm(killer);
        let child = spawn(|| {
            loop {
                thread::park();
            }
        })?;
        kill(child, Signal::SIGKILL)?;
        ensure!(matches!(waitpid(child, None)?, WaitStatus::Signaled(..)));
        Ok(())
    })?;
    ensure!(matches!(waitpid(init, None)?, WaitStatus::Exited(_, 0)));
    Ok(())
}

/// Children that write `bytes` in that cgroup until they are killed, one after the other.
pub fn one_after_the_other(cgroup: &Path, kills: u64, bytes: u64) -> Result<()> {
    let mut pids = Vec::new();
    wait_for_start()?;
    for _ in 0..kills {
        let child = spawn(|| {
            set_comm(b"mt-storm");
            join(cgroup)?;
            touch(bytes)?;
            Ok(())
        })?;
        let end = waitpid(child, None)?;
        let killed = matches!(end, WaitStatus::Signaled(_, Signal::SIGKILL, _));
        ensure!(killed, "{end:?}");
        pids.push(child.as_raw());
    }
    report(&json!({ "pids": pids }))?;
    pause()
}

/// Keeps a CPU busy until stdin ends.
pub fn spin() -> Result<()> {
    thread::spawn(|| {
        loop {
            std::hint::spin_loop();
        }
    });
    pause()
}

/// Holds `bytes` until SIGTERM comes, which it handles: it ends well.
pub fn obey(bytes: u64) -> Result<()> {
    let mut asked = SigSet::empty();
    asked.add(Signal::SIGTERM);
    asked.thread_block()?;
    let pages = touch(bytes)?;
    report(&json!({ "pages": pages }))?;
    asked.wait()?;
    Ok(())
}

/// Signals a process as a user-space OOM killer does.
pub fn kill_process(pid: u64, signal: Signal) -> Result<()> {
    kill(Pid::from_raw(i32::try_from(pid)?), signal)?;
    report(&json!({ "killer": std::process::id() }))?;
    pause()
}

/// Runs `work` in a child.
fn spawn(work: impl FnOnce() -> Result<()>) -> Result<Pid> {
    // SAFETY: there are no other threads.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let result = work();
            if let Err(error) = &result {
                eprintln!("{error:#}");
            }
            // SAFETY: ends the child without touching the parent's buffers.
            unsafe { libc::_exit(i32::from(result.is_err())) }
        }
    }
}

fn tell_end_of(child: Pid) -> Result<()> {
    let signal = match waitpid(child, None)? {
        WaitStatus::Signaled(_, signal, _) => Some(signal as i32),
        _ => None,
    };
    report(&json!({ "ended": child.as_raw(), "signal": signal }))
}

/// The test looks around first.
fn wait_for_start() -> Result<()> {
    pause()
}

fn sleep_for_ever() -> ! {
    loop {
        // SAFETY: only waits.
        unsafe { libc::pause() };
    }
}

fn write_byte(to: &OwnedFd) -> Result<()> {
    nix::unistd::write(to, b"x")?;
    Ok(())
}

fn read_byte(from: i32) -> Result<u8> {
    let mut byte = 0u8;
    // SAFETY: one byte into a buffer of one.
    let read = unsafe { libc::read(from, (&raw mut byte).cast(), 1) };
    ensure!(read >= 0, std::io::Error::last_os_error());
    Ok(byte)
}
