//! The directory of segments, held open: what is opened in it is what is in it.
//!
//! Owns names and numbers of segments. Follows no symbolic link below the state directory and opens
//! regular files only; the state directory itself is what the operator named.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, open, openat},
    sys::stat::{Mode, fstatat, mkdirat},
    unistd::{AccessFlags, UnlinkatFlags, faccessat, unlinkat},
};

use super::{DIRECTORY, StoreError};

const FILE_MODE: Mode = Mode::from_bits_truncate(0o600);
const DIRECTORY_MODE: u32 = 0o700;
/// Names keep a fixed form up to here.
const LAST_NUMBER: u64 = 999_999_999_999_999;
/// Agents that create a segment at the same time try the next number; more are not expected.
const CREATE_ATTEMPTS: u64 = 1000;

pub struct Directory {
    fd: OwnedFd,
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl Directory {
    /// Opens it for writing, made if it is not there.
    pub fn create(state_dir: &Path) -> Result<Self, StoreError> {
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(state_dir)
            .map_err(|source| StoreError::io("create", state_dir, source))?;
        let parent = open_state(state_dir)?;
        let path = state_dir.join(DIRECTORY);
        match mkdirat(&parent, DIRECTORY, Mode::from_bits_truncate(DIRECTORY_MODE)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(StoreError::io("create", &path, errno)),
        }
        let directory = Self::open_in(&parent, path)?;
        // On a read-only disk the directory opens well.
        let writable = AccessFlags::W_OK | AccessFlags::X_OK;
        faccessat(&directory.fd, ".", writable, AtFlags::AT_EACCESS)
            .map_err(|errno| StoreError::io("write to", &directory.path, errno))?;
        Ok(directory)
    }

    /// Opens it for reading; `None` if it is not there.
    pub fn open(state_dir: &Path) -> Result<Option<Self>, StoreError> {
        let parent = match open_state(state_dir) {
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            opened => opened?,
        };
        match Self::open_in(&parent, state_dir.join(DIRECTORY)) {
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            opened => opened.map(Some),
        }
    }

    fn open_in(parent: &OwnedFd, path: PathBuf) -> Result<Self, StoreError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(parent, DIRECTORY, flags, Mode::empty()).map_err(|errno| {
            refused(parent, DIRECTORY, &path, errno)
                .unwrap_or_else(|| StoreError::io("open", &path, errno))
        })?;
        let file = File::from(fd);
        let metadata = file
            .metadata()
            .map_err(|source| StoreError::io("look at", &path, source))?;
        Ok(Self {
            fd: file.into(),
            path,
            identity: (metadata.dev(), metadata.ino()),
        })
    }

    pub fn segment_path(&self, number: u64) -> PathBuf {
        self.path.join(segment_name(number))
    }

    /// Whether the path still leads here: it may have been removed or moved away.
    pub fn is_current(&self) -> bool {
        fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity)
    }

    /// Numbers of all segments, oldest first.
    pub fn segments(&self) -> Result<Vec<u64>, StoreError> {
        let error = |source| StoreError::io("list", &self.path, source);
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(error)? {
            let name = entry.map_err(error)?.file_name();
            if let Some(number) = name.to_str().and_then(segment_number) {
                numbers.push(number);
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Opens a segment to read; `None` if it is gone.
    pub fn read_segment(&self, number: u64) -> Result<Option<File>, StoreError> {
        self.open_segment(number, OFlag::O_RDONLY)
    }

    /// Opens a segment to append, and to read what is in it; `None` if it is gone.
    pub fn append_segment(&self, number: u64) -> Result<Option<File>, StoreError> {
        self.open_segment(number, OFlag::O_RDWR | OFlag::O_APPEND)
    }

    fn open_segment(&self, number: u64, access: OFlag) -> Result<Option<File>, StoreError> {
        let name = segment_name(number);
        let path = self.segment_path(number);
        // A FIFO of that name must not hold the open.
        let flags = access | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = match openat(&self.fd, name.as_str(), flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => {
                return Err(refused(&self.fd, &name, &path, errno)
                    .unwrap_or_else(|| StoreError::io("open", &path, errno)));
            }
        };
        let metadata = file
            .metadata()
            .map_err(|source| StoreError::io("look at", &path, source))?;
        if !metadata.is_file() {
            return Err(StoreError::WrongType {
                path,
                expected: "regular file",
            });
        }
        Ok(Some(file))
    }

    /// A new, empty segment behind all others.
    pub fn create_segment(&self) -> Result<(u64, File), StoreError> {
        let exhausted = || StoreError::NumbersExhausted {
            path: self.path.clone(),
        };
        let first = self.segments()?.last().map_or(1, |last| last + 1);
        let flags = OFlag::O_RDWR
            | OFlag::O_APPEND
            | OFlag::O_CREAT
            | OFlag::O_EXCL
            | OFlag::O_NOFOLLOW
            | OFlag::O_CLOEXEC;
        for number in first..first + CREATE_ATTEMPTS {
            if number > LAST_NUMBER {
                return Err(exhausted());
            }
            match openat(&self.fd, segment_name(number).as_str(), flags, FILE_MODE) {
                Ok(fd) => {
                    // Else a crash of the machine may lose the name of a segment that was synced.
                    nix::unistd::fsync(&self.fd)
                        .map_err(|errno| StoreError::io("sync", &self.path, errno))?;
                    return Ok((number, File::from(fd)));
                }
                Err(Errno::EEXIST) => {}
                Err(errno) => {
                    return Err(StoreError::io("create", &self.segment_path(number), errno));
                }
            }
        }
        Err(exhausted())
    }

    /// Removes a segment. One that is gone already is fine.
    pub fn remove_segment(&self, number: u64) -> Result<(), StoreError> {
        let name = segment_name(number);
        match unlinkat(&self.fd, name.as_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(StoreError::io("remove", &self.segment_path(number), errno)),
        }
    }
}

fn open_state(state_dir: &Path) -> Result<OwnedFd, StoreError> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(state_dir, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::ENOTDIR => StoreError::WrongType {
            path: state_dir.to_owned(),
            expected: "directory",
        },
        _ => StoreError::io("open", state_dir, errno),
    })
}

/// Why `O_NOFOLLOW` or `O_DIRECTORY` failed, where that was it.
fn refused(parent: &OwnedFd, name: &str, path: &Path, errno: Errno) -> Option<StoreError> {
    if !matches!(errno, Errno::ELOOP | Errno::ENOTDIR) {
        return None;
    }
    let mode = fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)
        .ok()?
        .st_mode;
    let path = path.to_owned();
    Some(if mode & libc::S_IFMT == libc::S_IFLNK {
        StoreError::SymbolicLink { path }
    } else {
        StoreError::WrongType {
            path,
            expected: "directory",
        }
    })
}

fn segment_name(number: u64) -> String {
    format!("{number:08}.jsonl")
}

/// Only of names that [`segment_name`] gives.
fn segment_number(name: &str) -> Option<u64> {
    let number = name.strip_suffix(".jsonl")?.parse().ok()?;
    (number <= LAST_NUMBER && segment_name(number) == name).then_some(number)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn only_names_of_segments_have_a_number() {
        assert_eq!(segment_number("00000001.jsonl"), Some(1));
        assert_eq!(segment_number("123456789.jsonl"), Some(123_456_789));
        for other in [
            "1.jsonl",
            "000000001.jsonl",
            "+0000001.jsonl",
            "00000001.json",
            "00000001.jsonl~",
            "9999999999999999.jsonl",
            ".jsonl",
        ] {
            assert_eq!(segment_number(other), None, "{other}");
        }
    }

    #[test]
    fn directories_and_segments_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("deep/state");
        let directory = Directory::create(&state).unwrap();
        let (number, file) = directory.create_segment().unwrap();
        assert_eq!(number, 1);
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&state), 0o700);
        assert_eq!(mode(&state.join("incidents")), 0o700);
    }

    #[test]
    fn a_symbolic_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        fs::create_dir(&target).unwrap();
        symlink(&target, dir.path().join("incidents")).unwrap();
        for result in [
            Directory::create(dir.path()).map(|_| ()),
            Directory::open(dir.path()).map(|_| ()),
        ] {
            assert!(matches!(result, Err(StoreError::SymbolicLink { .. })));
        }
        fs::remove_file(dir.path().join("incidents")).unwrap();
        let directory = Directory::create(dir.path()).unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, directory.segment_path(1)).unwrap();
        for result in [directory.read_segment(1), directory.append_segment(1)] {
            assert!(matches!(result, Err(StoreError::SymbolicLink { .. })));
        }
        assert_eq!(directory.create_segment().unwrap().0, 2);
        assert_eq!(fs::read_to_string(victim).unwrap(), "precious");
    }

    #[test]
    fn a_fifo_in_place_of_a_segment_holds_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::create(dir.path()).unwrap();
        nix::unistd::mkfifo(&directory.segment_path(1), FILE_MODE).unwrap();
        assert!(matches!(
            directory.read_segment(1),
            Err(StoreError::WrongType { .. })
        ));
    }

    #[test]
    fn a_new_segment_never_takes_the_place_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let one = Directory::create(dir.path()).unwrap();
        let other = Directory::create(dir.path()).unwrap();
        let numbers: Vec<u64> = [&one, &other, &one]
            .iter()
            .map(|directory| directory.create_segment().unwrap().0)
            .collect();
        assert_eq!(numbers, [1, 2, 3]);
        one.remove_segment(2).unwrap();
        other.remove_segment(2).unwrap();
        assert_eq!(one.segments().unwrap(), [1, 3]);
    }

    #[test]
    fn a_removed_or_moved_directory_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::create(dir.path()).unwrap();
        assert!(directory.is_current());
        fs::rename(dir.path().join("incidents"), dir.path().join("old")).unwrap();
        assert!(!directory.is_current());
        fs::create_dir(dir.path().join("incidents")).unwrap();
        assert!(!directory.is_current());
    }
}
