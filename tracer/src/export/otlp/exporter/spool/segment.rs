//! One file of chunks: appended to by one agent, read by it or the next, removed when nothing in it
//! waits any more.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use super::record::{self, Location};

pub(super) struct Segment {
    file: File,
    number: u64,
    bytes: u64,
    /// Chunks in it that wait.
    waiting: usize,
    /// Part of a chunk could not be cut off: nothing may be appended.
    torn: bool,
    unsynced: bool,
}

/// What waits in a segment of an earlier run.
pub(super) struct Scan {
    pub(super) waiting: Vec<(Location, u32)>,
    /// Log records that cannot be read any more; at least.
    pub(super) damaged: u64,
}

impl Segment {
    /// A new file.
    pub(super) fn new(file: File, number: u64) -> Self {
        Segment {
            file,
            number,
            bytes: 0,
            waiting: 0,
            torn: false,
            unsynced: false,
        }
    }

    /// One of an earlier run. Bodies are checked when they are read.
    pub(super) fn scan(file: File, number: u64) -> io::Result<(Self, Scan)> {
        let bytes = file.metadata()?.len();
        let mut scan = Scan {
            waiting: Vec::new(),
            damaged: 0,
        };
        let mut offset = 0;
        while offset < bytes {
            let Some(found) = record::find(&file, number, offset) else {
                // How many chunks were behind nobody knows.
                scan.damaged += 1;
                break;
            };
            let end = found.location.end();
            if found.waits && end > bytes {
                scan.damaged += u64::from(found.records);
            } else if found.waits {
                scan.waiting.push((found.location, found.records));
            }
            offset = end;
        }
        let segment = Segment {
            file,
            number,
            bytes,
            waiting: scan.waiting.len(),
            // Not gone on with: the end may be torn.
            torn: true,
            unsynced: false,
        };
        Ok((segment, scan))
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Whether a chunk appended now would be found by the next agent.
    pub(super) fn is_usable(&self, segment_bytes: u64) -> bool {
        let is_there = |metadata: std::fs::Metadata| metadata.nlink() > 0;
        !self.torn && self.bytes < segment_bytes && self.file.metadata().is_ok_and(is_there)
    }

    /// Appends a whole chunk or nothing.
    pub(super) fn append(&mut self, encoded: &[u8], body: &[u8]) -> io::Result<Location> {
        // Not `O_APPEND`: Linux would append the marks of `settle` too.
        if let Err(error) = self.file.write_all_at(encoded, self.bytes) {
            self.torn = self.file.set_len(self.bytes).is_err();
            return Err(error);
        }
        let location = record::location(self.number, self.bytes, body);
        self.bytes = self.bytes.saturating_add(encoded.len() as u64);
        self.waiting += 1;
        self.unsynced = true;
        Ok(location)
    }

    pub(super) fn read(&self, location: Location, into: &mut Vec<u8>) -> bool {
        record::read(&self.file, location, into)
    }

    pub(super) fn settle(&mut self, location: Location) -> io::Result<()> {
        self.waiting = self.waiting.saturating_sub(1);
        record::settle(&self.file, location)
    }

    /// Starts over: what was written and never synced costs the disk nothing then.
    pub(super) fn empty(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.bytes = 0;
        self.unsynced = false;
        Ok(())
    }

    pub(super) fn sync(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.unsynced) {
            self.file.sync_data()?;
        }
        Ok(())
    }
}
