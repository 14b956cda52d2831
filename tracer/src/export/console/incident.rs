//! Incidents for people: one line each, or a report that tells the whole story.
//!
//! Owns the words and the layout. A stored incident may have been tampered with: nothing that could
//! act on a terminal gets through. Unknown values are left out or called unknown, never 0.

mod code;
mod list;
mod report;
mod sparkline;

pub use super::duration::{milliseconds, nanoseconds};
pub use list::list;
pub use report::{report, wrapped};

use std::fmt::Write as _;

use crate::{
    host::escape,
    incident::{
        meaning,
        record::{Incident, Stall, Victim},
    },
    size,
};

/// Longest text shown of a single field.
const MOST_CHARS: usize = 4096;

/// An incident in one line: time, kind, whose limit, victims, bytes, limit, another's trigger.
pub fn line(incident: &Incident) -> String {
    let mut line = format!("{:.3}  {}", incident.time, incident.kind.name());
    let _ = match place(incident) {
        Some(place) => write!(line, "  {place}"),
        None => write!(line, "  (cgroup unknown)"),
    };
    if let Some(victim) = incident.victims.first() {
        let _ = write!(line, "  {}", process(victim));
        let count = victims(incident);
        if count > 1 {
            let _ = write!(line, " ×{count}");
        }
        if let Some(bytes) = resident(victim) {
            let _ = write!(line, "  {}", size::bytes(bytes));
        }
    }
    if let Some(stall) = &incident.stall {
        let _ = write!(line, "  {}", stalled(stall));
    }
    if let Some(missed) = incident.kernel_counts.missed.filter(|missed| *missed > 0) {
        let _ = write!(line, "  {missed} not seen");
    }
    let limit = incident
        .charged
        .as_ref()
        .and_then(|charged| charged.limit_bytes);
    if let Some(limit) = limit {
        let _ = write!(line, "  limit {}", size::bytes(limit));
    }
    if let Some(killer) = &incident.killer {
        let _ = write!(line, "  by {}({})", shown(&killer.comm), killer.pid);
    } else if let Some(trigger) = &incident.trigger
        && !incident
            .victims
            .iter()
            .any(|victim| victim.pid == Some(trigger.pid) || victim.tid == trigger.tid)
    {
        let comm = trigger.process_comm.as_deref().unwrap_or(&trigger.comm);
        let _ = write!(line, "  triggered by {}({})", shown(comm), trigger.pid);
    }
    line
}

/// What Kubernetes says of an incident, in one line.
pub fn reported(incident: &Incident) -> String {
    let place = place(incident).unwrap_or_else(|| "(cgroup unknown)".into());
    let said = match &incident.kubernetes {
        Some(report) => shown(&meaning::reported(report)),
        None => "Kubernetes was not asked.".into(),
    };
    format!("{:.3}  oom_report  {place}  {said}", incident.time)
}

/// Whose it was for an operator: the container's name where it is known, else the cgroup's path.
pub fn place(incident: &Incident) -> Option<String> {
    let charged = incident.charged.as_ref();
    let victim = incident.victims.first();
    let names = match charged {
        Some(charged) => charged.names.as_ref(),
        None => victim.and_then(|victim| victim.names.as_ref()),
    };
    let named = names.and_then(|names| names.short());
    named
        .or_else(|| cgroup(incident).map(str::to_owned))
        .map(|place| shown(&place))
}

/// Text that was escaped once, safe again: control and deceiving characters become `\xNN`,
/// backslashes stay as they are.
pub fn shown(text: &str) -> String {
    escape::again(text, MOST_CHARS)
}

/// The charged cgroup, else the first victim's.
pub fn cgroup(incident: &Incident) -> Option<&str> {
    let charged = incident
        .charged
        .as_ref()
        .and_then(|charged| charged.cgroup.as_deref());
    charged.or_else(|| incident.victims.first()?.cgroup.as_deref())
}

fn victims(incident: &Incident) -> u64 {
    (incident.victims.len() as u64).saturating_add(incident.victims_left_out)
}

/// `comm(pid)`.
pub fn process(victim: &Victim) -> String {
    let comm = victim.comm.as_deref().map_or("?".into(), shown);
    match victim.pid {
        Some(pid) => format!("{comm}({pid})"),
        None => format!("{comm}(thread {})", victim.tid),
    }
}

/// Memory of a victim that a kill frees; `None` unless all its parts are known.
pub fn resident(victim: &Victim) -> Option<u64> {
    let parts = [victim.anon_bytes?, victim.file_bytes?, victim.shmem_bytes?];
    Some(parts.into_iter().fold(0, u64::saturating_add))
}

fn stalled(stall: &Stall) -> String {
    format!(
        "stalled for {}{} at {}",
        milliseconds(stall.duration_ms),
        if stall.ongoing { " so far" } else { "" },
        if stall.at_high {
            "memory.high"
        } else {
            "its limit"
        }
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::incident::Kind;

    pub const CGROUP_OOM: &str = include_str!("../../incident/fixtures/cgroup_oom.json");

    fn incident() -> Incident {
        serde_json::from_str(CGROUP_OOM).unwrap()
    }

    #[test]
    fn a_line_tells_who_where_and_how_much() {
        let mut incident = incident();
        if let Some(charged) = &mut incident.charged {
            charged.cgroup = Some("/pods/a".into());
        }
        assert_eq!(
            line(&incident),
            "2026-11-21T07:42:26.000Z  cgroup_oom  /pods/a  python3(31001) ×2  471M  limit 512M"
        );
        incident.victims.truncate(1);
        assert!(line(&incident).ends_with("471M  limit 512M  triggered by sidecar(31007)"));
    }

    #[test]
    fn unknown_is_never_zero() {
        let mut incident = incident();
        incident.charged = None;
        incident.trigger = None;
        incident.victims = vec![Victim {
            tid: 7,
            ..Victim::default()
        }];
        assert_eq!(
            line(&incident),
            "2026-11-21T07:42:26.000Z  cgroup_oom  (cgroup unknown)  ?(thread 7)"
        );
    }

    #[test]
    fn a_stall_has_no_victim() {
        let mut incident = incident();
        incident.kind = Kind::Stall;
        incident.victims.clear();
        incident.trigger = None;
        incident.stall = Some(Stall {
            duration_ms: 30_000,
            stalled_ns: None,
            oom_disabled: false,
            at_high: false,
            ongoing: true,
            ended_by_kill: false,
        });
        assert!(line(&incident).contains("stalled for 30.0s so far at its limit  limit 512M"));
    }

    #[test]
    fn tampered_text_is_escaped_and_escaped_text_stays() {
        assert_eq!(shown(r"a\\x2db\x1b\n"), r"a\\x2db\x1b\n");
        assert_eq!(shown("a\x1b[2Jb\u{202e}"), r"a\x1b[2Jb\xe2\x80\xae");
        assert!(shown(&"x\\".repeat(10_000)).chars().count() <= MOST_CHARS + 1);
    }
}
