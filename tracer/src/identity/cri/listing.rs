//! What a runtime lists, as facts. Pure; owns the bounds of what is taken from it.

use std::{collections::BTreeMap, collections::HashMap, sync::Arc};

use super::messages;
use crate::identity::{
    bounds::{self, MOST_NAME_CHARS, name},
    facts::{Container, ContainerKind, Pod, RuntimeContainer},
    path::Runtime,
};

/// Containers and sandboxes together; the kubelet's default is 110 pods a node.
pub const MOST_CONTAINERS: usize = 4096;
/// Runtimes have 64.
const MOST_ID_BYTES: usize = 128;
/// A prefix, a slash and a name.
const MOST_KEY_BYTES: usize = 253 + 1 + 63;
/// Of labels, and of annotations, each pod.
const MOST_LABELS: usize = 64;
/// What kubelet writes beside the pod's own labels.
const OF_KUBELET: &str = "io.kubernetes.";
/// What memtrace reads.
const STATED: &str = "resource.opentelemetry.io/";

/// What was listed at one time.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Sandboxes before containers, older before newer: of two sandboxes of a pod the later counts.
    pub containers: Vec<RuntimeContainer>,
    /// Containers and sandboxes beyond [`MOST_CONTAINERS`], or without a sound id.
    pub left_out: usize,
}

impl Listing {
    pub fn new(
        runtime: Option<Runtime>,
        mut sandboxes: Vec<messages::PodSandbox>,
        mut containers: Vec<messages::Container>,
    ) -> Self {
        let listed = sandboxes.len() + containers.len();
        sandboxes.retain(|sandbox| is_sound(&sandbox.id));
        containers.retain(|container| is_sound(&container.id));
        // The newest of the living go last, and are kept.
        sandboxes.sort_by_key(|sandbox| (sandbox.is_ready(), sandbox.created_at));
        containers.sort_by_key(|container| (container.is_alive(), container.created_at));
        // Each kind has half, or what the other leaves.
        let half = MOST_CONTAINERS / 2;
        let for_sandboxes = MOST_CONTAINERS - containers.len().min(half);
        keep_last(&mut sandboxes, for_sandboxes);
        keep_last(&mut containers, MOST_CONTAINERS - sandboxes.len());

        let mut pods = HashMap::with_capacity(sandboxes.len());
        let mut facts = Vec::with_capacity(sandboxes.len() + containers.len());
        for sandbox in sandboxes {
            let pod = Arc::new(pod_of_sandbox(&sandbox));
            facts.push(RuntimeContainer {
                container: Container {
                    id: Some(sandbox.id.clone()),
                    kind: ContainerKind::Sandbox,
                    runtime,
                    ..Container::default()
                },
                pod: Some(Arc::clone(&pod)),
            });
            pods.insert(sandbox.id, pod);
        }
        for container in containers {
            let known = pods.get(&container.pod_sandbox_id).map(Arc::clone);
            let pod = known.or_else(|| pod_of_labels(&container).map(Arc::new));
            facts.push(RuntimeContainer {
                container: facts_of(container, runtime),
                pod,
            });
        }
        Self {
            left_out: listed - facts.len(),
            containers: facts,
        }
    }

    pub fn ids(&self) -> impl Iterator<Item = &str> {
        let ids = self.containers.iter();
        ids.filter_map(|listed| listed.container.id.as_deref())
    }
}

fn keep_last<T>(list: &mut Vec<T>, most: usize) {
    list.drain(..list.len().saturating_sub(most));
}

fn is_sound(id: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=MOST_ID_BYTES).contains(&id.len()) && id.bytes().all(fits)
}

fn pod_of_sandbox(sandbox: &messages::PodSandbox) -> Pod {
    let metadata = sandbox.metadata.clone().unwrap_or_default();
    let own = |key: &str| !key.starts_with(OF_KUBELET);
    let stated = |key: &str| key.starts_with(STATED);
    let mut annotations = few(&sandbox.annotations, stated);
    let room = MOST_LABELS - annotations.len();
    let others = few(&sandbox.annotations, |key| own(key) && !stated(key));
    annotations.extend(others.into_iter().take(room));
    Pod {
        uid: name(&metadata.uid),
        namespace: name(&metadata.namespace),
        name: name(&metadata.name),
        labels: few(&sandbox.labels, own),
        annotations,
        // The UID of a static pod is its hash here; the annotation anybody can set.
        config_hash: None,
        sandbox_id: Some(sandbox.id.clone()),
        ..Pod::default()
    }
}

/// For a container whose sandbox is not listed. Source: kubelet, `pkg/kubelet/kuberuntime/labels.go`.
fn pod_of_labels(container: &messages::Container) -> Option<Pod> {
    let label = |key: &str| {
        let value = container.labels.get(&format!("{OF_KUBELET}pod.{key}"))?;
        Some(name(value)).filter(|value| !value.is_empty())
    };
    Some(Pod {
        uid: label("uid")?,
        namespace: label("namespace")?,
        name: label("name")?,
        sandbox_id: Some(&container.pod_sandbox_id)
            .filter(|id| is_sound(id))
            .cloned(),
        ..Pod::default()
    })
}

fn facts_of(container: messages::Container, runtime: Option<Runtime>) -> Container {
    let metadata = container.metadata.unwrap_or_default();
    let image = container.image.unwrap_or_default();
    let asked = [&image.user_specified_image, &image.image];
    Container {
        id: Some(container.id),
        name: name(&metadata.name),
        runtime,
        image: bounds::image(asked.map(String::as_str)),
        image_id: bounds::image_id(&container.image_ref),
        restart_count: Some(metadata.attempt),
        ..Container::default()
    }
}

/// Those that are wanted and not too long; a part of a value would be another value.
fn few(all: &BTreeMap<String, String>, wanted: impl Fn(&str) -> bool) -> BTreeMap<String, String> {
    all.iter()
        .filter(|(key, value)| {
            wanted(key) && key.len() <= MOST_KEY_BYTES && value.chars().count() <= MOST_NAME_CHARS
        })
        .take(MOST_LABELS)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
#[path = "listing_tests.rs"]
mod tests;
