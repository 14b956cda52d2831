//! Asks and reads what a report is made of. Chooses whose report it is; must not judge or format.

use std::path::Path;

use jiff::Timestamp;

use crate::{
    api::{
        client::{Blocking, Client, ClientError},
        query::{CgroupQuery, IncidentQuery},
        records::CgroupRow,
    },
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
/// Asked of the agent.
const MOST_CGROUPS: usize = 100_000;
const MOST_INCIDENTS: usize = 1000;

/// All that is known of what `args` ask for.
///
/// # Errors
/// Nothing, or several things match; the store cannot be read.
pub fn gather(args: &ReportArgs, now: Timestamp) -> Result<Facts, ReportError> {
    let since = args.since.map(|since| since.at(now));
    let client = Blocking::new(Client::new(&args.socket))?;
    let told = match client.agent() {
        Ok(told) => told,
        Err(error) => {
            let incidents = stored(args.state_dir.as_deref())?;
            return of_store(args, incidents, since, now, &first_line(&error));
        }
    };
    let mut missing = Vec::new();
    let incidents = match &args.state_dir {
        Some(directory) => stored(Some(directory))?,
        None => match client.incidents(&all_incidents()) {
            Ok(listed) => {
                if listed.left_out > 0 {
                    let count = listed.left_out;
                    missing.push(format!("the oldest {count} incidents were not read"));
                }
                // The agent tells the newest first.
                listed.items.into_iter().rev().collect()
            }
            Err(error) => {
                missing.push(format!("no incidents: {}", first_line(&error)));
                Vec::new()
            }
        },
    };
    let rows = client.cgroups(&CgroupQuery {
        limit: MOST_CGROUPS,
        removed: true,
        ..CgroupQuery::default()
    })?;
    let chosen = match &args.id {
        Some(id) => Some(find(&incidents, id)?),
        None => None,
    };
    let row = match chosen {
        Some(incident) => of_incident(&rows.items, incident),
        None => one_of(args, &rows.items)?,
    };
    let Some(row) = row else {
        if let Some(incident) = chosen {
            let asked = Some(incident.id.clone());
            missing.push("the cgroup is gone: there is no verdict and no history of it".to_owned());
            let (cgroup, names) = (line_cgroup(incident), facts::names(incident).cloned());
            return Ok(Facts {
                made: now,
                since,
                agent: Some(told),
                details: None,
                incidents: of_container(
                    incidents,
                    cgroup.as_deref(),
                    names.as_ref(),
                    asked.as_deref(),
                ),
                asked,
                flamegraph: None,
                missing,
            });
        }
        let mut facts = of_store(
            args,
            incidents,
            since,
            now,
            "the agent knows no such cgroup",
        )?;
        facts.agent = Some(told);
        return Ok(facts);
    };
    let details = client.cgroup(row.cgroup_id)?;
    if details.timeline.is_none() {
        missing.push("the agent keeps no history of it".to_owned());
    }
    let flamegraph = match client.flamegraph(row.cgroup_id) {
        Ok(svg) => Some(String::from_utf8_lossy(&svg).into_owned()),
        Err(error) => {
            missing.push(format!("no flame graph: {}", first_line(&error)));
            None
        }
    };
    let asked = chosen.map(|incident| incident.id.clone());
    let cgroup = details.row.cgroup.clone();
    let incidents = of_container(
        incidents,
        Some(&cgroup),
        details.names.as_ref(),
        asked.as_deref(),
    );
    Ok(Facts {
        made: now,
        since,
        agent: Some(told),
        details: Some(details),
        incidents,
        asked,
        flamegraph,
        missing,
    })
}

fn all_incidents() -> IncidentQuery {
    IncidentQuery {
        limit: MOST_INCIDENTS,
        ..IncidentQuery::default()
    }
}

/// As the agent would answer, from disk.
fn stored(directory: Option<&Path>) -> Result<Vec<Incident>, ReportError> {
    let directory = directory.unwrap_or(Path::new(DEFAULT_STATE_DIR));
    Ok(store::read(directory)?.incidents)
}

/// The cause; the remedy is for who cannot do without an agent.
fn first_line(error: &ClientError) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

/// The cgroup that was hit, or its container's now.
fn of_incident<'a>(rows: &'a [CgroupRow], incident: &Incident) -> Option<&'a CgroupRow> {
    let charged = incident.charged.as_ref().map(|charged| charged.cgroup_id);
    let victim = incident.victims.first().and_then(|victim| victim.cgroup_id);
    let id = charged.or(victim);
    let path = line_cgroup(incident);
    let names = facts::names(incident).filter(|names| names.container.is_some());
    let same_name = |row: &&CgroupRow| {
        names.is_some_and(|names| {
            row.container == names.container
                && row.pod == names.pod
                && row.namespace == names.namespace
        })
    };
    let same_path = |row: &&CgroupRow| path.as_ref() == Some(&row.cgroup);
    let living = rows.iter().filter(|row| !row.removed);
    let mut all = rows.iter();
    living
        .clone()
        .find(|row| id == Some(row.cgroup_id) && same_path(row))
        .or_else(|| living.clone().find(same_name))
        .or_else(|| living.clone().find(same_path))
        .or_else(|| all.find(|row| id == Some(row.cgroup_id) && same_path(row)))
}

/// The only one that is asked for, living before gone; `None`: there is none.
fn one_of<'a>(
    args: &ReportArgs,
    rows: &'a [CgroupRow],
) -> Result<Option<&'a CgroupRow>, ReportError> {
    let is_asked = |row: &&CgroupRow| {
        let glob = args.cgroup.as_ref();
        glob.is_none_or(|glob| glob.is_match(&row.cgroup))
            && args.pod.as_ref().is_none_or(|pod| {
                // The pod's own cgroup sums up its containers.
                let wanted = pod.namespace.as_ref();
                row.container.is_some()
                    && row.pod.as_ref() == Some(&pod.name)
                    && wanted.is_none_or(|wanted| row.namespace.as_ref() == Some(wanted))
            })
    };
    let matching: Vec<&CgroupRow> = rows.iter().filter(is_asked).collect();
    let living = matching.iter().copied().filter(|row| !row.removed);
    let living: Vec<&CgroupRow> = living.collect();
    let exact = |row: &&&CgroupRow| {
        args.cgroup
            .as_ref()
            .is_some_and(|glob| glob.glob().glob() == row.cgroup)
    };
    match (living.as_slice(), matching.as_slice()) {
        ([one], _) | ([], [one]) => Ok(Some(one)),
        ([], []) => Ok(None),
        ([], several) | (several, _) => match several.iter().find(exact) {
            Some(one) => Ok(Some(one)),
            None => Err(ReportError::Several {
                asked: asked(args),
                count: several.len(),
                candidates: candidates(several.iter().map(|row| named(row))),
            }),
        },
    }
}

/// The path, and what it is called.
fn named(row: &CgroupRow) -> String {
    let parts = [&row.namespace, &row.pod, &row.container];
    let parts: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
    match parts.as_slice() {
        [] => shown(&row.cgroup),
        parts => format!("{}  {}", shown(&row.cgroup), shown(&parts.join("/"))),
    }
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
        [] => Err(ReportError::NoMatch {
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
