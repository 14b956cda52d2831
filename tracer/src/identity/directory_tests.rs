use std::path::Path;

use super::*;
use crate::identity::{
    facts::{ContainerKind, Owner, OwnerKind},
    path::parse,
};

const UID: &str = "3f0d9e9c-9c6e-4b2a-8a3e-0c6a9f1b2c3d";
const NOW: Duration = Duration::from_secs(100);

fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

fn path(digit: char) -> PathIdentity {
    parse(Path::new(&format!(
        "/kubepods/burstable/pod{UID}/{}",
        id(digit)
    )))
}

fn container(digit: char, name: &str) -> Container {
    Container {
        id: Some(id(digit)),
        name: name.into(),
        ..Container::default()
    }
}

fn pod(containers: Vec<Container>) -> Pod {
    Pod {
        uid: UID.into(),
        namespace: "shop".into(),
        name: "cart-0".into(),
        owners: vec![Owner {
            kind: OwnerKind::StatefulSet,
            name: "cart".into(),
            uid: None,
        }],
        containers,
        ..Pod::default()
    }
}

fn listed(digit: char, name: &str, kind: ContainerKind) -> RuntimeContainer {
    RuntimeContainer {
        container: Container {
            kind,
            ..container(digit, name)
        },
        pod: Some(Arc::new(Pod {
            owners: Vec::new(),
            ..pod(Vec::new())
        })),
    }
}

fn directory(updates: Vec<Update>) -> Directory {
    let mut directory = Directory::new(NamingOptions::default());
    for update in updates {
        directory.apply(update, NOW);
    }
    directory
}

#[test]
fn the_api_names_pod_container_and_workload() {
    let directory = directory(vec![Update::Pod(Box::new(pod(vec![container(
        'a', "app",
    )])))]);
    let names = directory.names(&path('a'));
    assert_eq!(names.short().as_deref(), Some("shop/cart-0/app"));
    assert_eq!(names.workload_kind.as_deref(), Some("StatefulSet"));
    assert_eq!(names.workload.as_deref(), Some("cart"));
    // A container that the API does not list is not named after another.
    let other = directory.names(&path('b'));
    assert_eq!(other.pod.as_deref(), Some("cart-0"));
    assert_eq!((other.container, other.pod_sandbox), (None, None));
}

#[test]
fn the_runtime_names_what_the_api_does_not_know_yet_and_tells_a_sandbox() {
    let mut directory = directory(vec![Update::RuntimeIs(
        Source::Cri,
        vec![
            listed('a', "app", ContainerKind::App),
            listed('b', "", ContainerKind::Sandbox),
        ],
    )]);
    let names = directory.names(&path('a'));
    assert_eq!(names.short().as_deref(), Some("shop/cart-0/app"));
    let sandbox = directory.names(&path('b'));
    assert_eq!(sandbox.pod_sandbox, Some(true));
    assert_eq!(sandbox.container, None);
    let of_pod = parse(Path::new(&format!("/kubepods/burstable/pod{UID}")));
    assert_eq!(
        directory.names(&of_pod).short().as_deref(),
        Some("shop/cart-0")
    );
    // The API knows more, when it comes.
    directory.apply(Update::Pod(Box::new(pod(Vec::new()))), NOW);
    assert_eq!(
        directory.names(&path('a')).workload.as_deref(),
        Some("cart")
    );
    assert_eq!(
        directory.names(&path('a')).container.as_deref(),
        Some("app")
    );
}

#[test]
fn what_is_gone_is_remembered_for_a_while() {
    let mut directory = directory(vec![
        Update::Pod(Box::new(pod(vec![container('a', "app")]))),
        Update::PodGone { uid: UID.into() },
    ]);
    let none = |_: &str| false;
    directory.forget(NOW + KEPT, none);
    assert_eq!(
        directory.names(&path('a')).container.as_deref(),
        Some("app")
    );
    let later = NOW + KEPT + Duration::from_secs(1);
    directory.forget(later, |container| container == id('a'));
    let names = directory.names(&path('a'));
    let told = (names.pod.as_deref(), names.container.as_deref());
    assert_eq!(told, (Some("cart-0"), Some("app")), "it runs on");
    directory.forget(later, none);
    assert_eq!(directory.names(&path('a')).container, None);
    assert!(!directory.knows(&id('a')));
}

#[test]
fn a_static_pod_is_found_by_the_hash_that_its_path_has() {
    let hash = "0123456789abcdef0123456789abcdef";
    let directory = directory(vec![Update::Pod(Box::new(Pod {
        config_hash: Some(hash.into()),
        ..pod(Vec::new())
    }))]);
    let path = parse(Path::new(&format!("/kubepods/burstable/pod{hash}")));
    let names = directory.names(&path);
    assert_eq!(names.pod.as_deref(), Some("cart-0"));
    assert_eq!(names.pod_uid.as_deref(), Some(UID));
}

#[test]
fn the_end_of_an_earlier_life_is_found_by_its_id() {
    let ended = ContainerEnd {
        container_id: Some(id('a')),
        reason: Some("OOMKilled".into()),
        exit_code: Some(137),
        finished: None,
    };
    let mut directory = directory(vec![Update::Pod(Box::new(pod(vec![container(
        'a', "app",
    )])))]);
    assert_eq!(directory.end_of(&id('a')), None);
    let restarted = Container {
        ends: vec![ended.clone()],
        restart_count: Some(1),
        ..container('b', "app")
    };
    directory.apply(Update::Pod(Box::new(pod(vec![restarted]))), NOW);
    assert_eq!(directory.end_of(&id('a')), Some((ended, Some(1))));
    assert_eq!(directory.end_of(&id('b')), None);
    assert_eq!(
        directory.names(&path('a')).container.as_deref(),
        Some("app")
    );
}

#[test]
fn names_from_outside_are_bounded_in_number() {
    let mut directory = directory(Vec::new());
    for index in 0..=MOST_PODS {
        let uid = format!("{index}");
        directory.apply(
            Update::Pod(Box::new(Pod {
                uid,
                ..pod(Vec::new())
            })),
            NOW,
        );
    }
    assert_eq!(directory.left_out, 1);
}

#[test]
fn a_path_that_states_another_pod_is_not_that_container() {
    let directory = directory(vec![Update::Pod(Box::new(pod(vec![container(
        'a', "app",
    )])))]);
    let other = UID.replace('3', "4");
    let path = parse(Path::new(&format!("/kubepods/pod{other}/{}", id('a'))));
    let names = directory.names(&path);
    assert_eq!((names.pod, names.container), (None, None));
}

#[test]
fn a_hash_is_not_taken_over_by_another_pod_nor_does_it_stand_for_a_uid() {
    let hash = "0123456789abcdef0123456789abcdef";
    let claiming = |uid: &str, name: &str, hash: &str| {
        Update::Pod(Box::new(Pod {
            uid: uid.into(),
            name: name.into(),
            config_hash: Some(hash.into()),
            ..pod(Vec::new())
        }))
    };
    let directory = directory(vec![
        claiming(UID, "etcd", hash),
        claiming("evil-1", "evil", hash),
        claiming("evil-2", "evil", UID),
    ]);
    for stated in [hash, UID] {
        let path = parse(Path::new(&format!("/kubepods/pod{stated}")));
        assert_eq!(
            directory.names(&path).pod.as_deref(),
            Some("etcd"),
            "{stated}"
        );
    }
}

#[test]
fn a_static_pod_that_was_made_again_has_the_hash_after_all_are_listed_anew() {
    let hash = "0123456789abcdef0123456789abcdef";
    let anew = UID.replace('3', "4");
    let of = |uid: &str| {
        Update::Pod(Box::new(Pod {
            uid: uid.into(),
            config_hash: Some(hash.into()),
            ..pod(Vec::new())
        }))
    };
    let directory = directory(vec![
        of(UID),
        of(&anew),
        Update::PodsAre(vec![anew.clone()]),
    ]);
    let path = parse(Path::new(&format!("/kubepods/pod{hash}")));
    assert_eq!(directory.names(&path).pod_uid, Some(anew));
}

#[test]
fn lives_that_the_status_no_longer_tells_make_room() {
    let mut directory = directory(Vec::new());
    for life in 0..MOST_CONTAINERS + 10 {
        let app = Container {
            id: Some(format!("{life:064x}")),
            ..container('a', "app")
        };
        directory.apply(Update::Pod(Box::new(pod(vec![app]))), NOW);
    }
    assert_eq!(directory.left_out, 0);
    assert_eq!(directory.containers(), MOST_CONTAINERS);
    assert!(directory.knows(&format!("{:064x}", MOST_CONTAINERS + 9)));
}

fn by_files(containers: Vec<RuntimeContainer>, gone: Vec<String>) -> Update {
    Update::RuntimeChanged {
        source: Source::Files,
        containers,
        gone,
    }
}

fn plain(digit: char, name: &str) -> RuntimeContainer {
    RuntimeContainer {
        container: container(digit, name),
        pod: None,
    }
}

#[test]
fn what_files_say_of_some_containers_leaves_the_others() {
    let of = |digit| parse(Path::new(&format!("/docker/{}", id(digit))));
    let mut directory = directory(vec![
        by_files(vec![plain('a', "web"), plain('b', "db")], Vec::new()),
        by_files(vec![plain('c', "cache")], vec![id('b')]),
    ]);
    for (digit, name) in [('a', "web"), ('b', "db"), ('c', "cache")] {
        let names = directory.names(&of(digit));
        assert_eq!(names.container.as_deref(), Some(name));
    }
    directory.forget(NOW + KEPT + Duration::from_secs(1), |_| false);
    assert_eq!(directory.names(&of('b')).container, None, "removed");
    assert!(directory.knows(&id('a')) && directory.knows(&id('c')));
}

#[test]
fn the_runtime_goes_before_its_files() {
    let of_runtime = || {
        let listed = vec![listed('a', "app", ContainerKind::App)];
        Update::RuntimeIs(Source::Cri, listed)
    };
    let of_files = || by_files(vec![plain('a', "k8s_app")], Vec::new());
    for updates in [
        vec![of_runtime(), of_files()],
        vec![of_files(), of_runtime()],
        vec![of_runtime(), by_files(Vec::new(), vec![id('a')])],
    ] {
        let mut directory = directory(updates);
        directory.forget(NOW + KEPT + Duration::from_secs(1), |_| false);
        let names = directory.names(&path('a'));
        assert_eq!(names.short().as_deref(), Some("shop/cart-0/app"));
    }
}
