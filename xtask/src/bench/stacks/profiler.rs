//! Who tells which code holds memory: memtrace, and what people use instead.
//! Must not know what it is put on.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::super::tracer::{Running, Tools};
use crate::process;

const FAULT_STACKS: &str = include_str!("fault_stacks.bt");
const MALLOC_STACKS: &str = include_str!("malloc_stacks.bt");
/// As Debian calls it, and as bcc does.
const MEMLEAK: [&str; 2] = ["memleak-bpfcc", "memleak"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profiler {
    Off,
    /// The same again, to show how far two equal measurements differ.
    OffAgain,
    /// The whole agent with its defaults.
    Memtrace,
    MemtraceNoStacks,
    /// bpftrace, stacks of every page fault.
    FaultStacks,
    /// bpftrace, stacks of malloc less free.
    MallocStacks,
    Memleak,
    Heaptrack,
    Massif,
}

impl Profiler {
    /// Those that are on this machine; a word about each that is not.
    pub fn here() -> Vec<Self> {
        let all = [
            Self::Off,
            Self::OffAgain,
            Self::Memtrace,
            Self::MemtraceNoStacks,
            Self::FaultStacks,
            Self::MallocStacks,
            Self::Memleak,
            Self::Heaptrack,
            Self::Massif,
        ];
        let found = |profiler: &Self| {
            let found = match profiler {
                Self::FaultStacks | Self::MallocStacks => is_here("bpftrace"),
                Self::Memleak => MEMLEAK.into_iter().any(is_here),
                Self::Heaptrack => is_here("heaptrack"),
                Self::Massif => is_here("valgrind"),
                _ => true,
            };
            if !found {
                process::progress(format!("{} is not here to compare with", profiler.name()));
            }
            found
        };
        all.into_iter().filter(found).collect()
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::OffAgain => "off, again (noise)",
            Self::Memtrace => "memtrace",
            Self::MemtraceNoStacks => "memtrace --stacks off",
            Self::FaultStacks => "bpftrace, stacks of page faults",
            Self::MallocStacks => "bpftrace, stacks of malloc and free",
            Self::Memleak => "bcc memleak",
            Self::Heaptrack => "heaptrack",
            Self::Massif => "valgrind massif",
        }
    }

    /// Whether it may be missing here, or not work.
    pub fn is_rival(self) -> bool {
        self.is_slow() || self == Self::FaultStacks
    }

    /// Whether it looks at every call of the allocator.
    pub fn is_slow(self) -> bool {
        matches!(
            self,
            Self::MallocStacks | Self::Memleak | Self::Heaptrack | Self::Massif
        )
    }

    /// The words before the program's own command line.
    pub fn wrapper(self) -> Vec<String> {
        let words: &[&str] = match self {
            Self::Heaptrack => &["heaptrack", "-o", "heaptrack-out"],
            Self::Massif => &["valgrind", "--tool=massif", "--massif-out-file=massif-out"],
            _ => &[],
        };
        words.iter().map(ToString::to_string).collect()
    }

    /// Begins to look at process `pid`, or at all; `None` for those that wrap the program.
    pub fn attach(self, tools: &Tools, pid: u32) -> Result<Option<Running>> {
        let running = match self {
            Self::Off | Self::OffAgain | Self::Heaptrack | Self::Massif => return Ok(None),
            Self::Memtrace => tools.memtrace(&[])?,
            Self::MemtraceNoStacks => tools.memtrace(&["--stacks", "off"])?,
            Self::FaultStacks => tools.bpftrace_script(FAULT_STACKS, &[])?,
            Self::MallocStacks => {
                let script = MALLOC_STACKS.replace("LIBC", &libc_of(pid)?);
                tools.bpftrace_script(&script, &[&pid.to_string()])?
            }
            Self::Memleak => {
                let program = MEMLEAK.into_iter().find_map(process::find_program);
                tools.memleak(&program.context("there is no memleak")?, pid)?
            }
        };
        Ok(Some(running))
    }
}

fn is_here(program: &str) -> bool {
    process::find_program(program).is_some()
}

/// The C library that a process has mapped.
fn libc_of(pid: u32) -> Result<String> {
    let maps = format!("/proc/{pid}/maps");
    let text = fs::read_to_string(&maps).with_context(|| format!("cannot read {maps}"))?;
    let libc = text
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5));
    let is_libc = |path: &&str| {
        Path::new(path)
            .file_name()
            .is_some_and(|name| name == "libc.so.6")
    };
    let found = libc.into_iter().find(is_libc);
    Ok(found.context("it has no libc.so.6")?.to_owned())
}
