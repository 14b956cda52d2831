//! The cgroups of the load, and starting its processes in them; all gone when dropped.
//! Must not know when what happens.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::bench::cgroups::{enable_memory, hierarchy, make, remove, set};

const NAME: &str = "mt-rivals";
/// Name of each process, by which tools' lines about others are told apart.
pub const COMM: &str = "mt-rival";

#[derive(Debug)]
pub struct Place {
    workload: PathBuf,
    hierarchy: PathBuf,
    pub v2: bool,
    /// Number of each directory that was made, to its path.
    pub made: BTreeMap<u64, String>,
}

impl Place {
    pub fn new(workload: PathBuf) -> Result<Self> {
        let (hierarchy, v2) = hierarchy()?;
        let root = hierarchy.join(NAME);
        // What a killed run left behind.
        remove(&root);
        make(&root)?;
        let place = Self {
            workload,
            hierarchy,
            v2,
            made: BTreeMap::new(),
        };
        if v2 {
            enable_memory(&place.hierarchy)?;
            enable_memory(&root)?;
        }
        Ok(place)
    }

    /// Where memory cgroups are mounted.
    pub fn hierarchy(&self) -> &Path {
        &self.hierarchy
    }

    pub fn root(&self) -> PathBuf {
        self.hierarchy.join(NAME)
    }

    /// A cgroup below the load's, with a limit on memory and swap together if one is given.
    pub fn cgroup(&mut self, name: &str, limit_bytes: Option<u64>) -> Result<PathBuf> {
        let directory = self.root().join(name);
        make(&directory)?;
        let number = fs::metadata(&directory)?.ino();
        self.made.insert(number, self.path(&directory));
        if let Some(bytes) = limit_bytes {
            let (limit, swap, swap_bytes) = if self.v2 {
                ("memory.max", "memory.swap.max", 0)
            } else {
                (
                    "memory.limit_in_bytes",
                    "memory.memsw.limit_in_bytes",
                    bytes,
                )
            };
            set(&directory.join(limit), bytes)?;
            // Absent where the kernel does not account swap.
            let swap = directory.join(swap);
            if swap.exists() {
                set(&swap, swap_bytes)?;
            }
        }
        Ok(directory)
    }

    /// One that has cgroups below it.
    pub fn pod(&mut self, name: &str, limit_bytes: u64) -> Result<PathBuf> {
        let directory = self.cgroup(name, Some(limit_bytes))?;
        if self.v2 {
            enable_memory(&directory)?;
        }
        Ok(directory)
    }

    /// From the root of the hierarchy, as tools name it.
    pub fn path(&self, directory: &Path) -> String {
        let below = directory.strip_prefix(&self.hierarchy).unwrap_or(directory);
        format!("/{}", below.display())
    }

    /// The workload in a cgroup; its input and output are pipes if it is to be talked with.
    pub fn spawn(&self, cgroup: &Path, arguments: &[&str], talks: bool) -> Result<Child> {
        let pipe = || if talks { Stdio::piped() } else { Stdio::null() };
        Command::new(&self.workload)
            .arg("--cgroup")
            .arg(cgroup)
            .args(["--comm", COMM])
            .args(arguments)
            .stdin(pipe())
            .stdout(pipe())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start memtrace-workload")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !remove(&self.root()) {
            eprintln!("xtask: cannot remove {}", self.root().display());
        }
    }
}
