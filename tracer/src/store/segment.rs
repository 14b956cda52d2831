//! One segment, locked by the agent that appends to it.
//!
//! A record is one `write(2)` on an `O_APPEND` descriptor: a crash leaves it whole or torn at the
//! very end, and a torn end is cut off before anything is appended behind it.

use std::{
    fs::{File, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::PathBuf,
};

use jiff::Timestamp;

use super::{StoreError, directory::Directory, record_time};

/// Agents that start at the same moment may take a new segment from each other.
const LOCK_ATTEMPTS: u32 = 16;
const CHUNK_BYTES: u64 = 64 * 1024;

pub struct Segment {
    /// Holds the lock as long as it is open.
    file: File,
    path: PathBuf,
    number: u64,
    bytes: u64,
    /// Time of the first incident; `None` without one.
    first: Option<Timestamp>,
    /// Part of a record could not be cut off: nothing may be appended.
    torn: bool,
}

impl Segment {
    /// The segment of an agent that ended, to go on with, its torn end cut off; `None` if it is gone,
    /// in use, or not a file that memtrace made.
    pub fn adopt(directory: &Directory, number: u64) -> Result<Option<Self>, StoreError> {
        let path = directory.segment_path(number);
        let Some(file) = directory.append_segment(number)? else {
            return Ok(None);
        };
        if file.try_lock().is_err() {
            return Ok(None);
        }
        let failed = |source| StoreError::io("repair", &path, source);
        let metadata = file.metadata().map_err(failed)?;
        // A second name could be a file that somebody wants to be written to; none: it was pruned.
        if metadata.nlink() != 1 || metadata.uid() != nix::unistd::geteuid().as_raw() {
            return Ok(None);
        }
        let whole = end_of_last_line(&file, metadata.len()).map_err(failed)?;
        if whole != metadata.len() {
            file.set_len(whole).map_err(failed)?;
        }
        Ok(Some(Self {
            first: record_time::first(&file),
            file,
            path,
            number,
            bytes: whole,
            torn: false,
        }))
    }

    /// A new segment behind all others.
    pub fn create(directory: &Directory) -> Result<Self, StoreError> {
        let mut attempts = 0;
        loop {
            let (number, file) = directory.create_segment()?;
            let path = directory.segment_path(number);
            let locked = file.try_lock();
            let segment = Self {
                file,
                path,
                number,
                bytes: 0,
                first: None,
                torn: false,
            };
            match locked {
                Ok(()) if segment.is_usable() => return Ok(segment),
                // Another agent was faster and adopted or pruned it.
                Ok(()) | Err(TryLockError::WouldBlock) if attempts < LOCK_ATTEMPTS => attempts += 1,
                Ok(()) | Err(TryLockError::WouldBlock) => {
                    let source = io::ErrorKind::ResourceBusy;
                    return Err(StoreError::io("lock", &segment.path, source));
                }
                Err(TryLockError::Error(source)) => {
                    return Err(StoreError::io("lock", &segment.path, source));
                }
            }
        }
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether `more` bytes stay below `most`. Anything fits into an empty segment.
    pub fn has_room(&self, more: usize, most: u64) -> bool {
        self.bytes == 0 || self.bytes.saturating_add(more as u64) <= most
    }

    /// Time of the first incident in it.
    pub fn first(&self) -> Option<Timestamp> {
        self.first
    }

    /// Whether a record appended now could be read by anyone.
    pub fn is_usable(&self) -> bool {
        !self.torn
            && self
                .file
                .metadata()
                .is_ok_and(|metadata| metadata.nlink() > 0)
    }

    /// Appends a whole line, of an incident of this time, or nothing.
    pub fn append(&mut self, line: &[u8], time: Timestamp) -> Result<(), StoreError> {
        let result = loop {
            match self.file.write(line) {
                Ok(written) if written == line.len() => break Ok(()),
                // Cut short when the disk is full.
                Ok(_) => break Err(io::Error::from_raw_os_error(libc::ENOSPC)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        match result {
            Ok(()) => {
                self.bytes = self.bytes.saturating_add(line.len() as u64);
                self.first.get_or_insert(time);
                Ok(())
            }
            Err(source) => {
                self.torn = self.file.set_len(self.bytes).is_err();
                Err(StoreError::io("write", &self.path, source))
            }
        }
    }

    pub fn sync(&self) -> Result<(), StoreError> {
        self.file
            .sync_data()
            .map_err(|source| StoreError::io("sync", &self.path, source))
    }
}

/// Length of `file` up to its last newline.
fn end_of_last_line(file: &File, len: u64) -> io::Result<u64> {
    let mut end = len;
    let mut chunk = vec![0; CHUNK_BYTES as usize];
    while end > 0 {
        let start = end.saturating_sub(CHUNK_BYTES);
        let part = chunk.get_mut(..(end - start) as usize).unwrap_or_default();
        file.read_exact_at(part, start)?;
        if let Some(at) = memchr::memrchr(b'\n', part) {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn directory() -> (tempfile::TempDir, Directory) {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::create(dir.path()).unwrap();
        (dir, directory)
    }

    #[test]
    fn what_a_crash_tore_is_cut_off_before_the_next_record() {
        let (_dir, directory) = directory();
        let path = directory.segment_path(1);
        let long = "x".repeat(3 * CHUNK_BYTES as usize);
        for (left, healed) in [
            ("{}\n{\"id\":\"to", "{}\n"),
            ("{\"id\"", ""),
            ("", ""),
            ("{}\n\0\0\0\0", "{}\n"),
            (&format!("{{}}\n{long}"), "{}\n"),
        ] {
            fs::write(&path, left).unwrap();
            let mut segment = Segment::adopt(&directory, 1).unwrap().unwrap();
            segment.append(b"[]\n", Timestamp::UNIX_EPOCH).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{healed}[]\n"));
        }
    }

    #[test]
    fn a_segment_in_use_is_left_alone() {
        let (_dir, directory) = directory();
        let mut used = Segment::create(&directory).unwrap();
        used.append(b"{}\n", Timestamp::UNIX_EPOCH).unwrap();
        assert!(Segment::adopt(&directory, used.number()).unwrap().is_none());
        let number = used.number();
        drop(used);
        assert!(Segment::adopt(&directory, number).unwrap().is_some());
    }

    #[test]
    fn a_file_with_a_second_name_is_left_alone() {
        let (dir, directory) = directory();
        let other = dir.path().join("other");
        fs::write(&other, "torn").unwrap();
        fs::hard_link(&other, directory.segment_path(1)).unwrap();
        assert!(Segment::adopt(&directory, 1).unwrap().is_none());
        assert_eq!(fs::read_to_string(other).unwrap(), "torn");
    }

    #[test]
    fn a_removed_segment_is_not_usable() {
        let (_dir, directory) = directory();
        let segment = Segment::create(&directory).unwrap();
        assert!(segment.is_usable());
        directory.remove_segment(segment.number()).unwrap();
        assert!(!segment.is_usable());
    }
}
