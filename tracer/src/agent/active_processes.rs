//! Looking at the processes that were active in an interval, in `/proc`.

use std::time::Duration;

use crate::{
    host::{escape, process::ProcRoot},
    loader::counts::Counts,
    model::{processes::Processes, snapshot::ProcessSnapshot},
    probes::heap,
};

/// Most processes looked at in an interval.
const MOST: usize = 64;
const COMM_CHARS: usize = 64;

/// Takes in the BPF counts, reads the most active processes, forgets those that are gone.
pub fn look(
    processes: &mut Processes,
    counts: &mut Counts,
    proc: &ProcRoot,
    heap_counted: bool,
    now: Duration,
    buffer: &mut Vec<u8>,
) {
    let activity = processes.count(counts.processes());
    for key in activity.active.iter().take(MOST) {
        let Ok(reading) = proc.process(key.tgid, buffer) else {
            continue;
        };
        let heap = processes
            .counts(key)
            .filter(|_| heap_counted)
            .map(heap::totals);
        processes.looked_at(
            key,
            now,
            reading.start_ticks,
            ProcessSnapshot {
                tgid: key.tgid,
                comm: reading.comm.map(|comm| escape::display(&comm, COMM_CHARS)),
                cgroup_id: key.cgroup_id,
                rss_anon_bytes: reading.rss_anon_bytes,
                rss_bytes: reading.rss_bytes,
                growth_bytes_per_second: None,
                minor_faults: reading.minor_faults,
                major_faults: reading.major_faults,
                heap,
            },
        );
    }
    for key in activity.idle {
        if !proc.path(&key.tgid.to_string()).exists() {
            counts.forget_process(&key);
        }
    }
}
