//! What the path of a cgroup says of who is in it: runtime, container, pod, service.
//!
//! Owns the layouts that runtimes, kubelets and systemd give to cgroups. Pure. Paths are untrusted: what
//! does not match is left out, never guessed. A path cannot tell a pod's sandbox (`pause`) from its
//! containers.
//!
//! Sources: Kubernetes `pkg/kubelet/cm` (both drivers), runc and crun, systemd.unit(5), and the paths
//! that tetragon, coroot and ebpf-profiler test against.

use std::path::Path;

/// Hexadecimal digits of an OCI container id.
const ID_DIGITS: usize = 64;

/// Who manages a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Runtime {
    Containerd,
    CriO,
    Docker,
    Podman,
    Ecs,
    Lxc,
    /// A machine registered with systemd: nspawn, libvirt.
    Machine,
}

impl Runtime {
    /// As `container.runtime.name` has it (semantic conventions 1.44.0).
    pub fn name(self) -> &'static str {
        match self {
            Runtime::Containerd => "containerd",
            Runtime::CriO => "cri-o",
            Runtime::Docker => "docker",
            Runtime::Podman => "podman",
            Runtime::Ecs => "ecs",
            Runtime::Lxc => "lxc",
            Runtime::Machine => "systemd-machined",
        }
    }
}

/// Quality of service of a pod, which kubelet makes a level of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    /// As `status.qosClass` of a pod has it.
    pub fn name(self) -> &'static str {
        match self {
            Qos::Guaranteed => "Guaranteed",
            Qos::Burstable => "Burstable",
            Qos::BestEffort => "BestEffort",
        }
    }
}

/// What a path says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PathIdentity {
    /// `None`: no container, or one whose runtime the path does not name.
    pub runtime: Option<Runtime>,
    /// The innermost container: 64 hexadecimal digits, or the name that LXC and machines have.
    pub container_id: Option<String>,
    /// With `-`; of a static pod the hash of its configuration (32 digits), which is not its UID in
    /// the API.
    pub pod_uid: Option<String>,
    pub qos: Option<Qos>,
    /// The innermost systemd unit, unescaped, unless it is a container.
    pub unit: Option<String>,
    /// The cgroup is this far below that of its container, for example `/init.scope`.
    pub below_container: Option<String>,
}

/// Reads a path from the root of the hierarchy.
pub fn parse(path: &Path) -> PathIdentity {
    let mut identity = PathIdentity::default();
    let mut class = None;
    let mut parent = "";
    let mut below = String::new();
    let names = path.iter().map(|name| name.to_str().unwrap_or_default());
    for name in names.filter(|name| *name != "/") {
        // A cluster may run within a container: the inner one counts.
        if matches!(
            name.trim_end_matches(".slice"),
            "kubepods" | "kubelet-kubepods"
        ) {
            class = None;
        }
        class = qos(name).or(class);
        if let Some(uid) = pod_uid(name) {
            identity = PathIdentity {
                pod_uid: Some(uid),
                qos: class.or(Some(Qos::Guaranteed)),
                ..PathIdentity::default()
            };
            below.clear();
        }
        match container(name, parent) {
            Some((id, runtime)) => {
                identity.container_id = Some(id.to_owned());
                identity.runtime = runtime;
                identity.unit = None;
                below.clear();
            }
            None => {
                if let Some(unit) = unit(name, parent) {
                    identity.unit = Some(unit);
                }
                if identity.container_id.is_some() {
                    below.push('/');
                    below.push_str(name);
                }
            }
        }
        parent = name;
    }
    identity.below_container = Some(below).filter(|below| !below.is_empty());
    identity
}

/// The levels of a path that state a pod, the innermost first.
pub fn pod_levels(path: &Path) -> impl Iterator<Item = &Path> {
    path.ancestors().filter(|level| {
        let name = level.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| pod_uid(name).is_some())
    })
}

/// The container that a level of the path is.
fn container<'a>(name: &'a str, parent: &str) -> Option<(&'a str, Option<Runtime>)> {
    // The kubelet asked for a systemd slice, the runtime made a directory of it.
    if let Some((_, rest)) = name.split_once(':') {
        let (prefix, id) = rest.rsplit_once(':')?;
        return is_id(id).then(|| (id, runtime(prefix)));
    }
    let scope = name.strip_suffix(".scope");
    let bare = scope.unwrap_or(name);
    if is_id(bare) {
        let known = match parent {
            "docker" => Some(Runtime::Docker),
            "libpod_parent" => Some(Runtime::Podman),
            _ => None,
        };
        return Some((bare, known));
    }
    if let Some((prefix, id)) = bare.rsplit_once('-')
        && is_id(id)
    {
        // The monitor of a container is not in it.
        let monitor = prefix.ends_with("conmon");
        return (!monitor).then(|| (id, runtime(prefix)));
    }
    if let Some(name) = name.strip_prefix("lxc.payload.") {
        return Some((name, Some(Runtime::Lxc)));
    }
    if parent == "lxc" {
        return Some((name, Some(Runtime::Lxc)));
    }
    if let Some(machine) = scope.and_then(|scope| scope.strip_prefix("machine-"))
        && parent == "machine.slice"
    {
        return Some((machine, Some(Runtime::Machine)));
    }
    is_ecs_id(name).then_some((name, Some(Runtime::Ecs)))
}

fn runtime(prefix: &str) -> Option<Runtime> {
    match prefix {
        "cri-containerd" | "nerdctl" | "containerd" => Some(Runtime::Containerd),
        "crio" => Some(Runtime::CriO),
        "docker" => Some(Runtime::Docker),
        "libpod" => Some(Runtime::Podman),
        _ => None,
    }
}

fn is_id(text: &str) -> bool {
    text.len() == ID_DIGITS && is_hex(text)
}

fn is_hex(text: &str) -> bool {
    text.bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The task's id and a number.
fn is_ecs_id(name: &str) -> bool {
    name.split_once('-').is_some_and(|(task, number)| {
        task.len() == 32
            && is_hex(task)
            && !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// `pod<uid>`, also as the end of a slice and before what a runtime appended.
fn pod_uid(name: &str) -> Option<String> {
    let name = name.split(':').next()?;
    let name = name.strip_suffix(".slice").unwrap_or(name);
    let uid = match name.strip_prefix("pod") {
        Some(uid) => uid,
        None => name.rsplit_once("-pod").map(|(_, uid)| uid)?,
    };
    let plain: String = uid.chars().filter(|c| !matches!(c, '-' | '_')).collect();
    if plain.len() != 32 || !is_hex(&plain) {
        return None;
    }
    match uid.len() {
        32 => Some(plain),
        36 => Some(uid.replace('_', "-")),
        _ => None,
    }
}

/// The level that kubelet has for a class, in both drivers.
fn qos(name: &str) -> Option<Qos> {
    match name {
        "burstable" => Some(Qos::Burstable),
        "besteffort" => Some(Qos::BestEffort),
        _ if name.contains("kubepods-burstable") => Some(Qos::Burstable),
        _ if name.contains("kubepods-besteffort") => Some(Qos::BestEffort),
        _ => None,
    }
}

/// The systemd unit that a level is. Slices only hold others; scopes of sessions and programs are units.
fn unit(name: &str, parent: &str) -> Option<String> {
    if parent == "podruntime" {
        return Some(name.to_owned());
    }
    let kinds = [".service", ".scope", ".socket", ".mount", ".swap"];
    kinds
        .iter()
        .any(|kind| name.ends_with(kind))
        .then(|| unescape(name))
}

/// `\x2d` is how systemd writes what has a meaning of its own in names. Source: systemd.unit(5).
fn unescape(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after
            .strip_prefix(b"x")
            .and_then(|hex| hex.get(..2))
            .filter(|hex| hex.iter().all(u8::is_ascii_hexdigit))
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match code.filter(|_| first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| name.to_owned())
}

#[cfg(test)]
#[path = "path_tests.rs"]
mod tests;
