//! What a report is made of, as the agent and the store gave it. Holds and selects; must not judge or format.

use jiff::{SignedDuration, Timestamp};

use crate::{
    analysis::State,
    api::records::{AgentRecord, CgroupDetails, LeakRecord, MarkKind, Timeline},
    export::console::incident,
    identity::names::Names,
    incident::Incident,
};

/// A verdict of reclaimed memory comes so soon after the kill that freed it.
pub const RECLAIMED_AFTER_KILL: SignedDuration = SignedDuration::from_mins(15);

/// All that is known of one container.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Now.
    pub made: Timestamp,
    /// Nothing before it is told, but for the incident that is asked for.
    pub since: Option<Timestamp>,
    /// `None`: no agent could be asked.
    pub agent: Option<AgentRecord>,
    /// `None`: the agent knows of no such cgroup, or was not asked.
    pub details: Option<CgroupDetails>,
    /// History of the victim's own cgroup, where the limit was that of one above it.
    pub victims_timeline: Option<Timeline>,
    /// Those of this container, the oldest first.
    pub incidents: Vec<Incident>,
    /// The id of the one that is asked for.
    pub asked: Option<String>,
    /// The agent's picture of the code that holds its memory, SVG.
    pub flamegraph: Option<String>,
    /// What could not be had, and why; a sentence each.
    pub missing: Vec<String>,
}

impl Facts {
    /// The incident that is asked for, else the newest.
    pub fn incident(&self) -> Option<&Incident> {
        match &self.asked {
            Some(id) => self.incidents.iter().find(|incident| incident.id == *id),
            None => self.incidents.last(),
        }
    }

    pub fn timeline(&self) -> Option<&Timeline> {
        self.details.as_ref()?.timeline.as_ref()
    }

    pub fn leak(&self) -> Option<&LeakRecord> {
        self.details.as_ref()?.leak.as_deref()
    }

    /// Names as the agent has them now, else as of the incident.
    pub fn names(&self) -> Option<&Names> {
        let live = self.details.as_ref().and_then(|known| known.names.as_ref());
        live.or_else(|| self.incident().and_then(names))
    }

    /// Path of the cgroup.
    pub fn cgroup(&self) -> Option<&str> {
        let live = self.details.as_ref().map(|known| known.row.cgroup.as_str());
        live.or_else(|| self.incident().and_then(incident::cgroup))
    }

    /// Since when it leaked as an incident ended it, as the agent told before.
    pub fn leaked_since(&self, incident: &Incident) -> Option<Timestamp> {
        let timelines = self.timeline().into_iter().chain(&self.victims_timeline);
        let began = timelines
            .flat_map(|timeline| &timeline.marks)
            .filter(|mark| mark.kind == MarkKind::GrowthBegan && mark.time <= incident.time)
            .map(|mark| mark.time)
            .max()?;
        let ended = self.incidents.iter().any(|other| {
            other.kind.is_kernel_kill() && other.time > began && other.time < incident.time
        });
        (!ended).then_some(began)
    }

    /// Whether the kernel killed when memory that grew came back: nothing was given back then.
    pub fn freed_by_kill(&self) -> bool {
        let Some(leak) = self.leak().filter(|leak| leak.state == State::Reclaimed) else {
            return false;
        };
        let mut kills = self
            .incidents
            .iter()
            .filter(|one| one.kind.is_kernel_kill());
        kills.any(|kill| {
            leak.state_since
                .is_none_or(|since| since.duration_since(kill.time).abs() <= RECLAIMED_AFTER_KILL)
        })
    }

    /// Whether that lies in the time that is told.
    pub fn is_told(&self, time: Timestamp) -> bool {
        self.since.is_none_or(|since| time >= since)
    }

    /// Whether that is the id of the incident that is asked for.
    pub fn is_asked(&self, id: &str) -> bool {
        self.asked.as_deref() == Some(id)
    }

    /// Whether that incident is told: the one that is asked for is, whenever it came.
    pub fn tells(&self, incident: &Incident) -> bool {
        self.is_asked(&incident.id) || self.is_told(incident.time)
    }

    /// How many incidents came before the time that is told.
    pub fn untold(&self) -> usize {
        self.incidents.iter().filter(|one| !self.tells(one)).count()
    }
}

/// Of the charged cgroup, else of the first victim's.
pub fn names(incident: &Incident) -> Option<&Names> {
    let charged = incident.charged.as_ref();
    let charged = charged.and_then(|charged| charged.names.as_deref());
    charged.or_else(|| incident.victims.first()?.names.as_deref())
}

/// Whose an incident is, the same after a restart: container of a pod, else the cgroup's path.
pub fn owner(incident: &Incident) -> Option<String> {
    let named = names(incident).and_then(Names::short);
    named.or_else(|| incident::cgroup(incident).map(str::to_owned))
}

/// Whether the container with these names and this path was hit: its limit, or a process of it.
pub fn concerns(incident: &Incident, cgroup: Option<&str>, known: Option<&Names>) -> bool {
    let short = known.and_then(Names::short);
    let is_it = |path: Option<&str>, names: Option<&Names>| {
        let by_name = short.is_some() && names.and_then(Names::short) == short;
        by_name || (path.is_some() && path == cgroup)
    };
    let charged = incident.charged.iter();
    let victims = incident.victims.iter();
    charged
        .map(|charged| (charged.cgroup.as_deref(), charged.names.as_deref()))
        .chain(victims.map(|victim| (victim.cgroup.as_deref(), victim.names.as_deref())))
        .any(|(path, names)| is_it(path, names))
}
