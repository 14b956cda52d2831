//! The watch against a real HTTP server of the API's protocol.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use kube::{
    Api,
    api::ListParams,
    config::{AuthInfo, InferConfigError, KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use super::{
    connection::{Connection, Limits},
    object::PodObject,
    *,
};
use crate::identity::facts::{Place, Pod};
use kube_api::{Fault, KubeApi, Verb};

#[path = "../../../../tests/src/kube_api.rs"]
mod kube_api;

/// Longer than the pauses of several failures.
const PATIENCE: Duration = Duration::from_secs(40);

fn pod(name: &str, node: &str) -> Value {
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"namespace": "shop", "name": name, "uid": format!("uid-{name}"),
                     "creationTimestamp": "2026-03-02T09:14:55Z"},
        "spec": {"nodeName": node, "containers": [{"name": "app", "image": "i"}]},
        "status": {"phase": "Running"},
    })
}

/// What a listener knows by what it was told.
struct Listener {
    updates: mpsc::Receiver<Update>,
    task: JoinHandle<()>,
    pods: BTreeMap<String, Pod>,
    lists: u32,
    states: Vec<SourceState>,
    places: Vec<Place>,
}

impl Listener {
    fn new(api: &KubeApi) -> Self {
        Self::with(Limits::default(), vec![(api.url(), String::new())])
    }

    /// The addresses and tokens in turn, the last one for ever.
    fn with(limits: Limits, servers: Vec<(String, String)>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (send, updates) = mpsc::channel(8);
        let tried = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(async move {
            let config = KubernetesConfig {
                node_name: "node-a".to_owned(),
                annotations: Vec::new(),
            };
            let connect =
                || -> Pin<Box<dyn Future<Output = Result<_, InferConfigError>> + Send>> {
                    let turn = tried.fetch_add(1, Ordering::Relaxed);
                    let (url, token) = &servers[turn.min(servers.len() - 1)];
                    let mut config = Config::new(url.parse().unwrap());
                    config.auth_info = AuthInfo {
                        token: Some(token.clone().into()).filter(|_| !token.is_empty()),
                        ..AuthInfo::default()
                    };
                    Box::pin(std::future::ready(Ok(config)))
                };
            follow::follow(&config, limits, send, connect).await;
        });
        Self {
            updates,
            task,
            pods: BTreeMap::new(),
            lists: 0,
            states: Vec::new(),
            places: Vec::new(),
        }
    }

    async fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let all = async {
            while !done(self) {
                let update = self.updates.recv().await.expect("the watch goes on");
                self.take(update);
            }
        };
        let waited = timeout(PATIENCE, all).await;
        let (names, states) = (self.pods.keys(), &self.states);
        assert!(waited.is_ok(), "no {what}: {names:?} {states:?}");
    }

    fn take(&mut self, update: Update) {
        match update {
            Update::Pod(pod) => {
                self.pods.insert(pod.uid.clone(), *pod);
            }
            Update::PodGone { uid } => {
                self.pods.remove(&uid);
            }
            Update::PodsAre(uids) => {
                let uids: BTreeSet<String> = uids.into_iter().collect();
                self.pods.retain(|uid, _| uids.contains(uid));
                self.lists += 1;
            }
            Update::Source(source, state) => {
                assert_eq!(source, Source::Kubernetes);
                self.states.push(state);
            }
            Update::Place(place) => self.places.push(place),
            other => panic!("of no API: {other:?}"),
        }
    }

    async fn until_synced(&mut self) {
        let synced = |it: &Self| it.states.last() == Some(&SourceState::Synced);
        self.until("Synced", synced).await;
    }

    async fn until_failing(&mut self, text: &str) {
        self.until(text, |it| match it.states.last() {
            Some(SourceState::Failing(told)) => told.contains(text),
            _ => false,
        })
        .await;
    }

    async fn until_knows(&mut self, name: &str) {
        let uid = format!("uid-{name}");
        self.until(name, |it| it.pods.contains_key(&uid)).await;
    }

    /// Nothing comes for a while but where this is, which is asked for beside.
    async fn quiet(&mut self, time: Duration) {
        let other = async {
            loop {
                match self.updates.recv().await {
                    Some(Update::Place(place)) => self.places.push(place),
                    other => return other,
                }
            }
        };
        let come = timeout(time, other).await;
        assert!(come.is_err(), "{come:?}");
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn the_uids_of_cluster_and_node_are_told_if_the_account_may_get_them() {
    let api = KubeApi::start().unwrap();
    let mut listener = Listener::new(&api);
    listener.until_synced().await;
    let place = Place {
        cluster_uid: Some("uid-kube-system".into()),
        node_uid: Some("uid-node-a".into()),
    };
    assert_eq!(listener.places, [place]);
    api.fail(Verb::Get, Fault::Status(403, "forbidden"), u32::MAX);
    let mut forbidden = Listener::new(&api);
    forbidden.until_synced().await;
    assert_eq!(forbidden.places, [Place::default()]);
}

#[tokio::test]
async fn uids_that_could_not_be_had_are_asked_for_again_while_pods_are_told() {
    let api = KubeApi::start().unwrap();
    api.put(pod("a", "node-a")).unwrap();
    api.fail(Verb::Get, Fault::Status(500, "starting"), 2);
    let limits = Limits {
        place_again: Duration::from_secs(1),
        ..Limits::default()
    };
    let mut listener = Listener::with(limits, vec![(api.url(), String::new())]);
    listener.until_synced().await;
    assert!(listener.places.is_empty(), "{:?}", listener.places);
    listener
        .until("place", |listener| !listener.places.is_empty())
        .await;
    assert!(listener.places[0].cluster_uid.is_some());
}

#[tokio::test]
async fn a_node_that_the_cluster_has_not_is_no_quiet_one() {
    let api = KubeApi::start().unwrap();
    api.fail(Verb::Get, Fault::Status(404, "not found"), 2);
    let mut listener = Listener::new(&api);
    listener
        .until_failing("no node \"node-a\": set --node-name")
        .await;
    // It may join later.
    listener.until_synced().await;
}

#[tokio::test]
async fn pods_of_this_node_are_listed_and_then_followed() {
    let api = KubeApi::start().unwrap();
    api.put(pod("a", "node-a")).unwrap();
    api.put(pod("other", "node-b")).unwrap();
    let mut listener = Listener::new(&api);
    listener.until_synced().await;
    assert_eq!(listener.pods.len(), 1);
    assert_eq!(listener.lists, 1);
    api.put(pod("b", "node-a")).unwrap();
    listener.until_knows("b").await;
    api.delete("shop", "a").unwrap();
    listener.until("a gone", |it| it.pods.len() == 1).await;
    let first = &api.requests()[0];
    assert_eq!(first.query["fieldSelector"], "spec.nodeName=node-a");
    assert_eq!(first.query["limit"], "100");
    assert_eq!(listener.states, [SourceState::Synced]);
}

#[tokio::test]
async fn no_pods_are_synced_too() {
    let api = KubeApi::start().unwrap();
    let mut listener = Listener::new(&api);
    listener.until_synced().await;
    assert_eq!((listener.lists, listener.pods.len()), (1, 0));
}

#[tokio::test]
async fn a_thousand_pods_come_in_pages() {
    let api = KubeApi::start().unwrap();
    for n in 0..1000 {
        api.put(pod(&format!("p{n}"), "node-a")).unwrap();
    }
    let mut listener = Listener::new(&api);
    listener.until_synced().await;
    assert_eq!((listener.pods.len(), listener.lists), (1000, 1));
    assert_eq!(api.count(Verb::List), 10);
}

#[tokio::test]
async fn a_watch_that_ends_goes_on_where_it_was() {
    let api = KubeApi::start().unwrap();
    api.put(pod("a", "node-a")).unwrap();
    let mut listener = Listener::new(&api);
    listener.until_synced().await;
    api.bookmark();
    api.put(pod("b", "node-a")).unwrap();
    listener.until_knows("b").await;
    api.end_watches();
    api.put(pod("c", "node-a")).unwrap();
    listener.until_knows("c").await;
    assert_eq!(listener.lists, 1);
    let resumed = api.requests().pop().unwrap();
    assert_eq!(resumed.query["resourceVersion"], "3");
    assert_eq!(listener.states, [SourceState::Synced]);
}

#[tokio::test]
async fn a_bookmark_moves_the_version_from_which_it_goes_on() {
    let api = KubeApi::start().unwrap();
    let mut listener = Listener::new(&api);
    listener.until_synced().await;
    api.bookmark();
    // What came before the bookmark is forgotten, and need not be known.
    api.put(pod("a", "node-a")).unwrap();
    listener.until_knows("a").await;
    api.bookmark();
    listener.quiet(Duration::from_millis(200)).await;
    api.end_watches();
    api.put(pod("b", "node-a")).unwrap();
    listener.until_knows("b").await;
    let resumed = api.requests().pop().unwrap();
    assert_eq!(resumed.query["resourceVersion"], "3");
    assert_eq!(resumed.query["allowWatchBookmarks"], "true");
    assert_eq!(listener.lists, 1);
}

#[tokio::test]
async fn a_cut_in_the_middle_of_a_line_loses_nothing() {
    let api = KubeApi::start().unwrap();
    let mut listener = Listener::new(&api);
    listener.until_synced().await;
    api.cut_watches();
    api.put(pod("a", "node-a")).unwrap();
    listener.until_knows("a").await;
    assert_eq!(listener.states, [SourceState::Synced], "it passed");
}

#[tokio::test]
async fn a_forgotten_version_lists_anew_and_what_is_gone_goes() {
    let faults = [None, Some(Fault::Status(410, "Expired"))];
    for fault in faults {
        let api = KubeApi::start().unwrap();
        api.put(pod("a", "node-a")).unwrap();
        api.put(pod("b", "node-a")).unwrap();
        let mut listener = Listener::new(&api);
        listener.until_synced().await;
        api.delete_unseen("shop", "a").unwrap();
        if let Some(fault) = fault {
            api.fail(Verb::Watch, fault, 1);
        }
        api.end_watches();
        listener.until("second list", |it| it.lists == 2).await;
        assert_eq!(listener.pods.len(), 1);
        api.put(pod("c", "node-a")).unwrap();
        listener.until_knows("c").await;
        assert_eq!(listener.states, [SourceState::Synced], "it passed");
    }
}

#[tokio::test]
async fn a_list_whose_next_page_is_forgotten_begins_anew() {
    let api = KubeApi::start().unwrap();
    for n in 0..150 {
        api.put(pod(&format!("p{n}"), "node-a")).unwrap();
    }
    // The queue is short, so the second page is asked for only when somebody reads.
    let mut listener = Listener::new(&api);
    listener.until_knows("p0").await;
    assert_eq!(api.count(Verb::List), 1);
    api.forget();
    api.delete("shop", "p0").unwrap();
    listener.until_synced().await;
    assert_eq!(listener.pods.len(), 149);
    assert_eq!((api.count(Verb::List), listener.lists), (4, 1));
    assert_eq!(listener.states, [SourceState::Synced], "it passed");
}

#[tokio::test]
async fn a_refused_list_is_told_once_and_ends_when_it_is_allowed() {
    let api = KubeApi::start().unwrap();
    api.put(pod("a", "node-a")).unwrap();
    api.fail(
        Verb::List,
        Fault::Status(403, "pods is forbidden"),
        u32::MAX,
    );
    let mut listener = Listener::new(&api);
    listener.until_failing("add verb `list` on `pods`").await;
    listener.quiet(Duration::from_secs(4)).await;
    assert!(api.count(Verb::List) > 1);
    api.mend();
    listener.until_synced().await;
    assert_eq!(listener.states.len(), 2, "{:?}", listener.states);
}

#[tokio::test]
async fn a_refused_watch_keeps_the_list_and_names_its_verb() {
    let api = KubeApi::start().unwrap();
    api.put(pod("a", "node-a")).unwrap();
    api.fail(Verb::Watch, Fault::Status(403, "pods is forbidden"), 2);
    let mut listener = Listener::new(&api);
    listener.until_failing("add verb `watch` on `pods`").await;
    assert_eq!(listener.pods.len(), 1);
    listener.until_synced().await;
    assert_eq!(listener.states.len(), 2, "{:?}", listener.states);
    assert_eq!(api.count(Verb::List), 1);
}

#[tokio::test]
async fn refused_credentials_are_taken_anew() {
    let api = KubeApi::start().unwrap();
    api.put(pod("a", "node-a")).unwrap();
    api.require_token("new");
    let servers = vec![(api.url(), "old".to_owned()), (api.url(), "new".to_owned())];
    let mut listener = Listener::with(Limits::default(), servers);
    listener
        .until_failing("does not accept the credentials")
        .await;
    listener.until_synced().await;
    assert_eq!(listener.pods.len(), 1);
    for state in &listener.states {
        assert!(!format!("{state:?}").contains("old"));
    }
}

#[tokio::test]
async fn a_kubeconfig_says_where_the_server_is_and_how_to_be_let_in() {
    let api = KubeApi::start().unwrap();
    api.require_token("t0ken");
    let yaml = Kubeconfig::from_yaml(&api.kubeconfig("t0ken")).unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(yaml, &options)
        .await
        .unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let connection = Connection::new(config, Limits::default()).unwrap();
    assert_eq!(connection.server, api.address().to_string());
    let pods: Api<PodObject> = Api::all(connection.client);
    assert!(pods.list(&ListParams::default()).await.is_ok());
    let sent = api.requests()[0].authorization.clone();
    assert_eq!(sent.as_deref(), Some("Bearer t0ken"));
}

#[tokio::test]
async fn a_server_that_goes_and_comes_is_followed_again() {
    let api = KubeApi::start().unwrap();
    api.put(pod("a", "node-a")).unwrap();
    let mut listener = Listener::new(&api);
    listener.until_synced().await;
    let address = api.address();
    drop(api);
    listener.until_failing("connection refused").await;
    assert_eq!(listener.pods.len(), 1, "what was known stays");
    let api = KubeApi::start_at(address).unwrap();
    api.put(pod("b", "node-a")).unwrap();
    api.put(pod("c", "node-a")).unwrap();
    listener.until_knows("c").await;
    listener.until_synced().await;
}

#[tokio::test]
async fn http_where_https_is_expected_is_told() {
    let api = KubeApi::start().unwrap();
    let https = api.url().replace("http:", "https:");
    let servers = vec![(https, String::new()), (api.url(), String::new())];
    let mut listener = Listener::with(Limits::default(), servers);
    listener.until_failing("does it speak HTTPS").await;
    listener.until_synced().await;
}

#[tokio::test]
async fn slow_and_silent_servers_are_told_and_waited_for() {
    let api = KubeApi::start().unwrap();
    api.put(pod("a", "node-a")).unwrap();
    let limits = Limits {
        answer: Duration::from_millis(300),
        ..Limits::default()
    };
    let slow = Fault::Slow(Duration::from_millis(100));
    api.fail(Verb::List, slow, 1);
    let mut listener = Listener::with(limits, vec![(api.url(), String::new())]);
    listener.until_synced().await;
    assert_eq!(listener.states, [SourceState::Synced]);
    for (verb, fault, told) in [
        (Verb::Watch, Fault::Silent, "is slow"),
        (Verb::List, Fault::Silent, "is slow"),
        (Verb::List, Fault::Stalls, "in the middle of a list"),
    ] {
        let fresh = KubeApi::start().unwrap();
        fresh.put(pod("a", "node-a")).unwrap();
        fresh.fail(verb, fault, 1);
        let mut listener = Listener::with(limits, vec![(fresh.url(), String::new())]);
        listener.until_failing(told).await;
        listener.until_synced().await;
        assert_eq!(listener.pods.len(), 1);
    }
}

#[tokio::test]
async fn answers_that_make_no_sense_are_told_and_end_nothing() {
    let faults = [
        (Fault::Garbage("<html>login</html>"), "no list of pods"),
        (Fault::Garbage("{}"), "no list of pods"),
        (Fault::Endless(100_000), "is not taken"),
        (Fault::Cut, "API server"),
        (Fault::Status(500, "etcd"), "overloaded or starting (500"),
        (
            Fault::Status(429, "too many"),
            "overloaded or starting (429",
        ),
        (Fault::Status(404, "nothing"), "(404, nothing)"),
    ];
    let limits = Limits {
        line_bytes: 50_000,
        ..Limits::default()
    };
    for (fault, told) in faults {
        let api = KubeApi::start().unwrap();
        api.put(pod("a", "node-a")).unwrap();
        api.fail(Verb::List, fault, 1);
        let mut listener = Listener::with(limits, vec![(api.url(), String::new())]);
        listener.until_failing(told).await;
        listener.until_synced().await;
    }
}

#[tokio::test]
async fn events_that_make_no_sense_list_anew() {
    let limits = Limits {
        line_bytes: 50_000,
        ..Limits::default()
    };
    let long = "x".repeat(60_000);
    for text in ["garbage\n", "{\"type\":\"MODIFIED\",\"object\":7}\n", &long] {
        let api = KubeApi::start().unwrap();
        let mut listener = Listener::with(limits, vec![(api.url(), String::new())]);
        listener.until_synced().await;
        api.send_raw(text);
        listener.until("second list", |it| it.lists == 2).await;
        api.put(pod("a", "node-a")).unwrap();
        listener.until_knows("a").await;
        assert_eq!(listener.states, [SourceState::Synced], "it passed");
    }
}

#[tokio::test]
async fn a_watch_that_ends_at_once_again_and_again_is_paced() {
    let api = KubeApi::start().unwrap();
    api.fail(Verb::Watch, Fault::Ends, u32::MAX);
    let mut listener = Listener::new(&api);
    listener.until_synced().await;
    listener.quiet(Duration::from_secs(3)).await;
    let asked = api.count(Verb::Watch);
    assert!(asked < 45, "{asked} requests in 3 s");
}

#[tokio::test]
async fn a_watch_that_breaks_again_and_again_is_told_until_it_holds() {
    let api = KubeApi::start().unwrap();
    api.fail(Verb::Watch, Fault::ErrorEvent(500), 4);
    let mut listener = Listener::new(&api);
    listener.until_failing("overloaded").await;
    assert_eq!(api.count(Verb::Watch), 3, "twice it may pass");
    listener.until_synced().await;
    assert_eq!(listener.states.len(), 2, "{:?}", listener.states);
    assert_eq!(api.open_watches(), 1);
}

#[tokio::test]
async fn it_ends_when_nobody_listens() {
    let api = KubeApi::start().unwrap();
    let mut listener = Listener::new(&api);
    listener.until_synced().await;
    listener.updates.close();
    api.put(pod("a", "node-a")).unwrap();
    let ended = timeout(PATIENCE, &mut listener.task).await;
    assert!(ended.is_ok());
}

#[tokio::test]
async fn a_node_without_a_name_is_told_and_asks_for_nothing() {
    let (send, mut updates) = mpsc::channel(8);
    watch(&KubernetesConfig::default(), send).await;
    let told = updates.recv().await;
    assert!(matches!(
        told,
        Some(Update::Source(_, SourceState::Failing(text))) if text.contains("node")
    ));
}
