//! Names in the agent: takes in what sources tell, names cgroups and incidents.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    agent::{clock, config::RunError},
    identity::{
        directory::Directory,
        facts::{Container, ContainerEnd, KnownPlace, Source, SourceState, Update, Wanted},
        names::{Names, NamingOptions},
        options::NamingConfig,
        path::{self, PathIdentity},
        sources::{Sources, SourcesError},
    },
    incident::Incident,
    model::{cgroup::Cgroup, cgroups::Cgroups},
};

use super::{
    Agent,
    claims::{self, Claims},
    standing::Standing,
};

/// Of an OCI container's id.
const ID_DIGITS: usize = 64;
/// Updates taken in before the loop goes on.
const MOST_UPDATES: usize = 64;
/// A container without a name is asked for this long after it was seen first.
const ASKED_FOR: Duration = Duration::from_secs(30);
/// Time between two looks for what is gone for long.
const FORGET_EVERY: Duration = Duration::from_secs(30);

/// Who cgroups are, and who says so.
pub struct Naming {
    directory: Directory,
    claims: Claims,
    place: KnownPlace,
    /// `None`: only paths are read.
    sources: Option<Sources>,
    options: NamingOptions,
    /// Names of cgroups of which nothing is known.
    nameless: Arc<Names>,
    /// The generations of directory and claims when all cgroups were named.
    named_at: (u64, u64),
    forgot: Instant,
}

impl Naming {
    pub fn start(config: NamingConfig, place: KnownPlace) -> Result<Self, SourcesError> {
        let mut directory = Directory::new(config.options.clone());
        let asked: Vec<Source> = config.sources.sources().collect();
        for source in &asked {
            let starting = Update::Source(*source, SourceState::Starting);
            directory.apply(starting, Duration::ZERO);
        }
        log::info!("sources of names: {}", config.describe());
        let nameless = directory.names(&PathIdentity::default());
        Ok(Self {
            sources: match asked.is_empty() {
                true => None,
                false => Some(Sources::start(config.sources)?),
            },
            directory,
            claims: Claims::default(),
            place,
            options: config.options,
            nameless: Arc::new(nameless),
            named_at: (0, 0),
            forgot: Instant::now(),
        })
    }

    /// The next update; never, without sources or after they ended.
    pub async fn heard(naming: &mut Self) -> Update {
        if let Some(sources) = &mut naming.sources {
            if let Some(update) = sources.updates.recv().await {
                return update;
            }
            naming.sources = None;
        }
        std::future::pending().await
    }

    /// Takes in an update and what waits behind it.
    pub fn take(&mut self, update: Update, now: Duration) {
        self.apply(update, now);
        for _ in 0..MOST_UPDATES {
            let next = self
                .sources
                .as_mut()
                .map(|sources| sources.updates.try_recv());
            match next {
                Some(Ok(update)) => self.apply(update, now),
                _ => break,
            }
        }
    }

    fn apply(&mut self, update: Update, now: Duration) {
        match &update {
            Update::Place(place) => {
                // Neither changes while memtrace runs.
                let _ = self.place.set(place.clone());
            }
            Update::Source(source, SourceState::Failing(cause)) => {
                log::warn!("names by {}: {cause}", source.name());
            }
            Update::Source(source, SourceState::Synced) => {
                log::debug!("names by {}: up to date", source.name());
            }
            _ => {}
        }
        self.directory.apply(update, now);
    }

    /// Names cgroups that are new, and asks for their containers if nobody knows them.
    pub fn name_new(&mut self, cgroups: &mut Cgroups) {
        let mut unnamed = cgroups.take_unnamed();
        let depth = |id: &u64| {
            cgroups
                .get(*id)
                .map(|cgroup| cgroup.path.components().count())
        };
        unnamed.sort_by_key(depth);
        for id in unnamed {
            let Some(cgroup) = cgroups.get(id) else {
                continue;
            };
            let path = self.claims.take(id, &cgroup.path, cgroups);
            self.want(&path);
            let path = self.believed(cgroup, path);
            self.vouch(id, &path);
            let (names, container) = self.known(&path);
            cgroups.named(id, names, container);
        }
    }

    /// What the path of a cgroup says, as far as it is believed.
    fn identity(&self, cgroup: &Cgroup, cgroups: &Cgroups) -> PathIdentity {
        let path = self.claims.look(cgroup.id, &cgroup.path, cgroups);
        self.believed(cgroup, path)
    }

    /// Without the pod where anybody can state one and its cluster does not tell of the container, and without
    /// container and pod where what is known of the container does not fit the place.
    fn believed(&self, cgroup: &Cgroup, mut path: PathIdentity) -> PathIdentity {
        let is_vouched = self.claims.is_vouched(cgroup.id);
        if claims::pod_standing(&cgroup.path, &path) == Standing::Delegated
            && !is_vouched
            && !self.directory.vouches(&path)
        {
            path = claims::podless(path);
        }
        let told = path
            .container_id
            .as_ref()
            .and_then(|id| self.directory.told_by(id));
        let (Some((source, container)), Some(base)) = (told, claims::base(&cgroup.path, &path))
        else {
            return path;
        };
        let standing = claims::standing(base, &path);
        let fits = match source {
            Source::Files => standing.fits(&path, container) || is_vouched,
            // Of a pod's container the kubelet says so in the path.
            Source::Kubernetes | Source::Cri => {
                standing != Standing::Delegated || path.pod_uid.is_some()
            }
        };
        if fits { path } else { claims::disowned(path) }
    }

    /// A container that stops is still the one that ran in its cgroup.
    fn vouch(&mut self, id: u64, believed: &PathIdentity) {
        if believed
            .container_id
            .as_ref()
            .is_some_and(|id| self.directory.knows(id))
        {
            self.claims.vouch(id);
        }
    }

    /// Whether nobody knows the container, or not yet that it runs.
    fn is_awaited(&self, container_id: &str) -> bool {
        let told = self.directory.told_by(container_id);
        told.is_none_or(|(_, container)| container.runs == Some(false))
    }

    fn known(&self, path: &PathIdentity) -> (Arc<Names>, Option<Arc<Container>>) {
        let is_own = path.container_id.is_some() && path.below_container.is_none();
        let names = self.directory.names(path);
        if names == *self.nameless {
            return (Arc::clone(&self.nameless), None);
        }
        let container = if is_own {
            self.directory.find(path).1
        } else {
            None
        };
        (Arc::new(names), container)
    }

    fn want(&self, path: &PathIdentity) {
        // Only ids that a runtime gives: anybody may name a cgroup.
        let id = path
            .container_id
            .as_ref()
            .filter(|id| id.len() == ID_DIGITS);
        if let (Some(sources), Some(id)) = (&self.sources, id)
            && self.is_awaited(id)
        {
            sources.want(&Wanted {
                container_id: id.clone(),
            });
        }
    }

    /// Names all cgroups again if anything was heard since the last time.
    pub fn refresh(&mut self, cgroups: &mut Cgroups, now: Duration) {
        if self.forgot.elapsed() >= FORGET_EVERY {
            self.forgot = Instant::now();
            self.claims
                .forget(now, cgroups, |id| self.directory.knows(id));
            self.directory.forget(now, |id| self.claims.has(id));
        }
        self.name_new(cgroups);
        let generations = (self.directory.generation(), self.claims.generation());
        if self.named_at == generations {
            return;
        }
        self.named_at = generations;
        let named: Vec<_> = cgroups
            .all()
            .map(|cgroup| (cgroup.id, self.identity(cgroup, cgroups)))
            .collect();
        for (id, path) in named {
            self.vouch(id, &path);
            let (names, container) = self.known(&path);
            cgroups.named(id, names, container);
        }
    }

    /// Asks again for young containers without a name.
    pub fn ask_again(&self, cgroups: &Cgroups) {
        if self.sources.is_none() {
            return;
        }
        let nameless = cgroups
            .live()
            .filter(|cgroup| cgroup.container.is_none() && is_young(cgroup));
        for cgroup in nameless {
            self.want(&self.claims.look(cgroup.id, &cgroup.path, cgroups));
        }
    }

    fn names_of(&self, cgroups: &Cgroups, id: Option<u64>) -> Option<Box<Names>> {
        let cgroup = cgroups.get(id?)?;
        let identity = self.identity(cgroup, cgroups);
        let names = self.directory.names(&identity);
        // Without any, outputs go by the path, also by one that is not believed.
        let is_believed = identity == path::parse(&cgroup.path);
        (!names.is_empty() || !is_believed).then(|| Box::new(names))
    }

    /// Names all cgroups of an incident as they are known now.
    pub fn name_incident(&self, incident: &mut Incident, cgroups: &Cgroups) {
        if let Some(charged) = &mut incident.charged {
            let names = self.names_of(cgroups, Some(charged.cgroup_id));
            charged.names = names.or_else(|| charged.names.take());
        }
        if let Some(trigger) = &mut incident.trigger {
            let names = self.names_of(cgroups, trigger.cgroup_id);
            trigger.names = names.or_else(|| trigger.names.take());
            trigger
                .names
                .iter_mut()
                .for_each(|names| names.attributes.clear());
        }
        for (index, victim) in incident.victims.iter_mut().enumerate() {
            let names = self.names_of(cgroups, victim.cgroup_id);
            victim.names = names.or_else(|| victim.names.take());
            // Once an incident is enough of what anybody chose.
            if index > 0 {
                victim
                    .names
                    .iter_mut()
                    .for_each(|names| names.attributes.clear());
            }
        }
    }

    /// Whether a container of the incident is new to the sources, which will name it.
    pub fn is_expecting(&self, incident: &Incident, cgroups: &Cgroups) -> bool {
        if self.sources.is_none() || !self.directory.has_synced() {
            return false;
        }
        let charged = incident.charged.as_ref().map(|charged| charged.cgroup_id);
        let victim = incident.victims.first().and_then(|victim| victim.cgroup_id);
        [charged, victim].into_iter().flatten().any(|id| {
            let Some(cgroup) = cgroups.get(id) else {
                return false;
            };
            let path = self.claims.look(cgroup.id, &cgroup.path, cgroups);
            let is_awaited = path.container_id.is_some_and(|id| self.is_awaited(&id));
            is_awaited && cgroup.container.is_none() && is_young(cgroup)
        })
    }

    /// What Kubernetes says of the end of a container, and how often it was restarted.
    pub fn end_of(&self, container_id: &str) -> Option<(ContainerEnd, Option<u32>)> {
        self.directory.end_of(container_id)
    }

    /// Whether Kubernetes would say so now if the container had ended.
    pub fn is_watched(&self, container_id: &str) -> bool {
        self.directory.is_synced(Source::Kubernetes) && self.directory.is_in_live_pod(container_id)
    }

    /// Whether kills are joined with what Kubernetes says.
    pub fn has_kubernetes(&self) -> bool {
        self.directory
            .states()
            .any(|(source, _)| source == Source::Kubernetes)
    }

    /// This host in Kubernetes; `None` outside of it.
    pub fn node(&self) -> Option<&str> {
        self.options.node.as_deref()
    }

    /// For `/status`.
    pub fn status(&self) -> serde_json::Value {
        let sources: serde_json::Map<_, _> = self
            .directory
            .states()
            .map(|(source, state)| (source.name().to_owned(), describe(state)))
            .collect();
        serde_json::json!({
            "node": self.options.node,
            "cluster_uid": self.place.get().and_then(|place| place.cluster_uid.clone()),
            "sources": sources,
            "pods": self.directory.pods(),
            "containers": self.directory.containers(),
        })
    }

    /// What was lost, by cause.
    pub fn losses(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let wants = self.sources.as_ref().map_or(0, Sources::wants_left_out);
        [
            ("name_left_out", self.directory.left_out),
            ("name_want_left_out", wants),
        ]
        .into_iter()
    }
}

fn is_young(cgroup: &Cgroup) -> bool {
    let age = match cgroup.born_at {
        Some(at) => Some(clock::boot_time().saturating_sub(at)),
        None => cgroup.since.elapsed().ok(),
    };
    age.is_some_and(|age| age <= ASKED_FOR)
}

fn describe(state: &SourceState) -> serde_json::Value {
    match state {
        SourceState::Starting => serde_json::json!({"state": "starting"}),
        SourceState::Absent => serde_json::json!({"state": "absent"}),
        SourceState::Synced => serde_json::json!({"state": "synced"}),
        SourceState::Failing(cause) => serde_json::json!({"state": "failing", "cause": cause}),
    }
}

impl Agent {
    /// A source has something to say.
    pub(super) fn hear(&mut self, update: Update) -> Result<(), RunError> {
        self.naming.take(update, self.clock.awake());
        self.tell_reports()
    }

    /// All cgroups by what is known now.
    pub(super) fn name_cgroups(&mut self) {
        let now = self.clock.awake();
        self.naming.refresh(&mut self.cgroups, now);
    }

    /// Once an interval: asks again for what has no name, tells what Kubernetes says or does not say.
    pub(super) fn follow_names(&mut self) -> Result<(), RunError> {
        self.name_cgroups();
        self.naming.ask_again(&self.cgroups);
        self.tell_reports()
    }
}

#[cfg(test)]
#[path = "naming_tests.rs"]
mod tests;
