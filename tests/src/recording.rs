//! A running `memtrace record` and what it wrote: call paths by JSON, losses by its tree.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::agent::command;
use crate::machine::{self, MIB, patience};

/// Written as JSON unless it is told otherwise.
const OUTPUT: &str = "suspects.json";
/// The thread of memtrace that takes samples: it begins when all is attached.
const SAMPLER: &str = "stacks";
/// From the begin of that thread until the kernel samples.
const SETTLE: Duration = Duration::from_millis(300);
/// What memtrace takes to read pages and symbols, after the time that it was told.
const AFTERWARDS: Duration = Duration::from_secs(60);

/// `memtrace record`, killed when dropped.
#[derive(Debug)]
pub struct Recorder {
    child: Child,
    directory: TempDir,
    duration: Duration,
}

/// What was recorded.
#[derive(Debug)]
pub struct Recording {
    /// The first suspect first.
    pub stacks: Vec<Stack>,
    pub lost_samples: u64,
    /// For the terminal.
    pub tree: String,
}

/// What was recorded, as it was written.
#[derive(Debug)]
pub struct Written {
    pub output: String,
    pub lost_samples: u64,
    /// Most resident bytes of memtrace itself.
    pub peak_rss_bytes: u64,
    pub tree: String,
}

/// A call path.
#[derive(Debug, Clone)]
pub struct Stack {
    pub pid: u64,
    /// The innermost first, without modules.
    pub functions: Vec<String>,
    /// `function (module)`.
    pub frames: Vec<String>,
    pub resident: Figure,
    pub growth: Figure,
    pub truncated: bool,
}

/// An estimate and its standard error, bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figure {
    pub bytes: f64,
    pub error: f64,
}

impl Recorder {
    /// Starts it with these arguments for so long, and waits until it samples.
    pub fn start(arguments: &[&str], duration: Duration) -> Result<Self> {
        let duration = patience(duration);
        let directory = tempfile::tempdir()?;
        let mut command = command(&["record", "--top", "--output"])?;
        let output = |name: &str| File::create(directory.path().join(name));
        command
            .arg(directory.path().join(OUTPUT))
            .arg("--duration")
            .arg(format!("{}s", duration.as_secs()))
            .args(arguments)
            .env("NO_COLOR", "1")
            .stdout(Stdio::from(output("stdout")?))
            .stderr(Stdio::from(output("stderr")?));
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let mut recorder = Self {
            child,
            directory,
            duration,
        };
        recorder.wait_until_it_samples()?;
        Ok(recorder)
    }

    fn wait_until_it_samples(&mut self) -> Result<()> {
        let tasks = format!("/proc/{}/task", self.child.id());
        machine::poll("the sampler", Duration::from_secs(30), || {
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("memtrace ended with {status}: {}", self.text("stderr"));
            }
            Ok(has_thread(Path::new(&tasks), SAMPLER).then_some(()))
        })?;
        thread::sleep(patience(SETTLE));
        Ok(())
    }

    /// Whether it still records, or reads what it recorded.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits until it has ended, well and without a panic.
    pub fn finish(self) -> Result<Recording> {
        let written = self.finish_text()?;
        let json: Vec<Value> = serde_json::from_str(&written.output)?;
        Ok(Recording {
            stacks: json.iter().map(Stack::of).collect::<Result<_>>()?,
            lost_samples: written.lost_samples,
            tree: written.tree,
        })
    }

    /// The same where it was told to write another format than JSON.
    pub fn finish_text(mut self) -> Result<Written> {
        let mut peak_rss_bytes = 0;
        let status = machine::poll("memtrace record", self.duration + AFTERWARDS, || {
            peak_rss_bytes = peak_rss(self.child.id()).unwrap_or(0).max(peak_rss_bytes);
            Ok(self.child.try_wait()?)
        })?;
        let (tree, stderr) = (self.text("stdout"), self.text("stderr"));
        ensure_success(status, &stderr)?;
        let path = self.directory.path().join(OUTPUT);
        Ok(Written {
            output: fs::read_to_string(&path)
                .with_context(|| format!("nothing written: {stderr}"))?,
            lost_samples: lost(&tree).with_context(|| format!("no losses in {tree}"))?,
            peak_rss_bytes,
            tree,
        })
    }

    fn text(&self, name: &str) -> String {
        let bytes = fs::read(self.directory.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ensure_success(status: ExitStatus, stderr: &str) -> Result<()> {
    ensure!(status.success(), "memtrace ended with {status}: {stderr}");
    ensure!(!stderr.contains("panicked"), "memtrace panicked: {stderr}");
    Ok(())
}

fn has_thread(tasks: &Path, name: &str) -> bool {
    let Ok(tasks) = fs::read_dir(tasks) else {
        return false;
    };
    tasks.flatten().any(|task| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    })
}

fn peak_rss(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 = line?.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

/// From `… 3 samples lost`.
fn lost(tree: &str) -> Option<u64> {
    let words: Vec<&str> = tree.split_whitespace().collect();
    let at = words
        .windows(2)
        .position(|pair| pair[0].starts_with("sample") && pair[1].starts_with("lost"))?;
    words.get(at.checked_sub(1)?)?.parse().ok()
}

impl Recording {
    /// All call paths with a function that is wanted.
    pub fn sum(&self, wanted: impl Fn(&str) -> bool) -> Sum {
        self.sum_of(|stack| stack.functions.iter().any(|function| wanted(function)))
    }

    /// All call paths whose innermost function has that name.
    pub fn of_leaf(&self, name: &str) -> Sum {
        self.sum_of(|stack| stack.functions.first().is_some_and(|leaf| leaf == name))
    }

    fn sum_of(&self, wanted: impl Fn(&Stack) -> bool) -> Sum {
        let mut sum = Sum::default();
        for stack in self.stacks.iter().filter(|stack| wanted(stack)) {
            sum.resident = sum.resident.plus(stack.resident);
            sum.growth = sum.growth.plus(stack.growth);
        }
        sum
    }

    /// The same of a function of exactly that name.
    pub fn of_function(&self, name: &str) -> Sum {
        self.sum(|function| function == name)
    }

    /// For messages: a line a stack.
    pub fn summary(&self) -> String {
        let lines = self.stacks.iter().map(|stack| {
            format!(
                "{:8.2} MiB ± {:.2}, growth {:.2} ± {:.2}, pid {}: {}{}\n",
                stack.resident.bytes / MIB as f64,
                stack.resident.error / MIB as f64,
                stack.growth.bytes / MIB as f64,
                stack.growth.error / MIB as f64,
                stack.pid,
                line(&stack.frames),
                if stack.truncated { " …" } else { "" },
            )
        });
        lines.collect()
    }
}

/// The innermost frames, short.
fn line(frames: &[String]) -> String {
    const MOST: usize = 10;
    let short = |frame: &String| frame.chars().take(70).collect::<String>();
    let mut line: Vec<String> = frames.iter().take(MOST).map(short).collect();
    if frames.len() > MOST {
        line.push(format!("{} more", frames.len() - MOST));
    }
    line.join(" < ")
}

/// Resident bytes and their growth of some call paths.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sum {
    pub resident: Figure,
    pub growth: Figure,
}

impl Stack {
    /// From a record in JSON, also of a `leak` line or an incident.
    pub fn of(json: &Value) -> Result<Self> {
        let frames = json["frames"].as_array().context("no frames")?;
        let frames: Option<Vec<String>> = frames
            .iter()
            .map(|frame| frame.as_str().map(str::to_owned))
            .collect();
        let frames = frames.with_context(|| format!("frames that are no text: {json}"))?;
        let function = |frame: &String| {
            let function = frame.rsplit_once(" (").map_or(frame.as_str(), |(f, _)| f);
            function.to_owned()
        };
        Ok(Self {
            pid: json["process"]["pid"].as_u64().context("no pid")?,
            functions: frames.iter().map(function).collect(),
            frames,
            resident: Figure::of(json, "resident_bytes", "error_bytes")?,
            growth: Figure::of(json, "growth_bytes", "growth_error_bytes")?,
            truncated: json["truncated"]
                .as_bool()
                .context("not said whether cut")?,
        })
    }

    pub fn has(&self, function: &str) -> bool {
        self.functions.iter().any(|known| known == function)
    }
}

impl Figure {
    fn of(json: &Value, bytes: &str, error: &str) -> Result<Self> {
        let number = |field: &str| {
            let number = json[field].as_f64();
            number.with_context(|| format!("{field} is no number in {json}"))
        };
        Ok(Self {
            bytes: number(bytes)?,
            error: number(error)?,
        })
    }

    /// Samples are independent.
    fn plus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes + other.bytes,
            error: self.error.hypot(other.error),
        }
    }

    /// How many of its standard errors it is from the truth; `slack` bytes are for free.
    pub fn off(self, truth: f64, slack: f64) -> f64 {
        let off = self.bytes - truth;
        let beyond = (off.abs() - slack).max(0.0);
        if beyond == 0.0 {
            return 0.0;
        }
        off.signum() * beyond / self.error.max(1.0)
    }
}
