//! Reading the maps: totals per cgroup and process, reclaim, drops.

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
}

impl Counts {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, MapError> {
        Ok(Self {
            cgroups: take(ebpf, "CGROUPS")?,
            processes: take(ebpf, "PROCESSES")?,
            reclaim: take(ebpf, "RECLAIM")?,
            drops: PerCpuArray::try_from(super::attach::map(ebpf, "DROPS")?)?,
        })
    }

    /// Totals by cgroup id.
    pub fn cgroups(&self) -> impl Iterator<Item = (u64, CgroupCounts)> + '_ {
        self.cgroups.iter().filter_map(Result::ok)
    }

    /// Totals of one cgroup.
    pub fn cgroup(&self, id: u64) -> Option<CgroupCounts> {
        self.cgroups.get(&id, 0).ok()
    }

    /// Reclaim of one cgroup.
    pub fn reclaim_of(&self, id: u64) -> Option<ReclaimCounts> {
        self.reclaim.get(&id, 0).ok()
    }

    /// Totals of one process in one cgroup.
    pub fn process(&self, key: &ProcessKey) -> Option<HeapCounts> {
        self.processes.get(key, 0).ok()
    }

    /// Totals by process and cgroup id.
    pub fn processes(&self) -> impl Iterator<Item = (ProcessKey, HeapCounts)> + '_ {
        self.processes.iter().filter_map(Result::ok)
    }

    /// Reclaim by cgroup id.
    pub fn reclaim(&self) -> impl Iterator<Item = (u64, ReclaimCounts)> + '_ {
        self.reclaim.iter().filter_map(Result::ok)
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

    /// What the programs lost, by cause, over all CPUs.
    pub fn drops(&self) -> Vec<(&'static str, u64)> {
        Drop::ALL
            .iter()
            .map(|(cause, name)| {
                let total = self
                    .drops
                    .get(&(*cause as u32), 0)
                    .map(|cpus| cpus.iter().sum())
                    .unwrap_or(0);
                (*name, total)
            })
            .collect()
    }
}

fn take<K: Pod, V: Pod>(ebpf: &mut Ebpf, name: &str) -> Result<HashMap<MapData, K, V>, MapError> {
    HashMap::try_from(super::attach::map(ebpf, name)?)
}
