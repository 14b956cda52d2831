//! Which cgroup is read when, and how deep: everything that moves, the rest in turn.
//!
//! Each interval reads the usage of every cgroup (one `pread`). All files are
//! read of those whose usage moved or whose processes were active, and of one
//! in [`TURN`] of the others, so that a limit changed on an idle cgroup is seen too.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    time::SystemTime,
};

use crate::{
    host::{
        cgroup::{CgroupReader, ReadDepth},
        fd_budget::FdBudget,
        hierarchy::CgroupHierarchy,
        process::ProcRoot,
        walk::walk,
    },
    model::{cgroups::Cgroups, snapshot::MemoryReading},
};

/// Intervals in which every cgroup is read in full at least once.
const TURN: u64 = 12;
/// Change of usage that calls for a full reading, bytes.
const MOVED_BYTES: u64 = 64 * 1024;

#[derive(Debug)]
struct Watched {
    reader: CgroupReader,
    /// The last full reading, with the latest usage.
    reading: MemoryReading,
    /// Usage at the last full reading.
    full_at_usage: Option<u64>,
    /// Never read in full.
    fresh: bool,
}

/// The open readers of all live cgroups.
#[derive(Debug)]
pub struct Readings {
    hierarchy: CgroupHierarchy,
    budget: FdBudget,
    watched: HashMap<u64, Watched>,
    buffer: Vec<u8>,
    interval: u64,
    most: usize,
    /// Cgroup readings that failed for another reason than removal.
    pub failed: u64,
}

impl Readings {
    pub fn new(hierarchy: CgroupHierarchy, most: usize) -> Self {
        Self {
            budget: FdBudget::from_limits(&ProcRoot::default()),
            hierarchy,
            watched: HashMap::new(),
            buffer: Vec::with_capacity(8 * 1024),
            interval: 0,
            most,
            failed: 0,
        }
    }

    /// Finds all cgroups; those that are gone are marked removed. Gives how many were left out.
    pub fn rediscover(
        &mut self,
        cgroups: &mut Cgroups,
        since: SystemTime,
        now: std::time::Duration,
    ) -> u64 {
        let Ok(found) = walk(&self.hierarchy, self.most) else {
            self.failed += 1;
            return 0;
        };
        let mut left_out = found.overflow;
        let mut present = HashSet::with_capacity(found.cgroups.len());
        for cgroup in &found.cgroups {
            present.insert(cgroup.id);
            if !self.made(cgroups, cgroup.id, &cgroup.path, since) {
                left_out += 1;
            }
        }
        if found.overflow == 0 && found.unreadable == 0 {
            for id in cgroups.live_ids() {
                if !present.contains(&id) {
                    self.removed(cgroups, id, now);
                }
            }
        }
        left_out
    }

    /// A cgroup exists: opens its reader. One that is already gone is still known to the model.
    /// `false` if there is no room for it.
    pub fn made(&mut self, cgroups: &mut Cgroups, id: u64, path: &Path, since: SystemTime) -> bool {
        if !cgroups.made(id, path, since) {
            return false;
        }
        if self.watched.contains_key(&id) {
            return true;
        }
        match CgroupReader::open(&self.hierarchy, path, &self.budget) {
            // Another cgroup of the same name may have taken its place.
            Ok(reader) if reader.id() == id => {
                self.watched.insert(
                    id,
                    Watched {
                        reader,
                        reading: MemoryReading::default(),
                        full_at_usage: None,
                        fresh: true,
                    },
                );
            }
            Ok(_) => {}
            Err(error) if error.is_gone() => {}
            Err(_) => self.failed += 1,
        }
        true
    }

    /// A cgroup is gone: closes its reader.
    pub fn removed(&mut self, cgroups: &mut Cgroups, id: u64, now: std::time::Duration) {
        self.watched.remove(&id);
        cgroups.removed(id, now);
    }

    /// Reads every cgroup as deep as it deserves; `active` had counts in this interval.
    pub fn read(&mut self, cgroups: &mut Cgroups, active: &HashSet<u64>, now: std::time::Duration) {
        self.interval += 1;
        let mut gone = Vec::new();
        for (&id, watched) in &mut self.watched {
            let due = watched.fresh
                || active.contains(&id)
                || (id.wrapping_add(self.interval)).is_multiple_of(TURN);
            match watched.read(due, &mut self.buffer) {
                Ok(()) => cgroups.read(id, watched.reading),
                Err(error) if error.is_gone() => gone.push(id),
                Err(_) => self.failed += 1,
            }
        }
        for id in gone {
            self.removed(cgroups, id, now);
        }
    }
}

impl Watched {
    fn read(&mut self, due: bool, buffer: &mut Vec<u8>) -> Result<(), crate::host::HostError> {
        if !due {
            let usage = self.reader.read(ReadDepth::Usage, buffer)?.usage_bytes;
            self.reading.usage_bytes = usage;
            let moved = match (usage, self.full_at_usage) {
                (Some(now), Some(before)) => now.abs_diff(before) >= MOVED_BYTES,
                // The root of v2 has no usage: its other files are read in turn.
                _ => false,
            };
            if !moved {
                return Ok(());
            }
        }
        self.reading = self.reader.read(ReadDepth::Full, buffer)?;
        self.full_at_usage = self.reading.usage_bytes;
        self.fresh = false;
        Ok(())
    }
}
