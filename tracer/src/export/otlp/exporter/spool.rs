//! Events on their way to the backend, encoded; oldest first.
//!
//! Owns the bounds on what waits: on disk if there is a state directory, so that it outlives an
//! agent that is killed, else and where the disk refuses in memory. What is under way to the
//! backend is never dropped for newer events. Must not connect, nor decide when to send.

mod disk;
mod record;
mod segment;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::events::EventCounters;
use crate::store::StoreError;
use disk::Disk;

/// What may wait.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Chunks in memory; the memory they may hold.
    pub memory_chunks: usize,
    pub memory_bytes: usize,
    /// Chunks on disk; an entry in memory knows where each is.
    pub disk_chunks: usize,
    /// Of all segments together.
    pub disk_bytes: u64,
    /// A segment that is longer gets no more.
    pub segment_bytes: u64,
}

pub const LIMITS: Limits = Limits {
    memory_chunks: 1024,
    memory_bytes: 16 << 20,
    disk_chunks: 65_536,
    disk_bytes: 64 << 20,
    segment_bytes: 4 << 20,
};

/// Taken at once, unless one chunk alone is larger.
const BATCH_BYTES: usize = 1 << 20;
/// Between attempts at a directory that cannot be used.
const RETRY: Duration = Duration::from_secs(5);
/// A disk that fails and works in turn is told of no oftener.
const WARN: Duration = Duration::from_secs(600);

/// Where a chunk is.
enum Place {
    Memory(Bytes),
    Disk(record::Location),
}

/// An encoded `ExportLogsServiceRequest` with that many log records.
struct Chunk {
    records: u32,
    place: Place,
}

pub struct Spool {
    limits: Limits,
    chunks: VecDeque<Chunk>,
    /// The first of them, which are being sent.
    under_way: usize,
    in_memory: usize,
    bytes_in_memory: usize,
    /// Log records in all chunks.
    records: u64,
    /// `None`: there is no state directory.
    state_dir: Option<PathBuf>,
    /// `None`: it is not to be had, for now.
    disk: Option<Disk>,
    /// Not to be opened before.
    retry: Option<Instant>,
    warned: Option<Instant>,
    counters: Arc<EventCounters>,
}

/// What is to be sent in one request.
pub struct Batch {
    /// Encoded requests, one behind the other: protobuf merges them.
    pub body: Vec<u8>,
    pub records: u64,
}

impl Spool {
    pub fn new(state_dir: Option<PathBuf>, limits: Limits, counters: Arc<EventCounters>) -> Self {
        Spool {
            limits,
            chunks: VecDeque::new(),
            under_way: 0,
            in_memory: 0,
            bytes_in_memory: 0,
            records: 0,
            state_dir,
            disk: None,
            retry: None,
            warned: None,
            counters,
        }
    }

    /// Opens the disk if it is not open and takes in what an earlier agent left there.
    pub fn open(&mut self) {
        let Some(state_dir) = &self.state_dir else {
            return;
        };
        if self.disk.is_some() || self.retry.is_some_and(|retry| Instant::now() < retry) {
            return;
        }
        let (disk, left) = match Disk::open(state_dir, self.limits.segment_bytes) {
            Ok(opened) => opened,
            Err(error) => return self.fails(&error),
        };
        self.retry = None;
        self.disk = Some(disk);
        self.count_damaged(left.damaged);
        if !left.waiting.is_empty() {
            let records: u64 = left
                .waiting
                .iter()
                .map(|(_, records)| u64::from(*records))
                .sum();
            log::info!("{records} OTLP events of an earlier run wait to be sent");
        }
        // Older than all that came since, but for what is under way.
        for (at, (location, records)) in left.waiting.into_iter().enumerate() {
            let place = Place::Disk(location);
            self.insert(self.under_way + at, Chunk { records, place });
        }
        self.trim();
    }

    /// Adds a chunk behind all others. What has no room goes, oldest first, and is counted.
    pub fn add(&mut self, body: Vec<u8>, records: u32) {
        self.open();
        let place = match self.disk.as_mut().map(|disk| disk.append(&body, records)) {
            Some(Ok(location)) => Place::Disk(location),
            failed => {
                if let Some(Err(error)) = failed {
                    self.fails(&error);
                }
                self.in_memory += 1;
                self.bytes_in_memory += body.len();
                Place::Memory(Bytes::from(body))
            }
        };
        self.insert(self.chunks.len(), Chunk { records, place });
        self.trim();
    }

    /// The oldest chunks, read back. They are under way until `settle` or `release`.
    pub fn take(&mut self) -> Option<Batch> {
        self.open();
        self.under_way = 0;
        let mut batch = Batch {
            body: Vec::new(),
            records: 0,
        };
        while let Some(chunk) = self.chunks.get(self.under_way) {
            let length = match &chunk.place {
                Place::Memory(body) => body.len(),
                Place::Disk(location) => location.body_bytes(),
            };
            if batch.records > 0 && batch.body.len() + length > BATCH_BYTES {
                break;
            }
            let read = match (&chunk.place, &self.disk) {
                (Place::Memory(body), _) => {
                    batch.body.extend_from_slice(body);
                    true
                }
                (Place::Disk(location), Some(disk)) => disk.read(*location, &mut batch.body),
                (Place::Disk(_), None) => false,
            };
            if read {
                batch.records += u64::from(chunk.records);
                self.under_way += 1;
            } else {
                let records = u64::from(chunk.records);
                self.forget(self.under_way);
                self.count_damaged(records);
            }
        }
        (batch.records > 0).then_some(batch)
    }

    /// What is under way is done with, taken by the backend or given up.
    pub fn settle(&mut self) {
        for _ in 0..std::mem::take(&mut self.under_way) {
            self.forget(0);
        }
    }

    /// What is under way is to be sent again.
    pub fn release(&mut self) {
        self.under_way = 0;
        self.trim();
    }

    /// Makes what waits survive a crash of the machine.
    pub fn sync(&mut self) {
        if let Some(Err(error)) = self.disk.as_mut().map(Disk::sync) {
            self.fails(&error);
        }
    }

    /// Records that wait in memory, and on disk.
    pub fn waiting(&self) -> (u64, u64) {
        let mut waiting = (0, 0);
        for chunk in &self.chunks {
            let records = u64::from(chunk.records);
            match chunk.place {
                Place::Memory(_) => waiting.0 += records,
                Place::Disk(_) => waiting.1 += records,
            }
        }
        waiting
    }

    fn trim(&mut self) {
        let limits = self.limits;
        while self.in_memory > limits.memory_chunks || self.bytes_in_memory > limits.memory_bytes {
            let is_old = |chunk: &Chunk| matches!(chunk.place, Place::Memory(_));
            let Some(oldest) = self.chunks.iter().skip(self.under_way).position(is_old) else {
                break;
            };
            self.drop_chunk(self.under_way + oldest);
        }
        while let Some(segment) = self.segment_to_drop() {
            // Whole segments: only they give space back.
            let mut at = self.under_way;
            while let Some(chunk) = self.chunks.get(at) {
                if matches!(&chunk.place, Place::Disk(location) if location.segment == segment) {
                    self.drop_chunk(at);
                } else {
                    at += 1;
                }
            }
        }
    }

    /// The oldest one with chunks that may be dropped, if there is too much on disk.
    fn segment_to_drop(&self) -> Option<u64> {
        let disk = self.disk.as_ref()?;
        let on_disk = self.chunks.len() - self.in_memory;
        if disk.bytes() <= self.limits.disk_bytes && on_disk <= self.limits.disk_chunks {
            return None;
        }
        let droppable = self.chunks.iter().skip(self.under_way);
        droppable
            .filter_map(|chunk| match chunk.place {
                Place::Disk(location) => Some(location.segment),
                Place::Memory(_) => None,
            })
            .next()
    }

    fn drop_chunk(&mut self, at: usize) {
        let records = self.chunks.get(at).map_or(0, |chunk| chunk.records);
        self.counters
            .dropped
            .fetch_add(u64::from(records), Ordering::Relaxed);
        self.forget(at);
    }

    fn insert(&mut self, at: usize, chunk: Chunk) {
        self.records += u64::from(chunk.records);
        self.counters.waiting.store(self.records, Ordering::Relaxed);
        self.chunks.insert(at, chunk);
    }

    fn forget(&mut self, at: usize) {
        let Some(chunk) = self.chunks.remove(at) else {
            return;
        };
        self.records -= u64::from(chunk.records);
        self.counters.waiting.store(self.records, Ordering::Relaxed);
        match chunk.place {
            Place::Memory(body) => {
                self.in_memory -= 1;
                self.bytes_in_memory -= body.len();
            }
            Place::Disk(location) => {
                let settled = self.disk.as_mut().map(|disk| disk.settle(location));
                if let Some(Err(error)) = settled {
                    self.fails(&error);
                }
            }
        }
    }

    fn count_damaged(&self, records: u64) {
        self.counters.damaged.fetch_add(records, Ordering::Relaxed);
    }

    fn fails(&mut self, error: &StoreError) {
        self.retry = Some(Instant::now() + RETRY);
        if self.warned.is_none_or(|warned| warned.elapsed() >= WARN) {
            self.warned = Some(Instant::now());
            log::warn!(
                "OTLP events that wait for the backend are kept in memory only: {error}; {}",
                error.remedy()
            );
        }
    }
}
