//! What memtrace told of the load's cgroups, line by line as it came. Must not compare it with anything.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::ChildStdout;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::Value;

const MARK: &str = "/mt-soak/";

/// Sums over the lines so far.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Every probe is attached.
    pub started: bool,
    /// Last lines of cgroups of the load.
    pub removed: u64,
    /// Processes that ended in them.
    pub exits: u64,
    /// Page faults of those processes.
    pub faults: u64,
    /// OOM kills, told at once.
    pub kill_lines: u64,
    /// Killed victims of incidents.
    pub incident_victims: u64,
    /// Cgroups that memtrace follows.
    pub cgroups: u64,
    /// Its own counters of losses that are not 0.
    pub lost: BTreeMap<String, u64>,
}

/// Reads in a thread of its own until memtrace ends.
#[derive(Debug, Clone)]
pub struct Told(Arc<Mutex<Counts>>);

impl Told {
    pub fn read(output: ChildStdout) -> Self {
        let counts = Arc::new(Mutex::new(Counts::default()));
        let told = Self(Arc::clone(&counts));
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Ok(line) = serde_json::from_str::<Value>(&line)
                    && let Ok(mut counts) = counts.lock()
                {
                    counts.add(&line);
                }
            }
        });
        told
    }

    pub fn counts(&self) -> Counts {
        self.0
            .lock()
            .map(|counts| counts.clone())
            .unwrap_or_default()
    }

    pub fn removed(&self) -> u64 {
        self.counts().removed
    }

    pub fn wait_for_start(&self) -> Result<()> {
        let begun = Instant::now();
        while !self.counts().started {
            if begun.elapsed() > Duration::from_secs(30) {
                bail!("memtrace did not start");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Counts {
    fn add(&mut self, line: &Value) {
        let number = |field: &str| line[field].as_u64().unwrap_or(0);
        let is_ours = |field: &str| {
            line[field]
                .as_str()
                .is_some_and(|path| path.starts_with(MARK))
        };
        match line["type"].as_str() {
            Some("start") => self.started = true,
            Some("cgroup") if line["removed"] == true && is_ours("cgroup") => {
                self.removed += 1;
                self.exits += number("exits");
                self.faults += number("exited_minor_faults") + number("exited_major_faults");
            }
            Some("oom_kill") if is_ours("cgroup") => self.kill_lines += 1,
            Some("oom_incident") => {
                let victims = line["victims"].as_array().map_or(&[][..], Vec::as_slice);
                let killed = victims.iter().filter(|victim| {
                    let ours = victim["cgroup"]
                        .as_str()
                        .is_some_and(|path| path.starts_with(MARK));
                    ours && victim["killed"] == true
                });
                self.incident_victims += killed.count() as u64;
            }
            Some("self") => {
                self.cgroups = number("cgroups");
                let lost = line["lost"].as_object().into_iter().flatten();
                self.lost = lost
                    .filter_map(|(cause, count)| Some((cause.clone(), count.as_u64()?)))
                    .filter(|(_, count)| *count > 0)
                    .collect();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_about_the_load_are_summed_and_those_of_others_are_not() {
        let mut counts = Counts::default();
        for line in [
            json!({"type": "cgroup", "cgroup": "/mt-soak/a", "removed": true, "exits": 2,
                   "exited_minor_faults": 10, "exited_major_faults": 1}),
            json!({"type": "cgroup", "cgroup": "/mt-soak/b", "removed": false, "exits": 5}),
            json!({"type": "cgroup", "cgroup": "/other", "removed": true, "exits": 7}),
            json!({"type": "oom_kill", "cgroup": "/mt-soak/a"}),
            json!({"type": "oom_kill", "cgroup": "/other"}),
            json!({"type": "oom_incident", "victims": [
                {"cgroup": "/mt-soak/a", "killed": true}, {"cgroup": "/mt-soak/a", "killed": false},
                {"cgroup": "/other", "killed": true}]}),
            json!({"type": "self", "cgroups": 9, "lost": {"event_ring_full": 0, "oom_ring_full": 3}}),
        ] {
            counts.add(&line);
        }
        assert_eq!((counts.removed, counts.exits, counts.faults), (1, 2, 11));
        assert_eq!((counts.kill_lines, counts.incident_victims), (1, 1));
        assert_eq!(
            counts.lost,
            BTreeMap::from([("oom_ring_full".to_owned(), 3)])
        );
    }
}
