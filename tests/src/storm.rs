//! Many OOM kills at once, in many cgroups, on a busy machine.

use std::collections::BTreeMap;
use std::thread;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::cgroup::Cgroup;
use crate::kernel_log::REPORT_INTERVAL;
use crate::machine::MIB;
use crate::workload::Workload;

const LIMIT: u64 = 4 * MIB;

/// Cgroups in each of which one process after the other runs into the limit.
#[derive(Debug)]
pub struct Storm {
    sources: Vec<Workload>,
    load: Vec<Workload>,
    cgroups: Vec<Cgroup>,
    // The last to be dropped: it holds the processes above.
    _parents: Cgroup,
}

impl Storm {
    /// Prepares `count` cgroups with `kills` in each, and a busy loop for each CPU.
    pub fn prepare(count: usize, kills: u64) -> Result<Self> {
        let parents = Cgroup::new("storm-parents")?;
        let cpus = thread::available_parallelism()?.get();
        let load = (0..cpus).map(|_| Workload::start(&parents, &["spin"]));
        let load = load.collect::<Result<Vec<_>>>()?;
        let mut cgroups = Vec::new();
        let mut sources = Vec::new();
        for _ in 0..count {
            let cgroup = Cgroup::new("storm")?;
            cgroup.limit(LIMIT)?;
            let directory = cgroup.directory().to_str().context("no text")?.to_owned();
            let (kills, bytes) = (kills.to_string(), (8 * LIMIT).to_string());
            let arguments = [
                "one-after-the-other",
                "--in",
                &directory,
                "--kills",
                &kills,
                "--bytes",
                &bytes,
            ];
            sources.push(Workload::start(&parents, &arguments)?);
            cgroups.push(cgroup);
        }
        Ok(Self {
            sources,
            load,
            cgroups,
            _parents: parents,
        })
    }

    pub fn begin(&mut self) -> Result<()> {
        self.sources.iter_mut().try_for_each(Workload::resume)
    }

    /// Waits for all kills; gives the cgroup of each process that was killed.
    pub fn victims(&mut self) -> Result<BTreeMap<u32, String>> {
        let mut victims = BTreeMap::new();
        for (source, cgroup) in self.sources.iter_mut().zip(&self.cgroups) {
            let report = source.report()?;
            let pids = report["pids"].as_array().context("no pids")?;
            for pid in pids.iter().filter_map(Value::as_u64) {
                victims.insert(u32::try_from(pid)?, cgroup.path());
            }
        }
        Ok(victims)
    }

    /// How many kills the kernel counted in each cgroup.
    pub fn counted(&self) -> Result<BTreeMap<String, u64>> {
        self.cgroups
            .iter()
            .map(|cgroup| Ok((cgroup.path(), cgroup.oom_kills()?)))
            .collect()
    }

    /// Ends the load, and waits until the kernel reports whole OOMs again.
    pub fn end(mut self) -> Result<()> {
        for workload in self.load.drain(..).chain(self.sources.drain(..)) {
            workload.success()?;
        }
        thread::sleep(REPORT_INTERVAL);
        Ok(())
    }
}
