//! The processes that grow: who was active in the kernel's counts, and what `/proc` says of them.

use std::{collections::HashMap, time::Duration};

use memtrace_ebpf::counts::{HeapCounts, ProcessKey};

use super::snapshot::ProcessSnapshot;

/// Intervals without activity after which a process is looked up again, or forgotten if gone.
const IDLE_INTERVALS: u32 = 12;

/// A process in one cgroup.
#[derive(Debug)]
struct Process {
    counts: HeapCounts,
    idle: u32,
    /// The last look at `/proc`.
    seen: Option<Seen>,
    snapshot: Option<ProcessSnapshot>,
}

#[derive(Debug)]
struct Seen {
    /// Since memtrace started.
    at: Duration,
    anon_bytes: u64,
    /// Tells a process from another that got its id.
    start_ticks: Option<u64>,
}

/// All processes with counts. As bounded as the BPF map they come from.
#[derive(Debug, Default)]
pub struct Processes {
    by_key: HashMap<ProcessKey, Process>,
}

/// What an interval asks for.
#[derive(Debug, Default)]
pub struct Activity {
    /// Processes that were active, most active first: worth a look at `/proc`.
    pub active: Vec<ProcessKey>,
    /// Processes idle for long: worth asking whether they still exist.
    pub idle: Vec<ProcessKey>,
}

impl Processes {
    /// Takes an interval's counts; says who is worth looking at.
    pub fn count(&mut self, counts: impl Iterator<Item = (ProcessKey, HeapCounts)>) -> Activity {
        let mut active: Vec<(u64, ProcessKey)> = Vec::new();
        let mut activity = Activity::default();
        let mut present = std::mem::take(&mut self.by_key);
        for (key, counts) in counts {
            let before = present.remove(&key);
            let weight = weight(&counts)
                .saturating_sub(before.as_ref().map_or(0, |before| weight(&before.counts)));
            let mut process = before.unwrap_or(Process {
                counts,
                idle: 0,
                seen: None,
                snapshot: None,
            });
            process.counts = counts;
            if weight > 0 {
                process.idle = 0;
                active.push((weight, key));
            } else {
                process.idle += 1;
                process.snapshot = None;
                if process.idle.is_multiple_of(IDLE_INTERVALS) {
                    activity.idle.push(key);
                }
            }
            self.by_key.insert(key, process);
        }
        active.sort_unstable_by_key(|(weight, key)| (std::cmp::Reverse(*weight), key.tgid));
        activity.active = active.into_iter().map(|(_, key)| key).collect();
        activity
    }

    /// What `/proc` said of an active process; growth is computed against the last look.
    /// `start_ticks`: field 22 of `/proc/PID/stat`.
    pub fn looked_at(
        &mut self,
        key: &ProcessKey,
        now: Duration,
        start_ticks: Option<u64>,
        mut snapshot: ProcessSnapshot,
    ) {
        if let Some(process) = self.by_key.get_mut(key) {
            let same = process
                .seen
                .as_ref()
                .filter(|seen| seen.start_ticks == start_ticks);
            if let (Some(seen), Some(bytes)) = (same, snapshot.rss_anon_bytes) {
                let seconds = now.saturating_sub(seen.at).as_secs_f64();
                if seconds > 0.0 {
                    snapshot.growth_bytes_per_second =
                        Some((bytes as f64 - seen.anon_bytes as f64) / seconds);
                }
            }
            process.seen = snapshot.rss_anon_bytes.map(|anon_bytes| Seen {
                at: now,
                anon_bytes,
                start_ticks,
            });
            process.snapshot = Some(snapshot);
        }
    }

    /// The counts of a process.
    pub fn counts(&self, key: &ProcessKey) -> Option<&HeapCounts> {
        self.by_key.get(key).map(|process| &process.counts)
    }

    /// The fastest growing processes by cgroup, at most `most` each.
    pub fn growing(&self, most: usize) -> HashMap<u64, Vec<ProcessSnapshot>> {
        let mut growing: HashMap<u64, Vec<ProcessSnapshot>> = HashMap::new();
        for (key, process) in &self.by_key {
            if let Some(snapshot) = &process.snapshot {
                growing
                    .entry(key.cgroup_id)
                    .or_default()
                    .push(snapshot.clone());
            }
        }
        for processes in growing.values_mut() {
            let growth = |process: &ProcessSnapshot| {
                process.growth_bytes_per_second.unwrap_or(f64::NEG_INFINITY)
            };
            processes.sort_by(|a, b| growth(b).total_cmp(&growth(a)).then(a.tgid.cmp(&b.tgid)));
            processes.truncate(most);
        }
        growing
    }
}

/// How active: faults stand for a page each.
fn weight(counts: &HeapCounts) -> u64 {
    counts
        .sampled_faults
        .saturating_mul(4096)
        .saturating_add(counts.mmap_bytes)
        .saturating_add(counts.munmap_bytes)
        .saturating_add(counts.brk_grow_bytes)
        .saturating_add(counts.brk_shrink_bytes)
        .saturating_add(counts.madvise_free_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(tgid: u32) -> ProcessKey {
        ProcessKey {
            cgroup_id: 1,
            tgid,
            padding: 0,
        }
    }

    fn counts(sampled_faults: u64) -> HeapCounts {
        HeapCounts {
            sampled_faults,
            ..HeapCounts::default()
        }
    }

    fn look(tgid: u32, anon: u64) -> ProcessSnapshot {
        ProcessSnapshot {
            tgid,
            comm: None,
            cgroup_id: 1,
            rss_anon_bytes: Some(anon),
            rss_bytes: Some(anon),
            growth_bytes_per_second: None,
            minor_faults: None,
            major_faults: None,
            heap: None,
        }
    }

    #[test]
    fn the_most_active_come_first_and_the_fastest_growing_are_kept() {
        let mut processes = Processes::default();
        let activity = processes.count([(key(1), counts(64)), (key(2), counts(640))].into_iter());
        assert_eq!(activity.active, [key(2), key(1)]);
        for (at, one, two) in [(1, 100, 100), (2, 300, 150)] {
            let at = Duration::from_secs(at);
            processes.looked_at(&key(1), at, Some(7), look(1, one));
            processes.looked_at(&key(2), at, Some(7), look(2, two));
        }
        let growing = processes.growing(1).remove(&1).unwrap();
        assert_eq!(growing[0].tgid, 1);
        assert_eq!(growing[0].growth_bytes_per_second, Some(200.0));
    }

    #[test]
    fn a_process_that_got_the_id_of_another_has_no_growth_yet() {
        let mut processes = Processes::default();
        processes.count([(key(1), counts(64))].into_iter());
        processes.looked_at(&key(1), Duration::from_secs(1), Some(7), look(1, 100));
        processes.looked_at(&key(1), Duration::from_secs(2), Some(9), look(1, 900));
        let growing = processes.growing(1).remove(&1).unwrap();
        assert_eq!(growing[0].growth_bytes_per_second, None);
    }

    #[test]
    fn a_process_that_left_the_map_is_forgotten_and_an_idle_one_is_asked_for() {
        let mut processes = Processes::default();
        processes.count([(key(1), counts(1)), (key(2), counts(1))].into_iter());
        let mut asked = Vec::new();
        for _ in 0..IDLE_INTERVALS {
            asked.extend(processes.count([(key(1), counts(1))].into_iter()).idle);
        }
        assert_eq!(asked, [key(1)]);
        assert!(processes.counts(&key(2)).is_none());
    }
}
