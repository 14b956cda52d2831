//! What a kill by a user-space OOM killer means.

use super::{super::record::Incident, first_upper, home::Home, init_of, killed, victim_name};

/// Of Linux on every architecture.
const SIGTERM: u32 = 15;

pub fn kill(incident: &Incident) -> (String, Vec<String>) {
    let killer = match &incident.killer {
        Some(killer) => format!("{} (PID {})", killer.comm, killer.pid),
        None => "a user-space OOM killer".into(),
    };
    let is_term = incident.killer.as_ref().and_then(|killer| killer.signal) == Some(SIGTERM);
    let summary = if is_term {
        let who = incident
            .victims
            .first()
            .map_or("a process".into(), victim_name);
        let more = match incident.victims.len() {
            0 | 1 => String::new(),
            several => format!(" and {} more", several - 1),
        };
        format!("{who}{more} was told to end (SIGTERM) by {killer}, not killed by the kernel.")
    } else {
        format!("{} by {killer}, not by the kernel.", killed(incident))
    };
    let home = Home::of_incident(incident);
    let init = incident.victims.iter().find_map(init_of);
    let mut consequence = vec!["The kernel counts no oom_kill.".to_owned()];
    consequence.extend(survivors(incident));
    consequence.push(match (home, init) {
        (Home::Pod { .. }, _) if is_term => "If the container ends by it, Kubernetes shows its own \
            exit code (143 unless it handles the signal), not OOMKilled."
            .into(),
        (Home::Container, _) if is_term => "If the container ends by it, expect its own exit code \
            (143 unless it handles the signal)."
            .into(),
        (Home::Pod { host_pids: false }, Some(true)) => "The container ends: Kubernetes shows exit \
            137 with reason Error, not OOMKilled."
            .into(),
        (Home::Pod { host_pids: false }, Some(false)) => {
            "The container goes on unless its PID 1 is killed too; Kubernetes reports nothing."
                .into()
        }
        (Home::Pod { .. }, _) => "If the container ends by it, Kubernetes shows exit 137 with \
            reason Error, not OOMKilled."
            .into(),
        (Home::Container, Some(true)) => "The container ends with exit 137, not shown as an OOM \
            kill."
            .into(),
        (Home::Container, Some(false)) => "The container goes on unless its PID 1 is killed too.".into(),
        (Home::Container, None) => "If the container ends by it, expect exit 137, not shown as an \
            OOM kill."
            .into(),
        (Home::Service(unit), _) => format!(
            "systemd shows the result signal for {unit}, or oom-kill if systemd-oomd was the killer."
        ),
        (Home::Host, _) => "Not a container: nothing restarts it unless a supervisor does.".into(),
        (Home::Unknown, _) => "Whether this was in a container is not known.".into(),
    });
    (first_upper(summary), consequence)
}

/// Victims of which no end was seen for as long as an incident is kept open for it.
fn survivors(incident: &Incident) -> Option<String> {
    let victims = &incident.victims;
    let alive = victims
        .iter()
        .filter(|victim| victim.killed == Some(false))
        .count();
    match (alive, victims.len()) {
        _ if !incident.complete => None,
        (0, _) => None,
        (1, 1) => Some("It had not ended 10 s later.".into()),
        (_, all) => Some(format!("{alive} of {all} had not ended 10 s later.")),
    }
}
