//! The programs and their one run under one agent. Must not judge what memtrace said.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow};
use memtrace_tests::agent::{Agent, about};
use memtrace_tests::cgroup::{Cgroup, Version};
use memtrace_tests::leak::{MINUTES_AS_HOURS, seconds};
use memtrace_tests::machine::{self, MIB};
use memtrace_tests::program::{Executable, Language, Program, Source};
use serde_json::Value;

/// How long the programs run.
const WATCHED: Duration = Duration::from_secs(210);
/// How often the kernel's own figures are read.
const READING: Duration = Duration::from_millis(250);
/// Seconds that a service runs well before it leaks.
const CALM: &str = "35";

const C_LEAK: Source = Source {
    file: "leak.c",
    language: Language::C,
    text: include_str!("../../programs/leak.c"),
};
const PYTHON_DICT: Source = Source {
    file: "dict.py",
    language: Language::Python,
    text: include_str!("../../programs/dict.py"),
};
const NODE_CACHE: Source = Source {
    file: "cache.js",
    language: Language::Node,
    text: include_str!("../../programs/cache.js"),
};
const JAVA_CACHE: Source = Source {
    file: "Cache.java",
    // More than the limit of the cgroup.
    language: Language::Java("Cache", 640),
    text: include_str!("../../programs/Cache.java"),
};
const NODE_STEADY: Source = Source {
    file: "steady.js",
    language: Language::Node,
    text: include_str!("../../programs/steady.js"),
};
const JAVA_STEADY: Source = Source {
    file: "Steady.java",
    language: Language::Java("Steady", 128),
    text: include_str!("../../programs/Steady.java"),
};
const WARM_UP: Source = Source {
    file: "warm_up.py",
    language: Language::Python,
    text: include_str!("../../programs/warm_up.py"),
};
const READER: Source = Source {
    file: "reader.c",
    language: Language::C,
    text: include_str!("../../programs/reader.c"),
};
const BATCH: Source = Source {
    file: "batch.c",
    language: Language::C,
    text: include_str!("../../programs/batch.c"),
};

/// A program of the run.
struct Case {
    name: &'static str,
    source: Source,
    limit: u64,
    arguments: Vec<String>,
    /// What it writes when it begins with what it is here for.
    begins: &'static str,
}

impl Case {
    fn leaking(name: &'static str, source: Source, limit: u64, calm: &str, rate: u64) -> Self {
        Self {
            name,
            source,
            limit,
            arguments: vec![calm.to_owned(), rate.to_string()],
            begins: "leaks",
        }
    }

    fn healthy(
        name: &'static str,
        source: Source,
        limit: u64,
        arguments: Vec<String>,
        begins: &'static str,
    ) -> Self {
        Self {
            name,
            source,
            limit,
            arguments,
            begins,
        }
    }

    /// `None` where it cannot run here.
    fn make(&self) -> Result<Option<Executable>> {
        let made = Executable::make(self.source)?;
        if let Some(executable) = &made
            && self.name == "reader"
            && machine::is_memory_only(executable.directory())?
        {
            machine::skip("temporary files are in memory here: their pages cannot be reclaimed");
            return Ok(None);
        }
        Ok(made)
    }

    fn all() -> Vec<Self> {
        const LIMIT: u64 = 256 * MIB;
        /// Fills the limit in two and a half hours of analysis.
        const RATE: u64 = 17 * MIB / 10;
        let text = |number: u64| number.to_string();
        let load = || vec![text(24 * MIB), text(20 * MIB)];
        vec![
            Self::leaking("c", C_LEAK, LIMIT, CALM, RATE),
            Self::leaking("c-from-the-start", C_LEAK, LIMIT, "0", 4 * MIB / 5),
            Self::leaking("python", PYTHON_DICT, LIMIT, CALM, RATE),
            Self::leaking("node", NODE_CACHE, 2 * LIMIT, CALM, 16 * MIB / 5),
            Self::leaking("java", JAVA_CACHE, 2 * LIMIT, CALM, 5 * MIB / 2),
            Self::healthy("node-steady", NODE_STEADY, LIMIT, load(), "serves"),
            Self::healthy("java-steady", JAVA_STEADY, LIMIT, load(), "serves"),
            Self::healthy(
                "warm-up",
                WARM_UP,
                LIMIT,
                vec![text(150 * MIB), "20".into()],
                "loads",
            ),
            Self::healthy(
                "reader",
                READER,
                LIMIT / 4,
                vec!["file".into(), text(96 * MIB), text(40 * MIB)],
                "reads",
            ),
            Self::healthy("batch", BATCH, LIMIT, vec![text(160 * MIB)], "works"),
        ]
    }
}

/// What the kernel said of a cgroup at a time.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    pub time_s: f64,
    pub usage: u64,
    pub anon: u64,
    file: u64,
}

impl Reading {
    fn take(cgroup: &Cgroup) -> Result<Self> {
        let (anon, file) = match cgroup.version() {
            Version::V1 => ("total_rss", "total_cache"),
            Version::V2 => ("anon", "file"),
        };
        Ok(Self {
            time_s: since_1970(SystemTime::now())?,
            usage: cgroup.usage()?,
            anon: cgroup.count("memory.stat", anon)?,
            file: cgroup.count("memory.stat", file)?,
        })
    }

    /// What is used without page cache, of which a large executable that starts first brings much.
    pub fn held(&self) -> u64 {
        self.usage.saturating_sub(self.file)
    }
}

/// What became of a program, and what memtrace said of it. Times in seconds since 1970.
#[derive(Debug)]
pub struct Outcome {
    pub path: String,
    pub pid: u32,
    pub limit: u64,
    pub begun_s: f64,
    pub ended_s: Option<f64>,
    pub readings: Vec<Reading>,
    /// The `leak` lines.
    pub leaks: Vec<Value>,
    /// The `leak` field of every `cgroup` line, with the time of the line.
    pub judged: Vec<(f64, Value)>,
}

impl Outcome {
    pub fn reading_at(&self, time_s: f64) -> Result<Reading> {
        let distance = |reading: &&Reading| (reading.time_s - time_s).abs();
        let nearest = self
            .readings
            .iter()
            .min_by(|a, b| distance(a).total_cmp(&distance(b)));
        nearest.copied().context("the kernel was not read")
    }
}

/// A running program with all that belongs to it; dropped from top to bottom.
struct Running {
    case: Case,
    program: Program,
    cgroup: Cgroup,
    _executable: Executable,
    readings: Vec<Reading>,
    ended_s: Option<f64>,
}

impl Running {
    fn start(case: Case, executable: Executable) -> Result<Self> {
        let cgroup = Cgroup::new(&format!("leak-{}", case.name))?;
        cgroup.limit(case.limit)?;
        let program = executable.start(&cgroup, &case.arguments)?;
        Ok(Self {
            case,
            program,
            cgroup,
            _executable: executable,
            readings: Vec::new(),
            ended_s: None,
        })
    }

    fn read(&mut self) -> Result<()> {
        if self.ended_s.is_some() {
            return Ok(());
        }
        if self.program.ended()?.is_some() {
            self.ended_s = Some(since_1970(SystemTime::now())?);
            return Ok(());
        }
        self.readings.push(Reading::take(&self.cgroup)?);
        Ok(())
    }

    fn outcome(self, agent: &Agent) -> Result<Outcome> {
        let name = self.case.name;
        let begun = self.program.said(self.case.begins);
        let begun = begun.with_context(|| format!("{name} never began"))?;
        let id = self.cgroup.id()?;
        let lines = agent.all(about("cgroup", id));
        let judged = lines.iter().map(|line| {
            let leak = line.get("leak").context("no leak field")?;
            Ok((seconds(line, "time")?, leak.clone()))
        });
        Ok(Outcome {
            path: self.cgroup.path(),
            pid: self.program.pid(),
            limit: self.case.limit,
            begun_s: since_1970(begun)?,
            ended_s: self.ended_s,
            readings: self.readings,
            leaks: agent.all(about("leak", id)),
            judged: judged.collect::<Result<_>>()?,
        })
    }
}

type Outcomes = BTreeMap<&'static str, Outcome>;

/// Runs all programs under one agent and ends them.
fn run() -> Result<Outcomes> {
    let mut made = Vec::new();
    for case in Case::all() {
        if let Some(executable) = case.make()? {
            made.push((case, executable));
        }
    }
    if made.is_empty() {
        return Ok(Outcomes::new());
    }
    // The agent judges them from their first second on.
    let agent = Agent::start(&MINUTES_AS_HOURS)?;
    let mut running = Vec::new();
    for (case, executable) in made {
        running.push(Running::start(case, executable)?);
    }
    let began = Instant::now();
    while began.elapsed() < WATCHED {
        running.iter_mut().try_for_each(Running::read)?;
        thread::sleep(READING);
    }
    agent.wait_intervals(1)?;
    let outcomes = running.into_iter().map(|one| {
        let name = one.case.name;
        Ok((name, one.outcome(&agent)?))
    });
    let outcomes = outcomes.collect::<Result<_>>()?;
    agent.stop()?;
    Ok(outcomes)
}

/// What became of a program in the run that all tests share; `None` where it could not run.
pub fn outcome(name: &str) -> Result<Option<&'static Outcome>> {
    static RUN: OnceLock<Result<Outcomes, String>> = OnceLock::new();
    let run = RUN.get_or_init(|| run().map_err(|error| format!("{error:#}")));
    let outcomes = run.as_ref().map_err(|error| anyhow!("{error}"))?;
    Ok(outcomes.get(name))
}

fn since_1970(time: SystemTime) -> Result<f64> {
    Ok(time.duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64())
}
