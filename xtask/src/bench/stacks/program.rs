//! Programs that wait for a word before they allocate, so that a profiler can be put on them.
//! Must not know who looks at them.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::super::programs::{DATABASE, Spent, python, source, timed};
use crate::process;

const SERVICE: &str = include_str!("service.py");
/// Until it has loaded what it needs.
const PATIENCE: Duration = Duration::from_secs(10);
/// Generated C units in one run of the compiler.
const UNITS: usize = 6;

/// What is run, and the word that it waits for.
#[derive(Debug)]
pub struct Program {
    pub name: &'static str,
    path: PathBuf,
    arguments: Vec<String>,
    word: String,
}

/// One that has started and waits.
#[derive(Debug)]
pub struct Waiting<'a> {
    program: &'a Program,
    child: Child,
}

impl Program {
    /// The C compiler proper, whose driver would start it as another process.
    pub fn compiler() -> Option<Self> {
        process::find_program("cc")?;
        let mut driver = Command::new("cc");
        driver.arg("-print-prog-name=cc1");
        let path = PathBuf::from(process::stdout(&mut driver).ok()?.trim());
        let arguments = ["-quiet", "-O1", "-o", "/dev/null", "-"];
        path.is_file().then(|| Self {
            name: "compiler",
            path,
            arguments: arguments.map(str::to_owned).into(),
            word: preprocessed(),
        })
    }

    pub fn database() -> Option<Self> {
        let gated = format!("import sys\nsys.stdin.readline()\n{DATABASE}");
        Self::python("database", gated)
    }

    pub fn service() -> Option<Self> {
        Self::python("service", SERVICE.to_owned())
    }

    fn python(name: &'static str, script: String) -> Option<Self> {
        Some(Self {
            name,
            path: python().ok()??,
            arguments: vec!["-c".to_owned(), script],
            word: "go\n".to_owned(),
        })
    }

    /// Starts it, behind `wrapper` if that has any words.
    pub fn start(&self, wrapper: &[String], scratch: &Path) -> Result<Waiting<'_>> {
        let mut command = match wrapper {
            [] => Command::new(&self.path),
            [first, others @ ..] => {
                let mut command = Command::new(first);
                command.args(others).arg(&self.path);
                command
            }
        };
        command
            .args(&self.arguments)
            .current_dir(scratch)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command
            .spawn()
            .with_context(|| format!("cannot start the {}", self.name))?;
        let waiting = Waiting {
            program: self,
            child,
        };
        // What wraps it is another process.
        let started = Instant::now();
        while wrapper.is_empty() && !waiting.listens() {
            if started.elapsed() > PATIENCE {
                bail!("the {} does not wait for its word", self.name);
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(waiting)
    }
}

/// What `cc -E` would leave of the sources: without it the compiler proper knows no headers.
fn preprocessed() -> String {
    let mut text =
        String::from("int printf(const char *, ...);\n__SIZE_TYPE__ strlen(const char *);\n");
    for unit in 0..UNITS {
        let source = source(unit).replace("struct s", &format!("struct u{unit}_s"));
        let lines = source.lines().filter(|line| !line.starts_with('#'));
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

impl Waiting<'_> {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it reads its standard input.
    fn listens(&self) -> bool {
        let call = fs::read_to_string(format!("/proc/{}/syscall", self.pid()));
        let reads = format!("{} 0x0 ", libc::SYS_read);
        call.is_ok_and(|call| call.starts_with(&reads))
    }

    /// Says the word and waits for the end; wall and CPU time in milliseconds. The CPU time is that of
    /// all reaped children from its start on, so no other may end meanwhile.
    pub fn finish(mut self) -> Result<Spent> {
        timed(|| {
            let mut stdin = self.child.stdin.take().context("no stdin")?;
            let said = stdin.write_all(self.program.word.as_bytes());
            drop(stdin);
            let status = self.child.wait()?;
            if !status.success() {
                bail!("the {} failed ({status})", self.program.name);
            }
            said.with_context(|| format!("the {} did not listen", self.program.name))
        })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
