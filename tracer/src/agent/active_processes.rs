//! Looking at the processes that were active in an interval, in `/proc`.

use std::{fs, time::Duration};

use crate::{
    host::{escape, process::ProcRoot},
    loader::counts::Counts,
    model::{looks::Look, processes::Processes, snapshot::ProcessSnapshot},
    probes::heap,
};

use super::clock::AgentClock;

/// Most processes looked at in an interval.
const MOST: usize = 64;
pub const COMM_CHARS: usize = 64;

/// Looks at every process that is there when memtrace begins.
pub fn look_first(
    processes: &mut Processes,
    proc: &ProcRoot,
    clock: AgentClock,
    buffer: &mut Vec<u8>,
) {
    let Ok(entries) = fs::read_dir(proc.path("")) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(tgid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(reading) = proc.process(tgid, buffer) else {
            continue;
        };
        // A kernel thread has no memory of its own.
        if let (Some(start_ticks), Some(anon_bytes), Some(1..)) = (
            reading.start_ticks,
            reading.rss_anon_bytes,
            reading.rss_bytes,
        ) {
            let look = Look {
                at: clock.elapsed(),
                anon_bytes,
            };
            if !processes.was_there(tgid, start_ticks, look) {
                break;
            }
        }
    }
}

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
