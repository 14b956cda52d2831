//! `<state directory>/otlp/`: segments `00000001.queue`, … of chunks that wait for the backend.
//!
//! Owns names, numbers and the lock: one agent at a time, so that nobody sends what another does.
//! Follows no symbolic link below the state directory and opens regular files only. Must not decide
//! what is dropped.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{Mode, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::record::{self, Location};
use super::segment::Segment;
use crate::store::StoreError;

/// Below the state directory.
pub(in super::super) const DIRECTORY: &str = "otlp";
const LOCK: &str = "lock";
const FILE_MODE: Mode = Mode::from_bits_truncate(0o600);
const DIRECTORY_MODE: u32 = 0o700;
/// Names keep a fixed form up to here.
const LAST_NUMBER: u64 = 999_999_999_999_999;

pub(super) struct Disk {
    state_dir: PathBuf,
    path: PathBuf,
    directory: OwnedFd,
    /// Holds the lock as long as it is open.
    pub(super) _lock: File,
    segment_bytes: u64,
    /// By number; the last one is appended to if it is usable.
    segments: BTreeMap<u64, Segment>,
    bytes: u64,
    /// A segment was made since the last sync.
    unsynced: bool,
}

/// What an earlier agent left.
#[derive(Default)]
pub(super) struct Left {
    /// Oldest first, with their log records.
    pub(super) waiting: Vec<(Location, u32)>,
    /// Log records that cannot be read any more; at least.
    pub(super) damaged: u64,
}

impl Disk {
    /// Opens the directory, made if it is not there, and finds what waits in it.
    pub(super) fn open(state_dir: &Path, segment_bytes: u64) -> Result<(Self, Left), StoreError> {
        let (directory, lock) = open_directory(state_dir)?;
        let mut disk = Disk {
            state_dir: state_dir.to_owned(),
            path: state_dir.join(DIRECTORY),
            directory,
            _lock: lock,
            segment_bytes,
            segments: BTreeMap::new(),
            bytes: 0,
            unsynced: false,
        };
        let mut left = Left::default();
        for number in disk.numbers()? {
            disk.adopt(number, &mut left);
        }
        Ok((disk, left))
    }

    /// Of all segments.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds a chunk behind all others.
    pub(super) fn append(&mut self, body: &[u8], records: u32) -> Result<Location, StoreError> {
        let too_long = || error("write", &self.path, io::ErrorKind::FileTooLarge);
        let encoded = record::encode(body, records).ok_or_else(too_long)?;
        let last = self.segments.last_entry().map(|entry| *entry.key());
        let usable = last.filter(|last| {
            let segment = self.segments.get(last);
            segment.is_some_and(|segment| segment.is_usable(self.segment_bytes))
        });
        let number = match usable {
            Some(number) => number,
            None => self.create()?,
        };
        let path = self.path.join(name(number));
        let Some(segment) = self.segments.get_mut(&number) else {
            return Err(error("open", &path, io::ErrorKind::NotFound));
        };
        let location = segment
            .append(&encoded, body)
            .map_err(|source| error("write", &path, source))?;
        self.bytes = self.bytes.saturating_add(encoded.len() as u64);
        Ok(location)
    }

    /// Appends the chunk to `into`; `false` if it cannot be read any more.
    pub(super) fn read(&self, location: Location, into: &mut Vec<u8>) -> bool {
        let segment = self.segments.get(&location.segment);
        segment.is_some_and(|segment| segment.read(location, into))
    }

    /// The chunk does not wait any more.
    pub(super) fn settle(&mut self, location: Location) -> Result<(), StoreError> {
        let number = location.segment;
        let path = self.path.join(name(number));
        let Some(segment) = self.segments.get_mut(&number) else {
            return Ok(());
        };
        let settled = segment
            .settle(location)
            .map_err(|source| error("write", &path, source));
        if !segment.is_empty() {
            return settled;
        }
        let bytes = segment.bytes();
        if segment.is_usable(self.segment_bytes) {
            segment
                .empty()
                .map_err(|source| error("truncate", &path, source))?;
        } else {
            self.segments.remove(&number);
            remove(&self.directory, number, &path)?;
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        Ok(())
    }

    /// Makes what was appended survive a crash of the machine.
    pub(super) fn sync(&mut self) -> Result<(), StoreError> {
        for segment in self.segments.values_mut() {
            let number = segment.number();
            segment
                .sync()
                .map_err(|source| error("sync", &self.path.join(name(number)), source))?;
        }
        if std::mem::take(&mut self.unsynced) {
            nix::unistd::fsync(&self.directory)
                .map_err(|errno| error("sync", &self.path, errno))?;
        }
        Ok(())
    }

    fn create(&mut self) -> Result<u64, StoreError> {
        if !self.is_current() {
            // Removed or moved away: what waits there can still be read, but not be found.
            (self.directory, self._lock) = open_directory(&self.state_dir)?;
        }
        let newest = self.numbers()?.last().copied();
        let known = self.segments.keys().next_back().copied();
        let number = newest.max(known).unwrap_or(0) + 1;
        let path = self.path.join(name(number));
        if number > LAST_NUMBER {
            return Err(StoreError::NumbersExhausted { path });
        }
        let flags =
            OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&self.directory, name(number).as_str(), flags, FILE_MODE)
            .map_err(|errno| error("create", &path, errno))?;
        self.segments
            .insert(number, Segment::new(File::from(file), number));
        self.unsynced = true;
        Ok(number)
    }

    /// Takes in a segment of an earlier agent. One that cannot be read stays where it is.
    fn adopt(&mut self, number: u64, left: &mut Left) {
        let path = self.path.join(name(number));
        // A FIFO of that name must not hold the open.
        let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let opened = openat(&self.directory, name(number).as_str(), flags, Mode::empty())
            .map_err(io::Error::from)
            .and_then(|fd| {
                let file = File::from(fd);
                let metadata = file.metadata()?;
                // A second name could be a file that somebody wants to be written to.
                let own =
                    metadata.nlink() == 1 && metadata.uid() == nix::unistd::geteuid().as_raw();
                if !metadata.is_file() || !own {
                    return Err(io::Error::other("not a file that memtrace made"));
                }
                Segment::scan(file, number)
            });
        let (segment, scan) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                log::warn!("{} is left out: {error}", path.display());
                left.damaged += 1;
                return;
            }
        };
        left.damaged += scan.damaged;
        if segment.is_empty() {
            // One that stays is looked at again by the next agent.
            let _ = remove(&self.directory, number, &path);
            return;
        }
        left.waiting.extend(scan.waiting);
        self.bytes = self.bytes.saturating_add(segment.bytes());
        self.segments.insert(number, segment);
    }

    /// Of all segments, oldest first.
    fn numbers(&self) -> Result<Vec<u64>, StoreError> {
        let failed = |source| error("list", &self.path, source);
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let file = entry.map_err(failed)?.file_name();
            numbers.extend(file.to_str().and_then(number));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Whether the path still leads to the open directory.
    fn is_current(&self) -> bool {
        let open = nix::sys::stat::fstat(&self.directory);
        let there = fs::symlink_metadata(&self.path);
        matches!((open, there), (Ok(open), Ok(there))
            if (open.st_dev, open.st_ino) == (there.dev(), there.ino()))
    }
}

/// What nobody needs any more is not left behind.
impl Drop for Disk {
    fn drop(&mut self) {
        for (number, segment) in &self.segments {
            if segment.is_empty() {
                // The next agent removes it.
                let _ = remove(&self.directory, *number, &self.path);
            }
        }
    }
}

/// Opens it, made if it is not there, and locks it.
fn open_directory(state_dir: &Path) -> Result<(OwnedFd, File), StoreError> {
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(state_dir)
        .map_err(|source| error("create", state_dir, source))?;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let parent =
        open(state_dir, flags, Mode::empty()).map_err(|errno| error("open", state_dir, errno))?;
    let path = state_dir.join(DIRECTORY);
    match mkdirat(&parent, DIRECTORY, Mode::from_bits_truncate(DIRECTORY_MODE)) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(error("create", &path, errno)),
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let directory = openat(&parent, DIRECTORY, flags, Mode::empty())
        .map_err(|errno| refused(&parent, &path, errno))?;
    let lock_path = path.join(LOCK);
    let flags =
        OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let lock = openat(&directory, LOCK, flags, FILE_MODE)
        .map(File::from)
        .map_err(|errno| error("open", &lock_path, errno))?;
    lock.try_lock().map_err(|locked| {
        let source = match locked {
            TryLockError::WouldBlock => io::Error::other("another memtrace uses it"),
            TryLockError::Error(source) => source,
        };
        error("lock", &lock_path, source)
    })?;
    Ok((directory, lock))
}

fn remove(directory: &OwnedFd, number: u64, path: &Path) -> Result<(), StoreError> {
    match unlinkat(directory, name(number).as_str(), UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(error("remove", path, errno)),
    }
}

fn error(action: &'static str, path: &Path, source: impl Into<io::Error>) -> StoreError {
    StoreError::Io {
        action,
        path: path.to_owned(),
        source: source.into(),
    }
}

/// Why the directory cannot be opened.
fn refused(parent: &OwnedFd, path: &Path, errno: Errno) -> StoreError {
    let found = fstatat(parent, DIRECTORY, AtFlags::AT_SYMLINK_NOFOLLOW);
    match found.map(|found| found.st_mode & libc::S_IFMT) {
        Ok(libc::S_IFLNK) => StoreError::SymbolicLink {
            path: path.to_owned(),
        },
        Ok(kind) if kind != libc::S_IFDIR => StoreError::WrongType {
            path: path.to_owned(),
            expected: "directory",
        },
        _ => error("open", path, errno),
    }
}

fn name(number: u64) -> String {
    format!("{number:08}.queue")
}

/// Only of names that [`name`] gives.
fn number(file: &str) -> Option<u64> {
    let parsed = file.strip_suffix(".queue")?.parse().ok()?;
    (parsed <= LAST_NUMBER && name(parsed) == file).then_some(parsed)
}
