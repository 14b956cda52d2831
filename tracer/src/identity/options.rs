//! What the operator asked of names: flags and variables to sources.
//!
//! Owns which sources `auto` takes. Must not connect to any: it only looks whether they are there.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use thiserror::Error;

use super::{
    cri::CriConfig,
    files::FilesConfig,
    names::NamingOptions,
    sources::{KubernetesConfig, SourcesConfig},
};

/// Where runtimes listen, by how common they are: containerd, CRI-O, k3s, microk8s, k0s.
const SOCKETS: [&str; 5] = [
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/k3s/containerd/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
    "/run/k0s/containerd.sock",
];
/// What a pod has of its service account.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// Options for names.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Names")]
pub struct NamingArgs {
    /// Who names containers and pods: the Kubernetes API, the runtime's CRI socket, these and the files of
    /// Docker and Podman as far as they are there, or only the paths of cgroups
    #[arg(long, value_enum, default_value_t = IdentityArg::Auto, value_name = "SOURCE")]
    pub identity: IdentityArg,

    /// Name of this node in Kubernetes; its pods are watched [default: in a pod none, else the host's name]
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub node_name: Option<String>,

    /// Socket of the container runtime [default: where containerd, CRI-O, k3s, microk8s and k0s listen]
    #[arg(long, value_name = "PATH")]
    pub cri_socket: Option<PathBuf>,

    /// Tell this label of pods as k8s.pod.label.KEY; may be repeated
    #[arg(long, value_name = "KEY")]
    pub pod_label: Vec<String>,

    /// Tell this annotation of pods as k8s.pod.annotation.KEY; may be repeated
    #[arg(long, value_name = "KEY")]
    pub pod_annotation: Vec<String>,

    /// Take service.name and service.version from the labels app.kubernetes.io/instance, name and version
    #[arg(long)]
    pub service_from_labels: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum IdentityArg {
    /// What is there
    #[default]
    Auto,
    /// The Kubernetes API (in a pod, else by KUBECONFIG); with --cri-socket the runtime too
    Kubernetes,
    /// The container runtime
    Cri,
    /// Paths only
    None,
}

/// What to ask for names, and which of them to tell.
#[derive(Debug, Clone, Default)]
pub struct NamingConfig {
    pub sources: SourcesConfig,
    pub options: NamingOptions,
}

/// The options ask for what is not there.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NamingError {
    #[error(
        "--identity kubernetes: which node is this?\n  \
         give --node-name, or set NODE_NAME from spec.nodeName in the pod's specification"
    )]
    NoNode,
    #[error(
        "--cri-socket {0} with --identity none: nobody would be asked\n  \
         give --identity cri, or leave the socket out"
    )]
    UnusedSocket(String),
    #[error(
        "{0} '': an empty key names nothing\n  give the key of a label or annotation, or leave it out"
    )]
    EmptyKey(&'static str),
}

/// The surroundings that options are resolved against.
pub trait Surroundings {
    fn variable(&self, name: &str) -> Option<String>;
    fn exists(&self, path: &Path) -> bool;
    fn host_name(&self) -> Option<String>;
    /// Where Docker, Podman and CRI-O have files.
    fn runtime_files(&self) -> FilesConfig;
}

/// Of this process.
#[derive(Debug)]
pub struct Process;

impl Surroundings for Process {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn host_name(&self) -> Option<String> {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
        // As the kubelet has it.
        Some(name.trim().to_lowercase()).filter(|name| !name.is_empty())
    }

    fn runtime_files(&self) -> FilesConfig {
        FilesConfig::of_host()
    }
}

impl NamingArgs {
    /// Which sources to ask. One that is not there yet is looked for again while memtrace runs.
    ///
    /// # Errors
    /// It is not said what to ask of one; options that contradict each other or say nothing.
    pub fn resolve(&self, around: &dyn Surroundings) -> Result<NamingConfig, NamingError> {
        self.check()?;
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let in_pod = around.variable("KUBERNETES_SERVICE_HOST").is_some();
        let node = given(&self.node_name);
        let watched = node
            .clone()
            .or_else(|| around.host_name().filter(|_| !in_pod));
        let found = |optional| CriConfig::first_of(&SOCKETS, optional, |path| around.exists(path));
        let kubernetes = match self.identity {
            IdentityArg::Kubernetes => Some(watched.ok_or(NamingError::NoNode)?),
            IdentityArg::Auto if in_pod && around.exists(Path::new(TOKEN)) => node.clone(),
            _ => None,
        };
        let cri = match (self.identity, &self.cri_socket) {
            (IdentityArg::None, _) => None,
            // As kubelet and crictl write it.
            (_, Some(socket)) => {
                let text = socket.to_str();
                let path = text.and_then(|text| text.strip_prefix("unix://"));
                Some(CriConfig::at(
                    path.map_or_else(|| socket.clone(), PathBuf::from),
                ))
            }
            (IdentityArg::Kubernetes, None) => None,
            (IdentityArg::Auto, None) => Some(found(true)),
            (IdentityArg::Cri, None) => Some(found(false)),
        };
        Ok(NamingConfig {
            options: NamingOptions {
                node: node.or_else(|| kubernetes.clone()),
                labels: self.pod_label.clone(),
                annotations: self.pod_annotation.clone(),
                service_from_labels: self.service_from_labels,
            },
            sources: SourcesConfig {
                kubernetes: kubernetes.map(|node_name| KubernetesConfig {
                    node_name,
                    annotations: self.pod_annotation.clone(),
                }),
                cri,
                files: match self.identity {
                    IdentityArg::Auto => Some(around.runtime_files()),
                    _ => None,
                },
            },
        })
    }

    fn check(&self) -> Result<(), NamingError> {
        if let (IdentityArg::None, Some(socket)) = (self.identity, &self.cri_socket) {
            return Err(NamingError::UnusedSocket(socket.display().to_string()));
        }
        for (option, keys) in [
            ("--pod-label", &self.pod_label),
            ("--pod-annotation", &self.pod_annotation),
        ] {
            if keys.iter().any(|key| key.trim().is_empty()) {
                return Err(NamingError::EmptyKey(option));
            }
        }
        Ok(())
    }
}

impl NamingConfig {
    /// For a person: who is asked.
    pub fn describe(&self) -> String {
        let kubernetes = self
            .sources
            .kubernetes
            .as_ref()
            .map(|config| format!("the Kubernetes API, for pods of node {}", config.node_name));
        let cri = self.sources.cri.as_ref().and_then(CriConfig::describe);
        let files = self.sources.files.as_ref();
        let files = files.filter(|files| !files.is_empty());
        let files = files.map(FilesConfig::describe);
        let asked: Vec<String> = [kubernetes, cri, files].into_iter().flatten().collect();
        if asked.is_empty() {
            let looks = self.sources.sources().next().is_some();
            return if looks {
                "paths of cgroups, until there is a container runtime".to_owned()
            } else {
                "paths of cgroups only".to_owned()
            };
        }
        asked.join(", and ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::files::Root;

    #[derive(Default)]
    struct Fake {
        in_pod: bool,
        paths: Vec<&'static str>,
        files: Option<FilesConfig>,
    }

    impl Surroundings for Fake {
        fn variable(&self, name: &str) -> Option<String> {
            (self.in_pod && name == "KUBERNETES_SERVICE_HOST").then(|| "10.0.0.1".into())
        }

        fn exists(&self, path: &Path) -> bool {
            self.paths.iter().any(|known| Path::new(known) == path)
        }

        fn host_name(&self) -> Option<String> {
            Some("host".into())
        }

        fn runtime_files(&self) -> FilesConfig {
            let none = || FilesConfig::find(Root::at("/nowhere"));
            self.files.clone().unwrap_or_else(none)
        }
    }

    fn args(identity: IdentityArg, node_name: Option<&str>) -> NamingArgs {
        NamingArgs {
            identity,
            node_name: node_name.map(str::to_owned),
            ..NamingArgs::default()
        }
    }

    #[test]
    fn auto_takes_what_is_there() {
        let host = Fake::default();
        let auto = args(IdentityArg::Auto, None);
        assert_eq!(
            auto.resolve(&host).unwrap().describe(),
            "paths of cgroups, until there is a container runtime"
        );
        assert_eq!(
            args(IdentityArg::None, None)
                .resolve(&host)
                .unwrap()
                .describe(),
            "paths of cgroups only"
        );
        let host = Fake {
            paths: vec![SOCKETS[1]],
            ..Fake::default()
        };
        assert_eq!(
            auto.resolve(&host).unwrap().describe(),
            "the container runtime at /run/crio/crio.sock"
        );
        let pod = Fake {
            in_pod: true,
            paths: vec![TOKEN, SOCKETS[0]],
            ..Fake::default()
        };
        assert_eq!(
            args(IdentityArg::Auto, Some("n1"))
                .resolve(&pod)
                .unwrap()
                .describe(),
            "the Kubernetes API, for pods of node n1, and the container runtime at \
             /run/containerd/containerd.sock"
        );
    }

    #[test]
    fn in_a_pod_the_host_name_is_not_taken_for_the_node() {
        let pod = Fake {
            in_pod: true,
            paths: vec![TOKEN],
            ..Fake::default()
        };
        let asked = args(IdentityArg::Kubernetes, None);
        assert_eq!(asked.resolve(&pod).unwrap_err(), NamingError::NoNode);
        let host = asked.resolve(&Fake::default()).unwrap();
        assert_eq!(host.options.node.as_deref(), Some("host"));
    }

    #[test]
    fn a_runtime_that_is_asked_for_may_come_later() {
        let cri = args(IdentityArg::Cri, None).resolve(&Fake::default());
        assert_eq!(cri.unwrap().describe(), "the container runtime");
        let as_kubelet = NamingArgs {
            cri_socket: Some("unix:///run/x.sock".into()),
            ..args(IdentityArg::Cri, None)
        };
        let cri = as_kubelet.resolve(&Fake::default()).unwrap().sources.cri;
        assert_eq!(cri, Some(CriConfig::at("/run/x.sock".into())));
    }

    #[test]
    fn files_of_runtimes_are_read_only_where_nobody_said_whom_to_ask() {
        let host = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(host.path().join("var/lib/docker")).unwrap();
        let host = Fake {
            paths: vec![SOCKETS[0]],
            files: Some(FilesConfig::find(Root::at(host.path()))),
            ..Fake::default()
        };
        let asked = |identity| args(identity, Some("n1")).resolve(&host).unwrap();
        assert_eq!(
            asked(IdentityArg::Auto).describe(),
            "the container runtime at /run/containerd/containerd.sock, and the files in /var/lib/docker"
        );
        for other in [IdentityArg::Kubernetes, IdentityArg::Cri, IdentityArg::None] {
            assert_eq!(asked(other).sources.files, None, "{other:?}");
        }
    }

    #[test]
    fn options_that_would_do_nothing_are_refused_with_the_remedy() {
        let refused = |args: NamingArgs| {
            let error = args.resolve(&Fake::default()).unwrap_err();
            error.to_string()
        };
        let socket = refused(NamingArgs {
            cri_socket: Some("/x".into()),
            ..args(IdentityArg::None, None)
        });
        assert!(
            socket.contains("--cri-socket /x") && socket.contains("--identity cri"),
            "{socket}"
        );
        let label = refused(NamingArgs {
            pod_label: vec!["team".into(), String::new()],
            ..NamingArgs::default()
        });
        assert!(label.starts_with("--pod-label ''"), "{label}");
        let annotation = refused(NamingArgs {
            pod_annotation: vec![" ".into()],
            ..NamingArgs::default()
        });
        assert!(
            annotation.starts_with("--pod-annotation ''"),
            "{annotation}"
        );
    }
}
