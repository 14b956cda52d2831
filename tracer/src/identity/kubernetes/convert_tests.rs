use std::collections::BTreeMap;

use super::*;
use crate::identity::facts::{Owner, OwnerKind};

const KEEP: &str = "team.example.com/contact";

fn object(json: &str) -> PodObject {
    serde_json::from_str(json).unwrap()
}

fn converted(json: &str) -> Pod {
    pod(&object(json), &[KEEP.to_owned()]).unwrap()
}

fn id_of(pair: &str) -> Option<String> {
    Some(pair.repeat(32))
}

fn changed(json: &str, change: impl FnOnce(&mut serde_json::Value)) -> PodObject {
    let mut value = serde_json::from_str(json).unwrap();
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

const OOM_KILLED: &str = include_str!("fixtures/oom_killed.json");
const STATIC_POD: &str = include_str!("fixtures/static_pod.json");
const INIT_AND_SIDECAR: &str = include_str!("fixtures/init_and_sidecar.json");

#[test]
fn a_restarted_container_tells_how_its_former_life_ended() {
    let pod = converted(OOM_KILLED);
    assert_eq!(pod.uid, "0c2f1f7e-4c1a-4f0e-8a6b-d5b7a2a4e9f0");
    assert_eq!(
        (&*pod.namespace, &*pod.name),
        ("shop", "cart-6d5f8b9c7-x2lqm")
    );
    assert_eq!(pod.node.as_deref(), Some("node-a"));
    assert_eq!(pod.containers.len(), 1);
    let app = &pod.containers[0];
    assert_eq!(app.id, id_of("b3"));
    assert_eq!((&*app.name, app.kind), ("app", ContainerKind::App));
    assert_eq!(app.runtime, Some(Runtime::Containerd));
    assert_eq!(
        app.image.as_deref(),
        Some("registry.example.com/shop/cart:2.3.1")
    );
    assert_eq!(app.restart_count, Some(3));
    assert_eq!(
        app.ends,
        [ContainerEnd {
            container_id: id_of("b2"),
            reason: Some("OOMKilled".to_owned()),
            exit_code: Some(137),
            finished: Some("2026-03-02T10:02:12Z".parse().unwrap()),
        }]
    );
    let mib = 1 << 20;
    assert_eq!(
        app.memory,
        MemoryResources {
            request_desired_bytes: Some(128 * mib),
            limit_desired_bytes: Some(256 * mib),
            request_current_bytes: Some(128 * mib),
            limit_current_bytes: Some(256 * mib),
        }
    );
}

#[test]
fn a_deployment_is_known_by_the_template_hash() {
    let pod = converted(OOM_KILLED);
    let expected = [
        Owner {
            kind: OwnerKind::ReplicaSet,
            name: "cart-6d5f8b9c7".to_owned(),
            uid: Some("c1a7f0b2-6f0b-4b53-9d6b-92f3d3c1e2aa".to_owned()),
        },
        Owner {
            kind: OwnerKind::Deployment,
            name: "cart".to_owned(),
            uid: None,
        },
    ];
    assert_eq!(pod.owners, expected);
}

#[test]
fn a_replica_set_without_that_hash_has_no_deployment() {
    let set = |hash: serde_json::Value| {
        let object = changed(OOM_KILLED, |pod| {
            pod["metadata"]["labels"]["pod-template-hash"] = hash;
        });
        pod(&object, &[]).unwrap().owners
    };
    for hash in ["other", "", "5f8b9c7", "cart-6d5f8b9c7"] {
        let owners = set(hash.into());
        assert_eq!(owners.len(), 1, "{hash}");
        assert_eq!(owners[0].kind, OwnerKind::ReplicaSet);
    }
}

#[test]
fn only_annotations_that_are_read_or_chosen_are_kept() {
    let expected: BTreeMap<String, String> = [
        ("resource.opentelemetry.io/service.name", "cart-service"),
        (KEEP, "checkout"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    assert_eq!(converted(OOM_KILLED).annotations, expected);
    assert_eq!(converted(OOM_KILLED).labels.len(), 4);
}

#[test]
fn a_static_pod_has_the_hash_that_its_cgroup_has() {
    let pod = converted(STATIC_POD);
    assert_eq!(
        pod.config_hash.as_deref(),
        Some("4b1c0f5d2f9e8a7b6c5d4e3f2a1b0c9d")
    );
    assert_eq!(pod.uid, "6f1f2a3e-0d7c-4c1e-9a55-0b7d1f6f3c21");
    assert_eq!(pod.owners, []);
    assert_eq!(pod.containers[0].memory, MemoryResources::default());
}

#[test]
fn a_pod_cannot_take_the_hash_of_a_static_pod_by_an_annotation() {
    let object = changed(STATIC_POD, |pod| {
        let annotations = pod["metadata"]["annotations"].as_object_mut().unwrap();
        annotations.remove("kubernetes.io/config.mirror");
    });
    assert_eq!(pod(&object, &[]).unwrap().config_hash, None);
}

#[test]
fn a_resize_in_place_shows_what_is_wanted_and_what_is() {
    let pod = converted(include_str!("fixtures/resized_in_place.json"));
    let db = &pod.containers[0];
    assert_eq!(db.memory.limit_desired_bytes, Some(2 << 30));
    assert_eq!(db.memory.limit_current_bytes, Some(1536 << 20));
    assert_eq!(db.runtime, Some(Runtime::CriO));
    assert_eq!(pod.owners[0].kind, OwnerKind::StatefulSet);
    assert_eq!(pod.owners.len(), 1);
}

#[test]
fn init_containers_and_sidecars_are_init_containers() {
    let pod = converted(INIT_AND_SIDECAR);
    let of = |name: &str| pod.containers.iter().find(|it| it.name == name).unwrap();
    assert_eq!(of("schema").kind, ContainerKind::Init);
    assert_eq!(of("schema").memory.limit_desired_bytes, Some(64_000_000));
    assert_eq!(of("schema").memory.limit_current_bytes, None);
    assert_eq!(of("schema").ends.len(), 1);
    assert_eq!(of("proxy").kind, ContainerKind::Init);
    assert_eq!(of("proxy").id, id_of("d6"));
    assert_eq!(of("proxy").ends, []);
    let backup = of("backup");
    assert_eq!((&backup.id, backup.runtime), (&None, None));
    assert_eq!(backup.image_id, None);
    assert_eq!(backup.restart_count, Some(0));
    assert_eq!(backup.memory.limit_desired_bytes, Some(3 << 29));
}

#[test]
fn a_cron_job_is_known_by_the_minute_of_its_job() {
    let kinds = |name: &str| {
        let object = changed(INIT_AND_SIDECAR, |pod| {
            pod["metadata"]["ownerReferences"][0]["name"] = name.into();
        });
        let owners = pod(&object, &[]).unwrap().owners;
        owners
            .into_iter()
            .map(|owner| (owner.kind, owner.name))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        kinds("backup-29541600"),
        [
            (OwnerKind::Job, "backup-29541600".to_owned()),
            (OwnerKind::CronJob, "backup".to_owned())
        ]
    );
    for job in [
        "backup",
        "backup-1",
        "backup-20260303",
        "-29541600",
        "backup-2954160x",
        "backup-129541600",
    ] {
        assert_eq!(kinds(job), [(OwnerKind::Job, job.to_owned())]);
    }
}

#[test]
fn ephemeral_containers_are_told_apart() {
    let pod = converted(include_str!("fixtures/ephemeral.json"));
    let debugger = &pod.containers[1];
    assert_eq!(debugger.kind, ContainerKind::Ephemeral);
    assert_eq!(debugger.id, id_of("e8"));
    assert_eq!(debugger.runtime, Some(Runtime::Docker));
    assert_eq!(
        debugger.image_id,
        Some(format!("busybox@sha256:{}", "7c".repeat(32)))
    );
    assert_eq!(debugger.ends[0].exit_code, Some(1));
    assert_eq!(pod.owners[0].kind, OwnerKind::DaemonSet);
}

#[test]
fn a_pod_that_has_not_started_has_containers_without_ids() {
    let pod = converted(include_str!("fixtures/pending.json"));
    assert_eq!(pod.containers.len(), 1);
    assert_eq!(pod.containers[0].id, None);
    assert_eq!(pod.containers[0].restart_count, None);
    assert_eq!(pod.owners, []);
}

#[test]
fn an_end_at_the_zero_of_a_clock_has_no_time() {
    for zero in ["1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "never", ""] {
        let object = changed(OOM_KILLED, |pod| {
            let status = &mut pod["status"]["containerStatuses"][0];
            status["lastState"]["terminated"]["finishedAt"] = zero.into();
        });
        let pod = pod(&object, &[]).unwrap();
        assert_eq!(pod.containers[0].ends[0].finished, None, "{zero}");
    }
}

#[test]
fn the_same_end_in_both_states_is_one_end() {
    let object = changed(OOM_KILLED, |pod| {
        let status = &mut pod["status"]["containerStatuses"][0];
        status["state"] = status["lastState"].clone();
    });
    assert_eq!(pod(&object, &[]).unwrap().containers[0].ends.len(), 1);
}

#[test]
fn nulls_and_missing_parts_are_unknown() {
    let object = object(
        r#"{"metadata":{"name":"a","namespace":"b","uid":"c","labels":null,"annotations":null},
            "spec":{"containers":[{"name":"x","resources":null}],"initContainers":null},
            "status":{"containerStatuses":null}}"#,
    );
    let pod = pod(&object, &[]).unwrap();
    assert_eq!(pod.node, None);
    assert_eq!(pod.containers[0].memory, MemoryResources::default());
}

#[test]
fn a_pod_without_a_sound_name_is_none() {
    let long = "n".repeat(254);
    for field in ["name", "namespace", "uid"] {
        for bad in [serde_json::Value::Null, "".into(), long.clone().into()] {
            let object = changed(OOM_KILLED, |pod| pod["metadata"][field] = bad);
            assert_eq!(pod(&object, &[]), None, "{field}");
        }
    }
}

#[test]
fn everything_has_a_bound() {
    let object = changed(OOM_KILLED, |pod| {
        let many = |prefix: &str, count: usize| -> serde_json::Map<_, _> {
            let pairs = (0..count).map(|n| (format!("{prefix}{n}"), "v".into()));
            pairs.collect()
        };
        let mut annotations = many("resource.opentelemetry.io/a", 1000);
        annotations.insert(KEEP.to_owned(), "x".repeat(5000).into());
        pod["metadata"]["annotations"] = annotations.into();
        let mut labels = many("l", 1000);
        labels.insert("k".repeat(400), "v".into());
        labels.insert("a".to_owned(), "v".repeat(300).into());
        pod["metadata"]["labels"] = labels.into();
        let container = pod["spec"]["containers"][0].clone();
        let named = (0..1000).map(|n| {
            let mut container = container.clone();
            container["name"] = format!("c{n}").into();
            container["image"] = "i".repeat(2000).into();
            container
        });
        pod["spec"]["containers"] = named.collect();
        pod["status"]["containerStatuses"][0]["restartCount"] = (-1).into();
        pod["status"]["containerStatuses"][0]["name"] = "c0".into();
    });
    let pod = pod(&object, &[KEEP.to_owned()]).unwrap();
    assert_eq!(pod.annotations.len(), 64);
    assert!(!pod.annotations.contains_key(KEEP));
    assert_eq!(pod.labels.len(), 256);
    assert!(!pod.labels.contains_key("a"));
    assert_eq!(pod.containers.len(), 256);
    assert_eq!(pod.containers[0].restart_count, None);
    assert_eq!(
        pod.containers[0].image.as_deref(),
        None,
        "half a reference would be another's"
    );
}
