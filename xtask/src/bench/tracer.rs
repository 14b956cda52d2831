//! Starts a tracer, waits until it is attached, and ends it.
//! Must not know what is measured meanwhile.

use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process;

const BPFTRACE_SCRIPT: &str = include_str!("counts.bt");
/// memtrace promises 2 s.
const SLOW_END: Duration = Duration::from_secs(2);
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
    Bpftrace,
}

impl Tracing {
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::OffAgain => "off, again (noise)",
            Self::Memtrace => "memtrace",
            Self::MemtraceNoHeap => "memtrace --heap off",
            Self::MemtraceNoFaults => "memtrace --fault-sample 0",
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
            Tracing::MemtraceNoFaults => self.memtrace(&["--fault-sample", "0"]),
            Tracing::Bpftrace => self.bpftrace(),
        }
    }

    /// `memtrace run --output json` with these arguments.
    pub fn memtrace(&self, arguments: &[&str]) -> Result<Running> {
        let mut command = Command::new(&self.memtrace);
        command.args(["run", "--output", "json"]).args(arguments);
        Running::spawn(command, |line| {
            let value: Value = serde_json::from_str(line).ok()?;
            (value["type"] == "start").then_some(value)
        })
    }

    fn bpftrace(&self) -> Result<Running> {
        let program = self.bpftrace.as_ref().context("there is no bpftrace")?;
        let mut command = Command::new(program);
        // Where its output is a pipe, bpftrace would keep the sign of life to itself.
        command.args(["-B", "line", "-e", BPFTRACE_SCRIPT]);
        // It complains of a memory limit that today's kernels do not have.
        command.stderr(Stdio::null());
        Running::spawn(command, |line| {
            // Printed by BEGIN, and shown only when every probe is attached.
            (line.trim() == "attached").then_some(Value::Null)
        })
    }
}

impl Running {
    fn spawn(mut command: Command, attached: impl Fn(&str) -> Option<Value>) -> Result<Self> {
        let shown = process::shown(&command);
        let shown = shown.lines().next().unwrap_or_default();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{shown}`"))?;
        let output = child.stdout.take().context("no stdout")?;
        let mut running = Self {
            name: shown.to_owned(),
            child: Some(child),
            reader: None,
            start: None,
        };
        let mut output = BufReader::new(output);
        let mut line = String::new();
        while output.read_line(&mut line)? > 0 {
            if let Some(start) = attached(&line) {
                running.start = Some(start);
                running.reader = Some(thread::spawn(move || last_self(output)));
                return Ok(running);
            }
            line.clear();
        }
        bail!("`{shown}` ended before it was attached");
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

/// Reads to the end, or the tracer would block on a full pipe.
fn last_self(output: BufReader<ChildStdout>) -> Option<Value> {
    let mut last = None;
    for line in output.split(b'\n').map_while(Result::ok) {
        if line.starts_with(br#"{"type":"self""#) {
            last = Some(line);
        }
    }
    serde_json::from_slice(&last?).ok()
}
