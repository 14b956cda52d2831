//! Who a cgroup is, as every output tells it.
//!
//! Owns how path, pod and container become names, and which of them are left out. Pure. Names are
//! untrusted: escaped and capped here, once.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    facts::{Container, ContainerKind, OwnerKind, Pod},
    path::{self, PathIdentity},
    service::{self, Service},
};
use crate::host::escape;

/// Longest name told, characters.
const MOST_CHARS: usize = 256;
/// Attributes by annotations and labels, and bytes of all of them: anybody who makes a pod chooses them,
/// and they go out with each of its containers.
const MOST_ATTRIBUTES: usize = 32;
const MOST_ATTRIBUTE_BYTES: usize = 4096;

/// Names of a cgroup; what is not known, or does not apply, is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Names {
    /// `metadata.namespace` of the pod.
    pub namespace: Option<String>,
    pub pod: Option<String>,
    /// In the API. Of a static pod that the API has not told yet, the hash that its path has.
    pub pod_uid: Option<String>,
    pub pod_qos_class: Option<String>,
    /// Only where the cgroup is the container's own, neither its pod's nor one below.
    pub container: Option<String>,
    pub container_id: Option<String>,
    pub container_runtime: Option<String>,
    /// The container holds the namespaces of its pod (`pause`); `None` where that is not known.
    pub pod_sandbox: Option<bool>,
    pub image: Option<String>,
    pub image_id: Option<String>,
    /// The topmost controller of the pod: `Deployment`, `StatefulSet`…
    pub workload_kind: Option<String>,
    pub workload: Option<String>,
    pub node: Option<String>,
    pub systemd_unit: Option<String>,
    /// All controllers, from the pod upwards.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub owners: Vec<OwnerName>,
    /// Of the container, by the rules of OpenTelemetry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,
    /// Labels and annotations that were asked for, by the attribute they become.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

/// A controller of the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerName {
    pub kind: String,
    pub name: String,
    pub uid: Option<String>,
}

/// What operators choose of names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamingOptions {
    /// `k8s.node.name` of everything on this host.
    pub node: Option<String>,
    /// Keys of pod labels to tell.
    pub labels: Vec<String>,
    /// Keys of pod annotations to tell.
    pub annotations: Vec<String>,
    /// `service.*` from the labels `app.kubernetes.io/*`.
    pub service_from_labels: bool,
}

impl Names {
    /// What the path alone says.
    pub fn of_path(path: &Path) -> Self {
        Self::new(&path::parse(path), None, None, &NamingOptions::default())
    }

    /// Joins what is known.
    pub fn new(
        path: &PathIdentity,
        pod: Option<&Arc<Pod>>,
        container: Option<&Arc<Container>>,
        options: &NamingOptions,
    ) -> Self {
        let known = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(shown);
        let is_own = path.container_id.is_some() && path.below_container.is_none();
        let container = container.filter(|_| path.container_id.is_some());
        let named = container
            .filter(|container| is_own && container.kind != ContainerKind::Sandbox)
            .map(|container| container.name.as_str());
        let runtime = path.runtime.or(container.and_then(|known| known.runtime));
        let owners: Vec<OwnerName> = pod.map_or_else(Vec::new, |pod| {
            let named = |owner: &super::facts::Owner| OwnerName {
                kind: owner.kind.name().to_owned(),
                name: shown(&owner.name),
                uid: known(owner.uid.as_deref()),
            };
            pod.owners.iter().map(named).collect()
        });
        let top = owners.last().cloned();
        Self {
            namespace: known(pod.map(|pod| pod.namespace.as_str())),
            pod: known(pod.map(|pod| pod.name.as_str())),
            pod_uid: known(pod.map(|pod| pod.uid.as_str())).or_else(|| path.pod_uid.clone()),
            pod_qos_class: path.qos.map(|qos| qos.name().to_owned()),
            container: known(named),
            container_id: known(path.container_id.as_deref()),
            container_runtime: runtime.map(|runtime| runtime.name().to_owned()),
            pod_sandbox: container.map(|container| container.kind == ContainerKind::Sandbox),
            image: known(container.and_then(|container| container.image.as_deref())),
            image_id: known(container.and_then(|container| container.image_id.as_deref())),
            workload_kind: top.as_ref().map(|owner| owner.kind.clone()),
            workload: top.map(|owner| owner.name),
            node: known(options.node.as_deref()),
            systemd_unit: known(path.unit.as_deref()),
            service: match (pod, named) {
                (Some(pod), Some(name)) => {
                    let image = container.and_then(|container| container.image.as_deref());
                    let service = service::of(pod, name, image, options.service_from_labels);
                    Some(Service {
                        name: shown(&service.name),
                        namespace: shown(&service.namespace),
                        instance_id: shown(&service.instance_id),
                        version: known(service.version.as_deref()),
                    })
                }
                _ => None,
            },
            owners,
            attributes: match pod {
                Some(pod) if path.below_container.is_none() => chosen(pod, options),
                _ => BTreeMap::new(),
            },
        }
    }

    /// Bytes of text that it holds.
    pub fn held_bytes(&self) -> usize {
        let fields = [
            &self.namespace,
            &self.pod,
            &self.pod_uid,
            &self.container,
            &self.container_id,
            &self.image,
            &self.image_id,
            &self.workload,
            &self.systemd_unit,
        ];
        let text: usize = fields.into_iter().flatten().map(String::len).sum();
        let chosen = self.attributes.iter();
        let chosen: usize = chosen.map(|(key, value)| key.len() + value.len()).sum();
        size_of::<Self>() + text + chosen
    }

    /// Nothing is known but the node.
    pub fn is_empty(&self) -> bool {
        let node = self.node.clone();
        *self
            == Names {
                node,
                ..Names::default()
            }
    }

    /// `namespace/pod/container`, as far as known; else the runtime's name.
    pub fn short(&self) -> Option<String> {
        let parts = [&self.namespace, &self.pod, &self.container];
        let parts: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
        (!parts.is_empty()).then(|| parts.join("/"))
    }

    /// What stays the same when the container starts again; `None` if that is not known.
    pub fn lineage(&self) -> Option<String> {
        let (pod, container) = (self.pod_uid.as_ref()?, self.container.as_ref()?);
        Some(format!("{pod}/{container}"))
    }
}

/// Labels and annotations as attributes (semconv registry: `k8s.pod.label.<key>`,
/// `k8s.pod.annotation.<key>`; `resource.opentelemetry.io/<attribute>` stands for itself).
fn chosen(pod: &Pod, options: &NamingOptions) -> BTreeMap<String, String> {
    let take = |from: &BTreeMap<String, String>, keys: &[String], prefix: &str| {
        keys.iter()
            .filter_map(|key| Some((format!("{prefix}{key}"), shown(from.get(key)?))))
            .collect::<Vec<_>>()
    };
    let stated = pod.annotations.iter().filter_map(|(key, value)| {
        let attribute = key.strip_prefix(service::ANNOTATION)?;
        // These have fields of their own; an application never renames what memtrace measured. Some
        // backends take any separator for the same.
        let same: String = attribute
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '.' })
            .collect();
        let taken = ["service.", "k8s.", "container.", "host.", "memtrace."];
        let free = !taken.iter().any(|prefix| same.starts_with(prefix));
        (free && !attribute.is_empty()).then(|| (shown(attribute), shown(value)))
    });
    let mut bytes = 0;
    stated
        .chain(take(&pod.labels, &options.labels, "k8s.pod.label."))
        .chain(take(
            &pod.annotations,
            &options.annotations,
            "k8s.pod.annotation.",
        ))
        .take(MOST_ATTRIBUTES)
        .take_while(|(key, value)| {
            bytes += key.len() + value.len();
            bytes <= MOST_ATTRIBUTE_BYTES
        })
        .collect()
}

fn shown(text: &str) -> String {
    escape::display(text.as_bytes(), MOST_CHARS)
}

impl OwnerKind {
    /// As Kubernetes names it.
    pub fn name(self) -> &'static str {
        match self {
            OwnerKind::ReplicaSet => "ReplicaSet",
            OwnerKind::Deployment => "Deployment",
            OwnerKind::StatefulSet => "StatefulSet",
            OwnerKind::DaemonSet => "DaemonSet",
            OwnerKind::Job => "Job",
            OwnerKind::CronJob => "CronJob",
        }
    }
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
