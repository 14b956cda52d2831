//! The history of each cgroup, on disk: it goes on after a restart of the agent, and of the host.
//!
//! Owns what is in `<state directory>/timelines/`: [`SHARDS`] files, each with the histories of the
//! cgroups whose path hashes to it. What is in a file that is damaged is lost, and counted.
//!
//! [`SHARDS`]: super::shards::SHARDS

use std::{path::Path, time::Instant};

use serde::{Deserialize, Serialize};

use super::{
    StoreError,
    shards::{self, Kind, Shards},
};
use crate::timeline::{Kept, Shared, Timelines};

const KIND: Kind = Kind {
    directory: "timelines",
    thread: "timeline-store",
    what: "the history of cgroups",
    // Some 1,500 histories, that is 100,000 in all.
    largest: 8 << 20,
};

/// The boot that ids and clock are of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    pub boot_id: String,
    /// Sample clock less boot clock, milliseconds.
    pub offset_ms: i64,
}

/// Reads all shards, one at a time: none is held longer than `take` does. Gives how many files could not
/// be taken in.
pub fn read(state_dir: &Path, mut take: impl FnMut(Boot, Shared, Vec<Kept>)) -> u64 {
    let layout = shards::fingerprint(&Timelines::layout());
    shards::read(state_dir, KIND, |bytes| {
        match shards::decode(layout, bytes) {
            Some((boot, shared, kept)) => {
                take(boot, shared, kept);
                true
            }
            None => false,
        }
    })
}

/// The shard of a cgroup.
pub fn shard_of(cgroup: &str) -> usize {
    shards::shard_of(cgroup.as_bytes())
}

/// The writing side.
pub struct TimelineStore {
    boot: Boot,
    layout: u32,
    shards: Shards,
    damaged: u64,
}

impl TimelineStore {
    /// Makes the directory and starts the thread. `damaged`: what [`read`] could not take in.
    ///
    /// # Errors
    /// No thread, or a directory that cannot be made or is none.
    pub fn open(state_dir: &Path, boot: Boot, damaged: u64) -> Result<Self, StoreError> {
        Ok(Self {
            boot,
            layout: shards::fingerprint(&Timelines::layout()),
            shards: Shards::open(state_dir, KIND)?,
            damaged,
        })
    }

    /// Hands a shard over, unless the disk is behind: its turn comes again. Never waits.
    pub fn write(&self, shard: usize, shared: &Shared, kept: impl Iterator<Item = Kept>) {
        self.shards.write(shard, self.encode(shared, kept));
    }

    /// The same, waiting until `deadline`.
    pub fn write_until(
        &self,
        deadline: Instant,
        shard: usize,
        shared: &Shared,
        kept: impl Iterator<Item = Kept>,
    ) {
        let encoded = self.encode(shared, kept);
        self.shards.write_until(deadline, shard, encoded);
    }

    /// Waits until everything is written, at most until `deadline`.
    pub fn close(self, deadline: Instant) {
        self.shards.close(deadline);
    }

    /// What is missing on disk, or was there, by cause.
    pub fn losses(&self) -> [(&'static str, u64); 2] {
        [
            ("timeline_store_failed", self.shards.failed()),
            ("timeline_store_damaged", self.damaged),
        ]
    }

    fn encode(
        &self,
        shared: &Shared,
        kept: impl Iterator<Item = Kept>,
    ) -> postcard::Result<Vec<u8>> {
        let kept: Vec<Kept> = kept.collect();
        shards::encode(self.layout, &(&self.boot, shared, kept))
    }
}

#[cfg(test)]
#[path = "timelines_tests.rs"]
mod tests;
