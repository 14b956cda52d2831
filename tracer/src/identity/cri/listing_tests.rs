use super::*;
use crate::identity::cri::messages::{
    ContainerMetadata, ImageSpec, PodSandbox, PodSandboxMetadata,
};

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = pairs.iter();
    owned
        .map(|(key, value)| ((*key).into(), (*value).into()))
        .collect()
}

fn sandbox(id: &str) -> PodSandbox {
    PodSandbox {
        id: id.into(),
        metadata: Some(PodSandboxMetadata {
            name: "shop".into(),
            uid: "u".into(),
            namespace: "prod".into(),
        }),
        ..PodSandbox::default()
    }
}

fn container(id: &str, sandbox: &str) -> messages::Container {
    messages::Container {
        id: id.into(),
        pod_sandbox_id: sandbox.into(),
        state: 1,
        ..messages::Container::default()
    }
}

fn list(sandboxes: Vec<PodSandbox>, containers: Vec<messages::Container>) -> Listing {
    Listing::new(Some(Runtime::Containerd), sandboxes, containers)
}

#[test]
fn the_pods_labels_and_annotations_are_told_without_those_of_kubelet() {
    let listing = list(
        vec![PodSandbox {
            labels: map(&[("app", "shop"), ("io.kubernetes.pod.name", "shop")]),
            annotations: map(&[
                ("kubernetes.io/config.hash", "abc"),
                ("resource.opentelemetry.io/service.name", "store"),
                ("too-long", &"x".repeat(300)),
            ]),
            ..sandbox("s")
        }],
        vec![],
    );
    let pod = listing.containers[0].pod.as_ref().unwrap();
    assert_eq!(pod.labels, map(&[("app", "shop")]));
    let annotations = map(&[
        ("kubernetes.io/config.hash", "abc"),
        ("resource.opentelemetry.io/service.name", "store"),
    ]);
    assert_eq!(pod.annotations, annotations);
    assert_eq!(pod.config_hash, None, "anybody can set it");
}

#[test]
fn a_container_whose_sandbox_is_gone_has_its_pod_by_its_own_labels() {
    let labels = map(&[
        ("io.kubernetes.pod.name", "shop"),
        ("io.kubernetes.pod.namespace", "prod"),
        ("io.kubernetes.pod.uid", "u"),
    ]);
    let orphan = messages::Container {
        labels,
        ..container("c", "gone")
    };
    let listing = list(vec![], vec![orphan, container("plain", "gone")]);
    let pods: Vec<_> = listing
        .containers
        .iter()
        .map(|listed| listed.pod.as_ref().map(|pod| pod.name.as_str()))
        .collect();
    assert_eq!(pods, [Some("shop"), None]);
}

#[test]
fn the_image_is_the_reference_that_was_asked_for_and_never_an_id() {
    let digits = "0123456789abcdef".repeat(4);
    let cases = [
        ("nginx:1", "", Some("nginx:1")),
        (&format!("sha256:{digits}"), "nginx:1", Some("nginx:1")),
        (&format!("sha256:{digits}"), "", None),
        (&digits, "", None),
        ("", "", None),
    ];
    for (image, asked, expected) in cases {
        let given = messages::Container {
            image: Some(ImageSpec {
                image: image.into(),
                user_specified_image: asked.into(),
            }),
            ..container("c", "")
        };
        let listing = list(vec![], vec![given]);
        assert_eq!(listing.containers[0].container.image.as_deref(), expected);
    }
}

#[test]
fn of_two_sandboxes_of_a_pod_the_living_one_is_last() {
    let dead = PodSandbox {
        state: 1,
        created_at: 2,
        ..sandbox("dead")
    };
    let living = PodSandbox {
        created_at: 1,
        ..sandbox("living")
    };
    let listing = list(vec![living, dead], vec![]);
    assert_eq!(listing.ids().collect::<Vec<_>>(), ["dead", "living"]);
}

#[test]
fn beyond_the_bound_the_living_and_the_new_are_kept_and_the_others_counted() {
    let many = 10_000;
    let containers = (0..many).map(|number| messages::Container {
        state: if number == 0 { 1 } else { 2 },
        created_at: number,
        ..container(&number.to_string(), "")
    });
    let listing = list(vec![sandbox("s")], containers.collect());
    assert_eq!(listing.containers.len(), MOST_CONTAINERS);
    assert_eq!(listing.left_out, many as usize + 1 - MOST_CONTAINERS);
    let kept: Vec<_> = listing.ids().collect();
    assert_eq!((kept[0], kept[MOST_CONTAINERS - 1]), ("s", "0"));
    assert!(kept.contains(&"9999") && !kept.contains(&"1"));
}

#[test]
fn hostile_names_are_cut_and_hostile_ids_left_out() {
    let mut evil = container("ok", "");
    evil.metadata = Some(ContainerMetadata {
        name: "ä".repeat(1000),
        attempt: 0,
    });
    let others = ["", "../etc", "a b", &"f".repeat(129)].map(|id| container(id, ""));
    let listing = list(vec![], [vec![evil], others.to_vec()].concat());
    assert_eq!(listing.left_out, 4);
    let name = &listing.containers[0].container.name;
    assert_eq!(name.chars().count(), 253);
}
