//! A pod of the API → the facts that are kept of it.
//!
//! Pure. Objects are untrusted: texts and lists have bounds, and what does not hold is left out.

use jiff::Timestamp;

use super::{
    bounds,
    object::{ContainerSpec, ContainerStatus, PodObject, Quantities, Terminated},
    owners::owners,
    quantity,
};
use crate::identity::{
    facts::{Container, ContainerEnd, ContainerKind, MemoryResources, Pod},
    path::Runtime,
};

/// Each sets an attribute of the resource. Source: OpenTelemetry, `k8s-attributes.md`.
const RESOURCE_PREFIX: &str = "resource.opentelemetry.io/";
const CONFIG_HASH: &str = "kubernetes.io/config.hash";
const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";

/// What is known of a pod. `None`: it has no UID, name or namespace that could be one.
///
/// `annotations` are those to keep beside the ones that memtrace reads.
pub(super) fn pod(object: &PodObject, annotations: &[String]) -> Option<Pod> {
    let metadata = &object.metadata;
    let bounded = |text: &Option<String>| text.as_deref().and_then(bounds::name);
    let wanted = |key: &str| {
        key.starts_with(RESOURCE_PREFIX)
            || key == CONFIG_HASH
            || key == CONFIG_MIRROR
            || annotations.iter().any(|wanted| wanted == key)
    };
    let kept = bounds::annotations(metadata.annotations.as_ref(), wanted);
    // Anyone may write the one annotation; the kubelet gives a mirror pod both, and deletes false ones.
    let config_hash = kept
        .get(CONFIG_HASH)
        .filter(|hash| kept.get(CONFIG_MIRROR) == Some(hash))
        .and_then(|hash| bounds::name(hash));
    Some(Pod {
        uid: bounded(&metadata.uid)?,
        namespace: bounded(&metadata.namespace)?,
        name: bounded(&metadata.name)?,
        node: bounded(&object.spec.node_name),
        labels: bounds::labels(metadata.labels.as_ref()),
        owners: owners(metadata),
        config_hash,
        annotations: kept,
        sandbox_id: None,
        containers: containers(object),
    })
}

fn containers(object: &PodObject) -> Vec<Container> {
    let (spec, status) = (&object.spec, &object.status);
    let kinds = [
        (
            ContainerKind::App,
            &spec.containers,
            &status.container_statuses,
        ),
        (
            ContainerKind::Init,
            &spec.init_containers,
            &status.init_container_statuses,
        ),
        (
            ContainerKind::Ephemeral,
            &spec.ephemeral_containers,
            &status.ephemeral_container_statuses,
        ),
    ];
    kinds
        .into_iter()
        .flat_map(|(kind, specs, statuses)| {
            specs.iter().map(move |spec| {
                let status = statuses.iter().find(|status| status.name == spec.name);
                container(kind, spec, status)
            })
        })
        .take(bounds::MOST_CONTAINERS)
        .flatten()
        .collect()
}

fn container(
    kind: ContainerKind,
    spec: &ContainerSpec,
    status: Option<&ContainerStatus>,
) -> Option<Container> {
    let (id, runtime) = status
        .and_then(|status| status.container_id.as_deref())
        .map_or((None, None), id);
    let current = status.and_then(|status| status.resources.as_ref());
    let image = status.and_then(|status| status.image.as_ref());
    let restarts = status.and_then(|status| status.restart_count);
    Some(Container {
        id,
        name: bounds::name(&spec.name)?,
        kind,
        runtime,
        image: spec
            .image
            .as_ref()
            .or(image)
            .and_then(|it| bounds::image(it)),
        image_id: status
            .and_then(|status| status.image_id.as_deref())
            .and_then(|it| bounds::image(without_scheme(it).1)),
        memory: MemoryResources {
            request_desired_bytes: memory(&spec.resources.requests),
            limit_desired_bytes: memory(&spec.resources.limits),
            request_current_bytes: current.and_then(|it| memory(&it.requests)),
            limit_current_bytes: current.and_then(|it| memory(&it.limits)),
        },
        restart_count: restarts.and_then(|count| u32::try_from(count).ok()),
        runs: None,
        ends: status.map(ends).unwrap_or_default(),
    })
}

fn memory(quantities: &Quantities) -> Option<u64> {
    quantities.memory.as_ref().and_then(quantity::bytes)
}

/// The end of the life before, then that of this one.
fn ends(status: &ContainerStatus) -> Vec<ContainerEnd> {
    let both = [&status.last_state, &status.state];
    let terminated = both.into_iter().filter_map(|it| it.terminated.as_ref());
    let mut ends: Vec<ContainerEnd> = terminated.map(end).collect();
    // The kubelet may report one end in both places.
    ends.dedup_by(|a, b| a.container_id.is_some() && a.container_id == b.container_id);
    ends
}

fn end(terminated: &Terminated) -> ContainerEnd {
    ContainerEnd {
        container_id: terminated.container_id.as_deref().and_then(|it| id(it).0),
        reason: terminated.reason.as_deref().and_then(bounds::name),
        exit_code: terminated.exit_code,
        finished: terminated
            .finished_at
            .as_deref()
            .and_then(|text| text.parse::<Timestamp>().ok())
            // An end that nobody saw (`ContainerStatusUnknown`) has the zero of its clock.
            .filter(|finished| *finished > Timestamp::UNIX_EPOCH),
    }
}

/// `<runtime>://<id>`.
fn id(text: &str) -> (Option<String>, Option<Runtime>) {
    let (scheme, id) = without_scheme(text);
    let runtime = match scheme {
        Some("containerd") => Some(Runtime::Containerd),
        Some("cri-o") => Some(Runtime::CriO),
        Some("docker") => Some(Runtime::Docker),
        _ => None,
    };
    let id = bounds::name(id);
    let runtime = runtime.filter(|_| id.is_some());
    (id, runtime)
}

fn without_scheme(text: &str) -> (Option<&str>, &str) {
    match text.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, text),
    }
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
