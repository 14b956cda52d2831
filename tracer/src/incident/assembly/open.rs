//! One incident under way: its victims, and until when it waits for them.

use crate::probes::oom::{Charge, VictimRecord};

use super::{
    super::record::{Incident, Kind, MOST_VICTIMS, Victim},
    SAME_GLOBAL_INVOCATION_NS, SAME_INVOCATION_NS, Surroundings,
};

/// More victims of the same invocation may follow within this time, ns.
const SETTLE_NS: u64 = 50_000_000;
/// Victims that are not dead after this time are not waited for, ns.
const PATIENCE_NS: u64 = 10_000_000_000;
/// And no longer in all: a killer may signal for ever.
const LONGEST_NS: u64 = 2 * PATIENCE_NS;

/// An incident whose victims are still dying.
#[derive(Debug)]
pub struct Open {
    pub incident: Incident,
    charge: Option<Charge>,
    /// Boot time of each victim's mark and death, beside `incident.victims`.
    ends: Vec<End>,
    /// The last mark or signal, boot time.
    pub last_ns: u64,
    pub announced: bool,
    given_up: bool,
}

/// The end of one victim.
#[derive(Debug)]
pub struct End {
    marked_ns: u64,
    pub died_boot_ns: Option<u64>,
    pub died: Option<jiff::Timestamp>,
    pub reaped: Option<jiff::Timestamp>,
}

impl Open {
    pub fn new(incident: Incident, charge: Option<Charge>) -> Self {
        Self {
            last_ns: incident.boot_time_ns,
            incident,
            charge,
            ends: Vec::new(),
            announced: false,
            given_up: false,
        }
    }

    /// Whether the thread is the trigger of this kernel OOM.
    pub fn is_of(&self, trigger_tid: u32) -> bool {
        let trigger = self.incident.trigger.as_ref();
        self.incident.kind.is_kernel_kill()
            && trigger.is_some_and(|trigger| trigger.tid == trigger_tid)
    }

    /// Whether a mark of the same trigger belongs to the same invocation of the OOM killer.
    pub fn takes(&self, victim: &VictimRecord, charge: Option<&Charge>) -> bool {
        let since = victim.boot_ns.saturating_sub(self.last_ns);
        match (charge, &self.charge) {
            // `oom_kill_process` is told once, before its marks.
            (None, Some(own)) => own.from_oom_control && since < SAME_INVOCATION_NS,
            (None, None) => since < SAME_GLOBAL_INVOCATION_NS,
            (Some(charge), Some(own)) if !charge.from_oom_control && !own.from_oom_control => {
                // Each OOM of a cgroup is counted before its kills.
                let same_counts = charge.levels.len() == own.levels.len()
                    && charge.levels.iter().zip(&own.levels).all(|(one, other)| {
                        one.cgroup_id == other.cgroup_id && one.oom_events == other.oom_events
                    });
                let within = if self.incident.charged.is_some() {
                    SAME_INVOCATION_NS
                } else {
                    SAME_GLOBAL_INVOCATION_NS
                };
                same_counts && since < within
            }
            _ => false,
        }
    }

    /// Whether that process is the user-space killer.
    pub fn is_by(&self, killer: u32) -> bool {
        let known = self.incident.killer.as_ref();
        known.is_some_and(|known| known.pid == killer)
    }

    /// Whether a signal of the same killer is one of several at once.
    pub fn is_at_once(&self, victim: &VictimRecord) -> bool {
        victim.boot_ns.saturating_sub(self.last_ns) < SAME_INVOCATION_NS
            && victim.boot_ns.saturating_sub(self.incident.boot_time_ns) < PATIENCE_NS
    }

    /// Another signal of the same killer, to the same process or another.
    pub fn signalled(
        &mut self,
        victim: &VictimRecord,
        killed: Option<bool>,
        around: &dyn Surroundings,
    ) {
        if let Some(killer) = &mut self.incident.killer {
            killer.signal = victim.signal;
        }
        if !self.has_alive(victim.tgid, victim.tid) {
            self.add(victim, killed, None, around);
            return;
        }
        self.last_ns = self.last_ns.max(victim.boot_ns);
        let mut told = self.incident.victims.iter_mut();
        if let Some(told) = told.find(|told| told.pid == victim.tgid) {
            told.killed = killed.or(told.killed);
        }
    }

    pub fn add(
        &mut self,
        victim: &VictimRecord,
        killed: Option<bool>,
        badness: Option<i64>,
        around: &dyn Surroundings,
    ) {
        self.last_ns = self.last_ns.max(victim.boot_ns);
        if self.incident.victims.len() >= MOST_VICTIMS {
            self.incident.victims_left_out += 1;
            return;
        }
        if !self.incident.victims.is_empty() && self.incident.kind.is_kernel_kill() {
            self.incident.group_kill = Some(true);
        }
        self.ends.push(End {
            marked_ns: victim.boot_ns,
            died_boot_ns: None,
            died: None,
            reaped: None,
        });
        let below_memory_cgroup = victim.leaf_cgroup_id.filter(|&leaf| {
            victim.cgroup_id != Some(leaf) && self.on_default_hierarchy(victim, around)
        });
        self.incident.victims.push(Victim {
            pid: victim.tgid,
            tid: victim.tid,
            comm: victim.comm.clone(),
            command_line: victim.command_line.clone(),
            executable: victim.executable.clone(),
            uid: victim.uid,
            started: victim.started_boot_ns.map(|ns| around.wall_clock(ns)),
            cgroup_id: victim.cgroup_id,
            cgroup: victim.cgroup_id.and_then(|id| around.cgroup(id)),
            names: None,
            leaf_cgroup_id: below_memory_cgroup,
            leaf_cgroup: below_memory_cgroup.and_then(|id| around.cgroup(id)),
            total_vm_bytes: victim.total_vm_bytes,
            anon_bytes: victim.anon_bytes,
            file_bytes: victim.file_bytes,
            shmem_bytes: victim.shmem_bytes,
            swap_bytes: victim.swap_bytes,
            page_table_bytes: victim.page_table_bytes,
            oom_score_adj: victim.oom_score_adj,
            badness,
            namespace_pid: victim.namespace_pid,
            container_init: match (victim.namespace_pid, victim.namespace_level) {
                (Some(pid), Some(level)) => Some(pid == 1 && level > 0),
                _ => None,
            },
            killed,
            marked: around.wall_clock(victim.boot_ns),
            died: None,
            died_after_ns: None,
            reaped: None,
        });
    }

    /// On v1 and hybrid hosts the default hierarchy is another tree.
    fn on_default_hierarchy(&self, victim: &VictimRecord, around: &dyn Surroundings) -> bool {
        match (victim.cgroup_id, victim.leaf_cgroup_id) {
            (Some(upper), Some(leaf)) => {
                around.cgroup(leaf).is_some() && around.is_above(upper, leaf)
            }
            _ => false,
        }
    }

    /// The end of a victim that is not dead yet.
    pub fn dying(&mut self, tgid: u32) -> Option<&mut End> {
        self.incident
            .victims
            .iter()
            .zip(&mut self.ends)
            .find(|(victim, end)| is_dying(victim, end, tgid))
            .map(|(_, end)| end)
    }

    /// Whether a process is a victim that is not dead yet.
    pub fn has_alive(&self, tgid: Option<u32>, tid: u32) -> bool {
        let id = tgid.unwrap_or(tid);
        let mut victims = self.incident.victims.iter().zip(&self.ends);
        victims.any(|(victim, end)| is_dying(victim, end, id))
    }

    /// The end of a victim whose memory was not reaped yet.
    pub fn reaping(&mut self, tid: u32) -> Option<&mut End> {
        self.incident
            .victims
            .iter()
            .zip(&mut self.ends)
            .find(|(victim, end)| victim.tid == tid && end.reaped.is_none())
            .map(|(_, end)| end)
    }

    pub fn give_up(&mut self) {
        self.given_up = true;
    }

    pub fn all_dead(&self) -> bool {
        self.ends.iter().all(|end| end.died_boot_ns.is_some())
    }

    /// Boot time at which there is nothing more to wait for.
    pub fn closes_at(&self, sees_deaths: bool) -> u64 {
        if self.given_up {
            0
        } else if self.all_dead() || !sees_deaths {
            self.last_ns.saturating_add(SETTLE_NS)
        } else {
            let longest = self.incident.boot_time_ns.saturating_add(LONGEST_NS);
            self.last_ns.saturating_add(PATIENCE_NS).min(longest)
        }
    }

    /// The incident with the ends of its victims. `waited`: who has none by now lives on, unless it was given up.
    pub fn close(&mut self, waited: bool) -> Incident {
        let waited = waited && !self.given_up;
        for (victim, end) in self.incident.victims.iter_mut().zip(&self.ends) {
            victim.died = end.died;
            victim.died_after_ns = end.died_boot_ns.map(|ns| ns.saturating_sub(end.marked_ns));
            victim.reaped = end.reaped;
            // A process that was only asked to end may go on.
            if self.incident.kind == Kind::UserSpaceKill && victim.killed.is_none() {
                let ended = victim.died.is_some();
                victim.killed = (ended || waited).then_some(ended);
            }
        }
        self.incident.complete = true;
        self.incident.clone()
    }
}

fn is_dying(victim: &Victim, end: &End, tgid: u32) -> bool {
    end.died_boot_ns.is_none() && (victim.pid == Some(tgid) || victim.tid == tgid)
}
