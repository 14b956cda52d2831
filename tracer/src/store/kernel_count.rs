//! The kernel's count of OOM kills when memtrace last looked, so that kills in its absence show.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{StoreError, shards::remove_leftovers};

const NAME: &str = "kernel-count.json";
/// Largest file that is read; a real one has 150 bytes.
const LARGEST: u64 = 4096;

/// `oom_kill` of `/proc/vmstat` at one moment of one boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelCount {
    pub boot_id: String,
    /// `CLOCK_BOOTTIME` just before the reading.
    pub boot_time_ns: u64,
    /// When the memtrace that saved it was last known to run.
    pub time: Timestamp,
    pub oom_kills: u64,
}

impl KernelCount {
    /// What the last memtrace saved; `None` if none did, or not as a whole.
    pub fn load(state_dir: &Path) -> Option<Self> {
        let mut text = Vec::new();
        open(&state_dir.join(NAME), OpenOptions::new().read(true))
            .and_then(|file| file.take(LARGEST).read_to_end(&mut text))
            .ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Removes what agents left that were killed while they saved.
    pub fn clean_up(state_dir: &Path) {
        remove_leftovers(state_dir, &format!("{NAME}."));
    }

    /// Replaces what is there; a crash leaves the one or the other.
    pub fn save(&self, state_dir: &Path) -> Result<(), StoreError> {
        let path = state_dir.join(NAME);
        // The store makes the directory too, when it gets to it.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state_dir)
            .map_err(|source| StoreError::io("create", state_dir, source))?;
        // Two agents may share the directory.
        let temporary = state_dir.join(format!("{NAME}.{}", std::process::id()));
        let written = self
            .write(&temporary)
            .and_then(|()| fs::rename(&temporary, &path));
        written.map_err(|source| {
            // What is left of a failed attempt is of no use to anyone.
            let _ = fs::remove_file(&temporary);
            StoreError::io("write", &path, source)
        })
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = open(path, &mut options)?;
        file.write_all(&serde_json::to_vec(self)?)
    }
}

fn open(path: &Path, options: &mut OpenOptions) -> io::Result<fs::File> {
    options
        // A named pipe in its place is not waited for.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(oom_kills: u64) -> KernelCount {
        KernelCount {
            boot_id: "a".into(),
            boot_time_ns: 5,
            time: Timestamp::UNIX_EPOCH,
            oom_kills,
        }
    }

    #[test]
    fn a_named_pipe_in_its_place_is_no_count_and_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join(NAME);
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(KernelCount::load(directory.path()), None);
        count(7).save(directory.path()).unwrap();
        assert_eq!(KernelCount::load(directory.path()), Some(count(7)));
    }

    #[test]
    fn what_a_killed_agent_left_is_removed_and_what_a_living_one_writes_is_not() {
        let directory = tempfile::tempdir().unwrap();
        count(7).save(directory.path()).unwrap();
        let of = |pid: u32| directory.path().join(format!("{NAME}.{pid}"));
        // No process has this number: it is beyond the largest that the kernel gives.
        for path in [
            of(std::process::id()),
            of(4_194_305),
            directory.path().join("other.1"),
        ] {
            fs::write(path, b"{").unwrap();
        }
        KernelCount::clean_up(directory.path());
        assert!(of(std::process::id()).exists() && !of(4_194_305).exists());
        assert!(directory.path().join("other.1").exists());
        assert_eq!(KernelCount::load(directory.path()), Some(count(7)));
    }

    #[test]
    fn the_last_count_that_was_saved_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(KernelCount::load(directory.path()), None);
        count(1).save(directory.path()).unwrap();
        count(2).save(directory.path()).unwrap();
        assert_eq!(KernelCount::load(directory.path()), Some(count(2)));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_count_is_none_and_a_directory_that_cannot_be_made_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        for text in ["", "{", "{}", "[1]"] {
            fs::write(directory.path().join(NAME), text).unwrap();
            assert_eq!(KernelCount::load(directory.path()), None);
        }
        assert!(
            count(1)
                .save(&directory.path().join(NAME).join("x"))
                .is_err()
        );
    }

    #[test]
    fn no_symbolic_link_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let elsewhere = directory.path().join("elsewhere");
        fs::write(&elsewhere, serde_json::to_vec(&count(1)).unwrap()).unwrap();
        std::os::unix::fs::symlink(&elsewhere, directory.path().join(NAME)).unwrap();
        assert_eq!(KernelCount::load(directory.path()), None);
    }
}
