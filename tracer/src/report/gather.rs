//! Asks and reads what a report is made of. Chooses whose report it is; must not judge or format.

use jiff::Timestamp;

use crate::{
    cli::DEFAULT_STATE_DIR,
    export::console::incident::{line, shown},
    incident::Incident,
    store,
};

use super::{
    command::{ReportArgs, ReportError},
    facts::{self, Facts},
};

const LATEST: &str = "latest";
/// Candidates named when several fit.
const MOST_CANDIDATES: usize = 10;

/// All that is known of what `args` ask for.
///
/// # Errors
/// Nothing, or several things match; the store cannot be read.
pub fn gather(args: &ReportArgs, now: Timestamp) -> Result<Facts, ReportError> {
    let since = args.since.map(|since| since.at(now));
    let directory = args.state_dir.clone();
    let directory = directory.unwrap_or_else(|| DEFAULT_STATE_DIR.into());
    let stored = store::read(&directory)?;
    of_store(args, stored.incidents, since, now, "no agent was asked")
}

/// Without an agent.
fn of_store(
    args: &ReportArgs,
    incidents: Vec<Incident>,
    since: Option<Timestamp>,
    now: Timestamp,
    no_agent: &str,
) -> Result<Facts, ReportError> {
    let (chosen, asked) = match &args.id {
        Some(id) => (find(&incidents, id)?, true),
        None => (newest_of(args, &incidents, no_agent)?, false),
    };
    let (cgroup, names) = (line_cgroup(chosen), facts::names(chosen).cloned());
    let asked = asked.then(|| chosen.id.clone());
    let incidents = of_container(
        incidents,
        cgroup.as_deref(),
        names.as_ref(),
        asked.as_deref(),
    );
    Ok(Facts {
        made: now,
        since,
        agent: None,
        details: None,
        incidents,
        asked,
        flamegraph: None,
        missing: vec![format!(
            "{no_agent}: the report has what is stored, no verdict and no history"
        )],
    })
}

fn line_cgroup(incident: &Incident) -> Option<String> {
    crate::export::console::incident::cgroup(incident).map(str::to_owned)
}

/// Those that hit the same container, the one asked for among them.
fn of_container(
    mut incidents: Vec<Incident>,
    cgroup: Option<&str>,
    names: Option<&crate::identity::names::Names>,
    asked: Option<&str>,
) -> Vec<Incident> {
    incidents.retain(|incident| {
        Some(incident.id.as_str()) == asked || facts::concerns(incident, cgroup, names)
    });
    incidents.sort_by_key(|incident| incident.time);
    incidents
}

/// By its id.
fn find<'a>(incidents: &'a [Incident], id: &str) -> Result<&'a Incident, ReportError> {
    let not_found = || ReportError::NoIncident { id: shown(id) };
    if id == LATEST {
        return incidents.last().ok_or_else(not_found);
    }
    if let Some(exact) = incidents.iter().find(|incident| incident.id == id) {
        return Ok(exact);
    }
    let fits = incidents
        .iter()
        .filter(|incident| incident.id.starts_with(id));
    let fits: Vec<&Incident> = fits.collect();
    match fits.as_slice() {
        [] => Err(not_found()),
        [one] => Ok(one),
        several => Err(ReportError::Ambiguous {
            id: shown(id),
            count: several.len(),
            candidates: candidates(
                several
                    .iter()
                    .map(|incident| format!("{}  {}", shown(&incident.id), line(incident))),
            ),
        }),
    }
}

/// The newest incident of the only container that is asked for.
fn newest_of<'a>(
    args: &ReportArgs,
    incidents: &'a [Incident],
    no_agent: &str,
) -> Result<&'a Incident, ReportError> {
    let matching = incidents.iter().filter(|incident| {
        let names = facts::names(incident);
        let cgroup = line_cgroup(incident);
        args.pod
            .as_ref()
            .is_none_or(|pod| names.is_some_and(|names| pod.is_of(names)))
            && args
                .cgroup
                .as_ref()
                .is_none_or(|glob| cgroup.is_some_and(|cgroup| glob.is_match(cgroup)))
    });
    let mut owners: Vec<(String, &Incident)> = Vec::new();
    for incident in matching {
        let Some(owner) = facts::owner(incident) else {
            continue;
        };
        match owners.iter_mut().find(|(known, _)| *known == owner) {
            Some((_, newest)) if newest.time <= incident.time => *newest = incident,
            Some(_) => {}
            None => owners.push((owner, incident)),
        }
    }
    match owners.as_slice() {
        [] => Err(ReportError::NoAgent {
            asked: asked(args),
            agent: no_agent.to_owned(),
        }),
        [(_, one)] => Ok(one),
        several => Err(ReportError::Several {
            asked: asked(args),
            count: several.len(),
            candidates: candidates(several.iter().map(|(owner, _)| shown(owner))),
        }),
    }
}

/// As the person wrote it.
fn asked(args: &ReportArgs) -> String {
    match (&args.pod, &args.cgroup) {
        (Some(pod), _) => format!("--pod {}", shown(&pod.to_string())),
        (None, Some(glob)) => format!("--cgroup '{}'", shown(glob.glob().glob())),
        (None, None) => args.id.as_deref().map_or(String::new(), shown),
    }
}

/// A line each.
fn candidates(all: impl ExactSizeIterator<Item = String>) -> String {
    let more = all.len().saturating_sub(MOST_CANDIDATES);
    let mut lines: Vec<String> = all
        .take(MOST_CANDIDATES)
        .map(|one| format!("\n  {one}"))
        .collect();
    if more > 0 {
        lines.push(format!("\n  … and {more} more"));
    }
    lines.concat()
}
