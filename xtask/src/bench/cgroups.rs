//! A tree of cgroups with processes in some of them, all gone when dropped.
//! Must not measure anything.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

const NAME: &str = "mt-bench";
/// A pod and its containers, as Kubernetes nests them.
const CONTAINERS_PER_POD: usize = 4;
const PROCESSES: usize = 50;
const GROWING: usize = 10;

/// Removed when dropped, with its processes.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    v2: bool,
    processes: Vec<Child>,
    pub growing: usize,
}

impl Tree {
    /// `count` cgroups, and in up to 50 of them a process, of which 10 grow.
    pub fn grow(xtask: &Path, count: usize) -> Result<Self> {
        let (root, v2) = hierarchy()?;
        let mut tree = Self {
            root: root.join(NAME),
            v2,
            processes: Vec::new(),
            growing: 0,
        };
        // What a killed run left behind.
        remove(&tree.root);
        make(&tree.root)?;
        if v2 {
            enable_memory(&root)?;
            enable_memory(&tree.root)?;
        }
        let containers = tree.make_pods(count, v2)?;
        let occupied = containers.len().min(PROCESSES);
        for index in 0..occupied {
            // Spread over the tree.
            let cgroup = &containers[index * containers.len() / occupied];
            let grow = index * GROWING.min(occupied) / occupied
                != (index + 1) * GROWING.min(occupied) / occupied;
            tree.growing += usize::from(grow);
            let child = live(xtask, cgroup, grow)?;
            tree.processes.push(child);
        }
        Ok(tree)
    }

    /// `count` more cgroups, each with a memory limit and no swap.
    pub fn limited(&self, count: usize, limit_bytes: u64) -> Result<Vec<PathBuf>> {
        let (limit, swap, swap_limit) = if self.v2 {
            ("memory.max", "memory.swap.max", 0)
        } else {
            // The second one is of memory and swap together.
            (
                "memory.limit_in_bytes",
                "memory.memsw.limit_in_bytes",
                limit_bytes,
            )
        };
        (0..count)
            .map(|index| {
                let directory = self.root.join(format!("limited-{index:02}"));
                make(&directory)?;
                set(&directory.join(limit), limit_bytes)?;
                // Absent where the kernel does not account swap.
                let swap = directory.join(swap);
                if swap.exists() {
                    set(&swap, swap_limit)?;
                }
                Ok(directory)
            })
            .collect()
    }

    pub fn processes(&self) -> usize {
        self.processes.len()
    }

    fn make_pods(&self, count: usize, v2: bool) -> Result<Vec<PathBuf>> {
        let mut containers = Vec::new();
        let mut pod = PathBuf::new();
        for index in 0..count {
            let place = index % (CONTAINERS_PER_POD + 1);
            if place == 0 {
                pod = self
                    .root
                    .join(format!("pod-{:05}", index / (CONTAINERS_PER_POD + 1)));
                make(&pod)?;
                if v2 {
                    enable_memory(&pod)?;
                }
            } else {
                let container = pod.join(format!("container-{place}"));
                make(&container)?;
                containers.push(container);
            }
        }
        Ok(containers)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        for child in &mut self.processes {
            let _ = child.kill();
        }
        for child in &mut self.processes {
            let _ = child.wait();
        }
        if !remove(&self.root) {
            eprintln!("xtask: cannot remove {}", self.root.display());
        }
    }
}

/// The directory that memory cgroups are made in, and whether it is of version 2.
pub fn hierarchy() -> Result<(PathBuf, bool)> {
    let mounted = Path::new("/sys/fs/cgroup");
    let v1 = mounted.join("memory");
    if v1.join("memory.usage_in_bytes").exists() {
        return Ok((v1, false));
    }
    if mounted.join("cgroup.controllers").exists() {
        return Ok((mounted.to_owned(), true));
    }
    bail!("there is no memory cgroup hierarchy at /sys/fs/cgroup");
}

pub fn make(directory: &Path) -> Result<()> {
    fs::create_dir(directory).with_context(|| format!("cannot make {}", directory.display()))
}

pub fn set(file: &Path, bytes: u64) -> Result<()> {
    fs::write(file, bytes.to_string()).with_context(|| format!("cannot write {}", file.display()))
}

pub fn enable_memory(directory: &Path) -> Result<()> {
    fs::write(directory.join("cgroup.subtree_control"), "+memory").with_context(|| {
        format!(
            "cannot enable the memory controller in {}",
            directory.display()
        )
    })
}

fn live(xtask: &Path, cgroup: &Path, grow: bool) -> Result<Child> {
    let mut command = Command::new(xtask);
    command.args(["bench-load", "live", "--cgroup"]).arg(cgroup);
    if grow {
        command.arg("--grow");
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start a process for a cgroup")?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    if line.trim() != "entered" {
        let _ = child.kill();
        let _ = child.wait();
        bail!("a process could not enter {}", cgroup.display());
    }
    Ok(child)
}

/// Whether it is gone. Leaves first. The kernel keeps a cgroup busy for a moment after its last process.
pub fn remove(directory: &Path) -> bool {
    if let Ok(entries) = fs::read_dir(directory) {
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove(&entry.path());
            }
        }
    }
    for _ in 0..50 {
        if fs::remove_dir(directory).is_ok() || !directory.exists() {
            return true;
        }
        thread::sleep(Duration::from_millis(20));
    }
    false
}
