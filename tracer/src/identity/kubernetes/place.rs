//! Which cluster this is and which node, by the UIDs that the API has for them.
//!
//! Needs `get` on its own node and on the namespace `kube-system`; without, the UIDs are not told and all
//! else goes on.

use std::time::Duration;

use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind},
};
use tokio::time::timeout;

use super::bounds;
use crate::identity::facts::Place;

/// Its UID stands for the cluster. Source: semconv registry, `k8s.cluster.uid`.
const CLUSTER_NAMESPACE: &str = "kube-system";

/// Names of pods do not wait longer for this.
const PATIENCE: Duration = Duration::from_secs(2);

/// The API has no node of that name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoSuchNode;

/// What the API answers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// As far as the account may know; asking again would bring no more.
    Place(Place),
    /// Nothing, this time.
    Later,
}

/// Asks for the UIDs of the cluster and of the node.
///
/// # Errors
/// The API says that there is no such node; no other failure is one.
pub(super) async fn ask(client: &Client, node: &str) -> Result<Answer, NoSuchNode> {
    let both = async {
        tokio::join!(
            uid(client, "Node", node),
            uid(client, "Namespace", CLUSTER_NAMESPACE),
        )
    };
    let Ok((node, namespace)) = timeout(PATIENCE, both).await else {
        return Ok(Answer::Later);
    };
    if status(&node) == Some(404) {
        return Err(NoSuchNode);
    }
    // Whoever may not ask will hardly be allowed in a minute; all else passes.
    let passes = |answer: &Result<_, kube::Error>| answer.is_err() && status(answer) != Some(403);
    if passes(&node) || passes(&namespace) {
        return Ok(Answer::Later);
    }
    let told = |answer: Result<_, kube::Error>, attribute, kind| match answer {
        Ok(uid) => uid,
        Err(_) => {
            log::info!(
                "no {attribute}: add verb `get` on `{kind}` to the ClusterRole of the service account"
            );
            None
        }
    };
    Ok(Answer::Place(Place {
        cluster_uid: told(namespace, "k8s.cluster.uid", "namespaces"),
        node_uid: told(node, "k8s.node.uid", "nodes"),
    }))
}

fn status<T>(answer: &Result<T, kube::Error>) -> Option<u16> {
    match answer {
        Err(kube::Error::Api(status)) => Some(status.code),
        _ => None,
    }
}

async fn uid(client: &Client, kind: &str, name: &str) -> Result<Option<String>, kube::Error> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", kind));
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let object = api.get_metadata(name).await?;
    Ok(object.metadata.uid.as_deref().and_then(bounds::name))
}
