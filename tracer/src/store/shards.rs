//! State that is kept as a whole: [`SHARDS`] files in a directory, each replaced by a rename.
//!
//! Owns the files, their checksum, and the thread that writes them. The agent hands bytes over and never
//! waits but at its end. Must not know what is in them: a file that is damaged or of another layout is
//! left out and counted.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde::{Serialize, de::DeserializeOwned};

use super::StoreError;

/// Files that the state is spread over, so that none is large.
pub const SHARDS: usize = 64;

/// Shards that wait for the disk; more are left for their next turn.
const QUEUE: usize = 2;
/// A disk that fails is told of no oftener.
const WARN: Duration = Duration::from_secs(600);
const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);

/// One kind of state.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Below the state directory.
    pub directory: &'static str,
    /// Of the thread, at most 15 bytes.
    pub thread: &'static str,
    /// What it is, in a warning.
    pub what: &'static str,
    /// Largest file that is read, bytes.
    pub largest: u64,
}

/// The shard of what has a name.
pub fn shard_of(name: &[u8]) -> usize {
    CRC.checksum(name) as usize % SHARDS
}

/// Tells one layout from another: the checksum of a sample that uses every field.
pub fn fingerprint<T: Serialize>(sample: &T) -> u32 {
    // What cannot be encoded is never read back.
    postcard::to_stdvec(sample).map_or(0, |bytes| CRC.checksum(&bytes))
}

/// `state` with its layout before and a checksum behind it.
///
/// # Errors
/// What postcard cannot write.
pub fn encode<T: Serialize>(layout: u32, state: &T) -> postcard::Result<Vec<u8>> {
    postcard::to_stdvec_crc32(&(layout, state), CRC.digest())
}

/// What [`encode`] wrote; `None` if it is damaged or of another layout.
pub fn decode<T: DeserializeOwned>(layout: u32, bytes: &[u8]) -> Option<T> {
    // The layout first: what follows can only be read if it is ours.
    let (found, _): (u32, &[u8]) = postcard::take_from_bytes(bytes).ok()?;
    if found != layout {
        return None;
    }
    let (_, state): (u32, T) = postcard::from_bytes_crc32(bytes, CRC.digest()).ok()?;
    Some(state)
}

/// Reads all shards, one at a time; `take` says whether it could make sense of one. Gives how many could
/// not be taken in.
pub fn read(state_dir: &Path, kind: Kind, mut take: impl FnMut(&[u8]) -> bool) -> u64 {
    let directory = state_dir.join(kind.directory);
    let mut damaged = 0;
    for shard in 0..SHARDS {
        match read_file(&directory.join(name(shard)), kind.largest) {
            Ok(bytes) => damaged += u64::from(!take(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                log::debug!("{} shard {shard}: {error}", kind.directory);
                damaged += 1;
            }
        }
    }
    damaged
}

fn name(shard: usize) -> String {
    format!("{shard:02}.bin")
}

fn read_file(path: &Path, largest: u64) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("no regular file"));
    }
    if metadata.len() > largest {
        return Err(io::Error::other("too large"));
    }
    let mut bytes = Vec::new();
    file.take(largest).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whose turn it is: every shard is written once in a while, one after the other.
#[derive(Debug)]
pub struct Turns {
    next: usize,
    every: Duration,
    due: Instant,
}

impl Turns {
    /// All shards in `all_within`.
    pub fn new(now: Instant, all_within: Duration) -> Self {
        let every = all_within / SHARDS as u32;
        Self {
            next: 0,
            every,
            due: now + every,
        }
    }

    /// The next shard that is due by `now`.
    pub fn due(&mut self, now: Instant) -> Option<usize> {
        if now < self.due {
            return None;
        }
        // After a suspend each is written once.
        let behind = self.every * SHARDS as u32;
        self.due = self.due.max(now.checked_sub(behind).unwrap_or(now)) + self.every;
        let shard = self.next;
        self.next = (shard + 1) % SHARDS;
        Some(shard)
    }
}

/// The writing side.
pub struct Shards {
    queue: Option<SyncSender<(usize, Vec<u8>)>>,
    writer: Option<JoinHandle<()>>,
    failed: Arc<AtomicU64>,
}

impl Shards {
    /// Makes the directory and starts the thread.
    ///
    /// # Errors
    /// No thread, or a directory that cannot be made or is none.
    pub fn open(state_dir: &Path, kind: Kind) -> Result<Self, StoreError> {
        let directory = state_dir.join(kind.directory);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(|source| StoreError::io("create", &directory, source))?;
        let file_type = fs::symlink_metadata(&directory)
            .map_err(|source| StoreError::io("look at", &directory, source))?
            .file_type();
        if file_type.is_symlink() {
            return Err(StoreError::SymbolicLink { path: directory });
        }
        remove_leftovers(&directory, ".bin.");
        let (queue, shards) = sync_channel(QUEUE);
        let failed = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&failed);
        let writer = std::thread::Builder::new()
            .name(kind.thread.to_owned())
            .spawn(move || write_all(&directory, kind.what, &shards, &counter))
            .map_err(StoreError::Thread)?;
        Ok(Self {
            queue: Some(queue),
            writer: Some(writer),
            failed,
        })
    }

    /// Hands a shard over, unless the disk is behind: its turn comes again. Never waits.
    pub fn write(&self, shard: usize, encoded: postcard::Result<Vec<u8>>) {
        if let (Some(queue), Some(bytes)) = (&self.queue, self.encoded(encoded)) {
            match queue.try_send((shard, bytes)) {
                Ok(()) | Err(TrySendError::Full(_)) => {}
                Err(TrySendError::Disconnected(_)) => self.count_failure(),
            }
        }
    }

    /// The same, waiting until `deadline`.
    pub fn write_until(&self, deadline: Instant, shard: usize, encoded: postcard::Result<Vec<u8>>) {
        let (Some(queue), Some(bytes)) = (&self.queue, self.encoded(encoded)) else {
            return;
        };
        let mut item = (shard, bytes);
        loop {
            match queue.try_send(item) {
                Ok(()) => return,
                Err(TrySendError::Full(back)) if Instant::now() < deadline => {
                    item = back;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(_) => return self.count_failure(),
            }
        }
    }

    /// Waits until everything is written, at most until `deadline`.
    pub fn close(mut self, deadline: Instant) {
        self.queue = None;
        while let Some(writer) = self.writer.take_if(|writer| !writer.is_finished()) {
            if Instant::now() >= deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
            self.writer = Some(writer);
        }
    }

    /// Shards that were not written.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    fn encoded(&self, encoded: postcard::Result<Vec<u8>>) -> Option<Vec<u8>> {
        encoded
            .inspect_err(|error| {
                log::debug!("state cannot be encoded: {error}");
                self.count_failure();
            })
            .ok()
    }

    fn count_failure(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }
}

fn write_all(
    directory: &Path,
    what: &str,
    shards: &Receiver<(usize, Vec<u8>)>,
    failed: &AtomicU64,
) {
    let mut warned: Option<Instant> = None;
    for (shard, bytes) in shards {
        let path = directory.join(name(shard));
        let Err(source) = replace(&path, &bytes) else {
            continue;
        };
        failed.fetch_add(1, Ordering::Relaxed);
        if warned.is_none_or(|at| at.elapsed() >= WARN) {
            warned = Some(Instant::now());
            let error = StoreError::io("write", &path, source);
            log::warn!("{what} cannot be kept: {error}\n  {}", error.remedy());
        }
    }
}

/// A crash leaves the former file or the new one.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary(path);
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_data()
        })
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // What is left of a failed attempt is of no use to anyone.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Files of agents that were killed while they wrote: the writer's process follows `before_pid` in their names.
pub(super) fn remove_leftovers(directory: &Path, before_pid: &str) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let writer = path
            .file_name()
            .and_then(|name| name.to_str()?.split_once(before_pid))
            .and_then(|(_, pid)| pid.parse::<u32>().ok());
        if writer.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // The next agent tries again.
            let _ = fs::remove_file(&path);
        }
    }
}

/// Two agents may share the directory.
fn temporary(path: &Path) -> PathBuf {
    path.with_extension(format!("bin.{}", std::process::id()))
}

#[cfg(test)]
#[path = "shards_tests.rs"]
mod tests;
