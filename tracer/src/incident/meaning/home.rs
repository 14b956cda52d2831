//! Where a victim lived: in a pod, another container, a systemd service, or on the host.
//!
//! Judged by the cgroup's path and by the PID in its own namespace. Must not phrase anything.

use crate::incident::record::Incident;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home<'a> {
    /// `host_pids`: it has the host's PIDs, so that no process of it is PID 1.
    Pod {
        host_pids: bool,
    },
    Container,
    /// A systemd unit.
    Service(&'a str),
    Host,
    Unknown,
}

/// Beginnings of path components that container runtimes make.
const CONTAINER_PREFIXES: [&str; 6] = [
    "docker-",
    "libpod-",
    "cri-containerd-",
    "crio-",
    "lxc.payload",
    "nerdctl-",
];
/// Whole components above containers.
const CONTAINER_PARENTS: [&str; 3] = ["docker", "lxc", "ecs"];

impl<'a> Home<'a> {
    /// Of the first victim.
    pub fn of_incident(incident: &'a Incident) -> Self {
        let Some(victim) = incident.victims.first() else {
            return Home::Unknown;
        };
        // The process may be below its memory cgroup.
        let path = victim.leaf_cgroup.as_deref().or(victim.cgroup.as_deref());
        let host_pids = match (victim.namespace_pid, victim.pid) {
            _ if victim.container_init == Some(true) => Some(false),
            (Some(inside), Some(outside)) => Some(inside == outside),
            _ => None,
        };
        match (Self::of_path(path), host_pids) {
            (Home::Pod { .. }, Some(host_pids)) => Home::Pod { host_pids },
            (home @ (Home::Pod { .. } | Home::Container), _) => home,
            (_, Some(false)) => Home::Container,
            (Home::Unknown, Some(true)) => Home::Host,
            (home, _) => home,
        }
    }

    /// As far as the path alone tells.
    pub fn of_path(path: Option<&'a str>) -> Self {
        let Some(path) = path else {
            return Home::Unknown;
        };
        let mut components = path.split('/').filter(|component| !component.is_empty());
        if components
            .clone()
            .any(|component| component.contains("kubepods"))
        {
            return Home::Pod { host_pids: false };
        }
        let is_container = |component: &str| {
            CONTAINER_PARENTS.contains(&component)
                || CONTAINER_PREFIXES
                    .iter()
                    .any(|prefix| component.starts_with(prefix))
        };
        if components.clone().any(is_container) {
            return Home::Container;
        }
        match components.rfind(|component| component.ends_with(".service")) {
            Some(unit) => Home::Service(unit),
            None => Home::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let pod = Home::Pod { host_pids: false };
        for (path, home) in [
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-2.scope",
                pod,
            ),
            ("/kubepods/besteffort/pod1/2", pod),
            (
                "/system.slice/docker-1.scope/kubelet.slice/kubelet-kubepods.slice/x",
                pod,
            ),
            ("/docker/0123", Home::Container),
            ("/system.slice/docker-0123.scope", Home::Container),
            (
                "/machine.slice/libpod-0123.scope/container",
                Home::Container,
            ),
            ("/lxc.payload.web/init.scope", Home::Container),
            (
                "/system.slice/nginx.service",
                Home::Service("nginx.service"),
            ),
            ("/system.slice/a.service/child", Home::Service("a.service")),
            (
                "/user.slice/user-0.slice/user@0.service/app.slice/b.service",
                Home::Service("b.service"),
            ),
            (
                "/system.slice/docker.service",
                Home::Service("docker.service"),
            ),
            ("/user.slice/user-0.slice/session-1.scope", Home::Unknown),
            ("/", Home::Unknown),
            ("", Home::Unknown),
        ] {
            assert_eq!(Home::of_path(Some(path)), home, "{path}");
        }
        assert_eq!(Home::of_path(None), Home::Unknown);
    }
}
