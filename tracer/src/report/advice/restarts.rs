//! Kills that come again and again: of one program, at one limit.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::{super::facts::Facts, List};
use crate::{export::console::incident::shown, identity::names::Names, incident::Incident};

/// Kills within that time that are a loop.
const LOOP: SignedDuration = SignedDuration::from_hours(1);
const LOOP_KILLS: usize = 3;

impl List {
    pub(super) fn restart_loop(&mut self, facts: &Facts) {
        let kills = facts
            .incidents
            .iter()
            .filter(|incident| incident.kind.is_kernel_kill() && facts.tells(incident));
        let mut alike: BTreeMap<(String, &str), Vec<Timestamp>> = BTreeMap::new();
        for kill in kills {
            if let Some(key) = likeness(kill) {
                alike.entry(key).or_default().push(kill.time);
            }
        }
        let loops = alike.iter().filter_map(|((_, program), times)| {
            let last = times.windows(LOOP_KILLS).next_back()?;
            let newest = *last.last()?;
            let over = newest.duration_since(*last.first()?);
            (over <= LOOP).then_some((newest, *program, over))
        });
        if let Some((_, program, over)) = loops.max_by_key(|(newest, _, _)| *newest) {
            self.say(format!(
                "A restart loop: the last {LOOP_KILLS} kills of {} came within {} min. Each start reaches \
                 the limit again, so restarting does not help: raise the limit for now, or take load off.",
                shown(program),
                over.as_mins().saturating_add(1)
            ));
        }
    }
}

/// Whose limit it was, and the program that was chosen; `None` where one is not known.
fn likeness(incident: &Incident) -> Option<(String, &str)> {
    let charged = incident.charged.as_ref()?;
    // A container of a pod has another path after each restart.
    let limit = charged.names.as_deref().and_then(Names::short);
    let limit = limit.or_else(|| charged.cgroup.clone());
    let limit = limit.unwrap_or_else(|| charged.cgroup_id.to_string());
    let victim = incident.victims.first()?;
    let program = victim.executable.as_deref().or(victim.comm.as_deref())?;
    Some((limit, program))
}
