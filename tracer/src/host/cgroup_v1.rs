//! What the files of a cgroup v1 memory controller say, as parts of a `MemoryReading`.
//!
//! Owns names and meaning on v1; pure. Must not open files.
//! Source: Documentation/admin-guide/cgroup-v1/memory.rst and mm/memcontrol-v1.c.
//!
//! `total_*` and the usage counters cover descendants (`use_hierarchy`, always on since 5.11);
//! `memory.failcnt` and `oom_kill` count only for the cgroup itself, so both `events` and
//! `events_local` carry them. memory.stat of v1 has no slab figure on the kernels checked.

use super::fields::{keyed_numbers, number};
use crate::model::snapshot::MemoryReading;

/// Fills in what `memory.stat` holds. `total_rss` is anonymous memory, its huge pages and its swap
/// cache included; `total_cache` contains shared memory.
pub fn read_stat(text: &[u8], into: &mut MemoryReading) {
    let mut refaults = None;
    for (key, value) in keyed_numbers(text) {
        let Some(key) = key.strip_prefix(b"total_") else {
            continue;
        };
        match key {
            b"rss" => into.anon_bytes = Some(value),
            b"cache" => into.file_bytes = Some(value),
            b"inactive_file" => into.inactive_file_bytes = Some(value),
            b"shmem" => into.shmem_bytes = Some(value),
            b"slab" => into.slab_bytes = Some(value),
            b"swap" => into.swap_bytes = Some(value),
            b"pgfault" => into.faults = Some(value),
            b"pgmajfault" => into.major_faults = Some(value),
            // One key before 5.9, split by kind since.
            b"workingset_refault" | b"workingset_refault_anon" | b"workingset_refault_file" => {
                refaults = Some(refaults.unwrap_or(0u64).saturating_add(value));
            }
            _ => {}
        }
    }
    into.refaults = refaults;
}

/// `memory.oom_control`: kills of processes of this cgroup (`oom_kill`, since 4.13), whether tasks
/// wait in an OOM, and whether its OOM killer is switched off.
pub fn read_oom_control(text: &[u8], into: &mut MemoryReading) {
    for (key, value) in keyed_numbers(text) {
        match key {
            b"oom_kill" => {
                into.events.oom_kill = Some(value);
                into.events_local.oom_kill = Some(value);
            }
            b"under_oom" => into.under_oom = Some(value != 0),
            b"oom_kill_disable" => into.oom_kill_disable = Some(value != 0),
            _ => {}
        }
    }
}

/// `memory.failcnt`: how often this cgroup's own limit was hit.
pub fn read_failcnt(text: &[u8], into: &mut MemoryReading) {
    let hits = number(text);
    into.events.max = hits;
    into.events_local.max = hits;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fields::tests::GARBAGE;

    /// From Linux 6.18, shortened.
    const STAT: &[u8] = b"cache 9146368\nrss 6225920\nrss_huge 0\nshmem 8998912\nswap 0\n\
        pgfault 37329\npgmajfault 0\ninactive_file 0\nhierarchical_memory_limit 9223372036854771712\n\
        total_cache 36225024\ntotal_rss 11345920\ntotal_rss_huge 0\ntotal_shmem 8998912\n\
        total_workingset_refault_anon 4\ntotal_workingset_refault_file 224238\ntotal_swap 12288\n\
        total_pgfault 4200629\ntotal_pgmajfault 1412\ntotal_inactive_file 14389248\n";

    #[test]
    fn stat_of_the_whole_subtree() {
        let mut reading = MemoryReading::default();
        read_stat(STAT, &mut reading);
        let expected = MemoryReading {
            anon_bytes: Some(11345920),
            file_bytes: Some(36225024),
            inactive_file_bytes: Some(14389248),
            shmem_bytes: Some(8998912),
            swap_bytes: Some(12288),
            faults: Some(4200629),
            major_faults: Some(1412),
            refaults: Some(224242),
            ..MemoryReading::default()
        };
        assert_eq!(reading, expected);
    }

    #[test]
    fn refaults_of_old_kernels() {
        let mut reading = MemoryReading::default();
        read_stat(b"total_workingset_refault 17\n", &mut reading);
        assert_eq!(reading.refaults, Some(17));
    }

    #[test]
    fn events() {
        let mut reading = MemoryReading::default();
        read_oom_control(
            b"oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
            &mut reading,
        );
        read_failcnt(b"42\n", &mut reading);
        assert_eq!(
            (reading.events.oom_kill, reading.events.max),
            (Some(3), Some(42))
        );
        assert_eq!(reading.events, reading.events_local);
        assert_eq!(reading.events.oom, None);
    }

    #[test]
    fn oom_control_of_a_cgroup_that_waits() {
        let mut reading = MemoryReading::default();
        read_oom_control(b"oom_kill_disable 1\nunder_oom 1\n", &mut reading);
        assert_eq!(
            (reading.oom_kill_disable, reading.under_oom),
            (Some(true), Some(true))
        );
        assert_eq!(reading.events.oom_kill, None);
        read_oom_control(b"oom_kill_disable 0\nunder_oom 0\n", &mut reading);
        assert_eq!(
            (reading.oom_kill_disable, reading.under_oom),
            (Some(false), Some(false))
        );
    }

    #[test]
    fn garbage_yields_nothing() {
        for text in GARBAGE {
            let mut reading = MemoryReading::default();
            read_stat(text, &mut reading);
            read_oom_control(text, &mut reading);
            read_failcnt(text, &mut reading);
            assert_eq!(reading, MemoryReading::default(), "{text:?}");
        }
    }
}
