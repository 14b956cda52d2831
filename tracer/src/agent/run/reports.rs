//! Incidents that wait: a moment for the names of a container that is new, then for what Kubernetes says.
//!
//! Owns the two bounded queues and their deadlines. What Kubernetes says is joined by the container's id,
//! never by name or time alone.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    agent::config::RunError,
    export::otlp::Event,
    identity::facts::ContainerEnd,
    incident::{
        Incident,
        meaning::meaning,
        record::{KubernetesReport, Victim},
    },
};

use super::{Agent, naming::Naming};

/// Time that a source has to name a container that was made just before its kill, and symbols have to
/// name the victims' stacks.
const NAMED_WITHIN: Duration = Duration::from_secs(1);
/// The kubelet tells the end of a container within seconds, also when it is busy.
const REPORTED_WITHIN: Duration = Duration::from_secs(60);
/// An end is of this kill unless it was this long before: clocks of kubelet and kernel are one, but the
/// status has whole seconds.
const EARLIER: Duration = Duration::from_secs(2);
/// Exit code of a container whose main process got SIGKILL.
const SIGKILLED: i32 = 137;
/// Incidents that wait at once; of more the oldest is told as it is.
const MOST_WAITING: usize = 1024;

/// Incidents that wait.
#[derive(Debug, Default)]
pub struct Reports {
    unnamed: VecDeque<(Instant, Incident)>,
    unreported: VecDeque<Unreported>,
    /// Waits for Kubernetes that were given up because there were too many.
    pub given_up: u64,
}

#[derive(Debug)]
struct Unreported {
    incident: Arc<Incident>,
    container_id: String,
    deadline: Instant,
}

impl Reports {
    /// Until an incident is told without names.
    pub fn due_in(&self) -> Option<Duration> {
        let (deadline, _) = self.unnamed.front()?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }

    /// Holds an incident until it has names.
    pub fn hold(&mut self, incident: Incident) {
        let deadline = Instant::now() + NAMED_WITHIN;
        self.unnamed.push_back((deadline, incident));
    }

    /// An incident that has its names now, or waited long enough.
    pub fn next_named(&mut self, is_named: impl Fn(&Incident) -> bool) -> Option<Incident> {
        let crowded = self.unnamed.len() > MOST_WAITING;
        let now = Instant::now();
        let index = self
            .unnamed
            .iter()
            .position(|(deadline, incident)| crowded || *deadline <= now || is_named(incident))?;
        self.unnamed.remove(index).map(|(_, incident)| incident)
    }

    /// All that wait for names.
    pub fn take_unnamed(&mut self) -> Vec<Incident> {
        self.unnamed
            .drain(..)
            .map(|(_, incident)| incident)
            .collect()
    }

    /// Waits for what Kubernetes says of a kill in a container of a pod.
    pub fn expect(&mut self, incident: &Arc<Incident>) {
        if !incident.kind.is_kernel_kill() {
            return;
        }
        let Some(container_id) = incident.victims.iter().find_map(container_of) else {
            return;
        };
        if self.unreported.len() >= MOST_WAITING {
            self.unreported.pop_front();
            self.given_up += 1;
        }
        self.unreported.push_back(Unreported {
            incident: Arc::clone(incident),
            container_id,
            deadline: Instant::now() + REPORTED_WITHIN,
        });
    }

    /// An incident of which Kubernetes spoke, or has not spoken in time.
    fn next_reported(&mut self, naming: &Naming) -> Option<(Arc<Incident>, KubernetesReport)> {
        let now = Instant::now();
        let mut index = 0;
        while let Some(waiting) = self.unreported.get(index) {
            let end = naming.end_of(&waiting.container_id);
            let report = match end.filter(|(end, _)| is_after(end, &waiting.incident)) {
                Some((end, restart_count)) => Some(KubernetesReport {
                    reported: is_kill(&end),
                    container_id: waiting.container_id.clone(),
                    reason: end.reason,
                    exit_code: end.exit_code,
                    finished: end.finished,
                    restart_count,
                }),
                None if waiting.deadline > now => {
                    index += 1;
                    continue;
                }
                // Silence says something only of a pod that is still watched.
                None => naming
                    .is_watched(&waiting.container_id)
                    .then(|| KubernetesReport {
                        reported: false,
                        container_id: waiting.container_id.clone(),
                        reason: None,
                        exit_code: None,
                        finished: None,
                        restart_count: None,
                    }),
            };
            let waiting = self.unreported.remove(index)?;
            if let Some(report) = report {
                return Some((waiting.incident, report));
            }
        }
        None
    }
}

fn container_of(victim: &Victim) -> Option<String> {
    let names = victim.names.as_ref()?;
    let in_pod = names.pod_uid.is_some() && names.pod_sandbox != Some(true);
    names.container_id.clone().filter(|_| in_pod)
}

/// An end by itself may come later, and tells nothing of the kill.
fn is_kill(end: &ContainerEnd) -> bool {
    end.reason.as_deref() == Some("OOMKilled") || end.exit_code == Some(SIGKILLED)
}

fn is_after(end: &ContainerEnd, incident: &Incident) -> bool {
    end.finished.is_none_or(|finished| {
        let before = incident.time.duration_since(finished);
        Duration::try_from(before).is_ok_and(|before| before <= EARLIER) || before.is_negative()
    })
}

impl Agent {
    /// Tells what Kubernetes says of earlier kills.
    pub(super) fn tell_reports(&mut self) -> Result<(), RunError> {
        while let Some((incident, report)) = self.reports.next_reported(&self.naming) {
            let mut incident = Incident::clone(&incident);
            incident.kubernetes = Some(report);
            incident.meaning = meaning(&incident);
            let incident = Arc::new(incident);
            self.incidents.keep(Arc::clone(&incident));
            self.chronicle.report(&self.cgroups, &incident);
            if !self.wants_incident(&incident) {
                continue;
            }
            if let Some(otlp) = &self.otlp {
                otlp.event(Event::Report(Arc::clone(&incident)));
            }
            self.outputs
                .kubernetes_report(&incident)
                .map_err(RunError::Output)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::names::Names;

    const CGROUP_OOM: &str = include_str!("../../incident/fixtures/cgroup_oom.json");

    fn incident() -> Incident {
        serde_json::from_str(CGROUP_OOM).unwrap()
    }

    #[test]
    fn an_end_counts_from_shortly_before_the_kill_on() {
        let incident = incident();
        let ended = |seconds: i64| ContainerEnd {
            container_id: None,
            reason: None,
            exit_code: None,
            finished: Some(incident.time + jiff::SignedDuration::from_secs(seconds)),
        };
        assert!(is_after(&ended(3), &incident));
        assert!(is_after(&ended(-1), &incident));
        assert!(!is_after(&ended(-60), &incident));
    }

    #[test]
    fn only_a_container_of_a_pod_is_waited_for() {
        let mut reports = Reports::default();
        let mut incident = incident();
        reports.expect(&Arc::new(incident.clone()));
        assert!(reports.unreported.is_empty());
        for victim in &mut incident.victims {
            victim.names = Some(Box::new(Names {
                container_id: Some("c".into()),
                pod_uid: Some("u".into()),
                ..Names::default()
            }));
        }
        reports.expect(&Arc::new(incident));
        assert_eq!(reports.unreported.len(), 1);
    }

    #[test]
    fn what_waits_for_names_is_told_when_it_has_them_or_in_time() {
        let mut reports = Reports::default();
        reports.hold(incident());
        assert!(reports.next_named(|_| false).is_none());
        assert!(reports.due_in().is_some());
        assert!(reports.next_named(|_| true).is_some());
        assert!(reports.due_in().is_none());
    }
}
