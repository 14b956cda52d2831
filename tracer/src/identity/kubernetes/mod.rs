//! Pods of this node, watched through the Kubernetes API.
//!
//! - `object`: what is parsed of a pod; `convert`, `owners`, `quantity`: facts of it, within `bounds`.
//! - `connection`: the client, guarded against slow and endless answers.
//! - `place`: which cluster and node this is.
//! - `follow`: the life of the watch; `failure`: what goes wrong, in words.
//!
//! Must not decide what is told of a container, nor need more than `list` and `watch` on pods; `get` on
//! the node and on `kube-system` only adds UIDs.

mod bounds;
mod connection;
mod convert;
mod failure;
mod follow;
mod object;
mod owners;
mod place;
mod quantity;

use kube::Config;
use tokio::sync::mpsc;

use super::{
    facts::{Pod, Source, SourceState, Update},
    sources::KubernetesConfig,
};
use connection::Limits;

/// What is known of a pod that the API sent as `json`; `None`: it has no UID, name or namespace that could
/// be one. `annotations` are those to keep beside the ones that memtrace reads.
///
/// # Errors
/// It is no pod in JSON.
pub fn pod(json: &[u8], annotations: &[String]) -> serde_json::Result<Option<Pod>> {
    let object = serde_json::from_slice(json)?;
    Ok(convert::pod(&object, annotations))
}

/// Tells the pods of the node for as long as somebody listens.
///
/// The API is that of `KUBECONFIG` or `~/.kube/config`, else that of the pod's service account; its token
/// and CA are read again as they rotate. Every failure is told once, with its remedy, and tried again
/// after a growing pause.
pub async fn watch(config: &KubernetesConfig, updates: mpsc::Sender<Update>) {
    if config.node_name.is_empty() {
        // This would select the pods of no node at all.
        let text = "the name of this node is not known: set it from spec.nodeName".to_owned();
        let state = SourceState::Failing(text);
        let told = updates.send(Update::Source(Source::Kubernetes, state));
        // Nobody listens otherwise, and then there is nothing to do either.
        let _ = told.await;
        return;
    }
    // An error says that there is one already, which will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    follow::follow(config, Limits::default(), updates, Config::infer).await;
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
