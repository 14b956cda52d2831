//! The thread that puts incidents on disk, and what the agent holds of it.
//!
//! A disk that is full, read-only or gone costs counters and one warning. The thread tries again:
//! with the next record, and now and then without one.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::incident::Incident;

use super::{
    MOST_LINE_BYTES, StoreError, StoreLimits,
    directory::Directory,
    prune::{is_older, prune},
    queue::Queue,
    segment::Segment,
};

/// Between attempts to open a directory that could not be opened; records between them fail.
const RETRY: Duration = Duration::from_secs(1);
/// Between attempts while no record comes.
const IDLE_RETRY: Duration = Duration::from_secs(30);
/// Between lookings for segments that became too old.
const PRUNE: Duration = Duration::from_secs(3600);
/// Longest time that a burst goes without a sync.
const SYNC: Duration = Duration::from_secs(1);
/// A segment takes incidents of this part of the age limit, so that old ones leave in time.
const AGE_SPAN: u32 = 10;
/// A disk that fails and works in turn is told of no oftener.
const WARN: Duration = Duration::from_secs(60);
/// Kept of the buffer after a long record.
const BUFFER_BYTES: usize = 256 * 1024;

/// What became of the records given to [`Store::write`], since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreCounters {
    /// In a segment.
    pub written: u64,
    /// Refused by the disk. A record that was written but could not be synced counts in both.
    pub failed: u64,
    /// Not tried: the queue was full, or memtrace ended.
    pub dropped: u64,
}

impl StoreCounters {
    /// What is missing on disk, by cause.
    pub fn losses(&self) -> [(&'static str, u64); 2] {
        [
            ("incident_store_failed", self.failed),
            ("incident_store_dropped", self.dropped),
        ]
    }
}

/// A running store. Dropped without [`Store::close`], it writes what waits as long as the process
/// lives.
pub struct Store {
    queue: Arc<Queue>,
}

impl Store {
    /// Starts the thread that writes below `state_dir`. That the directory cannot be used is no
    /// error: records are counted as failed until it can.
    pub fn open(state_dir: &Path, limits: StoreLimits) -> Result<Self, StoreError> {
        let queue = Arc::new(Queue::default());
        let writer = Writer::new(Arc::clone(&queue), state_dir, limits);
        std::thread::Builder::new()
            .name("incident-store".to_owned())
            .spawn(move || {
                let _finish = Finish(Arc::clone(&writer.queue));
                // Gives the lock up before anyone hears of the end.
                writer.run();
            })
            .map_err(StoreError::Thread)?;
        Ok(Self { queue })
    }

    /// Hands a record over. Never waits for the disk.
    pub fn write(&self, incident: Arc<Incident>) {
        self.queue.push(incident);
    }

    pub fn counters(&self) -> StoreCounters {
        self.queue.counters()
    }

    /// Whether every record handed over is in a segment, or counted as lost.
    pub fn is_done(&self) -> bool {
        self.queue.is_done()
    }

    /// Writes and syncs what waits, for a bounded time; the rest is dropped and counted.
    pub fn close(self, deadline: Duration) -> StoreCounters {
        self.queue.close();
        self.queue.wait_finished(deadline)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.queue.close();
    }
}

struct Writer {
    queue: Arc<Queue>,
    state_dir: PathBuf,
    limits: StoreLimits,
    directory: Option<Directory>,
    segment: Option<Segment>,
    /// No segment was opened since the directory was: what an earlier run left may be gone on with.
    fresh: bool,
    /// Not to be opened before.
    retry: Option<Instant>,
    broken: bool,
    warned: Option<Instant>,
    pruned: Instant,
    unsynced: u64,
    synced: Instant,
    buffer: Vec<u8>,
}

/// However the thread ends, nobody waits for it any more.
struct Finish(Arc<Queue>);

impl Drop for Finish {
    fn drop(&mut self) {
        self.0.finished();
    }
}

impl Writer {
    fn new(queue: Arc<Queue>, state_dir: &Path, limits: StoreLimits) -> Self {
        Self {
            queue,
            state_dir: state_dir.to_owned(),
            limits,
            directory: None,
            segment: None,
            fresh: true,
            retry: None,
            broken: false,
            warned: None,
            pruned: Instant::now(),
            unsynced: 0,
            synced: Instant::now(),
            buffer: Vec::new(),
        }
    }

    fn run(mut self) {
        self.look_after();
        loop {
            while let Some(incident) = self.queue.pop() {
                self.store(&incident);
                if self.unsynced > 0 && self.synced.elapsed() >= SYNC {
                    self.sync();
                }
            }
            self.sync();
            let nap = if self.broken { IDLE_RETRY } else { PRUNE };
            if !self.queue.wait(nap) {
                return;
            }
            if self.pruned.elapsed() >= nap {
                self.look_after();
            }
        }
    }

    /// Opens what is not open, and removes what became too old.
    fn look_after(&mut self) {
        self.pruned = Instant::now();
        let result = self.open_directory().and_then(|()| self.prune(0));
        match result {
            Ok(()) => {}
            Err(Some(error)) => self.failed(&error),
            Err(None) => {}
        }
    }

    fn store(&mut self, incident: &Incident) {
        match self.append(incident) {
            Ok(()) => {
                self.unsynced += 1;
                self.queue.count(|counters| counters.written += 1);
                if std::mem::take(&mut self.broken) {
                    log::info!("incidents are stored again in {}", self.state_dir.display());
                }
            }
            Err(error) => {
                self.queue.count(|counters| counters.failed += 1);
                if let Some(error) = error {
                    self.failed(&error);
                }
            }
        }
    }

    /// `Err(None)`: too soon after a failure to try.
    fn append(&mut self, incident: &Incident) -> Result<(), Option<StoreError>> {
        encode(incident, &mut self.buffer)?;
        self.open_directory()?;
        self.open_segment()?;
        let Some(segment) = &mut self.segment else {
            return Err(None);
        };
        segment.append(&self.buffer, incident.time)?;
        if self.buffer.capacity() > BUFFER_BYTES {
            self.buffer = Vec::new();
        }
        Ok(())
    }

    fn open_directory(&mut self) -> Result<(), Option<StoreError>> {
        if self.directory.as_ref().is_some_and(Directory::is_current) {
            return Ok(());
        }
        if self.retry.is_some_and(|retry| Instant::now() < retry) {
            return Err(None);
        }
        self.segment = None;
        self.directory = None;
        self.retry = Some(Instant::now() + RETRY);
        self.directory = Some(Directory::create(&self.state_dir)?);
        self.fresh = true;
        self.retry = None;
        Ok(())
    }

    /// Makes the segment one that takes the record in the buffer.
    fn open_segment(&mut self) -> Result<(), Option<StoreError>> {
        let segment_bytes = self.limits.segment_bytes;
        let span = self.limits.age / AGE_SPAN;
        let now = Timestamp::now();
        let takes = |segment: &Segment, line: &[u8]| {
            segment.is_usable()
                && segment.has_room(line.len(), segment_bytes)
                && !segment
                    .first()
                    .is_some_and(|first| is_older(first, span, now))
        };
        if self
            .segment
            .as_ref()
            .is_some_and(|segment| takes(segment, &self.buffer))
        {
            return Ok(());
        }
        let fresh = std::mem::take(&mut self.fresh);
        self.sync();
        self.segment = None;
        let Some(directory) = &self.directory else {
            return Err(None);
        };
        if fresh
            && let Some(newest) = directory.segments()?.last()
            && let Ok(Some(segment)) = Segment::adopt(directory, *newest)
            && takes(&segment, &self.buffer)
        {
            self.segment = Some(segment);
            return Ok(());
        }
        self.prune(self.limits.segment_bytes.max(self.buffer.len() as u64))?;
        if let Some(directory) = &self.directory {
            self.segment = Some(Segment::create(directory)?);
        }
        Ok(())
    }

    fn prune(&mut self, reserved: u64) -> Result<(), Option<StoreError>> {
        let Some(directory) = &self.directory else {
            return Ok(());
        };
        // The segment in use may be filled.
        let (own, reserved) = match &self.segment {
            Some(segment) => (
                Some(segment.number()),
                reserved.max(self.limits.segment_bytes),
            ),
            None => (None, reserved),
        };
        prune(directory, &self.limits, own, reserved, Timestamp::now())?;
        Ok(())
    }

    /// Once for all that was written since the last time.
    fn sync(&mut self) {
        self.synced = Instant::now();
        let unsynced = std::mem::take(&mut self.unsynced);
        if unsynced == 0 {
            return;
        }
        let result = self.segment.as_ref().map_or(Ok(()), Segment::sync);
        if let Err(error) = result {
            // The kernel forgets what it could not write: nothing goes behind it.
            self.segment = None;
            self.queue.count(|counters| counters.failed += unsynced);
            self.failed(&error);
        }
    }

    fn failed(&mut self, error: &StoreError) {
        let told = self.warned.is_some_and(|warned| warned.elapsed() < WARN);
        if !std::mem::replace(&mut self.broken, true) && !told {
            self.warned = Some(Instant::now());
            log::warn!(
                "incidents are not stored: {error}; {}. The rest goes on",
                error.remedy()
            );
        }
    }
}

/// As one line into `line`. What would be too long loses victims, and says so.
fn encode(incident: &Incident, line: &mut Vec<u8>) -> Result<(), StoreError> {
    let write = |incident: &Incident, line: &mut Vec<u8>| {
        line.clear();
        serde_json::to_writer(&mut *line, incident)?;
        line.push(b'\n');
        Ok::<_, StoreError>(line.len() <= MOST_LINE_BYTES)
    };
    if write(incident, line)? {
        return Ok(());
    }
    let mut shorter = incident.clone();
    while !shorter.victims.is_empty() {
        let kept = shorter.victims.len() / 2;
        shorter.victims_left_out += (shorter.victims.len() - kept) as u64;
        shorter.victims.truncate(kept);
        if write(&shorter, line)? {
            return Ok(());
        }
    }
    Err(StoreError::TooLong {
        id: incident.id.chars().take(80).collect(),
    })
}
