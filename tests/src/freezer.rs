//! A cgroup of the v1 freezer: what is frozen in it does not even die of SIGKILL until it is thawed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount, umount};
use tempfile::TempDir;

use crate::cgroup::unique;
use crate::machine::poll;

/// One freezer, gone when dropped.
#[derive(Debug)]
pub struct Freezer {
    directory: PathBuf,
    /// Where it had to be mounted for this test.
    mounted: Option<TempDir>,
}

impl Freezer {
    /// `None` where the kernel has no v1 freezer.
    pub fn find() -> Result<Option<Self>> {
        let mounts = fs::read_to_string("/proc/mounts").context("cannot read /proc/mounts")?;
        let found = mounts.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            let [_, target, "cgroup", options, ..] = fields[..] else {
                return None;
            };
            let freezer = options.split(',').any(|option| option == "freezer");
            freezer.then(|| PathBuf::from(target))
        });
        let (root, mounted) = match found {
            Some(root) => (root, None),
            None => {
                let root = tempfile::tempdir()?;
                let flags = MsFlags::empty();
                let done = mount(
                    Some("cgroup"),
                    root.path(),
                    Some("cgroup"),
                    flags,
                    Some("freezer"),
                );
                if done.is_err() {
                    return Ok(None);
                }
                (root.path().to_owned(), Some(root))
            }
        };
        let directory = root.join(unique("mt-e2e-freezer"));
        fs::create_dir(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(Some(Self { directory, mounted }))
    }

    /// Freezes that process, and returns when it is.
    pub fn freeze(&self, pid: u32) -> Result<()> {
        self.write("cgroup.procs", &pid.to_string())?;
        self.write("freezer.state", "FROZEN")?;
        poll("the freezer", Duration::from_secs(10), || {
            let state = fs::read_to_string(self.directory.join("freezer.state"))?;
            Ok((state.trim() == "FROZEN").then_some(()))
        })
    }

    pub fn thaw(&self) -> Result<()> {
        self.write("freezer.state", "THAWED")
    }

    fn write(&self, file: &str, value: &str) -> Result<()> {
        let path = self.directory.join(file);
        fs::write(&path, value).with_context(|| format!("cannot write {}", path.display()))
    }

    fn remove(&self) -> Result<()> {
        self.thaw()?;
        let root = self.directory.parent().unwrap_or(Path::new("/"));
        poll("the freezer to empty", Duration::from_secs(10), || {
            for pid in fs::read_to_string(self.directory.join("cgroup.procs"))?.lines() {
                // May have ended meanwhile.
                let _ = fs::write(root.join("cgroup.procs"), pid);
            }
            Ok(fs::remove_dir(&self.directory).ok())
        })
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("{}: {error:#}", self.directory.display());
        }
        if let Some(directory) = &self.mounted {
            let _ = umount(directory.path());
        }
    }
}
