use std::path::Path;

use super::*;
use crate::identity::{
    facts::{Pod, RuntimeContainer},
    path::Runtime,
};

const GRACE: Duration = Duration::from_secs(60);
const UID: &str = "3f0d9e9c-9c6e-4b2a-8a3e-0c6a9f1b2c3d";

fn id() -> String {
    "b".repeat(64)
}

fn naming() -> Naming {
    let directory = Directory::new(NamingOptions::default());
    let nameless = Arc::new(directory.names(&PathIdentity::default()));
    Naming {
        directory,
        claims: Claims::default(),
        place: KnownPlace::default(),
        sources: None,
        options: NamingOptions::default(),
        nameless,
        named_at: (0, 0),
        forgot: Instant::now(),
    }
}

fn told(source: Source, runtime: Runtime, runs: Option<bool>) -> Update {
    let container = Container {
        id: Some(id()),
        name: "payroll".to_owned(),
        runtime: Some(runtime),
        runs,
        ..Container::default()
    };
    Update::RuntimeChanged {
        source,
        containers: vec![RuntimeContainer {
            container,
            pod: None,
        }],
        gone: Vec::new(),
    }
}

/// Makes a cgroup, and names it.
fn made(naming: &mut Naming, cgroups: &mut Cgroups, number: u64, path: &str) {
    cgroups.made(number, Path::new(path), std::time::SystemTime::now());
    naming.refresh(cgroups, Duration::ZERO);
}

/// The container by the lines of the cgroup and by incidents, which agree.
fn container(naming: &Naming, cgroups: &Cgroups, number: u64) -> Option<String> {
    let line = &cgroups.get(number).unwrap().names;
    let incident = naming.names_of(cgroups, Some(number)).unwrap_or_default();
    assert_eq!(
        (&line.container, &line.container_id),
        (&incident.container, &incident.container_id)
    );
    assert_eq!(line.container.is_some(), line.container_id.is_some());
    line.container.clone()
}

/// A pod of the API.
fn pod(containers: Vec<Container>) -> Update {
    Update::Pod(Box::new(Pod {
        uid: UID.to_owned(),
        namespace: "shop".to_owned(),
        name: "cart-0".to_owned(),
        containers,
        ..Pod::default()
    }))
}

#[test]
fn a_cgroup_that_anybody_can_name_after_a_pod_has_none_of_its_names() {
    let (outer, other) = ("c".repeat(64), UID.replace('3', "4"));
    let user = "/user.slice/user-1000.slice/user@1000.service";
    for decoy in [
        format!("{user}/pod{UID}"),
        format!("{user}/pod{UID}/{}", id()),
        format!("/kubepods.slice/cri-containerd-{outer}.scope/pod{UID}"),
        format!("/kubepods/pod{other}/{outer}/pod{UID}/deep"),
        format!("/kubepods/pod{other}/{outer}/pod{UID}/{}", id()),
        format!("/kubepods/pod{other}/{outer}/pod{other}/pod{UID}"),
    ] {
        let (mut naming, mut cgroups) = (naming(), Cgroups::new(100, GRACE));
        naming.apply(pod(Vec::new()), Duration::ZERO);
        made(&mut naming, &mut cgroups, 1, &decoy);
        made(
            &mut naming,
            &mut cgroups,
            2,
            &format!("/kubepods/pod{UID}/x"),
        );
        let line = &cgroups.get(1).unwrap().names;
        // Were there none, the event would have what the path states.
        let incident = naming.names_of(&cgroups, Some(1)).unwrap();
        for names in [line.as_ref(), incident.as_ref()] {
            assert_eq!((&names.pod, &names.pod_uid), (&None, &None), "{decoy}");
        }
        let real = &cgroups.get(2).unwrap().names;
        assert_eq!(real.pod.as_deref(), Some("cart-0"));
    }
}

#[test]
fn the_pod_of_a_nested_cluster_is_told_once_its_api_tells_of_the_container_and_after() {
    let (mut naming, mut cgroups) = (naming(), Cgroups::new(100, GRACE));
    let node = format!("/docker/{}/kubelet/kubepods", "c".repeat(64));
    let path = format!("{node}/pod{UID}/{}", id());
    made(&mut naming, &mut cgroups, 1, &path);
    let ended = ContainerEnd {
        container_id: Some(id()),
        reason: None,
        exit_code: None,
        finished: None,
    };
    let app = Container {
        id: Some(id()),
        name: "app".to_owned(),
        ..Container::default()
    };
    let over = Container {
        ends: vec![ended],
        ..app.clone()
    };
    let states = [
        (Vec::new(), None),
        (vec![app], Some("shop/cart-0/app")),
        (vec![over], Some("shop/cart-0/app")),
    ];
    for (containers, short) in states {
        naming.apply(pod(containers), Duration::ZERO);
        naming.refresh(&mut cgroups, Duration::ZERO);
        let names = &cgroups.get(1).unwrap().names;
        assert_eq!(names.short().as_deref(), short);
        assert_eq!(names.container_id, Some(id()));
    }
}

#[test]
fn a_cgroup_named_after_a_stopped_container_has_none_of_its_names() {
    let decoys = [
        format!("/srv/evil/{}", id()),
        format!("/user.slice/user@1000.service/docker/{}", id()),
        format!("/docker/{}/docker/{}", "c".repeat(64), id()),
    ];
    for (runtime, runs) in [(Runtime::Docker, Some(false)), (Runtime::Podman, None)] {
        for decoy in &decoys {
            let (mut naming, mut cgroups) = (naming(), Cgroups::new(100, GRACE));
            naming.apply(told(Source::Files, runtime, runs), Duration::ZERO);
            made(&mut naming, &mut cgroups, 1, decoy);
            assert_eq!(container(&naming, &cgroups, 1), None, "{decoy}");
        }
    }
}

#[test]
fn a_container_at_a_path_of_its_own_has_its_name_once_it_runs_and_after() {
    let (mut naming, mut cgroups) = (naming(), Cgroups::new(100, GRACE));
    let states = [
        (false, None),
        (true, Some("payroll")),
        (false, Some("payroll")),
    ];
    made(&mut naming, &mut cgroups, 1, &format!("/batch/{}", id()));
    for (runs, name) in states {
        let update = told(Source::Files, Runtime::Docker, Some(runs));
        naming.apply(update, Duration::ZERO);
        naming.refresh(&mut cgroups, Duration::ZERO);
        assert_eq!(container(&naming, &cgroups, 1).as_deref(), name, "{runs}");
    }
}

#[test]
fn a_container_that_starts_is_named_where_only_its_runtime_makes_cgroups() {
    let (mut naming, mut cgroups) = (naming(), Cgroups::new(100, GRACE));
    let starts = told(Source::Files, Runtime::Docker, Some(false));
    naming.apply(starts, Duration::ZERO);
    let path = format!("/system.slice/docker-{}.scope", id());
    made(&mut naming, &mut cgroups, 1, &path);
    assert_eq!(container(&naming, &cgroups, 1).as_deref(), Some("payroll"));
}

#[test]
fn who_waits_for_a_container_is_nameless_once_it_runs() {
    for source in [Source::Files, Source::Cri] {
        let (mut naming, mut cgroups) = (naming(), Cgroups::new(100, GRACE));
        made(&mut naming, &mut cgroups, 1, &format!("/srv/evil/{}", id()));
        let real = format!("/docker/{}", id());
        made(&mut naming, &mut cgroups, 2, &real);
        let runs = told(source, Runtime::Docker, Some(true));
        naming.apply(runs, Duration::ZERO);
        naming.refresh(&mut cgroups, Duration::ZERO);
        assert_eq!(container(&naming, &cgroups, 1), None);
        assert_eq!(container(&naming, &cgroups, 2).as_deref(), Some("payroll"));
        // It stops, and starts again.
        cgroups.removed(2, Duration::from_secs(1));
        cgroups.evict(Duration::from_secs(1));
        cgroups.evict(Duration::from_secs(100));
        naming.forgot -= FORGET_EVERY;
        made(&mut naming, &mut cgroups, 3, &real);
        assert_eq!(container(&naming, &cgroups, 1), None);
        assert_eq!(container(&naming, &cgroups, 3).as_deref(), Some("payroll"));
    }
}
