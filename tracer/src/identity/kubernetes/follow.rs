//! The life of the watch: connect, list, watch, and again from where it broke.
//!
//! Owns what is told of it and when. `kube::runtime::watcher` has the protocol; it does not list anew when a
//! watch is refused with 410, does not say that a watch is open again, and does not pause by itself.

use std::{future::Future, pin::pin, time::Duration};

use futures_util::{Stream, StreamExt as _};
use kube::{
    Api, Config,
    config::InferConfigError,
    runtime::watcher::{self, DefaultBackoff, Event},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    connection::{Connection, Limits},
    convert,
    failure::{self, Failure, Then},
    object::PodObject,
    place::{self, Answer, NoSuchNode},
};
use crate::identity::{
    facts::{Source, SourceState, Update},
    sources::KubernetesConfig,
};

/// Pods in an answer: bounds what a list takes.
const PAGE_PODS: u32 = 100;
/// Pods of one node; kubelets are set to a few hundred.
const MOST_PODS: usize = 4096;
/// Passing failures in a row that are not spoken of.
const MOST_PASSING: u32 = 2;
/// After this time without a failure the row is over. As long as the back-off remembers.
const CALM: Duration = Duration::from_secs(120);
/// A watch that broke again and again works when it has held this long.
const HELD: Duration = Duration::from_secs(10);

/// Nobody listens any more.
pub(super) struct Closed;

/// Watches the pods of a node until nobody listens; `connect` says where the API is, and is asked again
/// when the server does not accept the credentials.
pub(super) async fn follow<C, F>(
    config: &KubernetesConfig,
    limits: Limits,
    updates: mpsc::Sender<Update>,
    connect: C,
) -> Closed
where
    C: Fn() -> F,
    F: Future<Output = Result<Config, InferConfigError>>,
{
    let mut follower = Follower {
        config,
        limits,
        updates,
        told: SourceState::Starting,
        backoff: DefaultBackoff::default(),
        passing: 0,
        failed_at: None,
        has_place: false,
    };
    loop {
        let connected = match connect().await {
            Err(error) => Err(failure::of_config(&error)),
            Ok(config) => {
                Connection::new(config, limits).map_err(|error| failure::of_client(&error))
            }
        };
        let done = match connected {
            Ok(connection) => follower.use_connection(connection).await,
            Err(text) => follower.tell(SourceState::Failing(text)).await,
        };
        if let Err(closed) = done {
            return closed;
        }
        follower.pause().await;
    }
}

struct Follower<'a> {
    config: &'a KubernetesConfig,
    limits: Limits,
    updates: mpsc::Sender<Update>,
    told: SourceState,
    backoff: DefaultBackoff,
    /// Passing failures in a row.
    passing: u32,
    failed_at: Option<Instant>,
    /// Whether cluster and node were told.
    has_place: bool,
}

/// A list that is being received.
#[derive(Default)]
struct Listing {
    uids: Vec<String>,
    left_out: u64,
}

impl Follower<'_> {
    /// Lists and watches until other credentials are needed.
    async fn use_connection(&mut self, mut connection: Connection) -> Result<(), Closed> {
        loop {
            let api: Api<PodObject> = Api::all(connection.client.clone());
            let selector = format!("spec.nodeName={}", field_value(&self.config.node_name));
            let asked = watcher::Config::default()
                .fields(&selector)
                .page_size(PAGE_PODS);
            connection.watches.mark_unchanged();
            let stream = pin!(kube::runtime::watcher(api, asked));
            let then = self.use_stream(stream, &mut connection).await?;
            if then == Then::Reconnect {
                return Ok(());
            }
            self.pause().await;
        }
    }

    /// Tells what a watcher has until it must be made anew.
    async fn use_stream<S>(
        &mut self,
        mut stream: std::pin::Pin<&mut S>,
        connection: &mut Connection,
    ) -> Result<Then, Closed>
    where
        S: Stream<Item = watcher::Result<Event<PodObject>>>,
    {
        let mut listing = None;
        let mut works_at: Option<Instant> = None;
        let Connection {
            watches,
            server,
            client,
        } = connection;
        // Beside the list, which does not wait for it.
        let (node, client) = (&self.config.node_name, &*client);
        let ask = |after: Duration| async move {
            sleep(after).await;
            place::ask(client, node).await
        };
        let mut place = pin!(ask(Duration::ZERO));
        let mut place_answered = self.has_place;
        loop {
            let event = tokio::select! {
                biased;
                event = next(&mut stream, listing.is_some(), self.limits.answer) => event,
                Ok(()) = watches.changed() => {
                    let wait = if self.passing > MOST_PASSING { HELD } else { Duration::ZERO };
                    works_at = Some(Instant::now() + wait);
                    continue;
                }
                answer = &mut place, if !self.has_place => {
                    place_answered = true;
                    match answer {
                        Ok(Answer::Place(known)) => {
                            self.has_place = true;
                            self.send(Update::Place(known)).await?;
                        }
                        Ok(Answer::Later) => place.set(ask(self.limits.place_again)),
                        // Its pods would be none at all, and that looks like a quiet node.
                        Err(NoSuchNode) => {
                            let text = failure::of_missing_node(node, server);
                            self.tell(SourceState::Failing(text)).await?;
                            return Ok(Then::Reconnect);
                        }
                    }
                    continue;
                }
                () = sleep_until(works_at.unwrap_or_else(Instant::now)),
                    if works_at.is_some() && place_answered =>
                {
                    works_at = None;
                    self.tell(SourceState::Synced).await?;
                    continue;
                }
            };
            let failure = match event {
                Some(Ok(event)) => {
                    let is_change = matches!(event, Event::Apply(_) | Event::Delete(_));
                    self.take(event, &mut listing).await?;
                    if is_change && place_answered && works_at.take().is_some() {
                        self.tell(SourceState::Synced).await?;
                    }
                    continue;
                }
                Some(Err(error)) => failure::of_watcher(&error, server),
                // The watcher never ends, so this is a list that came to a halt.
                None => Failure {
                    text: format!("the API server at {server} stopped in the middle of a list"),
                    passing: false,
                    then: Then::Relist,
                },
            };
            listing = None;
            works_at = None;
            let then = failure.then;
            self.fail(failure).await?;
            if then != Then::Resume {
                return Ok(then);
            }
            self.pause().await;
        }
    }

    async fn take(
        &mut self,
        event: Event<PodObject>,
        listing: &mut Option<Listing>,
    ) -> Result<(), Closed> {
        match event {
            Event::Init => *listing = Some(Listing::default()),
            Event::InitApply(object) => {
                let (Some(pod), Some(listing)) = (self.pod(&object), listing) else {
                    return Ok(());
                };
                if listing.uids.len() >= MOST_PODS {
                    listing.left_out += 1;
                    return Ok(());
                }
                listing.uids.push(pod.uid.clone());
                self.send(Update::Pod(Box::new(pod))).await?;
            }
            Event::InitDone => {
                let Listing { uids, left_out } = listing.take().unwrap_or_default();
                if left_out > 0 {
                    log::warn!("{left_out} pods of the node are left out: more than {MOST_PODS}");
                }
                self.send(Update::PodsAre(uids)).await?;
            }
            Event::Apply(object) => {
                if let Some(pod) = self.pod(&object) {
                    self.send(Update::Pod(Box::new(pod))).await?;
                }
            }
            Event::Delete(object) => {
                if let Some(uid) = object.metadata.uid {
                    self.send(Update::PodGone { uid }).await?;
                }
            }
        }
        Ok(())
    }

    /// `None`: of no use, or of another node, should a server not know the selector.
    fn pod(&self, object: &PodObject) -> Option<crate::identity::facts::Pod> {
        let pod = convert::pod(object, &self.config.annotations)?;
        (pod.node.as_ref() == Some(&self.config.node_name)).then_some(pod)
    }

    async fn fail(&mut self, failure: Failure) -> Result<(), Closed> {
        let now = Instant::now();
        let calm = self.failed_at.is_none_or(|at| now - at > CALM);
        self.failed_at = Some(now);
        if calm {
            self.passing = 0;
        }
        if failure.passing {
            self.passing = self.passing.saturating_add(1);
            if self.passing <= MOST_PASSING {
                return Ok(());
            }
        }
        self.tell(SourceState::Failing(failure.text)).await
    }

    /// Tells a state that is another than before.
    async fn tell(&mut self, state: SourceState) -> Result<(), Closed> {
        if self.told == state {
            return Ok(());
        }
        self.told = state.clone();
        self.send(Update::Source(Source::Kubernetes, state)).await
    }

    async fn send(&self, update: Update) -> Result<(), Closed> {
        self.updates.send(update).await.map_err(|_| Closed)
    }

    async fn pause(&mut self) {
        // It has no end.
        let pause = self.backoff.next().unwrap_or(CALM);
        sleep(pause).await;
    }
}

/// The next event; `None` when a list does not go on for `answer`.
async fn next<S: Stream>(
    stream: &mut std::pin::Pin<&mut S>,
    is_list: bool,
    answer: Duration,
) -> Option<S::Item> {
    if is_list {
        // Requests have `answer` themselves; this is for what follows their first byte.
        timeout(answer * 2, stream.next()).await.ok().flatten()
    } else {
        stream.next().await
    }
}

/// As the value of a field selector. Source: `k8s.io/apimachinery/pkg/fields`, `EscapeValue`.
fn field_value(text: &str) -> String {
    let mut value = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '\\' | ',' | '=') {
            value.push('\\');
        }
        value.push(character);
    }
    value
}
