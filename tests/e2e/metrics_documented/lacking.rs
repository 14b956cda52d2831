//! What this kernel and this machine have no figures of, found out without memtrace.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use memtrace_tests::cgroup::{Cgroup, Version};

/// Metrics that cannot come, each with the reason.
pub type Lacking = Vec<(&'static str, String)>;

/// Metrics that need a file or a field which the kernel does not have for a cgroup.
pub fn in_cgroup(cgroup: &Cgroup) -> Result<Lacking> {
    let stat = fs::read_to_string(cgroup.directory().join("memory.stat"))?;
    let field = |metric, name: &str| {
        let mut names = stat.lines().filter_map(|line| line.split(' ').next());
        let has = names.any(|known| known == name);
        (!has).then(|| (metric, format!("memory.stat has no {name}")))
    };
    let file = |metric, name: &str| {
        let has = cgroup.directory().join(name).exists();
        (!has).then(|| (metric, format!("there is no {name}")))
    };
    let lacking = [
        field("memtrace.memory.slab", "slab"),
        file("memtrace.pressure.memory.time", "memory.pressure"),
    ];
    let by_version = match cgroup.version() {
        Version::V1 => [
            field("memtrace.memory.shmem", "total_shmem"),
            field("memtrace.swap.usage", "total_swap"),
            file("memtrace.memory.kernel", "memory.kmem.usage_in_bytes"),
            file("memtrace.memory.sock", "memory.kmem.tcp.usage_in_bytes"),
        ],
        Version::V2 => [
            field("memtrace.memory.shmem", "shmem"),
            file("memtrace.swap.usage", "memory.swap.current"),
            field("memtrace.memory.sock", "sock"),
            None,
        ],
    };
    Ok(lacking.into_iter().chain(by_version).flatten().collect())
}

/// The same of the host and of memtrace itself.
pub fn in_machine(stats: &Result<BpfStats>) -> Lacking {
    let mut lacks = Vec::new();
    if let Err(error) = stats {
        for metric in ["memtrace.probe.run.time", "memtrace.probe.run.count"] {
            lacks.push((metric, format!("{error:#}")));
        }
    }
    let pressure = Path::new("/proc/pressure/memory");
    if fs::read(pressure).is_err() {
        let reason = format!("there is no {}", pressure.display());
        lacks.push(("memtrace.pressure.memory.time", reason));
    }
    lacks
}

/// The kernel counts what probes cost; as before when dropped.
pub struct BpfStats(String);

impl BpfStats {
    const SETTING: &str = "/proc/sys/kernel/bpf_stats_enabled";

    pub fn on() -> Result<Self> {
        let before = fs::read_to_string(Self::SETTING).context(Self::SETTING)?;
        fs::write(Self::SETTING, "1").with_context(|| format!("cannot set {}", Self::SETTING))?;
        Ok(Self(before))
    }
}

impl Drop for BpfStats {
    fn drop(&mut self) {
        let _ = fs::write(Self::SETTING, &self.0);
    }
}
