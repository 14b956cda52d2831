//! Asks and reads what a report is made of. Chooses whose report it is; must not judge or format.

use std::path::PathBuf;

use jiff::Timestamp;

use crate::{
    api::{
        client::{Blocking, Client, ClientError},
        query::CgroupQuery,
        records::CgroupRow,
    },
    cli::DEFAULT_STATE_DIR,
    export::console::incident::{self, shown},
    host::pattern::as_written,
    incident::Incident,
};

use super::{
    command::{ReportArgs, ReportError},
    facts::{self, Facts},
    sources::{Source, candidates, first_line},
};

/// Asked of the agent.
const MOST_CGROUPS: usize = 100_000;

/// All that is known of what `args` ask for.
///
/// # Errors
/// Nothing, or several things match; the store cannot be read.
pub fn gather(args: &ReportArgs, now: Timestamp) -> Result<Facts, ReportError> {
    let client = Blocking::new(Client::new(&args.agent.socket))?;
    let told = match client.agent() {
        Ok(told) => Ok(told),
        // What is stored needs the same right.
        Err(error @ ClientError::NotPermitted { .. }) if args.state_dir.is_none() => {
            return Err(error.into());
        }
        Err(error) => Err(first_line(&error)),
    };
    let source = match (&told, &args.state_dir) {
        (Ok(_), None) => Source::Agent(&client),
        (_, directory) => Source::stored(directory.as_deref())?,
    };
    let mut facts = Facts {
        made: now,
        since: args.since.map(|since| since.at(now)),
        agent: None,
        details: None,
        victims_timeline: None,
        incidents: Vec::new(),
        asked: None,
        flamegraph: None,
        missing: Vec::new(),
    };
    let chosen = match &args.id {
        Some(id) => Some(source.by_id(id).map_err(|error| match (error, &told) {
            (ReportError::NoIncident { id, .. }, Err(why)) => ReportError::NoIncident {
                id,
                agent: Some(why.clone()),
            },
            (ReportError::NoneStored { .. }, _) => ReportError::NoneStored {
                state_dir: match &source {
                    Source::Agent(_) => None,
                    Source::Store(_) => {
                        let default = || PathBuf::from(DEFAULT_STATE_DIR);
                        Some(args.state_dir.clone().unwrap_or_else(default))
                    }
                },
                agent: told.as_ref().err().cloned(),
            },
            (error, _) => error,
        })?),
        None => None,
    };
    facts.asked = chosen.as_ref().map(|incident| incident.id.clone());
    let row = match &told {
        Ok(_) => row(&client, args, chosen.as_ref())?,
        Err(_) => None,
    };
    match &row {
        Some(row) => live(&client, row.cgroup_id, &mut facts)?,
        None => facts.missing.push(match &told {
            Ok(_) => "the cgroup is gone: there is no verdict and no history of it".to_owned(),
            Err(no_agent) => {
                format!("{no_agent}: the report has what is stored, no verdict and no history")
            }
        }),
    }
    let chosen = match (chosen, &row) {
        (None, None) => {
            let matching = source.matching(args, &mut facts.missing);
            let no_agent = told.as_ref().err().map(String::as_str);
            let no_agent = no_agent.unwrap_or("the agent knows no such cgroup");
            Some(newest_of(args, &matching, no_agent)?.clone())
        }
        (chosen, _) => chosen,
    };
    let (cgroup, names) = match (&facts.details, &chosen) {
        (Some(known), _) => (Some(known.row.cgroup.clone()), known.names.clone()),
        (None, Some(incident)) => (line_cgroup(incident), facts::names(incident).cloned()),
        (None, None) => (None, None),
    };
    facts.incidents = source.of_container(cgroup.as_deref(), names.as_ref(), &mut facts.missing);
    if let Some(chosen) = chosen
        && !facts.incidents.iter().any(|known| known.id == chosen.id)
    {
        facts.incidents.push(chosen);
        facts.incidents.sort_by_key(|incident| incident.time);
    }
    if let (Some(row), Some(victim)) = (&row, facts.incident().and_then(victims_cgroup))
        && row.cgroup_id != victim
    {
        // That of a cgroup that is gone is not known any more.
        facts.victims_timeline = client.cgroup(victim).ok().and_then(|known| known.timeline);
    }
    facts.agent = told.ok();
    Ok(facts)
}

fn victims_cgroup(incident: &Incident) -> Option<u64> {
    incident.victims.first()?.cgroup_id
}

/// What the agent knows of a cgroup.
fn live(client: &Blocking, id: u64, facts: &mut Facts) -> Result<(), ReportError> {
    let details = client.cgroup(id)?;
    if details.timeline.is_none() {
        facts
            .missing
            .push("the agent keeps no history of it".to_owned());
    }
    facts.details = Some(details);
    match client.flamegraph(id) {
        Ok(svg) => facts.flamegraph = Some(String::from_utf8_lossy(&svg).into_owned()),
        Err(error) => {
            let why = first_line(&error);
            facts.missing.push(format!("no flame graph: {why}"));
        }
    }
    Ok(())
}

/// The cgroup that is meant; `None`: the agent knows none.
fn row(
    client: &Blocking,
    args: &ReportArgs,
    chosen: Option<&Incident>,
) -> Result<Option<CgroupRow>, ReportError> {
    let rows = client.cgroups(&CgroupQuery {
        limit: MOST_CGROUPS,
        removed: true,
        ..CgroupQuery::default()
    })?;
    let row = match chosen {
        Some(incident) => of_incident(&rows.items, incident),
        None => one_of(args, &rows.items)?,
    };
    Ok(row.cloned())
}

/// The cgroup that was hit, or its container's now.
fn of_incident<'a>(rows: &'a [CgroupRow], incident: &Incident) -> Option<&'a CgroupRow> {
    let charged = incident.charged.as_ref().map(|charged| charged.cgroup_id);
    let id = charged.or(victims_cgroup(incident));
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

fn line_cgroup(incident: &Incident) -> Option<String> {
    incident::cgroup(incident).map(str::to_owned)
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
        (None, Some(glob)) => format!("--cgroup '{}'", shown(as_written(glob))),
        (None, None) => args.id.as_deref().map_or(String::new(), shown),
    }
}
