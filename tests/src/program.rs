//! A real program of a real runtime, from a small source of this crate, in a cgroup from its first
//! instruction. Must not know what memtrace should say about it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::cgroup::Cgroup;
use crate::machine;
use crate::workload::join_before_exec;

/// What a program is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    C,
    Python,
    Node,
    /// With the name of its class, and the most its heap may take, in MiB.
    Java(&'static str, u32),
}

impl Language {
    /// What must be in `PATH`: what compiles it and what runs it.
    fn tools(self) -> &'static [&'static str] {
        match self {
            Language::C => &["gcc"],
            Language::Python => &["python3"],
            Language::Node => &["node"],
            Language::Java(..) => &["javac", "java"],
        }
    }
}

/// A small program.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    /// Name of its file.
    pub file: &'static str,
    pub language: Language,
    pub text: &'static str,
}

/// A program that can be started: written to a directory and, where that must be, compiled.
#[derive(Debug)]
pub struct Executable {
    directory: TempDir,
    source: Source,
}

impl Executable {
    /// `None` and a message where its compiler or its runtime is not installed.
    pub fn make(source: Source) -> Result<Option<Self>> {
        for tool in source.language.tools() {
            if machine::in_path(tool).is_none() {
                machine::skip(&format!("no {tool} for {}", source.file));
                return Ok(None);
            }
        }
        let directory = tempfile::tempdir()?;
        let path = directory.path().join(source.file);
        fs::write(&path, source.text)
            .with_context(|| format!("cannot write {}", path.display()))?;
        let compiler = match source.language {
            Language::C => Some(compiler("gcc", &["-O2", "-o", "program", source.file])),
            Language::Java(..) => Some(compiler("javac", &[source.file])),
            Language::Python | Language::Node => None,
        };
        if let Some(mut compiler) = compiler {
            let output = compiler.current_dir(directory.path()).output()?;
            ensure!(
                output.status.success(),
                "{}: {}",
                source.file,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(Some(Self { directory, source }))
    }

    /// Where it is, for files of its own.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Starts it in the cgroup.
    pub fn start(&self, cgroup: &Cgroup, arguments: &[String]) -> Result<Program> {
        let mut command = self.command();
        command.args(arguments).current_dir(self.directory());
        join_before_exec(&mut command, cgroup)?;
        die_with_this_thread(&mut command);
        Program::spawn(command)
    }

    fn command(&self) -> Command {
        let path: PathBuf = self.directory().join(self.source.file);
        let mut command = match self.source.language {
            Language::C => return Command::new(self.directory().join("program")),
            Language::Python => Command::new("python3"),
            Language::Node => {
                let mut command = Command::new("node");
                // Its own idea of a limit would end it before the cgroup's does.
                command.arg("--max-old-space-size=2048");
                command
            }
            Language::Java(class, heap_mib) => {
                let mut command = Command::new("java");
                // Few threads, little beside the heap.
                command
                    .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xms32m"])
                    .arg(format!("-Xmx{heap_mib}m"))
                    .args(["-cp", ".", class]);
                return command;
            }
        };
        command.arg(path);
        command
    }
}

/// A running program, killed when dropped, and when the thread that started it ends.
#[derive(Debug)]
pub struct Program {
    child: Child,
    said: Arc<Mutex<Vec<(SystemTime, String)>>>,
    reader: Option<JoinHandle<()>>,
}

impl Program {
    fn spawn(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let stdout = child.stdout.take().context("no stdout")?;
        let said = Arc::default();
        let reader = thread::spawn({
            let said: Arc<Mutex<Vec<_>>> = Arc::clone(&said);
            move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    let now = SystemTime::now();
                    said.lock().expect("a test panicked").push((now, line));
                }
            }
        });
        Ok(Self {
            child,
            said,
            reader: Some(reader),
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// When it wrote that line, if it did.
    pub fn said(&self, line: &str) -> Option<SystemTime> {
        let said = self.said.lock().expect("the reader panicked");
        said.iter()
            .find(|(_, said)| said == line)
            .map(|(time, _)| *time)
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until it has written that line.
    pub fn wait_for(&mut self, line: &str) -> Result<SystemTime> {
        machine::poll(&format!("\"{line}\""), Duration::from_secs(30), || {
            if let Some(time) = self.said(line) {
                return Ok(Some(time));
            }
            let ended = self.ended()?;
            ensure!(ended.is_none(), "ended with {ended:?} before \"{line}\"");
            Ok(None)
        })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

fn compiler(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Nothing is left running when the tests are killed, either.
fn die_with_this_thread(command: &mut Command) {
    let parent = std::process::id();
    // SAFETY: only system calls, which are safe after fork.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            // Ended before the call above: the signal would never come.
            if libc::getppid() as u32 != parent {
                libc::_exit(1);
            }
            Ok(())
        });
    }
}
