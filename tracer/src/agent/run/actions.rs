//! Events to commands, and what became of them to the log and the history of the cgroup.

use std::time::{Duration, Instant};

use crate::{
    actions::{Facts, Outcome},
    api::records::MarkKind,
    growth::GrowthChange,
    incident::Incident,
};

use super::Agent;

/// Time that commands have when memtrace ends.
const LAST_COMMANDS: Duration = Duration::from_secs(2);

impl Agent {
    /// Runs what is to be run at a change of a verdict.
    pub(super) fn act_on_growth(&mut self, change: &GrowthChange) {
        if self.actions.is_off() {
            return;
        }
        let cgroup = self.cgroups.get(change.cgroup_id);
        let path = cgroup.map(|cgroup| cgroup.path.clone());
        self.act(Facts::of_growth(change, path));
    }

    /// Runs what is to be run at an incident.
    pub(super) fn act_on_incident(&mut self, incident: &Incident) {
        if self.actions.is_off() {
            return;
        }
        let path = |id| Some(self.cgroups.get(id)?.path.clone());
        self.act(Facts::of_incident(incident, path));
    }

    fn act(&mut self, facts: Option<Facts>) {
        let Some(facts) = facts else {
            return;
        };
        for outcome in self.actions.act(&facts, Instant::now()) {
            self.tell_action(&outcome);
        }
    }

    pub(super) fn tell_action(&mut self, outcome: &Outcome) {
        let output = match outcome.output.as_str() {
            "" => String::new(),
            output => format!("; its output: {output}"),
        };
        match (outcome.is_news, outcome.good) {
            (false, _) => {}
            (true, true) => log::info!("command {}{output}", outcome.text),
            (true, false) => log::warn!("command {}{output}", outcome.text),
        }
        if let Some(id) = outcome.cgroup_id {
            self.mark(id, MarkKind::Action, &outcome.text);
        }
    }

    pub(super) fn stop_actions(&mut self) {
        for outcome in self.actions.stop(LAST_COMMANDS) {
            self.tell_action(&outcome);
        }
    }
}
