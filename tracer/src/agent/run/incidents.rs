//! OOM records in, incidents out: to standard output, the store and the backend.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use jiff::Timestamp;

use crate::{
    agent::{clock, config::RunError, evidence},
    export::otlp::Event,
    incident::{
        Incident,
        assembly::{Assembler, HostFacts, Surroundings},
        meaning::meaning,
    },
    kernel::gfp::GfpNames,
    loader::Loader,
    model::{cgroups::Cgroups, snapshot::OomKill},
    probes::oom::{self, OomRecord, VictimRecord},
    store::Store,
};

use super::Agent;

/// Steps after which signals and ticks have their turn.
const MOST_STEPS: usize = 4096;
/// Records that wait to be handled; each has at most 2.1 KiB.
const MOST_BACKLOG: usize = 8192;
/// Deaths wake nobody (`oom_process_exit`): they are looked for this often while a victim lives.
const LOOK_FOR_DEATHS: Duration = Duration::from_millis(20);
/// Time that the store has for the last incidents.
const LAST_INCIDENTS: Duration = Duration::from_millis(500);

/// Incidents under way, and where they are kept.
pub struct Incidents {
    assembler: Assembler,
    gfp: Option<GfpNames>,
    store: Option<Store>,
    /// Records taken out of the ring and not handled yet.
    backlog: VecDeque<Vec<u8>>,
    /// When the ring called last: a death may be on its way into it before what called, and calls nobody.
    called: Option<Instant>,
    sees_signals: bool,
    pub boot_id: String,
}

impl Incidents {
    pub fn new(loader: &Loader, swap_counts_memory: bool, store: Option<Store>) -> Self {
        let facts = HostFacts {
            boot_id: read_line("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
            constraints: loader.support.offsets.constraints,
            // A list such as `0` or `0-1,3`.
            single_node: read_line("/sys/devices/system/node/has_memory")
                .is_none_or(|nodes| nodes.parse::<u32>().is_ok()),
            sees_signals: loader.has("oom.signal"),
            sees_deaths: loader.has("oom.process_exit"),
            swap_counts_memory,
            page_bytes: crate::loader::attach::page_size(),
        };
        Self {
            sees_signals: facts.sees_signals,
            boot_id: facts.boot_id.clone(),
            assembler: Assembler::new(facts),
            gfp: loader.support.gfp.clone(),
            store,
            backlog: VecDeque::new(),
            called: None,
        }
    }

    /// Time until there is something to do; `None` if no incident is open.
    pub fn closes_in(&self) -> Option<Duration> {
        if !self.backlog.is_empty() {
            return Some(Duration::ZERO);
        }
        let at = self.assembler.next_close().map(Duration::from_nanos);
        let closes_in = at.map(|at| at.saturating_sub(clock::boot_time()));
        let lives = self.assembler.awaits_deaths().then_some(LOOK_FOR_DEATHS);
        let called = self.called;
        let again = called.map(|called| LOOK_FOR_DEATHS.saturating_sub(called.elapsed()));
        closes_in.into_iter().chain(lives).chain(again).min()
    }

    /// The ring has records, or will have in a moment.
    pub fn called(&mut self) {
        self.called = Some(Instant::now());
    }

    pub fn born_cgroup(&mut self, id: u64) {
        self.assembler.born_cgroup(id);
    }

    pub fn forget_cgroup(&mut self, id: u64) {
        self.assembler.forget_cgroup(id);
    }

    /// Whether everything that records told so far is on disk, or lost.
    pub fn are_kept(&self) -> bool {
        let is_open = !self.backlog.is_empty() || self.assembler.next_close().is_some();
        !is_open && self.store.as_ref().is_none_or(Store::is_done)
    }

    /// What the store lost, by cause.
    pub fn losses(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.store
            .iter()
            .flat_map(|store| store.counters().losses())
    }

    /// The assembler, and what a [`host`] needs beside the model.
    pub fn parts(&mut self) -> (&mut Assembler, Option<&GfpNames>) {
        (&mut self.assembler, self.gfp.as_ref())
    }

    pub fn keep(&self, incident: Arc<Incident>) {
        if let Some(store) = &self.store {
            store.write(incident);
        }
    }

    fn close(&mut self) {
        if let Some(store) = self.store.take() {
            store.close(LAST_INCIDENTS);
        }
    }
}

/// The model as the assembler asks it.
struct Host<'a> {
    cgroups: &'a Cgroups,
    gfp: Option<&'a GfpNames>,
}

/// See [`Surroundings`].
pub fn host<'a>(cgroups: &'a Cgroups, gfp: Option<&'a GfpNames>) -> impl Surroundings + 'a {
    Host { cgroups, gfp }
}

impl Surroundings for Host<'_> {
    fn cgroup(&self, id: u64) -> Option<String> {
        self.cgroups
            .get(id)
            .map(|cgroup| cgroup.display.to_string())
    }

    fn is_above(&self, upper: u64, lower: u64) -> bool {
        self.cgroups.is_above(upper, lower)
    }

    fn wall_clock(&self, boot_ns: u64) -> Timestamp {
        timestamp(clock::wall_clock(boot_ns))
    }

    fn gfp_flags(&self, mask: u32) -> Option<String> {
        self.gfp.map(|names| names.names(mask))
    }
}

impl Agent {
    /// Empties the OOM ring, then handles records, evidence and what is complete, in this order, one
    /// at a time: the ring never fills behind work on an incident, and a mark never waits for it.
    pub(super) fn attend_oom(&mut self) -> Result<(), RunError> {
        all_steps(MOST_STEPS, || {
            self.take_oom_records();
            match self.incidents.backlog.pop_front() {
                Some(record) => self.oom_record(&record).map(|()| true),
                None => Ok(self.open_next()? || self.close_next()? || self.name_next()?),
            }
        })
    }

    fn take_oom_records(&mut self) {
        let is_over = |called: &Instant| called.elapsed() >= LOOK_FOR_DEATHS;
        if self.incidents.called.as_ref().is_some_and(is_over) {
            self.incidents.called = None;
        }
        let backlog = &mut self.incidents.backlog;
        // What does not fit stays in the ring, and is counted by the kernel side when that is full.
        while backlog.len() < MOST_BACKLOG
            && let Some(record) = self.oom_ring.next_now()
        {
            backlog.push_back(record);
        }
    }

    fn oom_record(&mut self, bytes: &[u8]) -> Result<(), RunError> {
        // Cgroups made just before are taken in first, for their names. An output that fails costs no record.
        let mut told = self.drain_events();
        let Some(record) = oom::decode(bytes, self.page_size) else {
            self.undecoded += 1;
            return told;
        };
        match &record {
            OomRecord::Mark(victim) => {
                if victim.signal.is_some() || !self.incidents.sees_signals {
                    self.witness.killed(victim.cgroup_id, victim.boot_ns);
                }
                told = told.and(self.tell_mark(victim));
            }
            OomRecord::KilledAgain { tgid, boot_ns } => {
                let cgroup = self.incidents.assembler.cgroup_of(*tgid);
                self.witness.killed(cgroup, *boot_ns);
            }
            _ => {}
        }
        let (assembler, gfp) = self.incidents.parts();
        assembler.feed(record, &host(&self.cgroups, gfp));
        told
    }

    fn tell_mark(&mut self, victim: &VictimRecord) -> Result<(), RunError> {
        let cgroup = victim.cgroup_id.and_then(|id| self.cgroups.get(id));
        if cgroup.is_some_and(|cgroup| !self.outputs.wants(cgroup)) {
            return Ok(());
        }
        let kill = oom_kill(victim, clock::wall_clock(victim.boot_ns), &self.cgroups);
        self.outputs.oom_kill(&kill).map_err(RunError::Output)
    }

    /// Evidence is gathered at once, and an incomplete record kept in case memtrace dies too.
    fn open_next(&mut self) -> Result<bool, RunError> {
        // Not `sources()`: the assembler is borrowed beside it.
        let mut sources = evidence::Sources {
            cgroups: &self.cgroups,
            processes: &self.processes,
            counts: &self.counts,
            readings: &mut self.readings,
            proc: &self.proc,
            now: self.clock.elapsed(),
            heap: self.serving.heap,
            reclaim: self.serving.reclaim,
        };
        let Some(incident) = self.incidents.assembler.next_opened() else {
            return Ok(false);
        };
        evidence::gather(incident, &mut sources);
        self.naming.name_incident(incident, &self.cgroups);
        Self::ask_for_victims(&mut self.stacks, incident);
        incident.meaning = meaning(incident);
        let incident = Arc::new(incident.clone());
        let told = match &incident.charged {
            Some(charged) => self.end_stall(charged.cgroup_id),
            None => Ok(()),
        };
        self.incidents.keep(incident);
        told.map(|()| true)
    }

    pub(super) fn sources(&mut self) -> evidence::Sources<'_> {
        evidence::Sources {
            cgroups: &self.cgroups,
            processes: &self.processes,
            counts: &self.counts,
            readings: &mut self.readings,
            proc: &self.proc,
            now: self.clock.elapsed(),
            heap: self.serving.heap,
            reclaim: self.serving.reclaim,
        }
    }

    /// Tells an incident that is complete.
    fn close_next(&mut self) -> Result<bool, RunError> {
        let now_ns = u64::try_from(clock::boot_time().as_nanos()).unwrap_or(u64::MAX);
        match self.incidents.assembler.next_closed(now_ns) {
            Some(incident) => self.tell_incident(incident).map(|()| true),
            None => Ok(false),
        }
    }

    fn tell_incident(&mut self, mut incident: Incident) -> Result<(), RunError> {
        evidence::kernel_counts(&mut incident, &mut self.readings);
        self.naming.name_incident(&mut incident, &self.cgroups);
        incident.meaning = meaning(&incident);
        if incident.kind.is_kernel_kill() {
            let scope = evidence::scope(incident.kind);
            for victim in &incident.victims {
                if let Some(id) = victim.cgroup_id {
                    self.cgroups.oom_killed(id, scope, incident.group_kill);
                }
            }
        }
        if self.naming.is_expecting(&incident, &self.cgroups)
            || Self::is_expecting_stacks(self.stacks.as_ref(), &incident)
        {
            self.reports.hold(incident);
            return Ok(());
        }
        self.tell_named(incident)
    }

    /// Tells an incident that waited for names.
    fn name_next(&mut self) -> Result<bool, RunError> {
        let (naming, cgroups) = (&self.naming, &self.cgroups);
        let stacks = self.stacks.as_ref();
        let is_named = |incident: &Incident| {
            !naming.is_expecting(incident, cgroups) && !Self::is_expecting_stacks(stacks, incident)
        };
        match self.reports.next_named(is_named) {
            Some(mut incident) => {
                self.naming.name_incident(&mut incident, &self.cgroups);
                self.tell_named(incident).map(|()| true)
            }
            None => Ok(false),
        }
    }

    fn tell_named(&mut self, mut incident: Incident) -> Result<(), RunError> {
        self.add_stacks(&mut incident);
        let incident = Arc::new(incident);
        self.hand_out(&incident)?;
        if self.naming.has_kubernetes() {
            self.reports.expect(&incident);
        }
        Ok(())
    }

    /// To everyone who is to know.
    pub(super) fn hand_out(&mut self, incident: &Arc<Incident>) -> Result<(), RunError> {
        self.incidents.keep(Arc::clone(incident));
        self.chronicle.incident(&self.cgroups, incident);
        if !self.wants_incident(incident) {
            return Ok(());
        }
        if let Some(otlp) = &self.otlp {
            otlp.event(Event::Incident(Arc::clone(incident)));
        }
        self.act_on_incident(incident);
        self.outputs.incident(incident).map_err(RunError::Output)
    }

    /// Whether a cgroup that has to do with it is among those to tell, or none is known.
    pub(super) fn wants_incident(&self, incident: &Incident) -> bool {
        let charged = incident.charged.iter().map(|charged| charged.cgroup_id);
        let victims = incident
            .victims
            .iter()
            .filter_map(|victim| victim.cgroup_id);
        let mut known = charged
            .chain(victims)
            .filter_map(|id| self.cgroups.get(id))
            .peekable();
        known.peek().is_none() || known.any(|cgroup| self.outputs.wants(cgroup))
    }

    /// What is under way is told as it is.
    pub(super) fn finish_incidents(&mut self) -> Result<(), RunError> {
        let mut result = self.attend_oom();
        for incident in self.incidents.assembler.close_all() {
            result = result.and(self.tell_incident(incident));
        }
        for incident in self.reports.take_unnamed() {
            result = result.and(self.tell_named(incident));
        }
        self.incidents.close();
        self.end_witness();
        result
    }
}

/// Steps until there is nothing to do, also past those that fail: none is taken twice. Gives the first failure.
fn all_steps<E>(most: usize, mut next: impl FnMut() -> Result<bool, E>) -> Result<(), E> {
    let mut result = Ok(());
    for _ in 0..most {
        match next() {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => result = result.and(Err(error)),
        }
    }
    result
}

/// The line that tells a mark at once.
fn oom_kill(victim: &VictimRecord, time: SystemTime, cgroups: &Cgroups) -> OomKill {
    let name = |id: Option<u64>| Some(cgroups.get(id?)?.display.to_string());
    OomKill {
        time,
        victim_tgid: victim.tgid,
        victim_tid: victim.tid,
        victim_comm: victim.comm.clone(),
        victim_uid: victim.uid,
        cgroup_id: victim.cgroup_id,
        cgroup: name(victim.cgroup_id),
        total_vm_bytes: victim.total_vm_bytes,
        anon_bytes: victim.anon_bytes,
        file_bytes: victim.file_bytes,
        shmem_bytes: victim.shmem_bytes,
        swap_bytes: victim.swap_bytes,
        page_table_bytes: victim.page_table_bytes,
        oom_score_adj: victim.oom_score_adj,
        trigger_tgid: victim.sender_tgid,
        trigger_comm: victim.sender_comm.clone(),
        trigger_cgroup_id: victim.sender_cgroup_id,
        trigger_cgroup: name(victim.sender_cgroup_id),
    }
}

fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn read_line(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_that_fails_keeps_no_later_record_from_being_taken_in() {
        let mut backlog = VecDeque::from([Ok(true), Err("first"), Ok(true), Err("last"), Ok(true)]);
        let result = all_steps(MOST_STEPS, || backlog.pop_front().unwrap_or(Ok(false)));
        assert_eq!(result, Err("first"));
        assert!(backlog.is_empty());
    }
}
