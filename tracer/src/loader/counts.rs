//! Reading the maps: totals per cgroup and process, reclaim, drops.

use std::cell::Cell;

use aya::{
    Ebpf, Pod,
    maps::{HashMap, IterableMap as _, MapData, MapError, PerCpuArray},
};
use memtrace_ebpf::counts::{CgroupCounts, Drop, HeapCounts, ProcessKey, ReclaimCounts};

/// Steps of a walk over the processes for each place in their map: an end to beginning anew.
const STEPS_PER_PLACE: usize = 4;

/// The maps that are polled. Reading never stops the programs.
pub struct Counts {
    cgroups: HashMap<MapData, u64, CgroupCounts>,
    processes: HashMap<MapData, ProcessKey, HeapCounts>,
    reclaim: HashMap<MapData, u64, ReclaimCounts>,
    drops: PerCpuArray<MapData, u64>,
    most_steps: usize,
    failed: Cell<u64>,
}

impl Counts {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, MapError> {
        let processes: HashMap<MapData, ProcessKey, HeapCounts> = take(ebpf, "PROCESSES")?;
        let places = processes.map().info()?.max_entries() as usize;
        Ok(Self {
            cgroups: take(ebpf, "CGROUPS")?,
            processes,
            reclaim: take(ebpf, "RECLAIM")?,
            drops: PerCpuArray::try_from(super::attach::map(ebpf, "DROPS")?)?,
            most_steps: places.saturating_mul(STEPS_PER_PLACE),
            failed: Cell::new(0),
        })
    }

    /// Readings that the kernel refused.
    pub fn failed(&self) -> u64 {
        self.failed.get()
    }

    /// Totals by cgroup id.
    pub fn cgroups(&self) -> impl Iterator<Item = (u64, CgroupCounts)> + '_ {
        self.cgroups.iter().filter_map(|entry| self.read(entry))
    }

    /// Totals of one cgroup.
    pub fn cgroup(&self, id: u64) -> Option<CgroupCounts> {
        self.read(self.cgroups.get(&id, 0))
    }

    /// Reclaim of one cgroup.
    pub fn reclaim_of(&self, id: u64) -> Option<ReclaimCounts> {
        self.read(self.reclaim.get(&id, 0))
    }

    /// Totals of one process in one cgroup.
    pub fn process(&self, key: &ProcessKey) -> Option<HeapCounts> {
        self.read(self.processes.get(key, 0))
    }

    /// Totals by process and cgroup id. Some come again: the programs remove a process that ends, and if the
    /// walk stands on it, the kernel begins anew.
    pub fn processes(&self) -> impl Iterator<Item = (ProcessKey, HeapCounts)> + '_ {
        at_most(self.most_steps, self.processes.iter(), &self.failed)
            .filter_map(|entry| self.read(entry))
    }

    /// Reclaim by cgroup id.
    pub fn reclaim(&self) -> impl Iterator<Item = (u64, ReclaimCounts)> + '_ {
        self.reclaim.iter().filter_map(|entry| self.read(entry))
    }

    /// Makes room: what belonged to a cgroup that is gone.
    pub fn forget_cgroup(&mut self, id: u64) {
        // Absent is what is wanted.
        let _ = self.cgroups.remove(&id);
        let _ = self.reclaim.remove(&id);
    }

    /// Makes room: a process that is gone or has left the cgroup.
    pub fn forget_process(&mut self, key: &ProcessKey) {
        let _ = self.processes.remove(key);
    }

    /// What the programs lost, by cause, over all CPUs; without causes that cannot be read.
    pub fn drops(&self) -> Vec<(&'static str, u64)> {
        Drop::ALL
            .iter()
            .filter_map(|(cause, name)| {
                let cpus = self.read(self.drops.get(&(*cause as u32), 0))?;
                Some((*name, cpus.iter().sum()))
            })
            .collect()
    }

    fn read<T>(&self, entry: Result<T, MapError>) -> Option<T> {
        match entry {
            Ok(entry) => Some(entry),
            Err(MapError::KeyNotFound) => None,
            Err(_) => {
                self.failed.set(self.failed.get() + 1);
                None
            }
        }
    }
}

/// Ends after so many; more of them are a reading that failed.
fn at_most<T>(
    most: usize,
    entries: impl Iterator<Item = T>,
    failed: &Cell<u64>,
) -> impl Iterator<Item = T> {
    let mut steps = 0;
    entries.take_while(move |_| {
        steps += 1;
        let goes_on = steps <= most;
        failed.set(failed.get() + u64::from(!goes_on));
        goes_on
    })
}

fn take<K: Pod, V: Pod>(ebpf: &mut Ebpf, name: &str) -> Result<HashMap<MapData, K, V>, MapError> {
    HashMap::try_from(super::attach::map(ebpf, name)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_that_begins_anew_without_end_is_cut_and_counted_once() {
        let failed = Cell::new(0);
        assert_eq!(at_most(3, 1..=3, &failed).count(), 3);
        assert_eq!(failed.get(), 0);
        assert_eq!(at_most(3, std::iter::repeat(1), &failed).count(), 3);
        assert_eq!(failed.get(), 1);
    }
}
