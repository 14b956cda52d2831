//! Who can have made a cgroup that is named like a container, by where it stands. Pure.
//!
//! Sources: `podman-run(1)` (`--cgroups`, `--cgroup-parent`), `docker run --cgroup-parent`, runc and crun,
//! systemd's "Control Group APIs and Delegation".

use std::path::Path;

use crate::identity::{
    facts::Container,
    path::{self, PathIdentity, Runtime},
};

/// From what anybody can make to what only a runtime of the system does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Within another container, or in the tree of a user.
    Delegated,
    /// Anywhere else: `--cgroup-parent` is any path.
    Anywhere,
    /// As and where runtimes of the system make them.
    Runtime,
}

impl Standing {
    /// Of a container's own cgroup.
    pub fn of(base: &Path, identity: &PathIdentity) -> Self {
        let above = base.parent().unwrap_or(base);
        // The pods of Podman's own cgroup manager are named like containers.
        let of_podman =
            above.starts_with("/libpod_parent") && !file_name(above).starts_with("libpod-");
        let nested = path::parse(above).container_id.is_some() && !of_podman;
        if nested || is_user(above) {
            return Self::Delegated;
        }
        let is_named = identity.runtime.is_some() || identity.pod_uid.is_some();
        if is_named || file_name(base).starts_with("libpod-") {
            Self::Runtime
        } else {
            Self::Anywhere
        }
    }

    /// Whether it is the cgroup of a container that a runtime of the system has in its files.
    pub fn fits(self, identity: &PathIdentity, container: &Container) -> bool {
        match self {
            Self::Delegated => false,
            // Podman and CRI-O say which containers are theirs in each name.
            Self::Anywhere => {
                container.runtime == Some(Runtime::Docker) && container.runs == Some(true)
            }
            Self::Runtime => match (identity.runtime, container.runtime) {
                (Some(stated), Some(known)) => stated == known,
                _ => true,
            },
        }
    }
}

fn is_user(path: &Path) -> bool {
    path.iter().any(|name| {
        let name = name.to_str().unwrap_or_default();
        name == "user.slice" || name.starts_with("user@")
    })
}

fn file_name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    const POD: &str = "pod3f0d9e9c-9c6e-4b2a-8a3e-0c6a9f1b2c3d";

    fn standing(text: &str) -> (Standing, PathIdentity) {
        let id = "b".repeat(64);
        let path = PathBuf::from(text.replace("ID", &id).replace("OTHER", &"c".repeat(64)));
        let identity = path::parse(&path);
        assert_eq!(identity.container_id, Some(id), "{text}");
        (Standing::of(&path, &identity), identity)
    }

    #[test]
    fn what_runtimes_of_the_system_make_stands_first() {
        let pods = format!("/kubepods/burstable/{POD}/ID");
        for path in [
            "/docker/ID",
            "/system.slice/docker-ID.scope",
            "/batch.slice/docker-ID.scope",
            "/machine.slice/libpod-ID.scope",
            "/machine.slice/machine-libpod_pod_OTHER.slice/libpod-ID.scope",
            "/system.slice/web.service/libpod-payload-ID",
            "/libpod_parent/libpod-ID",
            "/libpod_parent/OTHER/libpod-ID",
            "/kubepods.slice/crio-ID.scope",
            &pods,
        ] {
            assert_eq!(standing(path).0, Standing::Runtime, "{path}");
        }
        assert_eq!(standing("/actions_job/ID").0, Standing::Anywhere);
    }

    #[test]
    fn what_users_and_containers_can_make_stands_last() {
        for path in [
            "/user.slice/user-1000.slice/user@1000.service/app.slice/ID",
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope",
            "/user.slice/user-1000.slice/session-2.scope/docker/ID",
            "/docker/OTHER/docker/ID",
            "/machine.slice/libpod-OTHER.scope/system.slice/docker-ID.scope",
            "/lxc/web/docker/ID",
        ] {
            assert_eq!(standing(path).0, Standing::Delegated, "{path}");
        }
    }

    #[test]
    fn files_are_believed_where_that_runtime_makes_its_cgroups() {
        let of = |runtime, runs| Container {
            runtime: Some(runtime),
            runs,
            ..Container::default()
        };
        let fits = |path, container: &Container| {
            let (standing, identity) = standing(path);
            standing.fits(&identity, container)
        };
        let (docker, stopped) = (
            of(Runtime::Docker, Some(true)),
            of(Runtime::Docker, Some(false)),
        );
        let podman = of(Runtime::Podman, None);
        assert!(fits("/system.slice/docker-ID.scope", &docker));
        // It is written that it runs only after it began to.
        assert!(fits("/system.slice/docker-ID.scope", &stopped));
        assert!(fits("/actions_job/ID", &docker));
        assert!(!fits("/actions_job/ID", &stopped));
        assert!(!fits("/actions_job/ID", &of(Runtime::Docker, None)));
        assert!(!fits("/user.slice/user-1000.slice/x/ID", &docker));
        assert!(fits("/machine.slice/libpod-ID.scope", &podman));
        assert!(!fits("/machine.slice/libpod-ID.scope", &docker));
        assert!(!fits("/actions_job/ID", &podman));
    }
}
