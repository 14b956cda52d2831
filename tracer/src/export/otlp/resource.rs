//! Whose numbers and events these are: one resource per cgroup, one for the host.
//!
//! Owns resource identity, the same for metrics and events, so that a backend can join them.
//! Must not read the host or the environment.

use std::time::SystemTime;

use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::config::OtlpConfig;
use super::wire;
use crate::identity::{facts::KnownPlace, names::Names};

/// Version of the semantic conventions that the names follow.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";
/// Instrumentation scope of everything sent.
pub const SCOPE: &str = "memtrace";

/// Who this host is. An unknown field is left out of the resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostInfo {
    /// `host.id`: `/etc/machine-id`.
    pub id: Option<String>,
    /// `host.name`: the host's name, not a container's.
    pub name: Option<String>,
    /// When the kernel booted: start of the host's counters.
    pub booted: Option<SystemTime>,
}

/// What all resources of one memtrace have in common.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceContext {
    pub service_name: String,
    pub host: HostInfo,
    /// `k8s.node.name`.
    pub node: Option<String>,
    /// `k8s.cluster.uid` and `k8s.node.uid`, which come later than the first export.
    pub place: KnownPlace,
    /// The operator's own attributes; they beat `host.*`, never memtrace's identity.
    pub attributes: Vec<(String, String)>,
}

impl ResourceContext {
    /// Joins the operator's configuration with the host's identity.
    pub fn new(config: &OtlpConfig, host: HostInfo) -> Self {
        ResourceContext {
            service_name: config.service_name.clone(),
            host,
            node: None,
            place: KnownPlace::default(),
            attributes: config.resource_attributes.clone(),
        }
    }

    /// `<host>:<part>`, or `<host>` for an empty part. Unique per resource, because Prometheus
    /// makes `instance` of it and would merge the series of two resources that share one.
    /// Source: semconv registry, `service.instance.id`.
    pub fn instance_id(&self, part: &str) -> String {
        let host = self.host.id.as_deref().or(self.host.name.as_deref());
        match (host, part) {
            (Some(host), "") => host.to_owned(),
            (Some(host), part) => format!("{host}:{part}"),
            (None, "") => "host".to_owned(),
            (None, part) => part.to_owned(),
        }
    }

    /// Attributes of the resource `part` belongs to, each key once.
    pub(super) fn string_attributes(&self, part: &str) -> Vec<(String, String)> {
        let mut attributes = vec![
            ("service.name".to_owned(), self.service_name.clone()),
            ("service.instance.id".to_owned(), self.instance_id(part)),
        ];
        let place = self.place.get().cloned().unwrap_or_default();
        let detected = [
            ("host.id", &self.host.id),
            ("host.name", &self.host.name),
            ("k8s.node.name", &self.node),
            ("k8s.node.uid", &place.node_uid),
            ("k8s.cluster.uid", &place.cluster_uid),
        ];
        let detected = detected
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value.clone()?)));
        for (key, value) in self.attributes.iter().cloned().chain(detected) {
            let reserved = key.starts_with("memtrace.");
            if !reserved && attributes.iter().all(|(known, _)| *known != key) {
                attributes.push((key, value));
            }
        }
        attributes
    }

    /// The host itself.
    pub(super) fn host_resource(&self) -> Resource {
        resource(&self.string_attributes(""), Vec::new())
    }

    /// A cgroup, by its path from the root of the memory hierarchy. A container of a pod is the service
    /// that runs in it (semconv, "Kubernetes attributes"); everything else is memtrace's own instance.
    pub(super) fn cgroup_resource(&self, path: &str, id: Option<u64>, names: &Names) -> Resource {
        let mut common = self.string_attributes(path);
        if let Some(service) = &names.service {
            for (key, value) in &mut common {
                match key.as_str() {
                    "service.name" => value.clone_from(&service.name),
                    "service.instance.id" => value.clone_from(&service.instance_id),
                    _ => {}
                }
            }
            let version = service.version.clone();
            let more = [
                ("service.namespace", Some(service.namespace.clone())),
                ("service.version", version),
            ];
            for (key, value) in more {
                common.retain(|(known, _)| known != key);
                common.extend(value.map(|value| (key.to_owned(), value)));
            }
        }
        let mut identity = vec![wire::string("memtrace.cgroup.path", path)];
        identity.extend(id.map(|id| wire::integer("memtrace.cgroup.id", id)));
        identity.extend(named(names));
        // What was measured beats what the operator or an annotation says.
        common.retain(|(key, _)| identity.iter().all(|known| known.key != *key));
        for (key, value) in &names.attributes {
            let free = common.iter().all(|(known, _)| known != key)
                && identity.iter().all(|known| known.key != *key);
            if free {
                common.push((key.clone(), value.clone()));
            }
        }
        resource(&common, identity)
    }
}

/// Source: semconv registry 1.44.0, `k8s.*` and `container.*`.
fn named(names: &Names) -> Vec<KeyValue> {
    // A static pod's path has the hash of its configuration, which is no UID.
    let uid = names.pod_uid.as_deref().filter(|uid| uid.contains('-'));
    let image = names.image.as_deref().map(image_name);
    // One is a name in a pod's specification, the other that of the runtime.
    let in_pod = names.pod.is_some() || names.pod_uid.is_some();
    let container = names.container.as_deref();
    let mut list: Vec<KeyValue> = [
        ("k8s.namespace.name", names.namespace.as_deref()),
        ("k8s.pod.name", names.pod.as_deref()),
        ("k8s.pod.uid", uid),
        ("k8s.container.name", container.filter(|_| in_pod)),
        ("container.name", container.filter(|_| !in_pod)),
        ("container.id", names.container_id.as_deref()),
        ("container.runtime.name", names.container_runtime.as_deref()),
        ("container.image.name", image),
        ("container.image.id", names.image_id.as_deref()),
        ("memtrace.pod.qos_class", names.pod_qos_class.as_deref()),
        ("memtrace.systemd.unit", names.systemd_unit.as_deref()),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some(wire::string(key, value?)))
    .collect();
    if names.pod_sandbox == Some(true) {
        list.push(wire::boolean("memtrace.pod.sandbox", true));
    }
    for owner in &names.owners {
        let kind = owner.kind.to_ascii_lowercase();
        list.push(wire::string(&format!("k8s.{kind}.name"), &owner.name));
        if let Some(uid) = &owner.uid {
            list.push(wire::string(&format!("k8s.{kind}.uid"), uid));
        }
    }
    list
}

/// The reference without tag and digest.
fn image_name(image: &str) -> &str {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[last..].find(':') {
        Some(colon) => &name[..last + colon],
        None => name,
    }
}

fn resource(common: &[(String, String)], identity: Vec<KeyValue>) -> Resource {
    let mut attributes: Vec<KeyValue> = common
        .iter()
        .map(|(key, value)| wire::string(key, value))
        .collect();
    attributes.extend(identity);
    Resource {
        attributes,
        ..Default::default()
    }
}

/// What made the numbers and events.
pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: SCOPE.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Default::default()
    }
}
