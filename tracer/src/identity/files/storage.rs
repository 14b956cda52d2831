//! What Podman and CRI-O write of their containers: the lists of containers/storage.
//!
//! A list is replaced as a whole, and has a container before its cgroup is made. Owns one list as it was read
//! last. Sources: containers/storage `containers.go`, Podman `libpod/storage.go`, CRI-O
//! `internal/storage/runtime.go` (`RuntimeContainerMetadata`).

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;

use super::root::{FileError, Links, Root, Stamp};
use crate::identity::{
    bounds,
    facts::{Container, ContainerKind, Pod, RuntimeContainer},
    path::Runtime,
};

/// Drivers that have a list of their own, and its names: what a crash may lose stands in the second.
const DRIVERS: [&str; 4] = ["overlay", "vfs", "btrfs", "zfs"];
const FILES: [&str; 2] = ["containers.json", "volatile-containers.json"];
/// Of a list: about a kilobyte each container.
const MOST_BYTES: u64 = 16 << 20;
/// Containers of a list that are taken.
const MOST_CONTAINERS: usize = 4096;

/// A container of the library.
#[derive(Deserialize)]
struct Stored {
    id: String,
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    image: String,
    #[serde(default)]
    metadata: String,
}

/// What Podman or CRI-O put beside it; only CRI-O knows pods.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Metadata {
    image_name: String,
    name: String,
    metadata_name: String,
    pod_name: String,
    pod_id: String,
    uid: String,
    namespace: String,
    attempt: u32,
    pod: bool,
}

/// A list, as it was read last.
#[derive(Debug)]
pub struct List {
    path: PathBuf,
    /// `None`: there is none.
    stamp: Option<Stamp>,
    containers: HashMap<String, RuntimeContainer>,
}

impl List {
    /// Those that may be below a root of containers/storage.
    pub fn all(root: &Path) -> Vec<Self> {
        let named = |driver| FILES.map(|file| root.join(format!("{driver}-containers")).join(file));
        let paths = DRIVERS.into_iter().flat_map(named);
        paths
            .map(|path| Self {
                path,
                stamp: None,
                containers: HashMap::new(),
            })
            .collect()
    }

    /// Reads it again if it was written since; gives how many containers there was no room for.
    ///
    /// # Errors
    /// It cannot be read, or is no such list. What was known before stays.
    pub fn refresh(&mut self, root: &Root) -> Result<usize, FileError> {
        let Some(file) = root.find(&self.path, Links::Refused)? else {
            self.stamp = None;
            self.containers.clear();
            return Ok(0);
        };
        let stamp = file.stamp;
        if self.stamp == Some(stamp) {
            return Ok(0);
        }
        let bytes = file.read(MOST_BYTES)?;
        let stored: Vec<Stored> = match bytes.as_slice() {
            // As the library makes it.
            [] => Vec::new(),
            bytes => serde_json::from_slice(bytes).map_err(|cause| FileError::Malformed {
                path: self.path.clone(),
                cause,
            })?,
        };
        let left_out = stored.len().saturating_sub(MOST_CONTAINERS);
        self.containers = facts(stored.into_iter().skip(left_out).collect());
        self.stamp = Some(stamp);
        Ok(left_out)
    }

    pub fn get(&self, id: &str) -> Option<&RuntimeContainer> {
        self.containers.get(id)
    }
}

fn facts(stored: Vec<Stored>) -> HashMap<String, RuntimeContainer> {
    let described: Vec<(Stored, Metadata)> = stored
        .into_iter()
        .filter(|stored| bounds::is_container_id(&stored.id))
        .map(|stored| {
            // Of another program, or none.
            let metadata = serde_json::from_str(&stored.metadata).unwrap_or_default();
            (stored, metadata)
        })
        .collect();
    // Only the entry of a sandbox has UID and namespace.
    let pods: HashMap<&str, Arc<Pod>> = described
        .iter()
        .filter(|(_, metadata)| metadata.pod && !metadata.uid.is_empty())
        .map(|(stored, metadata)| (stored.id.as_str(), Arc::new(pod(stored, metadata))))
        .collect();
    described
        .iter()
        .map(|(stored, metadata)| {
            let pod = pods.get(metadata.pod_id.as_str()).map(Arc::clone);
            (stored.id.clone(), container(stored, metadata, pod))
        })
        .collect()
}

/// Source: kubelet's `metadata` of a sandbox, which CRI-O keeps as it is.
fn pod(sandbox: &Stored, metadata: &Metadata) -> Pod {
    Pod {
        uid: bounds::name(&metadata.uid),
        namespace: bounds::name(&metadata.namespace),
        name: bounds::name(&metadata.metadata_name),
        sandbox_id: Some(sandbox.id.clone()),
        ..Pod::default()
    }
}

fn container(stored: &Stored, metadata: &Metadata, pod: Option<Arc<Pod>>) -> RuntimeContainer {
    let of_crio = !metadata.pod_name.is_empty();
    let name = if of_crio {
        &metadata.metadata_name
    } else {
        // `podman rename` changes this one.
        stored.names.first().unwrap_or(&metadata.name)
    };
    RuntimeContainer {
        container: Container {
            id: Some(stored.id.clone()),
            name: bounds::name(name),
            kind: if metadata.pod {
                ContainerKind::Sandbox
            } else {
                ContainerKind::App
            },
            runtime: Some(if of_crio {
                Runtime::CriO
            } else {
                Runtime::Podman
            }),
            image: bounds::image([metadata.image_name.as_str()]),
            image_id: bounds::image_id(&stored.image),
            restart_count: of_crio.then_some(metadata.attempt),
            ..Container::default()
        },
        pod,
    }
}

#[cfg(test)]
#[path = "storage_tests.rs"]
mod tests;
