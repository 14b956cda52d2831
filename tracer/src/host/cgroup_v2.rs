//! What the files of a cgroup v2 memory controller say, as parts of a `MemoryReading`.
//!
//! Owns names and meaning on v2; pure. Must not open files.
//! Source: Documentation/admin-guide/cgroup-v2.rst, "Memory Interface Files".

use super::fields::keyed_numbers;
use crate::model::snapshot::{MemoryEvents, MemoryReading};

/// Fills in what `memory.stat` holds. `kernel` exists since 5.18; before, it is the sum of the
/// parts that the kernel at hand lists.
pub fn read_stat(text: &[u8], into: &mut MemoryReading) {
    let mut kernel = None;
    let mut kernel_parts = None;
    let mut refaults = None;
    let add = |sum: &mut Option<u64>, value| *sum = Some(sum.unwrap_or(0).saturating_add(value));
    for (key, value) in keyed_numbers(text) {
        match key {
            b"anon" => into.anon_bytes = Some(value),
            b"file" => into.file_bytes = Some(value),
            b"inactive_file" => into.inactive_file_bytes = Some(value),
            b"shmem" => into.shmem_bytes = Some(value),
            b"sock" => into.sock_bytes = Some(value),
            b"pgfault" => into.faults = Some(value),
            b"pgmajfault" => into.major_faults = Some(value),
            b"kernel" => kernel = Some(value),
            b"slab_reclaimable" => into.slab_reclaimable_bytes = Some(value),
            b"slab" => {
                into.slab_bytes = Some(value);
                add(&mut kernel_parts, value);
            }
            b"kernel_stack" | b"pagetables" | b"sec_pagetables" | b"percpu" | b"vmalloc" => {
                add(&mut kernel_parts, value);
            }
            // One key before 5.9, split by kind since.
            b"workingset_refault" | b"workingset_refault_anon" | b"workingset_refault_file" => {
                add(&mut refaults, value);
            }
            _ => {}
        }
    }
    into.kernel_bytes = kernel.or(kernel_parts);
    into.refaults = refaults;
}

/// `memory.events` or `memory.events.local`; keys the kernel does not have stay `None`.
pub fn events(text: &[u8]) -> MemoryEvents {
    let mut events = MemoryEvents::default();
    for (key, value) in keyed_numbers(text) {
        match key {
            b"low" => events.low = Some(value),
            b"high" => events.high = Some(value),
            b"max" => events.max = Some(value),
            b"oom" => events.oom = Some(value),
            b"oom_kill" => events.oom_kill = Some(value),
            b"oom_group_kill" => events.oom_group_kill = Some(value),
            _ => {}
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fields::tests::GARBAGE;

    const STAT_6_1: &[u8] = b"anon 1654784\nfile 4014080\nkernel 921600\nkernel_stack 65536\n\
        pagetables 106496\nsec_pagetables 0\npercpu 1440\nsock 4096\nvmalloc 8192\nshmem 12288\n\
        file_mapped 2027520\ninactive_anon 1642496\ninactive_file 3571712\nactive_file 430080\n\
        slab_reclaimable 393216\nslab_unreclaimable 287248\nslab 680464\n\
        workingset_refault_anon 5\nworkingset_refault_file 12\npgscan 9\npgfault 8871\npgmajfault 34\n";

    /// No `kernel`, `vmalloc`, `pagetables`.
    const STAT_5_10: &[u8] = b"anon 1081344\nfile 270336\nkernel_stack 49152\npercpu 100\nsock 0\n\
        shmem 0\ninactive_file 135168\nslab 577536\nworkingset_refault_anon 0\n\
        workingset_refault_file 3\npgfault 1023\npgmajfault 0\n";

    #[test]
    fn stat_of_a_current_kernel() {
        let mut reading = MemoryReading::default();
        read_stat(STAT_6_1, &mut reading);
        let expected = MemoryReading {
            anon_bytes: Some(1654784),
            file_bytes: Some(4014080),
            inactive_file_bytes: Some(3571712),
            shmem_bytes: Some(12288),
            kernel_bytes: Some(921600),
            slab_bytes: Some(680464),
            slab_reclaimable_bytes: Some(393216),
            sock_bytes: Some(4096),
            faults: Some(8871),
            major_faults: Some(34),
            refaults: Some(17),
            ..MemoryReading::default()
        };
        assert_eq!(reading, expected);
    }

    #[test]
    fn kernel_memory_of_an_old_kernel_is_the_sum_of_its_parts() {
        let mut reading = MemoryReading::default();
        read_stat(STAT_5_10, &mut reading);
        assert_eq!(reading.kernel_bytes, Some(49152 + 100 + 577536));
        assert_eq!(reading.refaults, Some(3));
    }

    #[test]
    fn events_of_both_ages() {
        let all = b"low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\nsock_throttled 7\n";
        let expected = MemoryEvents {
            low: Some(1),
            high: Some(2),
            max: Some(3),
            oom: Some(4),
            oom_kill: Some(5),
            oom_group_kill: Some(6),
        };
        assert_eq!(events(all), expected);
        assert_eq!(events(b"oom_kill 5\n").oom_group_kill, None);
    }

    #[test]
    fn garbage_yields_nothing() {
        for text in GARBAGE {
            let mut reading = MemoryReading::default();
            read_stat(text, &mut reading);
            assert_eq!(reading, MemoryReading::default(), "{text:?}");
            assert_eq!(events(text), MemoryEvents::default(), "{text:?}");
        }
    }
}
