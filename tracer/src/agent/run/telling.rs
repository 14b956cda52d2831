//! An interval and the state of memtrace itself, told to the outputs.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    agent::{
        config::{Output, RunError},
        otlp::OtlpExport,
        own,
        running_commands::RunningCommands,
        stacks::Stacks,
    },
    analysis::State,
    export::otlp::CgroupProfile,
    model::{
        cgroups::Cgroups,
        processes::Processes,
        snapshot::{CgroupSnapshot, GrowerSnapshot, HostReading, SelfReading, Snapshot},
    },
};

use super::{Agent, growth::Judging};

/// Growing processes told per cgroup.
const PROCESSES_PER_CGROUP: usize = 3;
/// Series of processes in each cgroup that leaks, and how many such cgroups have any.
const GROWERS_PER_CGROUP: usize = 3;
const MOST_LEAKS: usize = 100;

impl Agent {
    pub(super) fn warn_of_missing_probes(&self) {
        let missing: Vec<&str> = self
            .loader
            .verdicts
            .iter()
            .filter(|verdict| verdict.attached.is_none() && verdict.essential)
            .map(|verdict| verdict.probe)
            .collect();
        if !missing.is_empty() {
            log::warn!(
                "no events of {} on this host; `memtrace doctor` says why",
                missing.join(", ")
            );
        }
    }

    /// What changed, to standard output; everything, to the backend.
    pub(super) fn tell_interval(&mut self, host: HostReading) -> Result<(), RunError> {
        let own = self.own();
        let mut growing = self.processes.growing(PROCESSES_PER_CGROUP);
        let told = match self.config.output {
            Output::None | Output::Incidents | Output::IncidentsJson => Vec::new(),
            Output::Table => self
                .cgroups
                .live()
                .filter(|cgroup| self.outputs.wants(cgroup))
                .map(|cgroup| {
                    cgroup.snapshot(self.serving, growing.remove(&cgroup.id).unwrap_or_default())
                })
                .collect(),
            Output::Json => {
                let outputs = &self.outputs;
                let serving = self.serving;
                self.cgroups
                    .take_changed()
                    .filter(|cgroup| outputs.wants(cgroup))
                    .map(|cgroup| {
                        cgroup.snapshot(serving, growing.remove(&cgroup.id).unwrap_or_default())
                    })
                    .collect()
            }
        };
        let snapshot = Snapshot {
            time: SystemTime::now(),
            started: self.started,
            host,
            cgroups: told,
            own,
        };
        self.outputs.interval(&snapshot).map_err(RunError::Output)?;
        self.export(host, snapshot.own);
        self.export_profiles();
        Ok(())
    }

    pub(super) fn own(&mut self) -> SelfReading {
        let mut losses = self.counts.drops();
        losses.push(("map_reading_failed", self.counts.failed()));
        let skipped = self.loader.skipped_runs();
        losses.extend(skipped.map(|runs| ("program_run_skipped", runs)));
        losses.push(("cgroup_reading_failed", self.readings.failed));
        losses.push(("host_reading_failed", self.host_unreadable));
        losses.push(("leak_processes_left_out", self.leaks_without_processes));
        losses.push(("cgroup_not_tracked", self.cgroups.overflow));
        losses.push(("output_dropped", self.outputs.dropped()));
        losses.push(("record_not_decoded", self.undecoded));
        losses.extend(self.naming.losses());
        losses.push(("limit_change_untold", self.limit_pace.untold));
        losses.push(("kubernetes_report_given_up", self.reports.given_up));
        losses.extend(self.incidents.losses());
        losses.extend(self.witness.losses());
        losses.extend(
            self.running_commands
                .iter()
                .flat_map(RunningCommands::losses),
        );
        losses.extend(self.judging.iter().flat_map(Judging::losses));
        losses.extend(self.chronicle.losses());
        losses.extend(self.stacks.iter().flat_map(Stacks::losses));
        losses.extend(self.actions.losses());
        if let Some(otlp) = &self.otlp {
            losses.extend(otlp.losses());
        }
        let tracked = self.cgroups.live().count() as u64;
        own::read(&self.loader, losses, tracked, &mut self.buffer)
    }

    fn export(&mut self, host: HostReading, own: SelfReading) {
        let Some(offered) = self
            .otlp
            .as_ref()
            .filter(|otlp| otlp.due())
            .map(OtlpExport::offered)
        else {
            return;
        };
        let snapshot = self.full_snapshot(host, own, offered);
        if let Some(otlp) = &mut self.otlp {
            otlp.offer(snapshot, self.clock.elapsed());
        }
    }

    /// What was found since the last time, to the backend.
    fn export_profiles(&mut self) {
        let (Some(otlp), Some(stacks)) = (&mut self.otlp, &self.stacks) else {
            return;
        };
        if !otlp.is_due_for_profiles() {
            return;
        }
        let found = stacks.profiles(otlp.profiles_offered()).into_iter();
        let profiles: Vec<CgroupProfile> = found
            .filter(|(_, profile)| !profile.stacks.is_empty())
            .filter_map(|(id, profile)| {
                let cgroup = self.cgroups.get(id)?;
                self.outputs.wants(cgroup).then(|| CgroupProfile {
                    cgroup: cgroup.display.to_string(),
                    cgroup_id: id,
                    names: Arc::clone(&cgroup.names),
                    profile,
                })
            })
            .collect();
        if !profiles.is_empty() {
            otlp.offer_profiles(profiles);
        }
    }

    /// All cgroups that exist, and those removed since `since`: their last numbers.
    pub(super) fn full_snapshot(
        &mut self,
        host: HostReading,
        own: SelfReading,
        since: Duration,
    ) -> Snapshot {
        let mut cgroups: Vec<_> = self
            .cgroups
            .live_since(since)
            .filter(|cgroup| self.outputs.wants(cgroup))
            .map(|cgroup| cgroup.snapshot(self.serving, Vec::new()))
            .collect();
        self.leaks_without_processes += tell_growers(&mut cgroups, &self.cgroups, &self.processes);
        Snapshot {
            time: SystemTime::now(),
            started: self.started,
            host,
            cgroups,
            own,
        }
    }
}

/// The processes that grew most in each cgroup that leaks; gives for how many cgroups there was no room.
fn tell_growers(cgroups: &mut [CgroupSnapshot], model: &Cgroups, processes: &Processes) -> u64 {
    let leaks = cgroups.iter_mut().filter(|cgroup| {
        let state = cgroup.leak.map(|leak| leak.state);
        !cgroup.removed && state.is_some_and(State::is_leak)
    });
    let mut left_out = 0;
    for (index, cgroup) in leaks.enumerate() {
        if index >= MOST_LEAKS {
            left_out += 1;
            continue;
        }
        let ids = model
            .subtree(cgroup.cgroup_id)
            .map(|below| below.id)
            .collect();
        let mut grown: Vec<_> = processes.growth_since(&ids, None).collect();
        grown.sort_unstable_by_key(|grown| (std::cmp::Reverse(grown.bytes), grown.tgid));
        grown.truncate(GROWERS_PER_CGROUP);
        cgroup.growers = grown
            .into_iter()
            .map(|grown| GrowerSnapshot {
                tgid: grown.tgid,
                comm: grown.comm,
                rss_anon_bytes: grown.rss_anon_bytes,
            })
            .collect();
    }
    left_out
}
