//! What is known of pods and containers, by all sources together, and for a while after they are gone.
//!
//! Owns precedence (the API before the runtime before the path) and the bounds. Pure.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use super::{
    facts::{Container, ContainerEnd, Pod, RuntimeContainer, Source, SourceState, Update},
    names::{Names, NamingOptions},
    path::PathIdentity,
};

/// What is gone is remembered this long: incidents are joined with what is said of it later.
const KEPT: Duration = Duration::from_secs(600);
/// Pods known at once; a node holds a few hundred.
const MOST_PODS: usize = 4096;
/// Containers known at once.
const MOST_CONTAINERS: usize = 16_384;

/// All that is known.
#[derive(Debug, Default)]
pub struct Directory {
    options: NamingOptions,
    /// From the API, by UID.
    pods: HashMap<String, Known<Arc<Pod>>>,
    /// UID in the API, by the hash that the path of a static pod has.
    by_hash: HashMap<String, String>,
    /// From the API: UID of the pod and the container, by container id, earlier lives too.
    containers: HashMap<String, Known<(String, Arc<Container>)>>,
    /// From runtimes, by container id.
    runtime: HashMap<String, Known<(Source, Arc<RuntimeContainer>)>>,
    /// From runtimes: pods by the UID or hash that paths have.
    runtime_pods: HashMap<String, Arc<Pod>>,
    states: HashMap<Source, SourceState>,
    generation: u64,
    /// Pods and containers that there was no room for.
    pub left_out: u64,
}

#[derive(Debug)]
struct Known<T> {
    what: T,
    gone_at: Option<Duration>,
}

impl<T> Known<T> {
    fn new(what: T) -> Self {
        Self {
            what,
            gone_at: None,
        }
    }

    fn go(&mut self, now: Duration) {
        self.gone_at.get_or_insert(now);
    }

    fn is_over(&self, now: Duration) -> bool {
        self.gone_at.is_some_and(|at| now.saturating_sub(at) > KEPT)
    }
}

impl Directory {
    pub fn new(options: NamingOptions) -> Self {
        Self {
            options,
            ..Self::default()
        }
    }

    /// Changes whenever a name may have.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// How the sources fare.
    pub fn states(&self) -> impl Iterator<Item = (Source, &SourceState)> {
        self.states.iter().map(|(source, state)| (*source, state))
    }

    /// Whether any source has told all it knows.
    pub fn has_synced(&self) -> bool {
        self.states
            .values()
            .any(|state| *state == SourceState::Synced)
    }

    /// Whether the API lists the pod of a container now.
    pub fn is_in_live_pod(&self, container_id: &str) -> bool {
        let known = self.containers.get(container_id);
        known.is_some_and(|known| self.is_live(&known.what.0))
    }

    /// Whether a source has told all it knows.
    pub fn is_synced(&self, source: Source) -> bool {
        self.states.get(&source) == Some(&SourceState::Synced)
    }

    /// Takes in what a source tells, at `now` since the start.
    pub fn apply(&mut self, update: Update, now: Duration) {
        match update {
            Update::Pod(pod) => {
                if !self.pod(Arc::new(*pod), now) {
                    return;
                }
            }
            Update::PodGone { uid } => {
                if let Some(known) = self.pods.get_mut(&uid) {
                    known.go(now);
                }
            }
            Update::PodsAre(uids) => {
                let present: HashSet<String> = uids.into_iter().collect();
                for (uid, known) in &mut self.pods {
                    if !present.contains(uid) {
                        known.go(now);
                    }
                }
            }
            Update::RuntimeIs(source, containers) => self.runtime_is(source, containers, now),
            Update::RuntimeChanged {
                source,
                containers,
                gone,
            } => self.runtime_changed(source, containers, &gone, now),
            Update::Place(_) => return,
            Update::Source(source, state) => {
                self.states.insert(source, state);
                return;
            }
        }
        self.generation += 1;
    }

    /// Whether that changed anything.
    fn pod(&mut self, pod: Arc<Pod>, now: Duration) -> bool {
        let former = self.pods.get(&pod.uid);
        if former.is_some_and(|former| former.gone_at.is_none() && former.what == pod) {
            return false;
        }
        if former.is_none() && !make_room(&mut self.pods, MOST_PODS) {
            self.left_out += 1;
            return false;
        }
        if let Some(hash) = &pod.config_hash {
            let held = self.by_hash.get(hash).and_then(|uid| self.pods.get(uid));
            // A pod that claims another's cgroup by an annotation does not get it. No two pods have one name at
            // a time: one of the holder's was made again.
            let is_others = held.is_some_and(|held| {
                let name = (&held.what.namespace, &held.what.name);
                held.gone_at.is_none() && name != (&pod.namespace, &pod.name)
            });
            if !is_others {
                self.by_hash.insert(hash.clone(), pod.uid.clone());
            }
        }
        // Lives that the status no longer tells.
        let present: HashSet<&String> = pod.containers.iter().flat_map(lives).collect();
        let former = self
            .pods
            .get(&pod.uid)
            .map(|former| Arc::clone(&former.what));
        for id in former
            .iter()
            .flat_map(|former| former.containers.iter().flat_map(lives))
        {
            if !present.contains(id)
                && let Some(known) = self.containers.get_mut(id)
            {
                known.go(now);
            }
        }
        for container in &pod.containers {
            let shared = Arc::new(container.clone());
            for id in lives(container) {
                if !self.containers.contains_key(id)
                    && !make_room(&mut self.containers, MOST_CONTAINERS)
                {
                    self.left_out += 1;
                    continue;
                }
                let entry = Known::new((pod.uid.clone(), Arc::clone(&shared)));
                self.containers.insert(id.clone(), entry);
            }
        }
        self.pods.insert(pod.uid.clone(), Known::new(pod));
        true
    }

    fn is_live(&self, uid: &str) -> bool {
        let known = self.pods.get(uid);
        known.is_some_and(|known| known.gone_at.is_none())
    }

    fn runtime_is(&mut self, source: Source, listed: Vec<RuntimeContainer>, now: Duration) {
        let mut present = HashSet::with_capacity(listed.len());
        for container in listed {
            present.extend(self.runtime_has(source, container));
        }
        for (id, known) in &mut self.runtime {
            if known.what.0 == source && !present.contains(id) {
                known.go(now);
            }
        }
    }

    fn runtime_changed(
        &mut self,
        source: Source,
        containers: Vec<RuntimeContainer>,
        gone: &[String],
        now: Duration,
    ) {
        for container in containers {
            // The runtime itself knows more than its files say.
            let id = container.container.id.as_ref();
            let known = id.and_then(|id| self.runtime.get(id));
            if !known.is_some_and(|known| known.what.0 == Source::Cri && known.gone_at.is_none()) {
                self.runtime_has(source, container);
            }
        }
        for id in gone {
            let known = self.runtime.get_mut(id);
            if let Some(known) = known.filter(|known| known.what.0 == source) {
                known.go(now);
            }
        }
    }

    /// The id, if there is room for it.
    fn runtime_has(&mut self, source: Source, container: RuntimeContainer) -> Option<String> {
        let id = container.container.id.clone()?;
        if !self.runtime.contains_key(&id) && !make_room(&mut self.runtime, MOST_CONTAINERS) {
            self.left_out += 1;
            return None;
        }
        if let Some(pod) = &container.pod {
            self.runtime_pods.insert(pod.uid.clone(), Arc::clone(pod));
        }
        let known = Known::new((source, Arc::new(container)));
        self.runtime.insert(id.clone(), known);
        Some(id)
    }

    /// Lets go of what is gone for long and whose containers do not run on, as those of a pod that was
    /// deleted by force.
    pub fn forget(&mut self, now: Duration, runs: impl Fn(&str) -> bool) {
        let running = self.containers.iter().filter(|(id, _)| runs(id));
        let running: HashSet<&String> = running.map(|(_, known)| &known.what.0).collect();
        self.pods
            .retain(|uid, known| !known.is_over(now) || running.contains(uid));
        self.runtime
            .retain(|id, known| !known.is_over(now) || runs(id));
        let pods = &self.pods;
        self.by_hash.retain(|_, uid| pods.contains_key(uid));
        self.containers.retain(|id, known| {
            (!known.is_over(now) || runs(id)) && pods.contains_key(&known.what.0)
        });
        let pods: HashSet<&String> = self
            .runtime
            .values()
            .filter_map(|known| Some(&known.what.1.pod.as_ref()?.uid))
            .collect();
        self.runtime_pods.retain(|_, pod| pods.contains(&pod.uid));
    }

    /// Pods that the API told.
    pub fn pods(&self) -> usize {
        self.pods.len()
    }

    /// Containers that a source told.
    pub fn containers(&self) -> usize {
        let by_runtime = self.runtime.keys();
        let only = by_runtime.filter(|id| !self.containers.contains_key(*id));
        self.containers.len() + only.count()
    }

    /// Whether a source knows the container.
    pub fn knows(&self, container_id: &str) -> bool {
        self.containers.contains_key(container_id) || self.runtime.contains_key(container_id)
    }

    /// Who tells of a container, the most trusted first, and what.
    pub fn told_by(&self, container_id: &str) -> Option<(Source, &Container)> {
        if let Some(known) = self.containers.get(container_id) {
            return Some((Source::Kubernetes, &known.what.1));
        }
        let (source, listed) = &self.runtime.get(container_id)?.what;
        Some((*source, &listed.container))
    }

    /// Whether the API, or where it does not know the container the runtime itself, has it in the pod that
    /// the path states.
    pub fn vouches(&self, path: &PathIdentity) -> bool {
        let (Some(id), Some(stated)) = (&path.container_id, &path.pod_uid) else {
            return false;
        };
        let uid = self.uid_of(stated);
        if let Some(known) = self.containers.get(id) {
            let (of, container) = &known.what;
            let mut ends = container.ends.iter();
            let has_ended = ends.any(|end| end.container_id.as_ref() == Some(id));
            return of == uid && self.is_live(uid) && !has_ended;
        }
        let listed = self.runtime.get(id);
        listed
            .filter(|known| known.what.0 == Source::Cri)
            .and_then(|known| known.what.1.pod.as_ref())
            .is_some_and(|pod| pod.uid == *stated || pod.uid == uid)
    }

    /// The names of a cgroup.
    pub fn names(&self, path: &PathIdentity) -> Names {
        let (pod, container) = self.find(path);
        Names::new(path, pod.as_ref(), container.as_ref(), &self.options)
    }

    /// The pod and the container that a path belongs to.
    pub fn find(&self, path: &PathIdentity) -> (Option<Arc<Pod>>, Option<Arc<Container>>) {
        let id = path.container_id.as_deref();
        let stated = path.pod_uid.as_deref().map(|uid| self.uid_of(uid));
        // A path that states another pod than the source knows for the id is not that container's.
        let fits = |uid: &str| stated.is_none_or(|stated| stated == uid);
        let by_api = id
            .and_then(|id| self.containers.get(id))
            .filter(|known| fits(&known.what.0));
        let by_runtime = id
            .and_then(|id| self.runtime.get(id))
            .map(|known| &known.what.1)
            .filter(|known| {
                // To the runtime the hash is the UID of a static pod.
                let uid = known.pod.as_ref().map(|pod| pod.uid.as_str());
                uid.is_none_or(|uid| fits(uid) || path.pod_uid.as_deref() == Some(uid))
            });
        let runtime_pod = || by_runtime.and_then(|known| known.pod.clone());
        let known_uid = by_api
            .map(|known| known.what.0.clone())
            .or_else(|| stated.map(str::to_owned))
            .or_else(|| runtime_pod().map(|pod| pod.uid.clone()));
        let pod = known_uid
            .and_then(|uid| self.pods.get(&uid))
            .map(|known| Arc::clone(&known.what))
            .or_else(runtime_pod)
            .or_else(|| self.runtime_pods.get(stated?).cloned());
        let container = by_api
            .map(|known| Arc::clone(&known.what.1))
            .or_else(|| by_runtime.map(|known| Arc::new(known.container.clone())));
        (pod, container)
    }

    /// The UID in the API of a pod whose path states `uid`: of a static pod that is a hash, without `-`.
    fn uid_of<'a>(&'a self, uid: &'a str) -> &'a str {
        if uid.contains('-') || self.pods.contains_key(uid) {
            return uid;
        }
        let by_hash = self.by_hash.get(uid).filter(|uid| self.is_live(uid));
        by_hash.map_or(uid, String::as_str)
    }

    /// What Kubernetes says of the end of a container: the end, and how often the container was restarted.
    pub fn end_of(&self, container_id: &str) -> Option<(ContainerEnd, Option<u32>)> {
        let (uid, container) = &self.containers.get(container_id)?.what;
        // The newest status of that container, which may run again under another id.
        let pod = &self.pods.get(uid)?.what;
        let newest = pod
            .containers
            .iter()
            .find(|other| other.name == container.name)
            .unwrap_or(container);
        let end = newest
            .ends
            .iter()
            .find(|end| end.container_id.as_deref() == Some(container_id))?;
        Some((end.clone(), newest.restart_count))
    }
}

/// Ids of a container, of this and of earlier lives.
fn lives(container: &Container) -> impl Iterator<Item = &String> {
    let earlier = container.ends.iter();
    let earlier = earlier.filter_map(|end| end.container_id.as_ref());
    container.id.iter().chain(earlier)
}

/// Whether there is room for one more, if need be for that of what is gone longest.
fn make_room<T>(known: &mut HashMap<String, Known<T>>, most: usize) -> bool {
    if known.len() < most {
        return true;
    }
    let gone = known.iter().filter(|(_, known)| known.gone_at.is_some());
    let oldest = gone.min_by_key(|(_, known)| known.gone_at);
    match oldest.map(|(key, _)| key.clone()) {
        Some(key) => known.remove(&key).is_some(),
        None => false,
    }
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
