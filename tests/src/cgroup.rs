//! Memory cgroups for tests, on v1, hybrid and v2; gone with their processes when dropped.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::machine::patience;

/// All test cgroups are below this one.
pub const PARENT: &str = "mt-e2e";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Which interface the memory controller has here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

/// The memory hierarchy of this machine.
#[derive(Debug, Clone)]
pub struct Hierarchy {
    pub root: PathBuf,
    pub version: Version,
    /// What memtrace calls the layout: `v1`, `hybrid` or `v2`.
    pub mode: &'static str,
}

impl Hierarchy {
    pub fn find() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/mounts").context("cannot read /proc/mounts")?;
        let mut v1 = None;
        let mut v2 = None;
        for line in mounts.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let [_, target, kind, options, ..] = fields[..] else {
                continue;
            };
            match kind {
                "cgroup" if options.split(',').any(|option| option == "memory") => {
                    v1.get_or_insert_with(|| PathBuf::from(target));
                }
                "cgroup2" => {
                    v2.get_or_insert_with(|| PathBuf::from(target));
                }
                _ => {}
            }
        }
        match (v1, v2) {
            (Some(root), v2) => Ok(Self {
                root,
                version: Version::V1,
                mode: if v2.is_some() { "hybrid" } else { "v1" },
            }),
            (None, Some(root)) => Ok(Self {
                root,
                version: Version::V2,
                mode: "v2",
            }),
            (None, None) => anyhow::bail!("no memory cgroup hierarchy is mounted"),
        }
    }
}

/// A cgroup of its own for one test.
#[derive(Debug)]
pub struct Cgroup {
    hierarchy: Hierarchy,
    directory: PathBuf,
}

impl Cgroup {
    /// Makes one with `purpose` in its name.
    pub fn new(purpose: &str) -> Result<Self> {
        Self::named(OsStr::new(&unique(purpose)))
    }

    /// Makes one of exactly that name.
    pub fn named(name: &OsStr) -> Result<Self> {
        let hierarchy = Hierarchy::find()?;
        let parent = hierarchy.root.join(PARENT);
        match fs::create_dir(&parent) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("cannot make {}", parent.display()));
            }
            _ => {}
        }
        delegate(&hierarchy, &hierarchy.root)?;
        delegate(&hierarchy, &parent)?;
        Self::make(hierarchy, parent.join(name))
    }

    /// Makes one inside this one.
    pub fn child(&self, name: &str) -> Result<Self> {
        delegate(&self.hierarchy, &self.directory)?;
        Self::make(self.hierarchy.clone(), self.directory.join(name))
    }

    /// Makes one inside this one that v2 gives no memory controller of its own. It must be the only
    /// kind of child there.
    pub fn child_without_controller(&self, name: &str) -> Result<Self> {
        Self::make(self.hierarchy.clone(), self.directory.join(name))
    }

    fn make(hierarchy: Hierarchy, directory: PathBuf) -> Result<Self> {
        fs::create_dir(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(Self {
            hierarchy,
            directory,
        })
    }

    /// Sets the memory limit.
    pub fn limit(&self, bytes: u64) -> Result<()> {
        let file = match self.hierarchy.version {
            Version::V1 => "memory.limit_in_bytes",
            Version::V2 => "memory.max",
        };
        self.write(file, &bytes.to_string())
    }

    /// Takes the memory limit away.
    pub fn unlimit(&self) -> Result<()> {
        match self.hierarchy.version {
            Version::V1 => self.write("memory.limit_in_bytes", "-1"),
            Version::V2 => self.write("memory.max", "max"),
        }
    }

    /// Lets it swap out that much. Needs a limit first.
    pub fn limit_swap(&self, limit: u64, swap: u64) -> Result<()> {
        match self.hierarchy.version {
            Version::V1 => self.write("memory.memsw.limit_in_bytes", &(limit + swap).to_string()),
            Version::V2 => self.write("memory.swap.max", &swap.to_string()),
        }
    }

    /// Slows its processes down above that much (v2).
    pub fn high(&self, bytes: Option<u64>) -> Result<()> {
        let value = bytes.map_or_else(|| "max".to_owned(), |bytes| bytes.to_string());
        self.write("memory.high", &value)
    }

    /// Has its processes killed together (v2).
    pub fn kill_as_a_group(&self) -> Result<()> {
        self.write("memory.oom.group", "1")
    }

    /// Has its processes wait instead of killing one (v1).
    pub fn disable_oom_kill(&self, disable: bool) -> Result<()> {
        self.write("memory.oom_control", if disable { "1" } else { "0" })
    }

    /// How many of its very own processes the kernel says it killed.
    pub fn oom_kills(&self) -> Result<u64> {
        match self.hierarchy.version {
            Version::V1 => self.count("memory.oom_control", "oom_kill"),
            Version::V2 => self.count("memory.events.local", "oom_kill"),
        }
    }

    /// A number from a file of `name number` lines.
    pub fn count(&self, file: &str, name: &str) -> Result<u64> {
        let text = self.read(file)?;
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
            .with_context(|| format!("no {name} in {file} of {}", self.path()))
    }

    /// What it holds now, with its descendants.
    pub fn usage(&self) -> Result<u64> {
        let file = match self.hierarchy.version {
            Version::V1 => "memory.usage_in_bytes",
            Version::V2 => "memory.current",
        };
        Ok(self.read(file)?.trim().parse()?)
    }

    /// The processes inside, without those of its descendants.
    pub fn pids(&self) -> Result<Vec<u32>> {
        let text = self.read("cgroup.procs")?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    pub fn version(&self) -> Version {
        self.hierarchy.version
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = self.directory.join(file);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    fn write(&self, file: &str, value: &str) -> Result<()> {
        let path = self.directory.join(file);
        fs::write(&path, value)
            .with_context(|| format!("cannot write {value} to {}", path.display()))
    }

    /// The directory in the file system.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The path from the root of the memory hierarchy, as memtrace names cgroups.
    pub fn path(&self) -> String {
        let inside = self
            .directory
            .strip_prefix(&self.hierarchy.root)
            .unwrap_or(&self.directory);
        format!("/{}", inside.display())
    }

    /// The inode number of the directory, which memtrace calls the cgroup's id.
    pub fn id(&self) -> Result<u64> {
        Ok(fs::metadata(&self.directory)?.ino())
    }

    /// Gives it another name in the same place (v1).
    pub fn rename(&mut self, name: &str) -> Result<()> {
        let directory = self.directory.with_file_name(name);
        fs::rename(&self.directory, &directory)
            .with_context(|| format!("cannot rename {}", self.directory.display()))?;
        self.directory = directory;
        Ok(())
    }

    /// Removes it now and says whether that worked.
    pub fn remove(self) -> Result<()> {
        remove(&self.directory)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.directory) {
            eprintln!("{error:#}");
        }
        // Works for the last cgroup only.
        let _ = fs::remove_dir(self.hierarchy.root.join(PARENT));
    }
}

/// A name that no other test, thread or run of the tests takes.
pub fn unique(purpose: &str) -> String {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{purpose}-{}-{number}", process::id())
}

/// Lets the children of a v2 cgroup have the memory controller.
fn delegate(hierarchy: &Hierarchy, directory: &Path) -> Result<()> {
    if hierarchy.version == Version::V1 {
        return Ok(());
    }
    let file = directory.join("cgroup.subtree_control");
    fs::write(&file, "+memory").with_context(|| format!("cannot write {}", file.display()))
}

/// Kills what is inside and removes it, children first.
pub(crate) fn remove(directory: &Path) -> Result<()> {
    let deadline = Instant::now() + patience(Duration::from_secs(10));
    loop {
        for child in children(directory) {
            remove(&child)?;
        }
        let procs = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        for pid in procs.lines().filter_map(|line| line.parse().ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        match fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(error)
                    .with_context(|| format!("cannot remove {}", directory.display()));
            }
            // Busy: the processes need a moment to die.
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}
