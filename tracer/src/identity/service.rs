//! `service.*` of a container in a pod.
//!
//! Source: OpenTelemetry semantic conventions 1.44.0, "Specify resource attributes using Kubernetes
//! annotations" and the tables below it: the first that is there counts.

use serde::{Deserialize, Serialize};

use super::facts::{OwnerKind, Pod};

/// Annotations that state an attribute.
pub const ANNOTATION: &str = "resource.opentelemetry.io/";

/// What the container serves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    pub name: String,
    pub namespace: String,
    pub instance_id: String,
    /// `None`: the image has neither tag nor digest.
    pub version: Option<String>,
}

/// The rules; `from_labels`: `app.kubernetes.io/*` count too.
pub fn of(pod: &Pod, container: &str, image: Option<&str>, from_labels: bool) -> Service {
    let stated = |attribute: &str| {
        let value = pod.annotations.get(&format!("{ANNOTATION}{attribute}"));
        value.filter(|value| !value.is_empty()).cloned()
    };
    let label = |key: &str| {
        let value = pod.labels.get(&format!("app.kubernetes.io/{key}"));
        value
            .filter(|value| from_labels && !value.is_empty())
            .cloned()
    };
    let owner = |kind: OwnerKind| {
        let owner = pod.owners.iter().find(|owner| owner.kind == kind);
        owner.map(|owner| owner.name.clone())
    };
    let by_owner = || {
        [
            OwnerKind::Deployment,
            OwnerKind::ReplicaSet,
            OwnerKind::StatefulSet,
            OwnerKind::DaemonSet,
            OwnerKind::CronJob,
            OwnerKind::Job,
        ]
        .into_iter()
        .find_map(owner)
    };
    Service {
        name: stated("service.name")
            .or_else(|| label("instance"))
            .or_else(|| label("name"))
            .or_else(by_owner)
            .unwrap_or_else(|| pod.name.clone()),
        namespace: stated("service.namespace").unwrap_or_else(|| pod.namespace.clone()),
        // Not by annotation: that could be another's, and series of both would become one.
        instance_id: format!("{}.{}.{container}", pod.namespace, pod.name),
        version: stated("service.version")
            .or_else(|| label("version"))
            .or_else(|| version(image?)),
    }
}

/// Tag, digest or both of an image reference: what follows the name.
fn version(image: &str) -> Option<String> {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let last = name.rsplit('/').next()?;
    let tag = last.split_once(':').map(|(_, tag)| tag);
    match (tag, digest) {
        (Some(tag), Some(digest)) => Some(format!("{tag}@{digest}")),
        (tag, digest) => tag.or(digest).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::identity::facts::Owner;

    fn pod() -> Pod {
        Pod {
            namespace: "shop".into(),
            name: "cart-5d4f8b9c7-x2x4z".into(),
            ..Pod::default()
        }
    }

    fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        entries.iter().map(owned).collect()
    }

    #[test]
    fn annotations_go_before_labels_before_owners_before_the_pod() {
        let mut pod = pod();
        let name = |pod: &Pod, labels| of(pod, "app", None, labels).name;
        assert_eq!(name(&pod, true), "cart-5d4f8b9c7-x2x4z");
        for (kind, owner) in [
            (OwnerKind::ReplicaSet, "cart-5d4f8b9c7"),
            (OwnerKind::Deployment, "cart"),
        ] {
            pod.owners.push(Owner {
                kind,
                name: owner.into(),
                uid: None,
            });
            assert_eq!(name(&pod, true), owner);
        }
        pod.labels = map(&[("app.kubernetes.io/name", "basket")]);
        assert_eq!(name(&pod, false), "cart");
        assert_eq!(name(&pod, true), "basket");
        pod.labels
            .insert("app.kubernetes.io/instance".into(), "basket-a".into());
        assert_eq!(name(&pod, true), "basket-a");
        pod.annotations = map(&[("resource.opentelemetry.io/service.name", "stated")]);
        assert_eq!(name(&pod, false), "stated");
    }

    #[test]
    fn an_instance_is_named_by_namespace_pod_and_container() {
        let service = of(&pod(), "app", None, false);
        assert_eq!(service.instance_id, "shop.cart-5d4f8b9c7-x2x4z.app");
        assert_eq!(service.namespace, "shop");
        assert_eq!(service.version, None);
    }

    #[test]
    fn the_version_is_tag_and_digest_of_the_image() {
        for (image, expected) in [
            ("registry:5000/shop/cart:1.2", Some("1.2")),
            ("registry:5000/shop/cart", None),
            ("cart@sha256:ab", Some("sha256:ab")),
            ("cart:1.2@sha256:ab", Some("1.2@sha256:ab")),
        ] {
            assert_eq!(version(image).as_deref(), expected, "{image}");
        }
    }
}
