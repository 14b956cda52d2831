use super::*;

fn pod() -> Arc<Pod> {
    let map = |entries: &[(&str, &str)]| {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        entries.iter().map(owned).collect()
    };
    Arc::new(Pod {
        uid: "u".into(),
        namespace: "shop".into(),
        name: "cart\n0".into(),
        labels: map(&[("team", "red"), ("tier", "web")]),
        annotations: map(&[
            (
                "resource.opentelemetry.io/deployment.environment.name",
                "prod",
            ),
            ("resource.opentelemetry.io/k8s.pod.name", "other"),
            ("owner", "ann"),
        ]),
        ..Pod::default()
    })
}

fn container() -> Arc<Container> {
    Arc::new(Container {
        name: "app".into(),
        ..Container::default()
    })
}

fn names(path: &str) -> Names {
    let options = NamingOptions {
        node: Some("n1".into()),
        labels: vec!["team".into(), "absent".into()],
        annotations: vec!["owner".into()],
        service_from_labels: false,
    };
    let path = path::parse(Path::new(path));
    Names::new(&path, Some(&pod()), Some(&container()), &options)
}

#[test]
fn chosen_labels_become_attributes_and_none_renames_what_was_measured() {
    let id = "a".repeat(64);
    let names = names(&format!(
        "/kubepods/pod3f0d9e9c-9c6e-4b2a-8a3e-0c6a9f1b2c3d/{id}"
    ));
    let expected = [
        ("deployment.environment.name", "prod"),
        ("k8s.pod.annotation.owner", "ann"),
        ("k8s.pod.label.team", "red"),
    ];
    let attributes: Vec<(&str, &str)> = names
        .attributes
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    assert_eq!(attributes, expected);
    assert_eq!(names.pod.as_deref(), Some("cart\\n0"));
    assert_eq!(names.node.as_deref(), Some("n1"));
}

#[test]
fn only_the_cgroup_of_a_container_itself_has_its_name() {
    let id = "a".repeat(64);
    let own = names(&format!("/kubepods/poda/{id}"));
    let below = names(&format!("/kubepods/poda/{id}/init.scope"));
    let of_pod = names("/kubepods/pod3f0d9e9c-9c6e-4b2a-8a3e-0c6a9f1b2c3d");
    assert_eq!(own.container.as_deref(), Some("app"));
    assert!(own.service.is_some());
    assert_eq!((below.container, below.service), (None, None));
    assert_eq!(below.container_id, Some(id));
    assert_eq!((of_pod.container, of_pod.pod_sandbox), (None, None));
}

#[test]
fn names_survive_being_stored() {
    let names = names(&format!("/kubepods/poda/{}", "a".repeat(64)));
    let text = serde_json::to_string(&names).unwrap();
    assert_eq!(serde_json::from_str::<Names>(&text).unwrap(), names);
    // Of an older memtrace.
    assert_eq!(
        serde_json::from_str::<Names>("{}").unwrap(),
        Names::default()
    );
}
