//! Kills while no memtrace ran: what the kernel counted since, less what was told of that time.

use std::{collections::HashMap, path::Path};

use crate::{
    agent::{clock, config::RunError},
    incident::{Incident, Kind, record::Victim},
    store::{self, KernelCount, StoreError},
};

use super::Agent;

impl Agent {
    /// Kills since the last memtrace of this boot looked, which left `before`.
    pub(super) fn tell_absence(
        &mut self,
        before: &KernelCount,
        oom_kills: Option<u64>,
    ) -> Result<(), RunError> {
        let (Some(directory), Some(now)) = (&self.witness.state_dir, oom_kills) else {
            return Ok(());
        };
        if now <= before.oom_kills {
            return Ok(());
        }
        // It may have told of kills after it last looked.
        let told = match Told::since(before, directory) {
            Ok(told) => told.kills(),
            Err(error) => {
                log::warn!("kills while memtrace did not run cannot be told: {error}");
                return Ok(());
            }
        };
        let kills = (now - before.oom_kills).saturating_sub(told);
        if kills == 0 {
            return Ok(());
        }
        self.witness.missed += kills;
        let mut incident = self.bare(Kind::MissedKills, clock::boot_time());
        incident.kernel_counts.missed = Some(kills);
        incident.kernel_counts.not_running_since = Some(before.time);
        incident.complete = true;
        self.tell_found(incident)
    }
}

/// Kernel kills by incident, seen or missed, and whether its record is complete. Only of the time that
/// matters: a full store is many times what an agent may use.
#[derive(Default)]
struct Told {
    by_id: HashMap<String, (bool, u64)>,
}

impl Told {
    /// Those that the store below `directory` has of the time since `before`.
    fn since(before: &KernelCount, directory: &Path) -> Result<Self, StoreError> {
        let mut told = Self::default();
        store::each_record(directory, &mut |incident| {
            if incident.boot_id == before.boot_id && incident.boot_time_ns >= before.boot_time_ns {
                told.add(incident);
            }
        })?;
        Ok(told)
    }

    /// Of several records of one incident the last complete one counts, as it does for readers.
    fn add(&mut self, incident: Incident) {
        let is_complete = incident.complete;
        let kills = kills(&incident);
        let (complete, told) = self.by_id.entry(incident.id).or_default();
        if is_complete || !*complete {
            (*complete, *told) = (is_complete, kills);
        }
    }

    fn kills(&self) -> u64 {
        self.by_id.values().map(|(_, kills)| kills).sum()
    }
}

fn kills(incident: &Incident) -> u64 {
    let killed = |victim: &&Victim| victim.killed != Some(false);
    let seen = if incident.kind.is_kernel_kill() {
        incident.victims.iter().filter(killed).count() as u64 + incident.victims_left_out
    } else {
        0
    };
    seen + incident.kernel_counts.missed.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use jiff::Timestamp;

    use super::*;

    const CGROUP_OOM: &str = include_str!("../../../incident/fixtures/cgroup_oom.json");
    const BOOT: &str = "this boot";

    /// The record of an incident with this many victims left out.
    fn record(id: &str, boot_id: &str, at_ns: u64, complete: bool, kills: u64) -> String {
        let mut incident: Incident = serde_json::from_str(CGROUP_OOM).unwrap();
        incident.id = id.to_owned();
        incident.boot_id = boot_id.to_owned();
        incident.boot_time_ns = at_ns;
        incident.complete = complete;
        incident.victims.clear();
        incident.victims_left_out = kills;
        incident.kernel_counts.missed = None;
        serde_json::to_string(&incident).unwrap() + "\n"
    }

    fn kills_since(at_ns: u64, segments: &[String]) -> u64 {
        let directory = tempfile::tempdir().unwrap();
        let incidents = directory.path().join("incidents");
        fs::create_dir(&incidents).unwrap();
        for (text, number) in segments.iter().zip(1..) {
            fs::write(incidents.join(format!("{number:08}.jsonl")), text).unwrap();
        }
        let before = KernelCount {
            boot_id: BOOT.to_owned(),
            boot_time_ns: at_ns,
            time: Timestamp::UNIX_EPOCH,
            oom_kills: 0,
        };
        let told = Told::since(&before, directory.path()).unwrap();
        told.kills()
    }

    #[test]
    fn kills_of_this_boot_since_the_last_look_count() {
        let segments = [
            record("a", BOOT, 99, true, 1) + &record("b", BOOT, 100, true, 10),
            record("c", BOOT, 101, false, 100) + "no json\n",
            record("d", "another boot", 500, true, 1000),
        ];
        assert_eq!(kills_since(100, &segments), 110);
        assert_eq!(kills_since(600, &segments), 0);
        assert_eq!(kills_since(0, &[]), 0);
    }

    #[test]
    fn of_one_incident_the_last_complete_record_counts() {
        let first = record("a", BOOT, 100, false, 1);
        let second = record("a", BOOT, 100, false, 2);
        let whole = record("a", BOOT, 100, true, 40);
        let again = record("a", BOOT, 100, true, 41);
        let kills = |records: &[&String]| {
            let segments: Vec<String> = records.iter().map(|record| (*record).clone()).collect();
            kills_since(100, &segments)
        };
        assert_eq!(kills(&[&first, &second]), 2);
        assert_eq!(kills(&[&first, &whole]), 40);
        assert_eq!(kills(&[&whole, &second]), 40);
        assert_eq!(kills(&[&whole, &second, &again]), 41);
    }

    #[test]
    fn victims_that_were_killed_and_missed_ones_count() {
        let mut incident: Incident = serde_json::from_str(CGROUP_OOM).unwrap();
        let victims = incident.victims.len() as u64;
        incident.kernel_counts.missed = None;
        assert_eq!(kills(&incident), victims + incident.victims_left_out);
        incident.victims[0].killed = Some(false);
        incident.kernel_counts.missed = Some(5);
        assert_eq!(
            kills(&incident),
            victims - 1 + incident.victims_left_out + 5
        );
        incident.kind = Kind::MissedKills;
        assert_eq!(kills(&incident), 5);
    }
}
