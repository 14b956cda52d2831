//! What sources tell of pods and containers: the language between them and the [`Directory`].
//!
//! Owns the shapes only. Everything in them comes from outside and is untrusted.
//!
//! [`Directory`]: super::directory::Directory

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use jiff::Timestamp;

use super::path::Runtime;

/// A pod as a source knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// `metadata.uid`.
    pub uid: String,
    pub namespace: String,
    pub name: String,
    /// `spec.nodeName`.
    pub node: Option<String>,
    /// All of them; outputs choose.
    pub labels: BTreeMap<String, String>,
    /// Those that memtrace reads, and those chosen by option.
    pub annotations: BTreeMap<String, String>,
    /// From the pod upwards: a ReplicaSet, then its Deployment.
    pub owners: Vec<Owner>,
    /// Annotation `kubernetes.io/config.hash`: what a static pod's cgroup has for a UID.
    pub config_hash: Option<String>,
    /// Of the sandbox, by the runtime.
    pub sandbox_id: Option<String>,
    /// Init and ephemeral ones too. Empty where the source does not list them with the pod.
    pub containers: Vec<Container>,
}

/// A controller of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub kind: OwnerKind,
    pub name: String,
    /// `None`: known by its name only.
    pub uid: Option<String>,
}

/// Controllers that the semantic conventions name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OwnerKind {
    ReplicaSet,
    Deployment,
    StatefulSet,
    DaemonSet,
    Job,
    CronJob,
}

/// A container of a pod, or of a plain runtime.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Container {
    /// Without the runtime's scheme; `None` until it has started.
    pub id: Option<String>,
    /// Its name in the pod's specification, or the runtime's.
    pub name: String,
    pub kind: ContainerKind,
    pub runtime: Option<Runtime>,
    /// Reference as asked for: `registry/name:tag`.
    pub image: Option<String>,
    /// Digest or id of what runs.
    pub image_id: Option<String>,
    pub memory: MemoryResources,
    pub restart_count: Option<u32>,
    /// `None`: the source does not say.
    pub runs: Option<bool>,
    /// Ends that the source still knows, of this and of earlier lives, the newest last.
    pub ends: Vec<ContainerEnd>,
}

/// What a container is to its pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum ContainerKind {
    #[default]
    App,
    Init,
    Ephemeral,
    /// Holds the pod's namespaces (`pause`).
    Sandbox,
}

/// Memory of a container as Kubernetes has it, bytes. `None`: not set, or not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryResources {
    /// `spec.containers[].resources.requests`.
    pub request_desired_bytes: Option<u64>,
    pub limit_desired_bytes: Option<u64>,
    /// `status.containerStatuses[].resources`, which follow a resize in place.
    pub request_current_bytes: Option<u64>,
    pub limit_current_bytes: Option<u64>,
}

/// `state.terminated` or `lastState.terminated` of a container's status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerEnd {
    /// Of the life that ended.
    pub container_id: Option<String>,
    /// `OOMKilled`, `Error`, `Completed`…
    pub reason: Option<String>,
    pub exit_code: Option<i32>,
    pub finished: Option<Timestamp>,
}

/// A container as its runtime lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeContainer {
    pub container: Container,
    /// `None`: of no pod.
    pub pod: Option<Arc<Pod>>,
}

/// Where the pods run, as the API knows it. `None`: not allowed to ask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// UID of the namespace `kube-system`.
    pub cluster_uid: Option<String>,
    /// `metadata.uid` of this node.
    pub node_uid: Option<String>,
}

/// The place, as soon as it is known.
pub type KnownPlace = Arc<OnceLock<Place>>;

/// What a source has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// From the Kubernetes API: new or changed.
    Pod(Box<Pod>),
    /// From the Kubernetes API: deleted.
    PodGone { uid: String },
    /// From the Kubernetes API: these exist, all others are gone.
    PodsAre(Vec<String>),
    /// From a runtime: all that exist now, sandboxes included.
    RuntimeIs(Source, Vec<RuntimeContainer>),
    /// From a runtime: these are new or changed, those are gone; nothing is said of others.
    RuntimeChanged {
        source: Source,
        containers: Vec<RuntimeContainer>,
        gone: Vec<String>,
    },
    /// From the Kubernetes API: which cluster and node this is.
    Place(Place),
    /// How a source fares.
    Source(Source, SourceState),
}

/// Where names come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    Kubernetes,
    Cri,
    /// Files of Docker and Podman.
    Files,
}

impl Source {
    pub fn name(self) -> &'static str {
        match self {
            Source::Kubernetes => "kubernetes",
            Source::Cri => "cri",
            Source::Files => "files",
        }
    }
}

/// How a source fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceState {
    /// Not heard of yet.
    Starting,
    /// Nothing of it is on this host so far, and nobody asked for it. It is looked for again.
    Absent,
    /// What it said is up to date.
    Synced,
    /// Cause and remedy, in words for a person. What was known stays.
    Failing(String),
}

/// Asks the sources for a container that nobody has named yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub container_id: String,
}
