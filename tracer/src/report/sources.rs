//! Where the incidents of a report come from: the agent, else the store. Reads and narrows; must not judge.

use std::path::Path;

use globset::GlobMatcher;

use crate::{
    api::{
        client::{Blocking, ClientError},
        query::IncidentQuery,
    },
    cli::DEFAULT_STATE_DIR,
    export::console::incident::{line, shown},
    host::pattern::glob,
    identity::names::Names,
    incident::Incident,
    store,
};

use super::{
    command::{ReportArgs, ReportError},
    facts,
};

const LATEST: &str = "latest";
/// Candidates named when several fit.
const MOST_CANDIDATES: usize = 10;
/// Asked of the agent at once.
const MOST_INCIDENTS: usize = 1000;
const NOT_FOUND: u16 = 404;

/// Who has the incidents.
pub enum Source<'a> {
    Agent(&'a Blocking),
    /// The oldest first.
    Store(Vec<Incident>),
}

impl Source<'_> {
    /// # Errors
    /// It cannot be read.
    pub fn stored(directory: Option<&Path>) -> Result<Self, ReportError> {
        let directory = directory.unwrap_or(Path::new(DEFAULT_STATE_DIR));
        Ok(Source::Store(store::read(directory)?.incidents))
    }

    /// By its id, the beginning of it, or as the latest.
    ///
    /// # Errors
    /// There is none, or several.
    pub fn by_id(&self, id: &str) -> Result<Incident, ReportError> {
        match self {
            Source::Agent(client) => client.incident(id).map_err(|error| match error {
                ClientError::Refused { status, .. } if status == NOT_FOUND => not_found(id),
                error => error.into(),
            }),
            Source::Store(incidents) => find(incidents, id).cloned(),
        }
    }

    /// Those that `args` may mean, the oldest first.
    pub fn matching(&self, args: &ReportArgs, missing: &mut Vec<String>) -> Vec<Incident> {
        let Source::Agent(client) = self else {
            return self.all();
        };
        let pod = args.pod.as_ref();
        let query = IncidentQuery {
            glob: args.cgroup.clone(),
            pod: pod.and_then(|pod| Some((pod.namespace.clone()?, pod.name.clone()))),
            limit: MOST_INCIDENTS,
            ..IncidentQuery::default()
        };
        ask(client, &query, missing)
    }

    /// Those that hit the container with this path and these names, the oldest first.
    pub fn of_container(
        &self,
        cgroup: Option<&str>,
        names: Option<&Names>,
        missing: &mut Vec<String>,
    ) -> Vec<Incident> {
        let mut incidents = match self {
            Source::Store(_) => self.all(),
            Source::Agent(client) => {
                let by_path = cgroup.and_then(only).map(|glob| IncidentQuery {
                    glob: Some(glob),
                    limit: MOST_INCIDENTS,
                    ..IncidentQuery::default()
                });
                // It has another path after each restart.
                let by_name = names.and_then(|names| {
                    Some(IncidentQuery {
                        pod: Some((names.namespace.clone()?, names.pod.clone()?)),
                        limit: MOST_INCIDENTS,
                        ..IncidentQuery::default()
                    })
                });
                let queries = by_path.into_iter().chain(by_name);
                let all = queries.map(|query| ask(client, &query, missing));
                let mut all: Vec<Incident> = all.flatten().collect();
                all.sort_by(|a, b| (a.time, &a.id).cmp(&(b.time, &b.id)));
                all.dedup_by(|a, b| a.id == b.id);
                all
            }
        };
        incidents.retain(|incident| facts::concerns(incident, cgroup, names));
        incidents.sort_by_key(|incident| incident.time);
        incidents
    }

    fn all(&self) -> Vec<Incident> {
        match self {
            Source::Store(incidents) => incidents.clone(),
            Source::Agent(_) => Vec::new(),
        }
    }
}

/// The oldest first.
fn ask(client: &Blocking, query: &IncidentQuery, missing: &mut Vec<String>) -> Vec<Incident> {
    match client.incidents(query) {
        Ok(listed) => {
            if listed.left_out > 0 {
                let count = listed.left_out;
                missing.push(format!("the oldest {count} incidents were not read"));
            }
            listed.items.into_iter().rev().collect()
        }
        Err(error) => {
            missing.push(format!("no incidents: {}", first_line(&error)));
            Vec::new()
        }
    }
}

/// Fits this path, and at most a few others; `None` where there is no such pattern.
fn only(path: &str) -> Option<GlobMatcher> {
    // A backslash would begin an escape: any character stands in for it.
    glob(&globset::escape(path).replace('\\', "?")).ok()
}

/// Whoever asked tells where that was looked up.
fn not_found(id: &str) -> ReportError {
    if id == LATEST {
        ReportError::NoneStored {
            state_dir: None,
            agent: None,
        }
    } else {
        ReportError::NoIncident {
            id: shown(id),
            agent: None,
        }
    }
}

/// By its id.
fn find<'a>(incidents: &'a [Incident], id: &str) -> Result<&'a Incident, ReportError> {
    if id == LATEST {
        return incidents.last().ok_or_else(|| not_found(id));
    }
    if let Some(exact) = incidents.iter().find(|incident| incident.id == id) {
        return Ok(exact);
    }
    let fits = incidents
        .iter()
        .filter(|incident| incident.id.starts_with(id));
    let fits: Vec<&Incident> = fits.collect();
    match fits.as_slice() {
        [] => Err(not_found(id)),
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

/// The cause; the remedy is for who cannot do without an agent.
pub fn first_line(error: &ClientError) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

/// A line each.
pub fn candidates(all: impl ExactSizeIterator<Item = String>) -> String {
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

#[cfg(test)]
#[path = "sources_tests.rs"]
mod tests;
