//! Reading the maps: totals per cgroup and process, reclaim, drops.

use std::cell::Cell;

use aya::{
    Ebpf, Pod,
    maps::{HashMap, MapData, MapError, PerCpuArray},
};
use memtrace_ebpf::counts::{CgroupCounts, Drop, HeapCounts, ProcessKey, ReclaimCounts};

/// The maps that are polled. Reading never stops the programs.
pub struct Counts {
    cgroups: HashMap<MapData, u64, CgroupCounts>,
    processes: HashMap<MapData, ProcessKey, HeapCounts>,
    reclaim: HashMap<MapData, u64, ReclaimCounts>,
    drops: PerCpuArray<MapData, u64>,
    failed: Cell<u64>,
}

impl Counts {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, MapError> {
        Ok(Self {
            cgroups: take(ebpf, "CGROUPS")?,
            processes: take(ebpf, "PROCESSES")?,
            reclaim: take(ebpf, "RECLAIM")?,
            drops: PerCpuArray::try_from(super::attach::map(ebpf, "DROPS")?)?,
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

    /// Totals by process and cgroup id.
    pub fn processes(&self) -> impl Iterator<Item = (ProcessKey, HeapCounts)> + '_ {
        self.processes.iter().filter_map(|entry| self.read(entry))
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

fn take<K: Pod, V: Pod>(ebpf: &mut Ebpf, name: &str) -> Result<HashMap<MapData, K, V>, MapError> {
    HashMap::try_from(super::attach::map(ebpf, name)?)
}
