//! The program that end-to-end tests watch: does one thing with memory and reports what it did.
//!
//! `memtrace-workload [--cgroup DIR] [--comm NAME] COMMAND`. Reports are JSON lines on stdout.
//! Commands that pause wait for a line on stdin, or its end.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use memtrace_tests::calls::{Caller, touch};
use memtrace_tests::machine::{MIB, PAGE};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::{ForkResult, fork};
use serde_json::{Value, json};

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    loop {
        let first = arguments.next().context("no command")?;
        match first.to_str() {
            Some("--cgroup") => {
                let directory = PathBuf::from(arguments.next().context("no directory")?);
                join(&directory)?;
            }
            Some("--comm") => set_comm(&arguments.next().context("no name")?),
            Some(command) => return run(command, &arguments.collect::<Vec<_>>()),
            None => bail!("not a command: {first:?}"),
        }
    }
}

fn run(command: &str, options: &[OsString]) -> Result<()> {
    match command {
        "nothing" => Ok(()),
        "pause" => pause(),
        "touch" => {
            let pages = touch(number(options, "--bytes")?)?;
            report(&json!({ "pages": pages }))?;
            pause()
        }
        "leader-first" => leader_first(number(options, "--bytes")?),
        "calls" => calls(),
        "oom" => {
            let pages = touch(number(options, "--bytes")?)?;
            bail!("alive after writing {pages} pages");
        }
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

fn join(directory: &Path) -> Result<()> {
    let file = directory.join("cgroup.procs");
    // A single write(2) of "0": the tests look for it in strace's output.
    fs::write(&file, "0").with_context(|| format!("cannot write {}", file.display()))
}

fn set_comm(name: &OsStr) {
    let mut bytes = [0u8; 16];
    let length = name.len().min(15);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    // SAFETY: a NUL-terminated name of at most 16 bytes.
    unsafe { libc::prctl(libc::PR_SET_NAME, bytes.as_ptr()) };
}

fn report(report: &Value) -> Result<()> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{report}")?;
    Ok(stdout.flush()?)
}

/// Waits for a byte on stdin or its end; a bare read(2), which allocates nothing.
fn pause() -> Result<()> {
    let mut byte = 0u8;
    // SAFETY: one byte into a buffer of one.
    let read = unsafe { libc::read(0, (&raw mut byte).cast(), 1) };
    ensure!(read >= 0, std::io::Error::last_os_error());
    Ok(())
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

/// The first thread ends before another one, as the last of a process then is not its leader.
fn leader_first(bytes: u64) -> Result<()> {
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
