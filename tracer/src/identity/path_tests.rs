//! One line of fixture for each layout.

use super::*;

const ID: &str = "8ce0d0e1a4b1d5a9f7c3e2b6a0918273645566778899aabbccddeeff00112233";
const NODE: &str = "00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff";
const UID: &str = "6b3f4a1c-9d2e-4f5a-8b7c-0d1e2f3a4b5c";
const HASH: &str = "7c7e0a8f0f1c4e5d9b8a7c6d5e4f3a2b";

/// Layout, path, runtime, pod, class, unit, part below the container.
type Row<'a> = (
    &'a str,
    String,
    Option<Runtime>,
    Option<&'a str>,
    Option<Qos>,
    Option<&'a str>,
    Option<&'a str>,
);

fn containers() -> Vec<Row<'static>> {
    use Qos::{BestEffort, Burstable, Guaranteed};
    use Runtime::{Containerd, CriO, Docker, Podman};
    let under = UID.replace('-', "_");
    let slice = |class: &str| {
        format!("/kubepods.slice/kubepods-{class}.slice/kubepods-{class}-pod{under}.slice")
    };
    let kind = format!("/system.slice/docker-{NODE}.scope/kubelet.slice/kubelet-kubepods.slice");
    let pod = Some(UID);
    vec![
        (
            "systemd, containerd, burstable",
            format!("{}/cri-containerd-{ID}.scope", slice("burstable")),
            Some(Containerd),
            pod,
            Some(Burstable),
            None,
            None,
        ),
        (
            "systemd, CRI-O, best effort",
            format!("{}/crio-{ID}.scope", slice("besteffort")),
            Some(CriO),
            pod,
            Some(BestEffort),
            None,
            None,
        ),
        (
            "systemd, docker, guaranteed",
            format!("/kubepods.slice/kubepods-pod{under}.slice/docker-{ID}.scope"),
            Some(Docker),
            pod,
            Some(Guaranteed),
            None,
            None,
        ),
        (
            "systemd, static pod",
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{HASH}.slice/cri-containerd-{ID}.scope"
            ),
            Some(Containerd),
            Some(HASH),
            Some(Burstable),
            None,
            None,
        ),
        (
            "cgroupfs, guaranteed",
            format!("/kubepods/pod{UID}/{ID}"),
            None,
            pod,
            Some(Guaranteed),
            None,
            None,
        ),
        (
            "cgroupfs, burstable",
            format!("/kubepods/burstable/pod{UID}/{ID}"),
            None,
            pod,
            Some(Burstable),
            None,
            None,
        ),
        (
            "cgroupfs, static pod",
            format!("/kubepods/besteffort/pod{HASH}/{ID}"),
            None,
            Some(HASH),
            Some(BestEffort),
            None,
            None,
        ),
        (
            "cgroupfs, CRI-O",
            format!("/kubepods/besteffort/pod{UID}/crio-{ID}"),
            Some(CriO),
            pod,
            Some(BestEffort),
            None,
            None,
        ),
        (
            "drivers that differ",
            format!(
                "/system.slice/containerd.service/kubepods-burstable-pod{under}.slice:cri-containerd:{ID}"
            ),
            Some(Containerd),
            pod,
            Some(Burstable),
            None,
            None,
        ),
        (
            "kind",
            format!(
                "{kind}/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{under}.slice/cri-containerd-{ID}.scope"
            ),
            Some(Containerd),
            pod,
            Some(Burstable),
            None,
            None,
        ),
        (
            "kind, guaranteed",
            format!("{kind}/kubelet-kubepods-pod{under}.slice/cri-containerd-{ID}.scope"),
            Some(Containerd),
            pod,
            Some(Guaranteed),
            None,
            None,
        ),
        (
            "kind, older",
            format!("/docker/{NODE}/kubelet/kubepods/besteffort/pod{UID}/{ID}"),
            None,
            pod,
            Some(BestEffort),
            None,
            None,
        ),
        (
            "kind in a pod",
            format!("/kubepods/burstable/pod{HASH}/{NODE}/kubelet/kubepods/pod{UID}/{ID}"),
            None,
            pod,
            Some(Guaranteed),
            None,
            None,
        ),
        (
            "minikube",
            format!("/docker/{NODE}/kubepods.slice/kubepods-pod{under}.slice/docker-{ID}.scope"),
            Some(Docker),
            pod,
            Some(Guaranteed),
            None,
            None,
        ),
        (
            "kind, the node itself",
            format!("/system.slice/docker-{ID}.scope/system.slice/kubelet.service"),
            Some(Docker),
            None,
            None,
            Some("kubelet.service"),
            Some("/system.slice/kubelet.service"),
        ),
        (
            "docker, systemd",
            format!("/system.slice/docker-{ID}.scope"),
            Some(Docker),
            None,
            None,
            None,
            None,
        ),
        (
            "docker, cgroupfs",
            format!("/docker/{ID}"),
            Some(Docker),
            None,
            None,
            None,
            None,
        ),
        (
            "docker, rootless",
            format!("/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{ID}.scope"),
            Some(Docker),
            None,
            None,
            None,
            None,
        ),
        (
            "nerdctl",
            format!("/system.slice/nerdctl-{ID}.scope"),
            Some(Containerd),
            None,
            None,
            None,
            None,
        ),
        (
            "podman, crun's child",
            format!("/machine.slice/libpod-{ID}.scope/container"),
            Some(Podman),
            None,
            None,
            None,
            Some("/container"),
        ),
        (
            "podman, rootless",
            format!(
                "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container"
            ),
            Some(Podman),
            None,
            None,
            None,
            Some("/container"),
        ),
        (
            "podman, cgroupfs",
            format!("/libpod_parent/libpod-{ID}"),
            Some(Podman),
            None,
            None,
            None,
            None,
        ),
        (
            "podman, in a service",
            format!("/system.slice/web.service/libpod-payload-{ID}"),
            None,
            None,
            None,
            None,
            None,
        ),
        (
            "CRI-O with crun",
            format!("{}/crio-{ID}.scope/container", slice("burstable")),
            Some(CriO),
            pod,
            Some(Burstable),
            None,
            Some("/container"),
        ),
        (
            "systemd in a container",
            format!(
                "{}/cri-containerd-{ID}.scope/init.scope",
                slice("burstable")
            ),
            Some(Containerd),
            pod,
            Some(Burstable),
            Some("init.scope"),
            Some("/init.scope"),
        ),
    ]
}

#[test]
fn the_container_and_pod_of_every_layout() {
    for (layout, path, runtime, pod, qos, unit, below) in containers() {
        let found = parse(Path::new(&path));
        let expected = PathIdentity {
            runtime,
            container_id: Some(ID.into()),
            pod_uid: pod.map(Into::into),
            qos,
            unit: unit.map(Into::into),
            below_container: below.map(Into::into),
        };
        assert_eq!(found, expected, "{layout}: {path}");
    }
}

#[test]
fn a_pod_is_a_pod_without_a_container() {
    let path = format!("/kubepods/burstable/pod{UID}");
    let found = parse(Path::new(&path));
    assert_eq!(found.pod_uid.as_deref(), Some(UID));
    assert_eq!(
        (found.container_id, found.qos),
        (None, Some(Qos::Burstable))
    );
    let levels = parse(Path::new("/kubepods.slice/kubepods-burstable.slice"));
    assert_eq!(levels, PathIdentity::default());
}

#[test]
fn other_containers_are_known_by_their_names() {
    let task = "0123456789abcdef0123456789abcdef";
    for (path, id, runtime) in [
        (
            format!("/ecs/{task}/{task}-1234567890"),
            format!("{task}-1234567890"),
            Runtime::Ecs,
        ),
        ("/lxc.payload.web".into(), "web".into(), Runtime::Lxc),
        ("/lxc/web".into(), "web".into(), Runtime::Lxc),
        (
            "/machine.slice/machine-vm1.scope".into(),
            "vm1".into(),
            Runtime::Machine,
        ),
    ] {
        let found = parse(Path::new(&path));
        assert_eq!(found.container_id, Some(id), "{path}");
        assert_eq!(found.runtime, Some(runtime), "{path}");
    }
}

#[test]
fn services_are_known_by_their_unescaped_names() {
    for (path, unit) in [
        ("/system.slice/nginx.service", "nginx.service"),
        (
            "/system.slice/system-getty.slice/getty@tty1.service",
            "getty@tty1.service",
        ),
        (
            r"/system.slice/dev-disk-by\x2duuid.swap",
            "dev-disk-by-uuid.swap",
        ),
        (
            "/user.slice/user-1000.slice/session-3.scope",
            "session-3.scope",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/foot.service",
            "foot.service",
        ),
        ("/podruntime/kubelet", "kubelet"),
        ("/init.scope", "init.scope"),
    ] {
        let found = parse(Path::new(path));
        assert_eq!(found.unit.as_deref(), Some(unit), "{path}");
        assert_eq!(found.container_id, None, "{path}");
    }
}

#[test]
fn what_is_no_container_is_none() {
    let short = &ID[1..];
    let upper = ID.to_uppercase();
    for path in [
        "/".to_owned(),
        "/system.slice".into(),
        format!("/docker/{short}"),
        format!("/docker/{upper}"),
        format!("/kubepods/pod{UID}/crio-conmon-{ID}"),
        format!("/machine.slice/libpod-conmon-{ID}.scope"),
        "/kubepods/podnot-a-uid".into(),
        "/kubepods/pod".into(),
        ":".into(),
        "/::".into(),
        r"/\x".into(),
        r"/a\xzz.service".into(),
    ] {
        assert_eq!(parse(Path::new(&path)).container_id, None, "{path}");
    }
}

#[test]
fn a_sign_is_no_digit_of_an_escape() {
    let unit = parse(Path::new(r"/a\x+f.service")).unit;
    assert_eq!(unit.as_deref(), Some(r"a\x+f.service"));
}

#[test]
fn names_that_are_no_text_break_nothing() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let path = Path::new(OsStr::from_bytes(b"/docker/\xff\xfe/x.service"));
    assert_eq!(parse(path).unit.as_deref(), Some("x.service"));
}
