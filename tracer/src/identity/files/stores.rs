//! Where Docker, Podman and CRI-O keep what they know of their containers.
//!
//! Owns the places and what configuration says of them. Of the system only: a user's own (rootless) are not
//! looked into, since that user may make them a file system that never answers, and write into them what
//! belongs to another's container.
//!
//! Sources: dockerd(8) (`data-root`), containers-storage.conf(5) (`graphroot`, `runroot`).

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::root::{Links, Root};

const DOCKER_CONFIG: &str = "/etc/docker/daemon.json";
/// Of Docker's own packages, and of its snap.
const DOCKER: [&str; 2] = ["/var/lib/docker", "/var/snap/docker/common/var-lib-docker"];
/// Of the administrator, and of the distribution: the first that is there counts.
const STORAGE_CONFIGS: [&str; 2] = [
    "/etc/containers/storage.conf",
    "/usr/share/containers/storage.conf",
];
const GRAPH_ROOT: &str = "/var/lib/containers/storage";
const RUN_ROOT: &str = "/run/containers/storage";
/// Of a configuration.
const MOST_BYTES: u64 = 256 << 10;

/// The stores that are there, if any; paths are those of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesConfig {
    pub(super) root: Root,
    /// Data roots of Docker.
    pub(super) docker: Vec<PathBuf>,
    /// Roots of containers/storage: what stays, and what a boot clears.
    pub(super) storage: Vec<PathBuf>,
}

impl FilesConfig {
    /// Those of the host, none of which is looked for yet: a file system may hang.
    pub fn of_host() -> Self {
        Self {
            root: Root::of_host(),
            docker: Vec::new(),
            storage: Vec::new(),
        }
    }

    /// Those that are there now, where these were looked for.
    pub(super) fn again(&self) -> Self {
        Self::find(self.root.clone())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.docker.is_empty() && self.storage.is_empty()
    }

    /// Those that are there, where the system's configuration and the usual places say.
    pub fn find(root: Root) -> Self {
        let text = |path: &str| {
            let found = root.find(Path::new(path), Links::Followed).ok()??;
            String::from_utf8(found.read(MOST_BYTES).ok()?).ok()
        };
        let is_there = |path: &PathBuf| root.has_directory(path);
        let data_root = text(DOCKER_CONFIG).and_then(|text| data_root(&text));
        let docker = data_root.into_iter().chain(DOCKER.map(PathBuf::from));
        let storage = STORAGE_CONFIGS.iter().find_map(|path| text(path));
        let storage = storage.unwrap_or_default();
        let of_storage =
            |key, default: &str| directory(&storage, key).unwrap_or_else(|| PathBuf::from(default));
        let storage = [
            of_storage("graphroot", GRAPH_ROOT),
            of_storage("runroot", RUN_ROOT),
        ];
        Self {
            docker: docker.filter(is_there).collect(),
            storage: storage.into_iter().filter(is_there).collect(),
            root,
        }
    }

    /// For a person.
    pub fn describe(&self) -> String {
        if self.is_empty() {
            return "the places of files of Docker and Podman".to_owned();
        }
        let places = self.docker.iter().chain(&self.storage);
        let places: Vec<_> = places.map(|path| path.display().to_string()).collect();
        format!("the files in {}", places.join(", "))
    }
}

#[derive(Deserialize)]
struct DaemonConfig {
    #[serde(rename = "data-root")]
    data_root: Option<PathBuf>,
}

fn data_root(text: &str) -> Option<PathBuf> {
    let config: DaemonConfig = serde_json::from_str(text).ok()?;
    config.data_root.filter(|path| path.is_absolute())
}

/// The value of a key of TOML that is an absolute path on a line of its own, as the documentation has it.
fn directory(text: &str, key: &str) -> Option<PathBuf> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        let value = value.split('#').next()?.trim();
        let quoted = |quote| value.strip_prefix(quote)?.strip_suffix(quote);
        let path = PathBuf::from(quoted('"').or_else(|| quoted('\''))?);
        (name.trim() == key && path.is_absolute()).then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn host(directories: &[&str], files: &[(&str, &str)]) -> tempfile::TempDir {
        let host = tempfile::tempdir().unwrap();
        for directory in directories {
            fs::create_dir_all(host.path().join(directory)).unwrap();
        }
        for (path, text) in files {
            let path = host.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        host
    }

    fn found(host: &tempfile::TempDir) -> Option<String> {
        let found = FilesConfig::find(Root::at(host.path()));
        (!found.is_empty()).then(|| found.describe())
    }

    #[test]
    fn what_is_not_there_is_not_asked() {
        assert_eq!(found(&host(&["var/lib"], &[])), None);
        let both = host(
            &[
                "var/lib/docker",
                "var/lib/containers/storage",
                "run/containers/storage",
            ],
            &[],
        );
        assert_eq!(
            found(&both).as_deref(),
            Some(
                "the files in /var/lib/docker, /var/lib/containers/storage, /run/containers/storage"
            )
        );
    }

    #[test]
    fn configured_places_are_found() {
        let moved = host(
            &["data/docker", "data/storage"],
            &[
                (
                    "etc/docker/daemon.json",
                    r#"{"log-driver": "journald", "data-root": "/data/docker"}"#,
                ),
                (
                    "etc/containers/storage.conf",
                    "[storage]\n# graphroot = \"/old\"\ndriver = \"overlay\"\n\
                     rootless_storage_path = \"$HOME/x\"\n graphroot = \"/data/storage\" # moved\n",
                ),
            ],
        );
        assert_eq!(
            found(&moved).as_deref(),
            Some("the files in /data/docker, /data/storage")
        );
    }

    #[test]
    fn configurations_that_make_no_sense_change_nothing() {
        for (json, toml) in [
            ("", "graphroot"),
            ("{\"data-root\": 7}", "graphroot = /data"),
            ("{\"data-root\": \"relative\"}", "graphroot = \"relative\""),
            ("[", "graphroot = \""),
        ] {
            let host = host(
                &["var/lib/docker", "var/lib/containers/storage"],
                &[
                    ("etc/docker/daemon.json", json),
                    ("etc/containers/storage.conf", toml),
                ],
            );
            assert_eq!(
                found(&host).as_deref(),
                Some("the files in /var/lib/docker, /var/lib/containers/storage"),
                "{json} {toml}"
            );
        }
    }
}
