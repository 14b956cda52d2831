//! A running workload: a process of the workload binary, in a cgroup from its first instruction.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cgroup::Cgroup;
use crate::machine;

/// A workload, killed when dropped.
#[derive(Debug)]
pub struct Workload {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    reaped: bool,
}

/// How a workload ended, as its parent sees it.
#[derive(Debug, Clone, Copy)]
pub struct End {
    /// As `wait(2)` gives it.
    pub status: i32,
    pub minor_faults: u64,
    pub major_faults: u64,
    pub peak_rss_bytes: u64,
}

impl End {
    pub fn killed(&self) -> bool {
        libc::WIFSIGNALED(self.status) && libc::WTERMSIG(self.status) == libc::SIGKILL
    }

    pub fn faults(&self) -> u64 {
        self.minor_faults + self.major_faults
    }
}

impl Workload {
    /// Starts one that is in the cgroup before it executes.
    pub fn start<S: AsRef<OsStr>>(cgroup: &Cgroup, arguments: &[S]) -> Result<Self> {
        let mut command = Command::new(machine::workload()?);
        command.args(arguments);
        join_before_exec(&mut command, cgroup)?;
        Self::spawn(command)
    }

    /// Starts `command`, which runs a workload in the end.
    pub fn spawn(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().context("no stdout")?);
        Ok(Self {
            child,
            stdin,
            stdout,
            reaped: false,
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of its stdout.
    pub fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        ensure!(line.ends_with('\n'), "the workload ended without a report");
        Ok(line.trim_end().to_owned())
    }

    /// The next line of its stdout, as JSON.
    pub fn report(&mut self) -> Result<Value> {
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("not a report: {line}"))
    }

    /// Lets it go on from a pause.
    pub fn resume(&mut self) -> Result<()> {
        self.tell("")
    }

    /// Writes a line to its stdin.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("stdin is closed")?;
        writeln!(stdin, "{line}")?;
        Ok(stdin.flush()?)
    }

    /// Waits until it has ended.
    pub fn end(mut self) -> Result<End> {
        drop(self.stdin.take());
        let pid = self.child.id() as i32;
        let end = machine::poll("the workload to end", Duration::from_secs(60), || {
            let mut status = 0;
            // SAFETY: plain data, for which zero is valid.
            let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
            // SAFETY: our own child, not yet reaped; both pointers are valid.
            let ended = unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG, &raw mut usage) };
            ensure!(ended >= 0, std::io::Error::last_os_error());
            Ok((ended == pid).then_some(End {
                status,
                minor_faults: usage.ru_minflt as u64,
                major_faults: usage.ru_majflt as u64,
                peak_rss_bytes: usage.ru_maxrss as u64 * 1024,
            }))
        })?;
        self.reaped = true;
        Ok(end)
    }

    /// Waits until it has ended well.
    pub fn success(self) -> Result<End> {
        let end = self.end()?;
        ensure!(end.status == 0, "the workload ended with {:#x}", end.status);
        Ok(end)
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        // A reaped pid may belong to somebody else by now.
        if !self.reaped {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Starts one for whose memory another is to be killed, and not itself.
pub fn start_asker(cgroup: &Cgroup, comm: &str, bytes: u64) -> Result<Workload> {
    // Linux 7.2 asks for the next victim before anything of the first one is given back.
    let score = if machine::kernel_before(7, 0) {
        "0"
    } else {
        "-1000"
    };
    let bytes = bytes.to_string();
    let arguments = [
        "--oom-score-adj",
        score,
        "--comm",
        comm,
        "touch",
        "--bytes",
        &bytes,
    ];
    Workload::start(cgroup, &arguments)
}

/// Moves the process into the cgroup between fork and exec.
pub fn join_before_exec(command: &mut Command, cgroup: &Cgroup) -> Result<()> {
    let procs = OpenOptions::new()
        .write(true)
        .open(cgroup.directory().join("cgroup.procs"))?;
    // SAFETY: only a write(2) to an open file, which is safe after fork.
    unsafe {
        command.pre_exec(
            move || match libc::write(procs.as_raw_fd(), b"0".as_ptr().cast(), 1) {
                1 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            },
        );
    }
    Ok(())
}
