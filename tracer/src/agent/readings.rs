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
        hierarchy::{CgroupHierarchy, CgroupMode},
        process::ProcRoot,
        walk::walk,
    },
    model::{cgroups::Cgroups, snapshot::MemoryReading},
};

/// Intervals in which every cgroup is read in full at least once.
const TURN: u64 = 12;
/// More are looked at than there are places: who gets one does not depend on who is found first.
const WALKED_PER_PLACE: usize = 8;
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

/// What a look at the whole hierarchy found.
#[derive(Debug, Default)]
pub struct Rediscovered {
    /// There is no room for them.
    pub left_out: u64,
    /// Were known, and are not there any more.
    pub gone: Vec<u64>,
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
    /// Files of cgroups that could not be read for another reason than removal.
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

    /// Finds all cgroups.
    pub fn rediscover(&mut self, cgroups: &mut Cgroups, since: SystemTime) -> Rediscovered {
        let mut result = Rediscovered::default();
        let Ok(found) = walk(&self.hierarchy, self.most * WALKED_PER_PLACE) else {
            self.failed += 1;
            return result;
        };
        self.failed += found.unreadable;
        result.left_out = found.overflow;
        let mut present = HashSet::with_capacity(found.cgroups.len());
        for cgroup in &found.cgroups {
            present.insert(cgroup.id);
            if !self.made(cgroups, cgroup.id, &cgroup.path, since) {
                result.left_out += 1;
            }
        }
        if found.overflow == 0 && found.unreadable == 0 {
            let mut live = cgroups.live_ids();
            live.retain(|id| !present.contains(id));
            result.gone = live;
        }
        result
    }

    /// A cgroup exists: opens its reader. One that is already gone is still known to the model.
    /// `false` if there is no room for it.
    pub fn made(&mut self, cgroups: &mut Cgroups, id: u64, path: &Path, since: SystemTime) -> bool {
        if cgroups.found_at(id, path) {
            // It reads by the path.
            self.watched.remove(&id);
        }
        if !cgroups.made(id, path, since) {
            return false;
        }
        for displaced in cgroups.take_displaced() {
            self.watched.remove(&displaced);
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

    /// All files of one cgroup now; `None` if it is gone or not watched.
    pub fn read_now(&mut self, id: u64) -> Option<MemoryReading> {
        let watched = self.watched.get_mut(&id)?;
        watched.reader.read(ReadDepth::Full, &mut self.buffer).ok()
    }

    /// Processes of this very cgroup now, at most `most`; none if it is gone or not watched.
    pub fn pids_now(&mut self, id: u64, most: usize) -> Vec<u32> {
        let Some(watched) = self.watched.get_mut(&id) else {
            return Vec::new();
        };
        match watched.reader.pids(most, &mut self.buffer) {
            Ok(pids) => pids.pids,
            Err(error) => {
                self.failed += u64::from(!error.is_gone());
                Vec::new()
            }
        }
    }

    /// `memory.oom.group` of a cgroup; always `false` on v1, which has none.
    pub fn oom_group(&self, id: u64) -> Option<bool> {
        if !self.hierarchy.is_v2() {
            return Some(false);
        }
        let directory = self.watched.get(&id)?.reader.path();
        let text = std::fs::read_to_string(directory.join("memory.oom.group")).ok()?;
        Some(text.trim() == "1")
    }

    pub fn hierarchy(&self) -> &CgroupHierarchy {
        &self.hierarchy
    }

    /// Of the memory controller's hierarchy.
    pub fn mode(&self) -> CgroupMode {
        self.hierarchy.mode
    }

    /// Whether memory and swap are limited together.
    pub fn swap_counts_memory(&self) -> bool {
        !self.hierarchy.is_v2()
    }

    /// Begins an interval: all cgroups are to be read.
    pub fn begin(&mut self) -> Vec<u64> {
        self.interval += 1;
        self.watched.keys().copied().collect()
    }

    /// Reads some of the cgroups of an interval as deep as they deserve: in full those that were
    /// active in it, and those that `deserves` it by their last reading.
    pub fn read(
        &mut self,
        ids: &[u64],
        cgroups: &mut Cgroups,
        active: &HashSet<u64>,
        deserves: &dyn Fn(&MemoryReading) -> bool,
        done: &mut Done,
    ) {
        for &id in ids {
            let Some(watched) = self.watched.get_mut(&id) else {
                continue;
            };
            let due = watched.fresh
                || active.contains(&id)
                || deserves(&watched.reading)
                || has_turn(id, self.interval);
            let read = watched.read(due, &mut self.buffer);
            self.failed += watched.reader.take_unreadable();
            match read {
                Ok(depth) => {
                    cgroups.read(id, watched.reading);
                    if depth == ReadDepth::Full {
                        cgroups.read_in_full(id, watched.reader.cpu_ns(&mut self.buffer));
                        done.in_full.push(id);
                    }
                }
                Err(error) if error.is_gone() => done.gone.push(id),
                Err(_) => {
                    self.failed += 1;
                    // What it was is no reading of now.
                    watched.reading = MemoryReading::default();
                    cgroups.read(id, watched.reading);
                }
            }
        }
    }
}

/// Inode numbers go in steps, so an id is scattered first: else all have their turn at once.
fn has_turn(id: u64, interval: u64) -> bool {
    const SCATTER: u64 = 0x9e37_79b9_7f4a_7c15;
    (id.wrapping_mul(SCATTER) >> 32)
        .wrapping_add(interval)
        .is_multiple_of(TURN)
}

/// What an interval's readings came to.
#[derive(Debug, Default)]
pub struct Done {
    pub in_full: Vec<u64>,
    /// Found to be removed.
    pub gone: Vec<u64>,
}

impl Watched {
    fn read(
        &mut self,
        due: bool,
        buffer: &mut Vec<u8>,
    ) -> Result<ReadDepth, crate::host::HostError> {
        if !due {
            let usage = self.reader.read(ReadDepth::Usage, buffer)?.usage_bytes;
            self.reading.usage_bytes = usage;
            let moved = match (usage, self.full_at_usage) {
                (Some(now), Some(before)) => now.abs_diff(before) >= MOVED_BYTES,
                // The root of v2 has no usage: its other files are read in turn.
                _ => false,
            };
            if !moved {
                return Ok(ReadDepth::Usage);
            }
        }
        self.reading = self.reader.read(ReadDepth::Full, buffer)?;
        self.full_at_usage = self.reading.usage_bytes;
        self.fresh = false;
        Ok(ReadDepth::Full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_spread_whatever_the_step_of_inode_numbers() {
        for step in [1, 4, 12, 32, 64] {
            let per_interval = (0..TURN).map(|interval| {
                let ids = (0..1200).map(|index| 4096 + index * step);
                ids.filter(|id| has_turn(*id, interval)).count()
            });
            let counts: Vec<usize> = per_interval.collect();
            assert_eq!(counts.iter().sum::<usize>(), 1200);
            let most = counts.iter().max();
            assert!(most < Some(&200), "step {step}: {counts:?}");
        }
    }
}
