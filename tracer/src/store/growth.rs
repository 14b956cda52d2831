//! What the growth analysis knows, on disk: it goes on after a restart of the agent, and of the host.
//!
//! Owns what is in `<state directory>/growth/`: [`SHARDS`] files, each with the analyses of the cgroups
//! whose path hashes to it. The analysis of cgroups in a file that is damaged starts over.
//!
//! [`SHARDS`]: super::shards::SHARDS

use std::{os::unix::ffi::OsStrExt as _, path::Path, time::Instant};

use serde::{Deserialize, Serialize};

use super::{
    StoreError,
    shards::{self, Kind, Shards},
};
use crate::growth::{Growth, Kept, Restored};

const KIND: Kind = Kind {
    directory: "growth",
    thread: "growth-store",
    what: "what the growth analysis knows",
    // 1,000 analyses, that is 64,000 in all.
    largest: 16 << 20,
};

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
    let layout = Growth::layout();
    let mut found = Found::default();
    found.damaged = shards::read(state_dir, KIND, |bytes| {
        let shard = shards::decode(layout, bytes);
        let is_whole = shard.is_some();
        found.shards.extend(shard);
        is_whole
    });
    found
}

/// The shard of a cgroup.
pub fn shard_of(path: &Path) -> usize {
    shards::shard_of(path.as_os_str().as_bytes())
}

/// The writing side.
pub struct GrowthStore {
    boot: Boot,
    layout: u32,
    shards: Shards,
    damaged: u64,
}

impl GrowthStore {
    /// Makes the directory and starts the thread. `damaged`: what [`read`] could not take in.
    ///
    /// # Errors
    /// No thread, or a directory that cannot be made or is none.
    pub fn open(state_dir: &Path, boot: Boot, damaged: u64) -> Result<Self, StoreError> {
        Ok(Self {
            boot,
            layout: Growth::layout(),
            shards: Shards::open(state_dir, KIND)?,
            damaged,
        })
    }

    /// Hands a shard over, unless the disk is behind: its turn comes again. Never waits.
    pub fn write<'a>(&self, shard: usize, kept: impl Iterator<Item = Kept<'a>>) {
        self.shards.write(shard, self.encode(kept));
    }

    /// The same, waiting until `deadline`.
    pub fn write_until<'a>(
        &self,
        deadline: Instant,
        shard: usize,
        kept: impl Iterator<Item = Kept<'a>>,
    ) {
        self.shards.write_until(deadline, shard, self.encode(kept));
    }

    /// Waits until everything is written, at most until `deadline`.
    pub fn close(self, deadline: Instant) {
        self.shards.close(deadline);
    }

    /// What is missing on disk, or was there, by cause.
    pub fn losses(&self) -> [(&'static str, u64); 2] {
        [
            ("growth_store_failed", self.shards.failed()),
            ("growth_store_damaged", self.damaged),
        ]
    }

    fn encode<'a>(&self, kept: impl Iterator<Item = Kept<'a>>) -> postcard::Result<Vec<u8>> {
        let kept: Vec<Kept<'_>> = kept.collect();
        shards::encode(self.layout, &(&self.boot, kept))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::shards::SHARDS;

    #[test]
    fn what_was_written_is_found_with_the_boot_it_is_of() {
        let boot = Boot {
            boot_id: "a".into(),
            offset_ms: 7,
            minute_ms: 60_000,
        };
        let directory = tempfile::tempdir().unwrap();
        assert!(read(directory.path()).shards.is_empty());
        let soon = Instant::now() + Duration::from_secs(10);
        let store = GrowthStore::open(directory.path(), boot.clone(), 0).unwrap();
        for shard in 0..SHARDS {
            store.write_until(soon, shard, std::iter::empty());
        }
        assert_eq!(store.losses()[0].1, 0);
        store.close(soon);
        let found = read(directory.path());
        assert_eq!((found.shards.len(), found.damaged), (SHARDS, 0));
        assert!(found.shards.iter().all(|(found, _)| *found == boot));
    }
}
