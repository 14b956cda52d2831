//! Joins the records of one OOM into one incident, and says when it is complete.
//!
//! The kernel runs one OOM killer at a time (`oom_lock`), so the records of one invocation come
//! from one thread, a charge before its marks. Deaths follow on any CPU.

mod open;

use std::collections::VecDeque;

use jiff::Timestamp;

use crate::{
    kernel::fields::OomConstraints,
    probes::oom::{Charge, OomRecord, VictimRecord},
};

use super::{
    charged::{self, Charged, OomEvents},
    record::{Evidence, Incident, KernelCounts, Killer, Kind, Meaning, Request, Trigger},
};
use open::Open;

/// Marks of one invocation follow each other within this time, ns.
const SAME_INVOCATION_NS: u64 = 1_000_000_000;
/// The same where nothing but time tells two invocations apart, ns.
const SAME_GLOBAL_INVOCATION_NS: u64 = 10_000_000;
/// Of Linux on every architecture.
const SIGKILL: u32 = 9;
/// Incidents under way; the oldest is given up for a newer one.
const MOST_OPEN: usize = 4096;
/// Ids that a new one is compared with.
const RECENT_IDS: usize = 256;
/// Ends that came before the mark of their process, which follows within microseconds.
const MOST_EARLY_DEATHS: usize = 64;

/// What does not change while memtrace runs.
#[derive(Debug, Clone, Default)]
pub struct HostFacts {
    pub boot_id: String,
    pub constraints: OomConstraints,
    /// One memory node: neither cpuset nor policy can run out alone.
    pub single_node: bool,
    /// Signals are seen: a mark without one is not a kill.
    pub sees_signals: bool,
    /// Ends of processes are seen.
    pub sees_deaths: bool,
    /// The second counter of a cgroup is memory and swap together (v1).
    pub swap_counts_memory: bool,
    pub page_bytes: u64,
}

/// What the caller knows of the host at this moment.
pub trait Surroundings {
    /// For display; `None` if the cgroup was never seen.
    fn cgroup(&self, id: u64) -> Option<String>;
    /// Whether `upper` is `lower` or above it. Unknown cgroups are: they exclude nothing.
    fn is_above(&self, upper: u64, lower: u64) -> bool;
    /// Wall time of a moment of `CLOCK_BOOTTIME`.
    fn wall_clock(&self, boot_ns: u64) -> Timestamp;
    fn gfp_flags(&self, mask: u32) -> Option<String>;
}

/// Incidents under way.
#[derive(Debug, Default)]
pub struct Assembler {
    facts: HostFacts,
    oom_events: OomEvents,
    /// A charge whose marks are still to come.
    pending: Option<Charge>,
    open: VecDeque<Open>,
    /// Process and boot time, oldest first.
    early_deaths: VecDeque<(u32, u64)>,
    recent_ids: VecDeque<String>,
}

impl Assembler {
    pub fn new(facts: HostFacts) -> Self {
        Self {
            facts,
            ..Self::default()
        }
    }

    /// Takes a record in.
    pub fn feed(&mut self, record: OomRecord, around: &dyn Surroundings) {
        match record {
            OomRecord::Charge(charge) => self.pending = Some(charge),
            OomRecord::Mark(victim) => {
                let (tgid, marked_ns) = (victim.tgid, victim.boot_ns);
                self.marked(*victim, around);
                self.bury_early(tgid, marked_ns, around);
            }
            OomRecord::Signal(victim) => self.signalled(*victim, around),
            OomRecord::Death { tgid, boot_ns } => {
                if !self.bury(tgid, boot_ns, around) {
                    if self.early_deaths.len() >= MOST_EARLY_DEATHS {
                        self.early_deaths.pop_front();
                    }
                    self.early_deaths.push_back((tgid, boot_ns));
                }
            }
            // The kernel's counts tell; the incident has the victim already.
            OomRecord::KilledAgain { .. } => {}
            OomRecord::Reaped { tid, boot_ns } => {
                let victim = self.open.iter_mut().find_map(|open| open.reaping(tid));
                if let Some(victim) = victim {
                    victim.reaped = Some(around.wall_clock(boot_ns));
                }
            }
        }
    }

    /// Whether the process was a victim that was not known to be dead.
    fn bury(&mut self, tgid: u32, boot_ns: u64, around: &dyn Surroundings) -> bool {
        let Some(victim) = self.open.iter_mut().find_map(|open| open.dying(tgid)) else {
            return false;
        };
        victim.died = Some(around.wall_clock(boot_ns));
        victim.died_boot_ns = Some(boot_ns);
        true
    }

    /// A process that runs on another CPU may begin to exit between the signal and the mark.
    fn bury_early(&mut self, tgid: Option<u32>, marked_ns: u64, around: &dyn Surroundings) {
        let early = |&(dead, boot_ns): &(u32, u64)| {
            Some(dead) == tgid && marked_ns.saturating_sub(boot_ns) < SAME_INVOCATION_NS
        };
        if let Some(index) = self.early_deaths.iter().position(early)
            && let Some((tgid, boot_ns)) = self.early_deaths.remove(index)
        {
            self.bury(tgid, boot_ns, around);
        }
    }

    /// Memory cgroup of a victim that is not dead yet.
    pub fn cgroup_of(&self, tgid: u32) -> Option<u64> {
        let victims = self
            .open
            .iter()
            .rev()
            .flat_map(|open| &open.incident.victims);
        victims
            .filter(|victim| victim.pid == Some(tgid))
            .find_map(|victim| victim.cgroup_id)
    }

    /// A cgroup was made.
    pub fn born_cgroup(&mut self, id: u64) {
        self.oom_events.born(id);
    }

    /// A cgroup is gone for good.
    pub fn forget_cgroup(&mut self, id: u64) {
        self.oom_events.forget(id);
    }

    /// The oldest incident that was not handed out yet, for its evidence.
    pub fn next_opened(&mut self) -> Option<&mut Incident> {
        let open = self.open.iter_mut().find(|open| !open.announced)?;
        open.announced = true;
        Some(&mut open.incident)
    }

    /// An incident that is complete, or was waited for long enough, at `now_ns` of the boot clock.
    pub fn next_closed(&mut self, now_ns: u64) -> Option<Incident> {
        let due = |open: &Open| open.announced && open.closes_at(self.facts.sees_deaths) <= now_ns;
        let index = self.open.iter().position(due)?;
        let sees_deaths = self.facts.sees_deaths;
        let closed = self.open.remove(index);
        closed.map(|mut open| open.close(sees_deaths))
    }

    /// Everything under way, complete or not.
    pub fn close_all(&mut self) -> Vec<Incident> {
        self.open
            .drain(..)
            .map(|mut open| open.close(false))
            .collect()
    }

    /// When [`Assembler::next_closed`] has something next, ns of the boot clock.
    pub fn next_close(&self) -> Option<u64> {
        self.open
            .iter()
            .map(|open| open.closes_at(self.facts.sees_deaths))
            .min()
    }

    /// Whether the end of a victim is to come.
    pub fn awaits_deaths(&self) -> bool {
        self.facts.sees_deaths && self.open.iter().any(|open| !open.all_dead())
    }

    /// An incident without a victim, ready to be filled in.
    pub fn bare(&mut self, kind: Kind, boot_ns: u64, around: &dyn Surroundings) -> Incident {
        let time = around.wall_clock(boot_ns);
        Incident {
            id: self.new_id(time, boot_ns),
            kind,
            time,
            boot_time_ns: boot_ns,
            boot_id: self.facts.boot_id.clone(),
            complete: false,
            group_kill: None,
            charged: None,
            trigger: None,
            request: Request::default(),
            killer: None,
            victims: Vec::new(),
            victims_left_out: 0,
            evidence: Evidence::default(),
            kernel_counts: KernelCounts::default(),
            stall: None,
            kubernetes: None,
            meaning: Meaning::default(),
        }
    }

    fn new_id(&mut self, time: Timestamp, boot_ns: u64) -> String {
        let second = time.strftime("%Y%m%dT%H%M%S");
        let mut low = boot_ns as u32;
        let id = loop {
            let id = format!("{second}-{low:08x}");
            if !self.recent_ids.contains(&id) {
                break id;
            }
            low = low.wrapping_add(1);
        };
        self.recent_ids.push_back(id.clone());
        if self.recent_ids.len() > RECENT_IDS {
            self.recent_ids.pop_front();
        }
        id
    }

    fn marked(&mut self, victim: VictimRecord, around: &dyn Surroundings) {
        let killed = self.facts.sees_signals.then_some(victim.signal.is_some());
        let charge = self
            .pending
            .take()
            .filter(|charge| charge.trigger_tid == victim.sender_tid);
        // `mark_oom_victim` is entered again for a victim that the kernel meets twice, and for each
        // thread of a dying one that runs out: that process is told already.
        let again = |open: &Open| open.has_alive(victim.tgid, victim.tid);
        if killed != Some(true) && self.open.iter().any(again) {
            return;
        }
        if killed != Some(false)
            && let Some(open) = self.same_invocation(&victim, charge.as_ref())
        {
            open.add(&victim, killed, None, around);
            return;
        }
        let kind = if killed == Some(false) {
            Some(Kind::MarkedExiting)
        } else {
            None
        };
        let mut incident = self.bare(kind.unwrap_or(Kind::KernelOom), victim.boot_ns, around);
        incident.trigger = Some(Trigger {
            pid: victim.sender_tgid,
            tid: victim.sender_tid,
            comm: victim.sender_comm.clone(),
            process_comm: victim.sender_process_comm.clone(),
            cgroup_id: victim.sender_cgroup_id,
            cgroup: victim.sender_cgroup_id.and_then(|id| around.cgroup(id)),
            names: None,
        });
        if let Some(charge) = &charge {
            let found = self.found(charge, &victim, around);
            if kind.is_none() {
                incident.kind = self.kind(charge, found);
            }
            if let Charged::Level(index, known_by) = found
                && let Some(level) = charge.levels.get(index)
            {
                let name = around.cgroup(level.cgroup_id);
                incident.charged = Some(charged::describe(level, name, known_by));
            }
            incident.request = Request {
                order: charge.order,
                gfp_mask: charge.gfp_mask,
                gfp_flags: charge.gfp_mask.and_then(|mask| around.gfp_flags(mask)),
                total_bytes: charge.total_bytes,
            };
            self.oom_events.remember(&charge.levels);
        }
        let badness = charge
            .as_ref()
            .filter(|charge| charge.from_oom_control)
            .and_then(|charge| charge.chosen_points);
        let mut open = Open::new(incident, charge);
        open.add(&victim, killed, badness, around);
        self.push(open);
    }

    fn found(&self, charge: &Charge, victim: &VictimRecord, around: &dyn Surroundings) -> Charged {
        charged::find(
            charge,
            &self.oom_events,
            self.facts.swap_counts_memory,
            self.facts.page_bytes,
            |upper| {
                victim
                    .cgroup_id
                    .is_none_or(|lower| around.is_above(upper, lower))
            },
        )
    }

    fn kind(&self, charge: &Charge, found: Charged) -> Kind {
        let constraints = &self.facts.constraints;
        match found {
            Charged::Level(..) => Kind::CgroupOom,
            Charged::Unknown => Kind::KernelOom,
            Charged::NoCgroup if charge.constraint.is_none() => {
                if self.facts.single_node {
                    Kind::GlobalOom
                } else {
                    Kind::KernelOom
                }
            }
            Charged::NoCgroup if charge.constraint == constraints.cpuset => Kind::CpusetOom,
            Charged::NoCgroup if charge.constraint == constraints.memory_policy => {
                Kind::MempolicyOom
            }
            Charged::NoCgroup if charge.constraint == constraints.none => Kind::GlobalOom,
            Charged::NoCgroup => Kind::KernelOom,
        }
    }

    /// The incident of the invocation that this mark belongs to.
    fn same_invocation(
        &mut self,
        victim: &VictimRecord,
        charge: Option<&Charge>,
    ) -> Option<&mut Open> {
        self.open
            .iter_mut()
            .rev()
            .find(|open| open.is_of(victim.sender_tid))
            .filter(|open| open.takes(victim, charge))
    }

    fn signalled(&mut self, victim: VictimRecord, around: &dyn Surroundings) {
        let killed = (victim.signal == Some(SIGKILL)).then_some(true);
        let of_killer = |open: &Open| open.is_by(victim.sender_tgid);
        // Where the process is a victim already, before the newest: it has one end only.
        let is_victim = |open: &Open| of_killer(open) && open.has_alive(victim.tgid, victim.tid);
        let at_once = |open: &Open| of_killer(open) && open.is_at_once(&victim);
        let position = self.open.iter().rposition(is_victim);
        let position = position.or_else(|| self.open.iter().rposition(at_once));
        if let Some(open) = position.and_then(|position| self.open.get_mut(position)) {
            open.signalled(&victim, killed, around);
            return;
        }
        let mut incident = self.bare(Kind::UserSpaceKill, victim.boot_ns, around);
        incident.killer = Some(Killer {
            pid: victim.sender_tgid,
            comm: victim
                .sender_process_comm
                .clone()
                .unwrap_or_else(|| victim.sender_comm.clone()),
            cgroup: victim.sender_cgroup_id.and_then(|id| around.cgroup(id)),
            signal: victim.signal,
        });
        let mut open = Open::new(incident, None);
        open.add(&victim, killed, None, around);
        self.push(open);
    }

    fn push(&mut self, open: Open) {
        if self.open.len() >= MOST_OPEN
            && let Some(oldest) = self.open.front_mut()
        {
            oldest.give_up();
        }
        self.open.push_back(open);
    }
}

#[cfg(test)]
#[path = "assembly_tests.rs"]
mod tests;
