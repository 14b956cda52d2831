//! One agent to a state directory: a lock that ends with the process that holds it.
//!
//! Owns `<state directory>/agent.lock` and the process id in it, which is only for messages. Readers need
//! no lock.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use nix::unistd::geteuid;

use super::{StoreError, owners};

const NAME: &str = "agent.lock";
/// Longest that is read: a process id has 10 digits at most.
const LONGEST: u64 = 16;

/// The state directory is this process's until it is dropped.
#[derive(Debug)]
pub struct StateLock {
    /// `None`: it cannot be locked.
    _file: Option<File>,
}

impl StateLock {
    /// Takes the directory, made if it is not there. One that cannot be locked, because it is read-only,
    /// full or of a file system without locks, is gone on with and warned of, and so is one that others may
    /// write to: tracing matters more.
    ///
    /// # Errors
    /// [`StoreError::InUse`]: another agent has it.
    pub fn take(state_dir: &Path) -> Result<Self, StoreError> {
        let path = state_dir.join(NAME);
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state_dir);
        if let Some(warning) = owners::warning(state_dir, geteuid().as_raw()) {
            log::warn!("{warning}");
        }
        let opened = made.and_then(|()| open(&path));
        let unlocked = |action, source| {
            let error = StoreError::io(action, &path, source);
            log::warn!("whether another memtrace uses the same --state-dir is not known: {error}");
            Self { _file: None }
        };
        let mut file = match opened {
            Ok(file) => file,
            Err(source) => return Ok(unlocked("open", source)),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::InUse {
                    path: state_dir.to_owned(),
                    holder: holder(&file),
                });
            }
            Err(TryLockError::Error(source)) => return Ok(unlocked("lock", source)),
        }
        // Without it the next one's message lacks a number.
        let told = file
            .set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        if let Err(error) = told {
            log::debug!("{}: {error}", path.display());
        }
        Ok(Self { _file: Some(file) })
    }
}

fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        // A FIFO of that name must not hold the open.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("no regular file"));
    }
    Ok(file)
}

/// The process that said it holds the lock.
fn holder(file: &File) -> Option<u32> {
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).ok()?;
    text.lines().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn a_directory_is_one_agents_until_that_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("deep/state");
        let lock = StateLock::take(&state).unwrap();
        let error = StateLock::take(&state).unwrap_err();
        let text = format!("{error}\n{}", error.remedy());
        let pid = format!("(PID {})", std::process::id());
        for told in [state.to_str().unwrap(), &pid, "--state-dir"] {
            assert!(text.contains(told), "no {told} in {text}");
        }
        drop(lock);
        StateLock::take(&state).unwrap();
    }

    #[test]
    fn a_holder_that_does_not_say_who_it_is_is_told_of_nevertheless() {
        let directory = tempfile::tempdir().unwrap();
        let _lock = StateLock::take(directory.path()).unwrap();
        for written in ["", "x\n", "99999999999999999999\n"] {
            fs::write(directory.path().join(NAME), written).unwrap();
            let error = StateLock::take(directory.path()).unwrap_err();
            let unnamed = matches!(error, StoreError::InUse { holder: None, .. });
            assert!(unnamed, "{error}");
        }
    }

    #[test]
    fn what_cannot_be_locked_is_gone_on_with_and_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let other = directory.path().join("other");
        symlink(&other, directory.path().join(NAME)).unwrap();
        StateLock::take(directory.path()).unwrap();
        assert!(!other.exists());
        fs::remove_file(directory.path().join(NAME)).unwrap();
        fs::write(&other, "").unwrap();
        // The directory is a file.
        StateLock::take(&other).unwrap();
    }
}
