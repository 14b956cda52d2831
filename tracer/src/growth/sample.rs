//! One reading of a cgroup as the analysis takes it, and whose limit it runs into.

use crate::{
    analysis::Sample,
    model::{cgroup::Cgroup, cgroups::Cgroups, snapshot::MemoryReading},
};

/// Whose memory ends first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Limited {
    /// A cgroup's limit: `room_bytes` of it are this cgroup's, the rest is held by others below it.
    ByCgroup {
        limit_bytes: u64,
        room_bytes: u64,
        own: bool,
    },
    ByMachine {
        bytes: u64,
    },
    Unknown,
}

impl Limited {
    /// The cgroup has a limit of its own, and it is the smallest.
    pub fn is_own(&self) -> bool {
        matches!(self, Limited::ByCgroup { own: true, .. })
    }

    /// As [`Sample::limit_bytes`] has it. Against the machine's memory nothing is judged: there what
    /// grows is held against its own size.
    fn for_analysis(&self) -> Option<u64> {
        match self {
            Limited::ByCgroup { room_bytes, .. } => Some((*room_bytes).max(1)),
            Limited::ByMachine { .. } => Some(u64::MAX),
            Limited::Unknown => None,
        }
    }
}

/// The limit that a cgroup runs into.
pub fn limited(cgroup: &Cgroup, cgroups: &Cgroups) -> Limited {
    let Some(limit) = &cgroup.effective_limit else {
        return Limited::Unknown;
    };
    let Some(owner) = &limit.cgroup else {
        return Limited::ByMachine { bytes: limit.bytes };
    };
    let limit_bytes = limit.bytes;
    if **owner == *cgroup.display {
        return Limited::ByCgroup {
            limit_bytes,
            room_bytes: limit_bytes,
            own: true,
        };
    }
    let above = cgroups
        .above(cgroup)
        .find(|above| *above.display == **owner);
    let held = above.and_then(|above| unreclaimable(&above.memory));
    let others = held
        .zip(unreclaimable(&cgroup.memory))
        .map_or(0, |(all, own)| all.saturating_sub(own));
    Limited::ByCgroup {
        limit_bytes,
        room_bytes: limit_bytes.saturating_sub(others),
        own: false,
    }
}

/// The reading of a cgroup.
pub fn of(cgroup: &Cgroup, limited: &Limited, time_ms: i64) -> Sample {
    let memory = &cgroup.memory;
    Sample {
        time_ms,
        anon_bytes: memory.anon_bytes,
        file_bytes: memory.file_bytes,
        shmem_bytes: memory.shmem_bytes,
        kernel_bytes: kernel(memory),
        usage_bytes: memory.usage_bytes,
        working_set_bytes: memory.working_set_bytes(),
        limit_bytes: limited.for_analysis(),
        swap_bytes: memory.swap_bytes,
        cpu_ns: cgroup.cpu_ns,
        faults: memory.faults,
        stall_us: memory.pressure.some_ns.map(|ns| ns / 1000),
        reclaimed_pages: cgroup
            .reclaim
            .as_deref()
            .map(|reclaim| reclaim.reclaimed_pages),
        epoch: None,
    }
}

/// Kernel memory that stays. Unknown on v1, which counts caches such as dentries in.
fn kernel(memory: &MemoryReading) -> Option<u64> {
    Some(
        memory
            .kernel_bytes?
            .saturating_sub(memory.slab_reclaimable_bytes?),
    )
}

fn unreclaimable(memory: &MemoryReading) -> Option<u64> {
    let others = kernel(memory)
        .unwrap_or(0)
        .saturating_add(memory.shmem_bytes.unwrap_or(0));
    Some(memory.anon_bytes?.saturating_add(others))
}

/// A series that uses every field, the same each time.
pub fn of_layout(minute: i64) -> Sample {
    let count = minute.unsigned_abs();
    let bytes = (100 + count) << 20;
    Sample {
        time_ms: minute * 60_000,
        anon_bytes: Some(bytes),
        file_bytes: Some(bytes / 2),
        shmem_bytes: Some(bytes / 4),
        kernel_bytes: Some(bytes / 8),
        usage_bytes: Some(bytes * 2),
        working_set_bytes: Some(bytes),
        limit_bytes: Some(300 << 20),
        swap_bytes: Some(count),
        cpu_ns: Some(count * 1_000_000),
        faults: Some(count * 1000),
        stall_us: Some(count),
        reclaimed_pages: Some(count),
        epoch: Some((minute / 60) as u32),
    }
}
