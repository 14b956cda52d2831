//! Reads the memory numbers of the whole host.
//!
//! Owns `/proc/meminfo`, `/proc/vmstat` and `/proc/pressure/memory`.

use std::fs::File;
use std::io;

use nix::errno::Errno;

use super::ProcRoot;
use super::fields::{keyed_numbers, number, pressure};
use super::pseudo_file::{read_record, read_stream};
use crate::model::snapshot::HostReading;

const LARGEST_VMSTAT: usize = 1 << 20;

impl ProcRoot {
    /// Reads the host's numbers. What a file that cannot be read would tell is `None`, and `unreadable`
    /// counts it; a kernel without PSI is no failure.
    /// Source: Documentation/filesystems/proc.rst and Documentation/accounting/psi.rst.
    pub fn machine(&self, buffer: &mut Vec<u8>, unreadable: &mut u64) -> HostReading {
        let mut reading = HostReading::default();
        match self
            .open("meminfo")
            .and_then(|file| read_record(&file, buffer))
        {
            Ok(text) => read_meminfo(text, &mut reading),
            Err(_) => *unreadable += 1,
        }
        match self
            .open("vmstat")
            .and_then(|file| read_stream(&file, buffer, LARGEST_VMSTAT))
        {
            Ok(text) => read_vmstat(text, &mut reading),
            Err(_) => *unreadable += 1,
        }
        match self
            .open("pressure/memory")
            .and_then(|file| read_record(&file, buffer).map(pressure))
        {
            Ok(read) => reading.pressure = read,
            // Absent without CONFIG_PSI, EOPNOTSUPP when booted with psi=0.
            Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::ENOENT | Errno::EOPNOTSUPP) => {}
                _ => *unreadable += 1,
            },
        }
        reading
    }

    fn open(&self, below: &str) -> io::Result<File> {
        File::open(self.path(below))
    }
}

fn read_meminfo(text: &[u8], into: &mut HostReading) {
    for line in text.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let field = match &line[..colon] {
            b"MemTotal" => &mut into.mem_total_bytes,
            b"MemFree" => &mut into.mem_free_bytes,
            b"MemAvailable" => &mut into.mem_available_bytes,
            b"Buffers" => &mut into.buffers_bytes,
            b"Cached" => &mut into.cached_bytes,
            b"Shmem" => &mut into.shmem_bytes,
            b"Slab" => &mut into.slab_bytes,
            b"SwapTotal" => &mut into.swap_total_bytes,
            b"SwapFree" => &mut into.swap_free_bytes,
            _ => continue,
        };
        let kibibytes = line[colon + 1..].strip_suffix(b" kB").and_then(number);
        *field = kibibytes.and_then(|kibibytes| kibibytes.checked_mul(1024));
    }
}

fn read_vmstat(text: &[u8], into: &mut HostReading) {
    for (key, value) in keyed_numbers(text) {
        match key {
            b"pgfault" => into.faults = Some(value),
            b"pgmajfault" => into.major_faults = Some(value),
            b"oom_kill" => into.oom_kills = Some(value),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fields::tests::GARBAGE;
    use crate::model::snapshot::Pressure;

    const MEMINFO: &[u8] = b"MemTotal:       16308656 kB\nMemFree:         9000000 kB\n\
        MemAvailable:   15000000 kB\nBuffers:              12 kB\nCached:           500000 kB\n\
        SwapCached:            0 kB\nActive(anon):       1000 kB\nSwapTotal:             0 kB\n\
        SwapFree:              0 kB\nShmem:              8788 kB\nKReclaimable:      1 kB\n\
        Slab:             244952 kB\nHugePages_Total:       0\n";
    const PRESSURE: &[u8] = b"some avg10=0.00 avg60=0.00 avg300=0.00 total=15\n\
        full avg10=0.00 avg60=0.00 avg300=0.00 total=9\n";

    #[test]
    fn every_field() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("pressure")).unwrap();
        std::fs::write(directory.path().join("meminfo"), MEMINFO).unwrap();
        let root = ProcRoot::new(directory.path());
        let mut unreadable = 0;
        let bare = root.machine(&mut Vec::new(), &mut unreadable);
        assert_eq!((bare.faults, bare.pressure), (None, Pressure::default()));
        assert_eq!(unreadable, 1, "a kernel without PSI is no failure");

        let vmstat = b"nr_free_pages 1\npgfault 4201189\npgmajfault 1412\noom_kill 2\n";
        std::fs::write(directory.path().join("vmstat"), vmstat).unwrap();
        std::fs::write(directory.path().join("pressure/memory"), PRESSURE).unwrap();
        let expected = HostReading {
            mem_total_bytes: Some(16308656 * 1024),
            mem_free_bytes: Some(9000000 * 1024),
            mem_available_bytes: Some(15000000 * 1024),
            buffers_bytes: Some(12 * 1024),
            cached_bytes: Some(500000 * 1024),
            shmem_bytes: Some(8788 * 1024),
            slab_bytes: Some(244952 * 1024),
            swap_total_bytes: Some(0),
            swap_free_bytes: Some(0),
            faults: Some(4201189),
            major_faults: Some(1412),
            oom_kills: Some(2),
            pressure: Pressure {
                some_ns: Some(15_000),
                full_ns: Some(9_000),
            },
        };
        assert_eq!(root.machine(&mut Vec::new(), &mut unreadable), expected);
        assert_eq!(unreadable, 1);
    }

    #[test]
    fn a_file_that_cannot_be_read_costs_its_own_numbers_and_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let root = ProcRoot::new(directory.path());
        std::fs::write(directory.path().join("vmstat"), b"oom_kill 2\n").unwrap();
        std::fs::create_dir(directory.path().join("meminfo")).unwrap();
        std::fs::create_dir_all(directory.path().join("pressure/memory")).unwrap();
        let mut unreadable = 0;
        let reading = root.machine(&mut Vec::new(), &mut unreadable);
        let expected = HostReading {
            oom_kills: Some(2),
            ..HostReading::default()
        };
        assert_eq!((reading, unreadable), (expected, 2));
    }

    #[test]
    fn malformed_content_yields_nothing() {
        let more: [&[u8]; 4] = [
            b"MemTotal:",
            b"MemTotal: -1 kB",
            b"MemTotal: 18446744073709551615 kB",
            b"MemTotal 5 kB",
        ];
        for text in GARBAGE.into_iter().chain(more) {
            let mut reading = HostReading::default();
            read_meminfo(text, &mut reading);
            read_vmstat(text, &mut reading);
            assert_eq!(reading, HostReading::default(), "{text:?}");
        }
    }

    #[test]
    fn the_real_host_and_a_missing_procfs() {
        let mut unreadable = 0;
        let reading = ProcRoot::default().machine(&mut Vec::new(), &mut unreadable);
        assert!(reading.mem_total_bytes > Some(1 << 20) && reading.faults > Some(0));
        assert_eq!(unreadable, 0);
        let nothing = ProcRoot::new("/nonexistent").machine(&mut Vec::new(), &mut unreadable);
        assert_eq!((nothing, unreadable), (HostReading::default(), 2));
    }
}
