//! The program that end-to-end tests watch: does one thing with memory and reports what it did.
//!
//! `memtrace-workload [--cgroup DIR] [--comm NAME] [--oom-score-adj N] [--uid N] COMMAND`. Reports are
//! JSON lines on stdout.
//! Commands that pause wait for a line on stdin, or its end.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use memtrace_tests::calls::{Caller, touch, touch_shared};
use memtrace_tests::machine::{MIB, PAGE};
use memtrace_tests::processes::{self, join, pause, report, set_comm};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::{ForkResult, fork, setuid};
use serde_json::json;

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    loop {
        let first = arguments.next().context("no command")?;
        match first.to_str() {
            Some("--cgroup") => {
                let directory = PathBuf::from(arguments.next().context("no directory")?);
                join(&directory)?;
            }
            Some("--comm") => set_comm(arguments.next().context("no name")?.as_bytes()),
            Some("--oom-score-adj") => {
                let value = arguments.next().context("no number")?;
                fs::write("/proc/self/oom_score_adj", value.as_bytes())?;
            }
            Some("--uid") => {
                let uid = arguments.next().context("no number")?;
                setuid(uid.to_str().context("no number")?.parse::<u32>()?.into())?;
            }
            Some(command) => return run(command, &arguments.collect::<Vec<_>>()),
            None => bail!("not a command: {first:?}"),
        }
    }
}

fn run(command: &str, options: &[OsString]) -> Result<()> {
    match command {
        "nothing" => Ok(()),
        "pause" => pause(),
        "sleep" => loop {
            std::thread::park();
        },
        "touch" => {
            let pages = touch(number(options, "--bytes")?)?;
            report(&json!({ "pages": pages }))?;
            pause()
        }
        "leak" => processes::leak(
            number(options, "--calm-ms")?,
            number(options, "--bytes-per-second")?,
        ),
        "leak-on" => processes::leak_on(number(options, "--bytes-per-second")?),
        "leader-first" => leader_first(number(options, "--bytes")?),
        "calls" => calls(),
        "oom" => {
            if let Ok(calm) = number(options, "--calm-ms") {
                std::thread::sleep(std::time::Duration::from_millis(calm));
            }
            if let Ok(shared) = number(options, "--shared-bytes") {
                touch_shared(shared)?;
            }
            let pages = touch(number(options, "--bytes")?)?;
            bail!("alive after writing {pages} pages");
        }
        "child-first" => processes::child_first(number(options, "--bytes")?),
        "family" => processes::family(
            number(options, "--count")?,
            number(options, "--bytes")?,
            number(options, "--more")?,
        ),
        "threads" => processes::threads(number(options, "--count")?, number(options, "--bytes")?),
        "second-thread" => processes::second_thread(number(options, "--bytes")?),
        "namespace-init" => processes::namespace(number(options, "--bytes")?, false),
        "namespace-child" => processes::namespace(number(options, "--bytes")?, true),
        "namespace-kill" => processes::namespace_kill(value(options, "--killer")?.as_bytes()),
        "one-after-the-other" => processes::one_after_the_other(
            Path::new(value(options, "--in")?),
            number(options, "--kills")?,
            number(options, "--bytes")?,
        ),
        "spin" => processes::spin(),
        "obey" => processes::obey(number(options, "--bytes")?),
        "kill" => processes::kill_process(number(options, "--pid")?, Signal::SIGKILL),
        "terminate" => processes::kill_process(number(options, "--pid")?, Signal::SIGTERM),
        "children" => children(
            number(options, "--count")?,
            number(options, "--pages")? * PAGE,
        ),
        "file-io" => file_io(
            Path::new(value(options, "--path")?),
            number(options, "--bytes")?,
        ),
        other => bail!("unknown command {other}"),
    }
}

fn value<'a>(options: &'a [OsString], name: &str) -> Result<&'a OsStr> {
    options
        .iter()
        .position(|option| option == name)
        .and_then(|position| options.get(position + 1))
        .map(OsString::as_os_str)
        .with_context(|| format!("{name} is missing"))
}

fn number(options: &[OsString], name: &str) -> Result<u64> {
    let text = value(options, name)?;
    text.to_str()
        .and_then(|text| text.parse().ok())
        .with_context(|| format!("{name} {text:?} is no number"))
}

/// Says so by a bare write(2), which allocates nothing.
fn done() {
    // SAFETY: five bytes of a string of five.
    unsafe { libc::write(1, b"done\n".as_ptr().cast(), 5) };
}

/// Between the two pauses nothing but the calls touches the address space.
fn calls() -> Result<()> {
    // Whatever stdout and JSON need of the heap, they take it here.
    report(&Caller::default().sums.to_json())?;
    pause()?;
    let mut caller = Caller::default();
    caller.everything();
    done();
    pause()?;
    let mut line = caller.sums.to_json();
    line["refused"] = caller.refused.into();
    report(&line)?;
    pause()
}

/// The first thread ends before another one, as the last of a process then is not its leader. Both touch as much.
fn leader_first(bytes: u64) -> Result<()> {
    touch(bytes)?;
    // SAFETY: only asks.
    let leader = unsafe { libc::getpid() };
    std::thread::Builder::new()
        .name("mt-last-thread".into())
        .spawn(move || {
            let status = format!("/proc/self/task/{leader}/stat");
            // A thread that has ended before its process is a zombie.
            while fs::read_to_string(&status).is_ok_and(|stat| !stat.contains(") Z ")) {
                std::thread::yield_now();
            }
            let touched = touch(bytes).is_ok() && report(&json!({ "bytes": bytes })).is_ok();
            // SAFETY: ends this thread, the last one.
            unsafe { libc::syscall(libc::SYS_exit, i32::from(!touched)) };
        })?;
    // SAFETY: ends only this thread; it owns nothing that the other uses.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    bail!("a thread survived its end");
}

fn children(count: u64, bytes: u64) -> Result<()> {
    for _ in 0..count {
        // SAFETY: there are no other threads.
        match unsafe { fork() }? {
            ForkResult::Child => {
                let status = i32::from(touch(bytes).is_err());
                // SAFETY: ends the child without touching the parent's buffers.
                unsafe { libc::_exit(status) };
            }
            ForkResult::Parent { .. } => {
                let ended = wait()?;
                ensure!(matches!(ended, WaitStatus::Exited(_, 0)), "{ended:?}");
            }
        }
    }
    report(&json!({ "children": count }))
}

/// Writes a file and reads it back; a cgroup smaller than the file must give pages back meanwhile.
fn file_io(path: &Path, bytes: u64) -> Result<()> {
    let mut file = File::create(path)?;
    let chunk = vec![7u8; MIB as usize];
    for _ in 0..bytes / MIB {
        file.write_all(&chunk)?;
        // Dirty pages cannot be reclaimed: on cgroup v1 too many of them are an OOM.
        file.sync_data()?;
    }
    let mut file = File::open(path)?;
    let mut buffer = chunk;
    let mut read = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            length => read += length as u64,
        }
    }
    report(&json!({ "read": read }))?;
    pause()
}
