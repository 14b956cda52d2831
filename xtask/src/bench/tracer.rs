//! Starts a tracer, waits until it is attached, and ends it.
//! Must not know what is measured meanwhile.

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::clock::process_cpu;
use crate::process;

const BPFTRACE_SCRIPT: &str = include_str!("counts.bt");
/// memtrace promises 2 s.
const SLOW_END: Duration = Duration::from_secs(2);
const START_PATIENCE: Duration = Duration::from_secs(10);
const END_PATIENCE: Duration = Duration::from_secs(5);

/// What runs beside the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tracing {
    Off,
    /// The same again, to show how far two equal measurements differ.
    OffAgain,
    Memtrace,
    MemtraceNoHeap,
    MemtraceNoFaults,
    /// Only what incidents need.
    MemtraceOom,
    Bpftrace,
}

impl Tracing {
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::OffAgain => "off, again (noise)",
            Self::Memtrace => "memtrace",
            Self::MemtraceNoHeap => "memtrace --heap off",
            Self::MemtraceNoFaults => "memtrace --fault-sample 0 --stacks off",
            Self::MemtraceOom => "memtrace oom",
            Self::Bpftrace => "bpftrace",
        }
    }
}

/// The programs on this machine.
#[derive(Debug)]
pub struct Tools {
    pub memtrace: PathBuf,
    pub bpftrace: Option<PathBuf>,
    /// This program, for the loads.
    pub xtask: PathBuf,
    /// Where memtrace keeps incidents meanwhile.
    pub state_dir: PathBuf,
}

/// An attached tracer (or none), killed when dropped.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Option<Child>,
    reader: Option<JoinHandle<Option<Value>>>,
    /// memtrace's `start` line.
    pub start: Option<Value>,
}

impl Tools {
    /// Returns when the tracer counts.
    pub fn start(&self, tracing: Tracing) -> Result<Running> {
        match tracing {
            Tracing::Off | Tracing::OffAgain => Ok(Running {
                name: String::new(),
                child: None,
                reader: None,
                start: None,
            }),
            Tracing::Memtrace => self.memtrace(&[]),
            Tracing::MemtraceNoHeap => self.memtrace(&["--heap", "off"]),
            Tracing::MemtraceNoFaults => self.memtrace(&["--fault-sample", "0", "--stacks", "off"]),
            Tracing::MemtraceOom => self.memtrace_oom(),
            Tracing::Bpftrace => self.bpftrace(),
        }
    }

    /// `memtrace run --output json` with these arguments.
    pub fn memtrace(&self, arguments: &[&str]) -> Result<Running> {
        self.memtrace_into(arguments, last_self)
    }

    /// The same; `read` takes the lines behind `start` and gives the last `self`.
    pub fn memtrace_into(&self, arguments: &[&str], read: impl Reader) -> Result<Running> {
        let mut command = self.memtrace_run("json");
        command.args(arguments);
        Running::spawn(
            command,
            |line| {
                let value: Value = serde_json::from_str(line).ok()?;
                (value["type"] == "start").then_some(value)
            },
            read,
        )
    }

    /// Writes nothing outside the state directory and sends nothing unasked.
    pub fn memtrace_run(&self, output: &str) -> Command {
        let mut command = Command::new(&self.memtrace);
        command.args(["run", "--output", output, "--state-dir"]);
        command.arg(&self.state_dir);
        without_telemetry(&mut command);
        command
    }

    /// It says nothing until there is an incident.
    fn memtrace_oom(&self) -> Result<Running> {
        let mut command = Command::new(&self.memtrace);
        command.args(["oom", "--json"]);
        without_telemetry(&mut command);
        let mut running = Running::silent(command)?;
        let started = Instant::now();
        // Its event loop begins when every probe is attached; until then it waits for nothing.
        while !running.waits_for_events()? {
            if started.elapsed() > START_PATIENCE {
                bail!("`memtrace oom` did not get to wait for events");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(running)
    }

    fn bpftrace(&self) -> Result<Running> {
        self.bpftrace_script(BPFTRACE_SCRIPT, &[])
    }

    /// A script that prints `attached` at its beginning.
    pub fn bpftrace_script(&self, script: &str, arguments: &[&str]) -> Result<Running> {
        let program = self.bpftrace.as_ref().context("there is no bpftrace")?;
        let mut command = Command::new(program);
        // Where its output is a pipe, bpftrace would keep the sign of life to itself.
        command.args(["-B", "line", "-e", script]).args(arguments);
        // It complains of a memory limit that today's kernels do not have.
        command.stderr(Stdio::null());
        Running::spawn(
            command,
            // Printed by BEGIN, and shown only when every probe is attached.
            |line| (line.trim() == "attached").then_some(Value::Null),
            last_self,
        )
    }

    /// bcc's memleak on one process.
    pub fn memleak(&self, program: &Path, pid: u32) -> Result<Running> {
        let mut command = Command::new(program);
        command.args(["-p", &pid.to_string(), "1"]);
        // It is written in Python, whose output would stay in its buffer.
        command.env("PYTHONUNBUFFERED", "1");
        command.stderr(Stdio::null());
        // The first list comes when all probes are attached.
        let list = |line: &str| line.starts_with('[').then_some(Value::Null);
        Running::spawn(command, list, last_self)
    }
}

/// Reads a tracer's output to the end, or the tracer would block on a full pipe.
pub trait Reader: FnOnce(BufReader<ChildStdout>) -> Option<Value> + Send + 'static {}

impl<F: FnOnce(BufReader<ChildStdout>) -> Option<Value> + Send + 'static> Reader for F {}

impl Running {
    fn spawn(
        command: Command,
        attached: impl Fn(&str) -> Option<Value>,
        read: impl Reader,
    ) -> Result<Self> {
        let (mut running, mut output) = Self::begin(command)?;
        let mut line = String::new();
        while output.read_line(&mut line)? > 0 {
            if let Some(start) = attached(&line) {
                running.start = Some(start);
                running.reader = Some(thread::spawn(move || read(output)));
                return Ok(running);
            }
            line.clear();
        }
        bail!("`{}` ended before it was attached", running.name);
    }

    /// One that does not say when it is attached.
    fn silent(command: Command) -> Result<Self> {
        let (mut running, output) = Self::begin(command)?;
        running.reader = Some(thread::spawn(move || last_self(output)));
        Ok(running)
    }

    fn begin(mut command: Command) -> Result<(Self, BufReader<ChildStdout>)> {
        let shown = process::shown(&command);
        let shown = shown.lines().next().unwrap_or_default();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{shown}`"))?;
        let output = child.stdout.take().context("no stdout")?;
        let running = Self {
            name: shown.to_owned(),
            child: Some(child),
            reader: None,
            start: None,
        };
        Ok((running, BufReader::new(output)))
    }

    /// Whether its main thread sits in epoll.
    fn waits_for_events(&mut self) -> Result<bool> {
        let child = self.child.as_mut().context("nothing runs")?;
        if let Some(status) = child.try_wait()? {
            bail!("`{}` ended before it was attached ({status})", self.name);
        }
        let path = format!("/proc/{}/syscall", child.id());
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        // A number, or `running`.
        let call = text.split(' ').next().and_then(|call| call.parse().ok());
        Ok([libc::SYS_epoll_wait, libc::SYS_epoll_pwait]
            .iter()
            .any(|epoll| call == Some(*epoll)))
    }

    /// User and system time of the tracer's process and its reaped children so far, milliseconds.
    pub fn own_cpu_ms(&self) -> Result<f64> {
        let child = self.child.as_ref().context("nothing runs")?;
        let (own, children) = process_cpu(child.id())?;
        Ok((own + children).as_secs_f64() * 1e3)
    }

    /// Ends the tracer as Ctrl-C does; gives the last `self` line of memtrace.
    pub fn stop(mut self) -> Result<Option<Value>> {
        let Some(child) = &mut self.child else {
            return Ok(None);
        };
        // SAFETY: plain numbers; the child is not reaped yet, so the id is still its own.
        unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) };
        let started = Instant::now();
        while child.try_wait()?.is_none() {
            if started.elapsed() > END_PATIENCE {
                // bpftrace 0.17 was seen to miss the signal and poll on; memtrace may not.
                if self.start != Some(Value::Null) {
                    bail!("{} did not end in {} s", self.name, END_PATIENCE.as_secs());
                }
                child.kill()?;
            }
            thread::sleep(Duration::from_millis(10));
        }
        if started.elapsed() > SLOW_END {
            process::progress(format!(
                "{} took {:.1} s to end",
                self.name,
                started.elapsed().as_secs_f64()
            ));
        }
        self.child = None;
        let reader = self.reader.take().context("the tracer has no reader")?;
        reader
            .join()
            .map_err(|_panic| io::Error::other("the reader of a tracer's output panicked").into())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A collector that happens to be configured here is no part of a measurement.
fn without_telemetry(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"OTEL_") {
            command.env_remove(name);
        }
    }
}

/// Keeps only the last `self` line of memtrace.
fn last_self(output: BufReader<ChildStdout>) -> Option<Value> {
    let mut last = None;
    for line in output.split(b'\n').map_while(Result::ok) {
        if line.starts_with(br#"{"type":"self""#) {
            last = Some(line);
        }
    }
    serde_json::from_slice(&last?).ok()
}
