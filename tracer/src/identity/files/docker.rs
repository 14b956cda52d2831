//! What Docker writes of a container: `DATA_ROOT/containers/ID/config.v2.json`.
//!
//! Docker replaces the file as a whole, and has written it before it makes the cgroup; that the container runs
//! is in it only after it began to. Sources: moby, `daemon/container/container.go` (`toDisk`),
//! `daemon/start.go` (`containerStart`). What is a kubelet's: cri-dockerd, `core/naming.go` and
//! `core/docker_service.go`.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::root::{FileError, Links, Root, Stamp};
use crate::identity::{
    bounds,
    facts::{Container, ContainerKind, Pod, RuntimeContainer},
    path::Runtime,
};

/// Of one file: environment and labels are the most of it.
const MOST_BYTES: u64 = 1 << 20;
/// How cri-dockerd begins names. Anybody who makes an image sets labels, not this.
const OF_KUBELET: &str = "/k8s_";
/// A container that ended is told as running for this long after its start: its end may be written before
/// anybody looked.
const JUST_STARTED: SignedDuration = SignedDuration::from_secs(10);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OnDisk {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    /// Id of the image.
    #[serde(default)]
    image: String,
    #[serde(default)]
    config: Option<Config>,
    #[serde(default)]
    state: Option<State>,
}

/// Paused and restarting ones run.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    running: bool,
    #[serde(default)]
    started_at: String,
}

impl State {
    fn runs(&self, now: Timestamp) -> bool {
        let started: Result<Timestamp, _> = self.started_at.parse();
        let is_new = |started| {
            let ago = now.duration_since(started);
            !ago.is_negative() && ago <= JUST_STARTED
        };
        self.running || started.is_ok_and(is_new)
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    /// As it was asked for.
    #[serde(default)]
    image: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

/// Whether the container's file is there, and with another stamp than `known` what it says.
///
/// # Errors
/// The file cannot be read, or is not Docker's.
pub fn look(
    root: &Root,
    data_root: &Path,
    id: &str,
    known: Option<Stamp>,
) -> Result<Option<(Stamp, Option<RuntimeContainer>)>, FileError> {
    if !bounds::is_container_id(id) {
        return Ok(None);
    }
    let path = data_root.join("containers").join(id).join("config.v2.json");
    let Some(file) = root.find(&path, Links::Refused)? else {
        return Ok(None);
    };
    let stamp = file.stamp;
    if known == Some(stamp) {
        return Ok(Some((stamp, None)));
    }
    let bytes = file.read(MOST_BYTES)?;
    let container: OnDisk =
        serde_json::from_slice(&bytes).map_err(|cause| FileError::Malformed { path, cause })?;
    let is_its = container.id == id;
    Ok(is_its.then(|| (stamp, Some(facts(container)))))
}

fn facts(found: OnDisk) -> RuntimeContainer {
    let config = found.config.unwrap_or_default();
    let labels = config.labels.unwrap_or_default();
    let kubernetes = found.name.starts_with(OF_KUBELET);
    let pod = Some(&labels).filter(|_| kubernetes).and_then(pod);
    let label = |key: &str| labels.get(key).filter(|_| pod.is_some());
    let sandbox = label("io.kubernetes.docker.type").is_some_and(|kind| kind == "podsandbox");
    let name = label("io.kubernetes.container.name")
        .map_or(found.name.trim_start_matches('/'), String::as_str);
    RuntimeContainer {
        container: Container {
            id: Some(found.id),
            name: bounds::name(name),
            kind: if sandbox {
                ContainerKind::Sandbox
            } else {
                ContainerKind::App
            },
            runtime: Some(Runtime::Docker),
            image: bounds::image([config.image.as_str()]),
            image_id: bounds::image_id(&found.image),
            runs: found.state.map(|state| state.runs(Timestamp::now())),
            ..Container::default()
        },
        pod: pod.map(Arc::new),
    }
}

fn pod(labels: &BTreeMap<String, String>) -> Option<Pod> {
    let label = |key: &str| {
        let value = labels.get(&format!("io.kubernetes.pod.{key}"))?;
        (!value.is_empty()).then(|| bounds::name(value))
    };
    Some(Pod {
        uid: label("uid")?,
        namespace: label("namespace")?,
        name: label("name")?,
        ..Pod::default()
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ID: &str = "8ce0d0e1a4b1d5a9f7c3e2b6a0918273645566778899aabbccddeeff00112233";
    /// As Docker 27 writes it, without what is of no use here.
    const COMPOSE: &str = r#"{"StreamConfig":{},"State":{"Running":true,"Paused":false,"OOMKilled":false,
"Dead":false,"Pid":4242,"ExitCode":0,"Error":"","StartedAt":"2026-05-01T10:00:00.1Z","Health":null},
"ID":"8ce0d0e1a4b1d5a9f7c3e2b6a0918273645566778899aabbccddeeff00112233",
"Created":"2026-05-01T10:00:00Z","Managed":false,"Path":"docker-entrypoint.sh","Args":["redis-server"],
"Config":{"Hostname":"8ce0d0e1a4b1","Env":["A=b"],"Cmd":["redis-server"],"Image":"redis:7.2",
"Volumes":{"/data":{}},"Labels":{"com.docker.compose.project":"shop","com.docker.compose.service":"cache"}},
"Image":"sha256:170a1e90f8436daa6778aeea3926e716928826c215ca23a8dfd8055f663f9428",
"NetworkSettings":{"Networks":{}},"LogPath":"","Name":"/shop-cache-1","Driver":"overlay2","OS":"linux",
"RestartCount":0,"MountPoints":{},"SecretReferences":null}"#;

    fn host(text: &str) -> tempfile::TempDir {
        let host = tempfile::tempdir().unwrap();
        let directory = host.path().join("var/lib/docker/containers").join(ID);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("config.v2.json"), text).unwrap();
        host
    }

    fn found(
        host: &tempfile::TempDir,
        id: &str,
    ) -> Result<Option<(Stamp, Option<RuntimeContainer>)>, FileError> {
        look(
            &Root::at(host.path()),
            Path::new("/var/lib/docker"),
            id,
            None,
        )
    }

    fn told(text: &str) -> RuntimeContainer {
        found(&host(text), ID).unwrap().unwrap().1.unwrap()
    }

    #[test]
    fn name_and_image_come_from_the_file() {
        let host = host(COMPOSE);
        let (stamp, told) = found(&host, ID).unwrap().unwrap();
        let RuntimeContainer { container, pod } = told.unwrap();
        assert_eq!(container.id.as_deref(), Some(ID));
        assert_eq!(container.name, "shop-cache-1");
        assert_eq!(container.runtime, Some(Runtime::Docker));
        assert_eq!(container.image.as_deref(), Some("redis:7.2"));
        assert!(container.image_id.unwrap().starts_with("sha256:170a1e"));
        assert_eq!(pod, None);
        let root = Root::at(host.path());
        let again = look(&root, Path::new("/var/lib/docker"), ID, Some(stamp));
        assert_eq!(again.unwrap(), Some((stamp, None)), "it did not change");
    }

    #[test]
    fn a_container_runs_or_began_to_just_now() {
        assert_eq!(told(COMPOSE).container.runs, Some(true));
        let stopped = COMPOSE.replace(r#""Running":true"#, r#""Running":false"#);
        assert_eq!(told(&stopped).container.runs, Some(false));
        for (started, runs) in [
            (Timestamp::now().to_string(), true),
            (
                (Timestamp::now() - SignedDuration::from_mins(1)).to_string(),
                false,
            ),
            (
                (Timestamp::now() + SignedDuration::from_mins(1)).to_string(),
                false,
            ),
            ("0001-01-01T00:00:00Z".to_owned(), false),
            (String::new(), false),
        ] {
            let ended = stopped.replace("2026-05-01T10:00:00.1Z", &started);
            assert_eq!(told(&ended).container.runs, Some(runs), "{started}");
        }
        let without = COMPOSE.replace(r#""State""#, r#""Other""#);
        assert_eq!(told(&without).container.runs, None);
    }

    #[test]
    fn an_image_by_its_id_has_no_name() {
        let by_id = COMPOSE.replace("redis:7.2", &format!("sha256:{ID}"));
        assert_eq!(told(&by_id).container.image, None);
    }

    #[test]
    fn a_pod_is_believed_to_the_kubelet_only() {
        let labels = r#""Labels":{"io.kubernetes.container.name":"app","io.kubernetes.pod.name":"cart-0",
            "io.kubernetes.pod.namespace":"prod","io.kubernetes.pod.uid":"u-1","#;
        let labelled = COMPOSE.replace(r#""Labels":{"#, labels);
        let by_image = told(&labelled);
        assert_eq!(by_image.pod, None);
        assert_eq!(by_image.container.name, "shop-cache-1");
        let of_kubelet = labelled.replace("/shop-cache-1", "/k8s_app_cart-0_prod_u-1_0");
        let told_of = told(&of_kubelet);
        let pod = told_of.pod.unwrap();
        assert_eq!(
            (&*pod.namespace, &*pod.name, &*pod.uid),
            ("prod", "cart-0", "u-1")
        );
        assert_eq!(told_of.container.name, "app");
        assert_eq!(told_of.container.kind, ContainerKind::App);
        let sandbox = of_kubelet.replace(
            labels,
            &format!(r#"{labels}"io.kubernetes.docker.type":"podsandbox","#),
        );
        assert_eq!(told(&sandbox).container.kind, ContainerKind::Sandbox);
    }

    #[test]
    fn only_ids_are_looked_for() {
        let host = host(COMPOSE);
        fs::write(host.path().join("var/lib/docker/config.v2.json"), COMPOSE).unwrap();
        for id in [
            "..",
            "",
            "/",
            &ID[1..],
            &ID.to_uppercase(),
            &"../".repeat(22)[..64],
        ] {
            assert!(found(&host, id).unwrap().is_none(), "{id}");
        }
        assert!(found(&host, &"0".repeat(64)).unwrap().is_none());
    }

    #[test]
    fn a_file_of_another_container_or_of_no_sense_names_nobody() {
        let other = COMPOSE.replace(ID, &"0".repeat(64));
        assert!(found(&host(&other), ID).unwrap().is_none());
        for text in ["", "{", "[]", "{}", r#"{"ID": 7}"#, &COMPOSE[..200]] {
            let error = found(&host(text), ID).unwrap_err().to_string();
            assert!(error.contains(&format!("{ID}/config.v2.json: ")), "{error}");
        }
        let long = format!("{COMPOSE}{}", " ".repeat(1 << 20));
        let error = found(&host(&long), ID).unwrap_err().to_string();
        assert!(error.contains("is longer than 1048576 bytes"), "{error}");
    }

    #[test]
    fn names_are_capped() {
        let long = COMPOSE.replace("shop-cache-1", &"n".repeat(5000));
        assert_eq!(told(&long).container.name.len(), bounds::MOST_NAME_CHARS);
    }
}
