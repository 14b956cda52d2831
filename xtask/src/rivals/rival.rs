//! What a tool beside the load is: a process with output, that may be polled and is asked at the end.
//! Must not know any tool.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::seen::Seen;
use super::truth::Truth;

const START_PATIENCE: Duration = Duration::from_secs(60);
const END_PATIENCE: Duration = Duration::from_secs(15);
/// A tool that writes more is not read to the end of it.
const MOST_OUTPUT_BYTES: u64 = 1 << 30;

/// Where tools find what they need.
#[derive(Debug)]
pub struct Surroundings {
    /// Debian packages, unpacked.
    pub packages: PathBuf,
    /// Where a tool may write.
    pub scratch: PathBuf,
    pub memtrace: PathBuf,
    /// Where memory cgroups are mounted.
    pub hierarchy: PathBuf,
    pub v2: bool,
}

impl Surroundings {
    /// A program of the packages, or of the host.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        ["usr/bin", "usr/sbin"]
            .iter()
            .map(|directory| self.packages.join(directory).join(name))
            .find(|path| path.is_file())
            .or_else(|| crate::process::find_program(name))
    }

    /// Packages bring libraries that the host may lack.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let libraries = self.packages.join("usr/lib/x86_64-linux-gnu");
        if libraries.is_dir() {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
    }
}

/// One that runs.
pub trait Rival {
    fn name(&self) -> String;
    /// Its first process; children count too.
    fn pid(&self) -> u32;
    /// Called often while the load runs.
    fn tick(&mut self, _elapsed: Duration) -> Result<()> {
        Ok(())
    }
    /// Ends it, and reads what it told.
    fn end(self: Box<Self>, truth: &Truth) -> Result<Seen>;
}

/// A process that writes into a file; killed when dropped.
#[derive(Debug)]
pub struct Running {
    name: &'static str,
    child: Child,
    output: PathBuf,
}

impl Running {
    pub fn start(mut command: Command, name: &'static str, scratch: &Path) -> Result<Self> {
        let output = scratch.join(format!("{}.out", name.replace([' ', ','], "-")));
        let file = File::create(&output)?;
        let child = command
            .stdin(Stdio::null())
            .stderr(file.try_clone()?)
            .stdout(file)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            name,
            child,
            output,
        })
    }

    /// Until its output has these words.
    pub fn wait_for(self, words: &str) -> Result<Self> {
        self.wait_until("did not start", |running| {
            Ok(running.text()?.contains(words))
        })
    }

    /// Until it has a BPF program: for one that keeps its first words in a buffer.
    pub fn wait_for_programs(self) -> Result<Self> {
        let directory = format!("/proc/{}/fdinfo", self.child.id());
        self.wait_until("loaded no BPF program", |_| {
            let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
            let mut texts = entries.map(|entry| fs::read_to_string(entry.path()));
            Ok(texts.any(|text| text.is_ok_and(|text| text.contains("prog_type:"))))
        })
    }

    fn wait_until(
        mut self,
        failing: &str,
        is_ready: impl Fn(&Self) -> Result<bool>,
    ) -> Result<Self> {
        let begun = Instant::now();
        while !is_ready(&self)? {
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "{} ended at once ({status}): {}",
                    self.name,
                    self.text()?.trim()
                );
            }
            if begun.elapsed() > START_PATIENCE {
                bail!("{} {failing}: {}", self.name, self.text()?.trim());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(self)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it wrote so far.
    pub fn text(&self) -> Result<String> {
        let length = fs::metadata(&self.output)?.len();
        if length > MOST_OUTPUT_BYTES {
            bail!("{} wrote {length} bytes", self.name);
        }
        let bytes = fs::read(&self.output)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Ends it by a signal, and gives what it wrote.
    pub fn end(mut self, signal: i32) -> Result<String> {
        // SAFETY: takes plain numbers; the child is not yet waited for, so the pid is its own.
        unsafe { libc::kill(self.child.id() as i32, signal) };
        let begun = Instant::now();
        while self.child.try_wait()?.is_none() && begun.elapsed() < END_PATIENCE {
            thread::sleep(Duration::from_millis(50));
        }
        self.text()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
