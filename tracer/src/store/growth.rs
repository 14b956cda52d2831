//! What the growth analysis knows, on disk: it goes on after a restart of the agent, and of the host.
//!
//! Owns `<state directory>/growth/`: [`SHARDS`] files, each with the analyses of the cgroups whose path
//! hashes to it, replaced as a whole by a rename. A thread writes; the agent hands bytes over and never
//! waits but at its end. A shard that is damaged or of another layout is left out and counted: the
//! analysis of its cgroups starts over.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::growth::{Growth, Kept, Restored};

/// Files that the analyses are spread over, so that none is large.
pub const SHARDS: usize = 64;

const DIRECTORY: &str = "growth";
/// Largest file that is read: 1,000 analyses, that is 64,000 in all.
const LARGEST: u64 = 16 << 20;
/// Shards that wait for the disk; more are left for their next turn.
const QUEUE: usize = 2;
/// A disk that fails is told of no oftener.
const WARN: Duration = Duration::from_secs(600);
const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);

/// The boot that ids and clock are of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    pub boot_id: String,
    /// Sample clock less boot clock, milliseconds.
    pub offset_ms: i64,
    /// Milliseconds that count as a minute of analysis: what is kept makes sense with no other.
    pub minute_ms: i64,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// Of each file: an agent that crashed soon after a boot has not replaced all of them.
    pub shards: Vec<(Boot, Vec<Restored>)>,
    /// Files that could not be taken in.
    pub damaged: u64,
}

/// Reads all shards. What is not there or not whole is left out.
pub fn read(state_dir: &Path) -> Found {
    let directory = state_dir.join(DIRECTORY);
    let layout = Growth::layout();
    let mut found = Found::default();
    for shard in 0..SHARDS {
        let bytes = match read_file(&directory.join(name(shard))) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                log::debug!("growth shard {shard}: {error}");
                found.damaged += 1;
                continue;
            }
        };
        match decode(&bytes, layout) {
            Some(shard) => found.shards.push(shard),
            None => found.damaged += 1,
        }
    }
    found
}

fn decode(bytes: &[u8], layout: u32) -> Option<(Boot, Vec<Restored>)> {
    // The layout first: what follows can only be read if it is ours.
    let (found, _): (u32, &[u8]) = postcard::take_from_bytes(bytes).ok()?;
    if found != layout {
        return None;
    }
    let (_, boot, analyses): (u32, Boot, Vec<Restored>) =
        postcard::from_bytes_crc32(bytes, CRC.digest()).ok()?;
    Some((boot, analyses))
}

/// The shard of a cgroup.
pub fn shard_of(path: &Path) -> usize {
    CRC.checksum(path.as_os_str().as_bytes()) as usize % SHARDS
}

fn name(shard: usize) -> String {
    format!("{shard:02}.bin")
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("no regular file"));
    }
    if metadata.len() > LARGEST {
        return Err(io::Error::other("too large"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The writing side.
pub struct GrowthStore {
    boot: Boot,
    layout: u32,
    queue: Option<SyncSender<(usize, Vec<u8>)>>,
    writer: Option<JoinHandle<()>>,
    failed: Arc<AtomicU64>,
    damaged: u64,
}

impl GrowthStore {
    /// Makes the directory and starts the thread. `damaged`: what [`read`] could not take in.
    ///
    /// # Errors
    /// No thread, or a directory that cannot be made or is none.
    pub fn open(state_dir: &Path, boot: Boot, damaged: u64) -> Result<Self, StoreError> {
        let directory = state_dir.join(DIRECTORY);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(|source| StoreError::io("create", &directory, source))?;
        let kind = fs::symlink_metadata(&directory)
            .map_err(|source| StoreError::io("look at", &directory, source))?
            .file_type();
        if kind.is_symlink() {
            return Err(StoreError::SymbolicLink { path: directory });
        }
        remove_leftovers(&directory);
        let (queue, shards) = sync_channel(QUEUE);
        let failed = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&failed);
        let writer = std::thread::Builder::new()
            .name("growth-store".to_owned())
            .spawn(move || write_all(&directory, &shards, &counter))
            .map_err(StoreError::Thread)?;
        Ok(Self {
            boot,
            layout: Growth::layout(),
            queue: Some(queue),
            writer: Some(writer),
            failed,
            damaged,
        })
    }

    /// Hands a shard over, unless the disk is behind: its turn comes again. Never waits.
    pub fn write<'a>(&self, shard: usize, kept: impl Iterator<Item = Kept<'a>>) {
        if let (Some(queue), Some(bytes)) = (&self.queue, self.encode(kept)) {
            match queue.try_send((shard, bytes)) {
                Ok(()) | Err(TrySendError::Full(_)) => {}
                Err(TrySendError::Disconnected(_)) => self.count_failure(),
            }
        }
    }

    /// The same, waiting until `deadline`.
    pub fn write_until<'a>(
        &self,
        deadline: Instant,
        shard: usize,
        kept: impl Iterator<Item = Kept<'a>>,
    ) {
        let (Some(queue), Some(bytes)) = (&self.queue, self.encode(kept)) else {
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

    /// What is missing on disk, or was there, by cause.
    pub fn losses(&self) -> [(&'static str, u64); 2] {
        [
            ("growth_store_failed", self.failed.load(Ordering::Relaxed)),
            ("growth_store_damaged", self.damaged),
        ]
    }

    fn encode<'a>(&self, kept: impl Iterator<Item = Kept<'a>>) -> Option<Vec<u8>> {
        let kept: Vec<Kept<'_>> = kept.collect();
        let encoded = postcard::to_stdvec_crc32(&(self.layout, &self.boot, kept), CRC.digest());
        match encoded {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                log::debug!("analyses cannot be encoded: {error}");
                self.count_failure();
                None
            }
        }
    }

    fn count_failure(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }
}

fn write_all(directory: &Path, shards: &Receiver<(usize, Vec<u8>)>, failed: &AtomicU64) {
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
            log::warn!(
                "what the growth analysis knows cannot be kept: {error}\n  {}",
                error.remedy()
            );
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

/// Files of agents that were killed while they wrote.
fn remove_leftovers(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let writer = path
            .file_name()
            .and_then(|name| name.to_str()?.split_once(".bin."))
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
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn boot() -> Boot {
        Boot {
            boot_id: "a".into(),
            offset_ms: 7,
            minute_ms: 60_000,
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn written(state_dir: &Path) {
        let store = GrowthStore::open(state_dir, boot(), 0).unwrap();
        for shard in 0..SHARDS {
            store.write_until(soon(), shard, std::iter::empty());
        }
        assert_eq!(store.losses()[0].1, 0);
        store.close(soon());
    }

    #[test]
    fn what_was_written_is_found_with_the_boot_it_is_of() {
        let directory = tempfile::tempdir().unwrap();
        assert!(read(directory.path()).shards.is_empty());
        written(directory.path());
        let found = read(directory.path());
        assert_eq!((found.shards.len(), found.damaged), (SHARDS, 0));
        assert!(found.shards.iter().all(|(found, _)| *found == boot()));
        let files = fs::read_dir(directory.path().join(DIRECTORY)).unwrap();
        assert_eq!(files.count(), SHARDS, "nothing else is left");
    }

    #[test]
    fn a_damaged_shard_costs_itself_alone_and_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        written(directory.path());
        let path = directory.path().join(DIRECTORY).join(name(3));
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(read(directory.path()).damaged, 1, "cut at {length}");
        }
        for byte in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[byte] ^= 0x10;
            fs::write(&path, flipped).unwrap();
            let found = read(directory.path());
            assert_eq!((found.shards.len(), found.damaged), (SHARDS - 1, 1));
        }
    }

    #[test]
    fn no_symbolic_link_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        symlink(elsewhere.path(), directory.path().join(DIRECTORY)).unwrap();
        let refused = GrowthStore::open(directory.path(), boot(), 0);
        assert!(matches!(
            refused.err(),
            Some(StoreError::SymbolicLink { .. })
        ));
    }

    #[test]
    fn what_a_killed_agent_left_is_removed_and_what_is_too_large_not_read() {
        let directory = tempfile::tempdir().unwrap();
        written(directory.path());
        let growth = directory.path().join(DIRECTORY);
        // No process has a pid that large.
        let left = growth.join("03.bin.4294967294");
        fs::write(&left, "half").unwrap();
        let huge = fs::File::create(growth.join(name(5))).unwrap();
        huge.set_len(LARGEST + 1).unwrap();
        written(directory.path());
        assert!(!left.exists());
        huge.set_len(LARGEST + 1).unwrap();
        fs::File::create(growth.join(name(5)))
            .unwrap()
            .set_len(20 << 30)
            .unwrap();
        assert_eq!(read(directory.path()).damaged, 1);
    }

    #[test]
    fn a_disk_that_refuses_costs_a_counter() {
        let directory = tempfile::tempdir().unwrap();
        let store = GrowthStore::open(directory.path(), boot(), 2).unwrap();
        fs::remove_dir(directory.path().join(DIRECTORY)).unwrap();
        store.write_until(soon(), 0, std::iter::empty());
        let failed = Arc::clone(&store.failed);
        store.close(soon());
        assert_eq!(failed.load(Ordering::Relaxed), 1);
    }
}
