//! What the kernel's files say and no record told: stalls, and kills that were missed.

mod absence;

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};

use crate::{
    agent::{clock, config::RunError, evidence},
    host::process::ProcRoot,
    incident::{
        Incident, Kind,
        meaning::meaning,
        reconcile::{Baseline, Missed, Reconciler, Span},
        record::Stall,
        stall::{StallDetector, StallEvent, StallReading},
    },
    model::{cgroup::Cgroup, snapshot::MemoryReading},
    store::KernelCount,
};

use super::{Agent, incidents::host};

/// A count that stays the same is saved this often, for the time that it is of.
const SAVE_AGAIN: SignedDuration = SignedDuration::from_mins(1);

/// The kernel's files beside what the records told.
pub struct Witness {
    stalls: StallDetector,
    reconciler: Reconciler,
    /// Stalls that go on, by cgroup.
    ongoing: HashMap<u64, Incident>,
    missed: u64,
    state_dir: Option<PathBuf>,
    /// The host's count as last saved, by this memtrace or the one before.
    saved: Option<KernelCount>,
    not_saved: u64,
}

/// The host's count of kills before the hooks were attached.
#[derive(Debug, Clone, Copy)]
pub struct KillsBefore {
    oom_kills: Option<u64>,
    at: Duration,
}

impl KillsBefore {
    pub fn read() -> Self {
        let at = clock::boot_time();
        // Without it nothing is missed before the first interval, which counts what cannot be read.
        let host = ProcRoot::default().machine(&mut Vec::new(), &mut 0);
        Self {
            oom_kills: host.oom_kills,
            at,
        }
    }
}

impl Witness {
    pub fn new(stall_after: Duration, page_bytes: u64, state_dir: Option<PathBuf>) -> Self {
        if let Some(directory) = &state_dir {
            KernelCount::clean_up(directory);
        }
        Self {
            stalls: StallDetector::new(stall_after, page_bytes),
            reconciler: Reconciler::new(),
            ongoing: HashMap::new(),
            missed: 0,
            state_dir,
            saved: None,
            not_saved: 0,
        }
    }

    /// The kernel killed a process, as a record told.
    pub fn killed(&mut self, cgroup_id: Option<u64>, boot_ns: u64) {
        self.reconciler
            .seen(cgroup_id, Duration::from_nanos(boot_ns));
    }

    /// A stall is told from this length on; one that is told goes on.
    pub fn set_stall_after(&mut self, stall_after: Duration) {
        self.stalls.set_threshold(stall_after);
    }

    /// Whether a cgroup is to be read in full, by its last reading.
    pub fn deserves_reading(&self, memory: &MemoryReading) -> bool {
        self.reconciler.wants_every_cgroup()
            || self.stalls.is_near_limit(&StallReading::of(memory, None))
    }

    pub fn losses(&self) -> [(&'static str, u64); 5] {
        [
            ("oom_kills_missed", self.missed),
            ("oom_kills_not_counted_by_kernel", self.reconciler.excess()),
            ("oom_kills_not_reconciled", self.reconciler.untracked()),
            ("kernel_count_not_saved", self.not_saved),
            ("stalls_not_followed", self.stalls.not_followed),
        ]
    }
}

impl Agent {
    /// Takes the kernel's count of kills before memtrace; once.
    pub(super) fn begin_witness(&mut self, before: KillsBefore) -> Result<(), RunError> {
        let KillsBefore { oom_kills, at } = before;
        self.witness.reconciler.counted_host(oom_kills, at);
        match self.count_of_this_boot() {
            Some(before) => {
                self.witness.saved = Some(before.clone());
                self.tell_absence(&before, oom_kills)
            }
            None => {
                // Else the next memtrace would not look for kills that this one leaves untold, should it end
                // in a storm.
                self.save_count(oom_kills, at);
                Ok(())
            }
        }
    }

    /// What an earlier memtrace of this boot left.
    fn count_of_this_boot(&self) -> Option<KernelCount> {
        let count = KernelCount::load(self.witness.state_dir.as_deref()?)?;
        (count.boot_id == self.incidents.boot_id).then_some(count)
    }

    fn save_count(&mut self, oom_kills: Option<u64>, at: Duration) {
        let Some(oom_kills) = oom_kills else {
            return;
        };
        let time = Timestamp::now();
        let is_fresh = |saved: &KernelCount| {
            saved.oom_kills == oom_kills && time.duration_since(saved.time).abs() < SAVE_AGAIN
        };
        if !self.witness.saved.as_ref().is_some_and(is_fresh) {
            self.save(KernelCount {
                boot_id: self.incidents.boot_id.clone(),
                boot_time_ns: nanos(at),
                time,
                oom_kills,
            });
        }
    }

    /// Whoever comes next knows until when this memtrace ran, whatever was counted since.
    pub(super) fn end_witness(&mut self) {
        self.save_time(SignedDuration::ZERO);
    }

    /// The time alone, if the one that is saved is that old.
    fn save_time(&mut self, age: SignedDuration) {
        let time = Timestamp::now();
        let is_old = |saved: &&KernelCount| time.duration_since(saved.time).abs() >= age;
        if let Some(saved) = self.witness.saved.as_ref().filter(is_old) {
            let saved = saved.clone();
            self.save(KernelCount { time, ..saved });
        }
    }

    fn save(&mut self, count: KernelCount) {
        let Some(directory) = &self.witness.state_dir else {
            return;
        };
        match count.save(directory) {
            Ok(()) => self.witness.saved = Some(count),
            // The store warns of the same disk.
            Err(error) => {
                self.witness.not_saved += 1;
                log::debug!("{error}");
            }
        }
    }

    /// Looks at the cgroups that were read in full and at the host's count of kills; times are of the
    /// boot clock, see [`read_since`].
    pub(super) fn look_at_files(
        &mut self,
        read: &[u64],
        at: Span,
        host_kills: Option<u64>,
        host_at: Span,
    ) -> Result<(), RunError> {
        let mut stalls = Vec::new();
        let mut missed = Vec::new();
        let lost_in_reclaim = self.cgroups.stall_ns_with_below();
        for &id in read {
            let Some(cgroup) = self.cgroups.get(id) else {
                continue;
            };
            let reading = StallReading::of(&cgroup.memory, reclaim_stall(cgroup, &lost_in_reclaim));
            if let Some(event) = self.witness.stalls.observe(id, at.from, &reading) {
                stalls.push((id, event));
            }
            if let Some(kills) = cgroup.memory.events_local.oom_kill {
                let baseline = if cgroup.born_at.is_some() {
                    Baseline::Zero
                } else {
                    Baseline::FirstReading
                };
                let lost = self.witness.reconciler.counted(id, kills, at, baseline);
                missed.extend(lost);
            }
        }
        missed.extend(self.witness.reconciler.counted_host(host_kills, host_at));
        // The lowest of several that are stuck together is the one that is told.
        stalls.sort_by_key(|(id, _)| {
            let path = self.cgroups.get(*id).map(|cgroup| &cgroup.path);
            std::cmp::Reverse(path.map_or(0, |path| path.components().count()))
        });
        for (id, event) in stalls {
            self.tell_stall(id, event)?;
        }
        // A count saved too early would hide kills from the next memtrace if this one is killed now. So would
        // one from before kills that it holds are told: they would be taken for later ones.
        let is_explained = missed.is_empty() && self.witness.reconciler.is_settled();
        if is_explained && self.incidents.are_kept() {
            self.save_count(host_kills, host_at.from);
        } else {
            self.save_time(SAVE_AGAIN);
        }
        for missed in missed {
            self.tell_missed(missed)?;
        }
        Ok(())
    }

    /// A kill is an OOM of that cgroup, not a stall.
    pub(super) fn end_stall(&mut self, charged: u64) -> Result<(), RunError> {
        match self.witness.stalls.killed(charged) {
            Some(StallEvent::Ended(stall)) => {
                let stall = Stall {
                    ended_by_kill: true,
                    ..stall
                };
                self.tell_stall(charged, StallEvent::Ended(stall))
            }
            _ => Ok(()),
        }
    }

    /// A cgroup is gone, with its counts.
    pub(super) fn forget_files(&mut self, id: u64) -> Result<(), RunError> {
        self.witness.reconciler.removed(id);
        match self.witness.stalls.forget(id) {
            Some(event) => self.tell_stall(id, event),
            None => Ok(()),
        }
    }

    /// A stall is told when it has lasted long enough, and again when it is over.
    fn tell_stall(&mut self, id: u64, event: StallEvent) -> Result<(), RunError> {
        let incident = match event {
            StallEvent::Began(stall) => {
                let below = |&other: &u64| self.cgroups.is_known_above(id, other);
                if self.witness.ongoing.keys().any(below) {
                    return Ok(());
                }
                let lasted = Duration::from_millis(stall.duration_ms);
                let mut incident =
                    self.bare(Kind::Stall, clock::boot_time().saturating_sub(lasted));
                incident.charged = self.cgroups.get(id).map(|cgroup| {
                    evidence::charged_by_files(cgroup, self.readings.swap_counts_memory())
                });
                incident.stall = Some(stall);
                evidence::gather(&mut incident, &mut self.sources());
                self.witness.ongoing.insert(id, incident.clone());
                incident
            }
            StallEvent::Ended(stall) => {
                let Some(mut incident) = self.witness.ongoing.remove(&id) else {
                    return Ok(());
                };
                incident.stall = Some(stall);
                incident.complete = true;
                incident
            }
        };
        self.tell_found(incident)
    }

    fn tell_missed(&mut self, missed: Missed) -> Result<(), RunError> {
        self.witness.missed += missed.kills;
        let mut incident = self.bare(Kind::MissedKills, clock::boot_time());
        incident.kernel_counts.missed = Some(missed.kills);
        if let Some(cgroup) = missed.cgroup_id.and_then(|id| self.cgroups.get(id)) {
            let swap_counts_memory = self.readings.swap_counts_memory();
            incident.charged = Some(evidence::charged_by_files(cgroup, swap_counts_memory));
            incident.kernel_counts.oom_kill_local = cgroup.memory.events_local.oom_kill;
        }
        incident.complete = true;
        self.tell_found(incident)
    }

    fn tell_found(&mut self, mut incident: Incident) -> Result<(), RunError> {
        incident.meaning = meaning(&incident);
        self.hand_out(&Arc::new(incident))
    }

    fn bare(&mut self, kind: Kind, began: Duration) -> Incident {
        let (assembler, gfp) = self.incidents.parts();
        assembler.bare(kind, nanos(began), &host(&self.cgroups, gfp))
    }
}

/// From `from` until now, and a little more: a kill is counted some microseconds before its mark,
/// and the task that does both may have to wait in between.
pub fn read_since(from: Duration) -> Span {
    const COUNTED_BEFORE_MARKED: Duration = Duration::from_millis(50);
    Span {
        from,
        until: clock::boot_time() + COUNTED_BEFORE_MARKED,
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Without PSI: what tasks of the cgroup and below it lost in reclaim.
fn reclaim_stall(cgroup: &Cgroup, lost: &HashMap<u64, u64>) -> Option<u64> {
    let has_psi = cgroup.memory.pressure.some_ns.is_some();
    let counts = !has_psi && cgroup.effective_limit.is_some();
    counts.then(|| lost.get(&cgroup.id).copied().unwrap_or(0))
}
