//! A running `memtrace run`: its JSON lines, its stderr, its end.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::capability::{self, Capability};
use crate::cgroup::Cgroup;
use crate::machine::{self, patience};
use crate::refused_calls::{Call, Kind, Refusals};
use crate::workload::join_before_exec;

#[derive(Debug, Default)]
struct Seen {
    lines: Vec<Value>,
    malformed: Vec<String>,
    ended: bool,
}

type Shared = Arc<(Mutex<Seen>, Condvar)>;

/// memtrace, killed when dropped.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    seen: Shared,
    stderr: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
    /// Holds what it stores, where the test gave it no other place.
    _state: Option<TempDir>,
    /// Answers its system calls, where the test wants some refused.
    refusals: Option<Refusals>,
}

impl Agent {
    /// Starts with these extra arguments and waits until all probes are attached.
    pub fn start(arguments: &[&str]) -> Result<Self> {
        Self::start_with(arguments, &[])
    }

    /// The same with environment variables.
    pub fn start_with(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Self> {
        Self::start_prepared(arguments, environment, |_| Ok(()))
    }

    /// The same in a cgroup, from its first instruction.
    pub fn start_in(cgroup: &Cgroup, arguments: &[&str]) -> Result<Self> {
        Self::start_prepared(arguments, &[], |command| join_before_exec(command, cgroup))
    }

    /// The same with these capabilities and no others, and no way to gain any.
    pub fn start_confined(
        capabilities: &[Capability],
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let only = |command: &mut Command| capability::only(command, capabilities);
        Self::start_prepared(arguments, environment, only)
    }

    /// The same by a parent that ignores SIGCHLD and blocks SIGTERM, both of which an exec keeps.
    pub fn start_deaf(arguments: &[&str]) -> Result<Self> {
        let deafen = || {
            let mut terminate = SigSet::empty();
            terminate.add(Signal::SIGTERM);
            terminate.thread_block()?;
            let ignored = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
            // SAFETY: what is ignored runs no code.
            unsafe { sigaction(Signal::SIGCHLD, &ignored) }?;
            Ok(())
        };
        Self::start_prepared(arguments, &[], |command| {
            // SAFETY: only system calls, which are safe after fork.
            unsafe { command.pre_exec(deafen) };
            Ok(())
        })
    }

    /// The same with system calls of these kinds refused as `refuses` says.
    pub fn start_refused(
        arguments: &[&str],
        environment: &[(&str, &str)],
        kinds: &[Kind],
        refuses: impl FnMut(&Call) -> Option<Errno> + Send + 'static,
    ) -> Result<Self> {
        let mut refusals = None;
        let mut agent = Self::start_prepared(arguments, environment, |command| {
            refusals = Some(Refusals::of(command, kinds, refuses)?);
            Ok(())
        })?;
        agent.refusals = refusals;
        Ok(agent)
    }

    /// How many of its system calls were refused so far.
    pub fn refused(&self) -> u64 {
        self.refusals.as_ref().map_or(0, Refusals::count)
    }

    /// The same by a command on which `prepare` has the last word.
    pub fn start_prepared(
        arguments: &[&str],
        environment: &[(&str, &str)],
        prepare: impl FnOnce(&mut Command) -> Result<()>,
    ) -> Result<Self> {
        let mut command = command(&["run", "--output", "json"])?;
        if !arguments.contains(&"--interval") {
            command.args(["--interval", "500ms"]);
        }
        let mut state = None;
        if !arguments.contains(&"--state-dir") {
            let directory = tempfile::tempdir()?;
            command.arg("--state-dir").arg(directory.path());
            state = Some(directory);
        }
        command.args(arguments).envs(environment.iter().copied());
        prepare(&mut command)?;
        let mut agent = Self::spawn(command)?;
        agent._state = state;
        agent.wait_for("the start line", Duration::from_secs(30), of_type("start"))?;
        Ok(agent)
    }

    /// Starts any command of memtrace that writes JSON lines; waits for nothing.
    pub fn spawn(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let seen = Shared::default();
        let stderr = Arc::new(Mutex::new(String::new()));
        let stdout = child.stdout.take().context("no stdout")?;
        let errors = child.stderr.take().context("no stderr")?;
        let readers = vec![
            thread::spawn({
                let seen = Arc::clone(&seen);
                move || read_lines(stdout, &seen)
            }),
            thread::spawn({
                let stderr = Arc::clone(&stderr);
                move || read_text(errors, &stderr)
            }),
        ];
        Ok(Self {
            child,
            seen,
            stderr,
            readers,
            _state: None,
            refusals: None,
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether a probe found a hook; `false` where the kernel has none for it.
    pub fn has_probe(&self, probe: &str) -> bool {
        self.last(of_type("start"))
            .is_some_and(|line| line["probes"][probe].is_string())
    }

    /// The first line, old or new, that `wanted` accepts.
    pub fn wait_for(
        &self,
        what: &str,
        usual: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        self.wait_after(0, what, usual, wanted)
    }

    /// The first line behind the mark that `wanted` accepts.
    pub fn wait_after(
        &self,
        mark: usize,
        what: &str,
        usual: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let deadline = Instant::now() + patience(usual);
        let (seen, arrived) = &*self.seen;
        let mut seen = seen.lock().expect("reader thread panicked");
        let mut next = mark;
        loop {
            if let Some(found) = seen.lines[next..].iter().find(|line| wanted(line)) {
                return Ok(found.clone());
            }
            next = seen.lines.len();
            let now = Instant::now();
            if seen.ended || now > deadline {
                let told = |line: &&Value| line["type"] != "host" && line["type"] != "self";
                let last = seen.lines.iter().rev().filter(told).take(8);
                let last: Vec<String> = last.map(short).collect();
                bail!(
                    "{} while waiting for {what}; stderr: {}; last lines, newest first:\n{}",
                    if seen.ended {
                        "memtrace ended"
                    } else {
                        "time is up"
                    },
                    self.stderr(),
                    last.join("\n"),
                );
            }
            seen = arrived
                .wait_timeout(seen, deadline - now)
                .expect("reader thread panicked")
                .0;
        }
    }

    /// Waits until `intervals` whole intervals have been reported from now on.
    pub fn wait_intervals(&self, intervals: usize) -> Result<()> {
        // One more: the first to arrive may tell of a time before now.
        for _ in 0..=intervals {
            self.wait_after(
                self.mark(),
                "the next interval",
                Duration::from_secs(20),
                of_type("self"),
            )?;
        }
        Ok(())
    }

    /// How many lines there are so far.
    pub fn mark(&self) -> usize {
        self.seen().lines.len()
    }

    /// The newest line that `wanted` accepts.
    pub fn last(&self, wanted: impl Fn(&Value) -> bool) -> Option<Value> {
        self.seen()
            .lines
            .iter()
            .rev()
            .find(|line| wanted(line))
            .cloned()
    }

    /// Every line that `wanted` accepts, oldest first.
    pub fn all(&self, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        self.seen()
            .lines
            .iter()
            .filter(|line| wanted(line))
            .cloned()
            .collect()
    }

    /// What it wrote to stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().expect("reader thread panicked").clone()
    }

    /// Sends it a signal that it may outlive.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.child.id() as i32), signal)?)
    }

    /// Ends it as service managers do: exit status 0 in time, and no broken line before.
    pub fn stop(self) -> Result<Duration> {
        self.stop_by(Signal::SIGTERM)
    }

    /// The same by another signal; gives the time it took.
    pub fn stop_by(mut self, signal: Signal) -> Result<Duration> {
        let began = Instant::now();
        kill(Pid::from_raw(self.child.id() as i32), signal)?;
        let status = wait(&mut self.child, Duration::from_secs(15))?;
        let elapsed = began.elapsed();
        for reader in self.readers.drain(..) {
            reader.join().expect("reader thread panicked");
        }
        let stderr = self.stderr();
        ensure!(status.success(), "memtrace ended with {status}: {stderr}");
        ensure!(!stderr.contains("panicked"), "memtrace panicked: {stderr}");
        let malformed = &self.seen().malformed;
        ensure!(malformed.is_empty(), "not JSON objects: {malformed:?}");
        Ok(elapsed)
    }

    /// Ends it without a chance to clean up; gives the whole lines that it wrote.
    pub fn kill(mut self) -> Result<Vec<Value>> {
        self.child.kill()?;
        self.child.wait()?;
        for reader in self.readers.drain(..) {
            reader.join().expect("reader thread panicked");
        }
        Ok(self.all(|_| true))
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.0.lock().expect("reader thread panicked")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// memtrace with these arguments and no settings from outside; it answers on no socket of the API unless it
/// is told to, so that agents of several tests have nothing to share.
pub fn command<S: AsRef<OsStr>>(arguments: &[S]) -> Result<Command> {
    let mut command = Command::new(machine::memtrace()?);
    command.args(arguments).stdin(Stdio::null());
    command.env("MEMTRACE_API_SOCKET", "none");
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"OTEL_") {
            command.env_remove(name);
        }
    }
    Ok(command)
}

/// What memtrace gives with these arguments, when it has ended.
pub fn run(arguments: &[&str]) -> Result<Output> {
    Ok(command(arguments)?.output()?)
}

/// What it wrote, where it ended well.
pub fn text(output: &Output) -> Result<String> {
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {errors}", output.status);
    Ok(String::from_utf8(output.stdout.clone())?)
}

/// Waits for a process to end.
pub fn wait(child: &mut Child, usual: Duration) -> Result<ExitStatus> {
    let ended = machine::poll("a process to end", usual, || Ok(child.try_wait()?));
    if ended.is_err() {
        let _ = child.kill();
    }
    ended
}

/// Accepts lines of one type.
pub fn of_type(kind: &str) -> impl Fn(&Value) -> bool + use<'_> {
    move |line| line["type"] == kind
}

/// Accepts lines of one type about one cgroup.
pub fn about(kind: &str, cgroup_id: u64) -> impl Fn(&Value) -> bool + use<'_> {
    move |line| line["type"] == kind && line["cgroup_id"] == cgroup_id
}

/// A field that must be there as a number.
pub fn number(line: &Value, field: &str) -> Result<u64> {
    line[field]
        .as_u64()
        .with_context(|| format!("{field} is not a whole number in {line}"))
}

fn read_lines(stdout: impl Read, shared: &Shared) {
    let (seen, arrived) = &**shared;
    for line in BufReader::new(stdout).split(b'\n') {
        let parsed = line.map_err(|error| error.to_string()).and_then(|line| {
            match serde_json::from_slice::<Value>(&line) {
                Ok(value) if value["type"].is_string() => Ok(value),
                _ => Err(String::from_utf8_lossy(&line).into_owned()),
            }
        });
        let mut seen = seen.lock().expect("test thread panicked");
        match parsed {
            Ok(line) => seen.lines.push(line),
            Err(line) => seen.malformed.push(line),
        }
        arrived.notify_all();
    }
    seen.lock().expect("test thread panicked").ended = true;
    arrived.notify_all();
}

fn read_text(stderr: impl Read, text: &Mutex<String>) {
    for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
        let mut text = text.lock().expect("test thread panicked");
        text.push_str(&String::from_utf8_lossy(&line));
        text.push('\n');
    }
}

fn short(line: &Value) -> String {
    let mut text = line.to_string();
    if let Some((end, _)) = text.char_indices().nth(600) {
        text.truncate(end);
    }
    text
}
