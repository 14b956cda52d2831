//! The thread that answers HTTP requests, and what it asks the agent.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use tokio::sync::{Mutex, mpsc, oneshot};

use super::bounded;
use super::exposition::{Format, text};
use super::turns::{Turns, pieces};
use crate::{
    export::otlp::{ResourceContext, metrics::scraped},
    model::snapshot::Snapshot,
};

/// Questions that wait for the agent.
const MOST_ASKS: usize = 8;
/// Scrapes at the same time; each holds the whole text until it is sent.
const MOST_SCRAPES: usize = 4;
/// A scrape waits so long for its turn: with [`ANSWER`] no longer than a scraper waits unless told otherwise.
const TURN: Duration = Duration::from_secs(2);
/// The agent answers between two readings.
const ANSWER: Duration = Duration::from_secs(8);
/// Who asks for the status again within this time gets the same.
const STATUS_LASTS: Duration = Duration::from_secs(1);

/// The endpoint cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("cannot listen on {address}: {source}\n{}", remedy(source))]
    Bind {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot start the thread that answers on {address}: {source}")]
    Thread {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
}

fn remedy(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::AddrInUse => "another program has that port: choose another with --listen",
        ErrorKind::AddrNotAvailable => {
            "no interface of this host has that address: 0.0.0.0 is all of them"
        }
        ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE: choose another with --listen"
        }
        _ => "choose another address with --listen",
    }
}

/// A question to the agent. An answer that is not given is an error to the scraper.
#[derive(Debug)]
pub enum Ask {
    Metrics(oneshot::Sender<Arc<Snapshot>>),
    Status(oneshot::Sender<serde_json::Value>),
}

impl Ask {
    fn is_awaited(&self) -> bool {
        match self {
            Ask::Metrics(sender) => !sender.is_closed(),
            Ask::Status(sender) => !sender.is_closed(),
        }
    }
}

/// How the agent is, as far as it can be told without asking it.
#[derive(Debug)]
pub struct Health {
    born: Instant,
    /// Milliseconds after `born` at which the last interval ended; 0: none yet.
    interval_ended_ms: AtomicU64,
    /// Longest time between two intervals of a live agent.
    patience: Duration,
}

impl Health {
    pub fn new(interval: Duration) -> Self {
        Self {
            born: Instant::now(),
            interval_ended_ms: AtomicU64::new(0),
            patience: (interval * 3).max(Duration::from_secs(60)),
        }
    }

    /// An interval was read and told.
    pub fn interval_ended(&self) {
        let ms = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.interval_ended_ms.store(ms.max(1), Ordering::Relaxed);
    }

    fn is_ready(&self) -> bool {
        self.interval_ended_ms.load(Ordering::Relaxed) > 0
    }

    fn is_alive(&self) -> bool {
        let ended = Duration::from_millis(self.interval_ended_ms.load(Ordering::Relaxed));
        self.born.elapsed().saturating_sub(ended) < self.patience
    }
}

/// A running endpoint. Dropping it ends it.
#[derive(Debug)]
pub struct Endpoint {
    pub address: SocketAddr,
    pub health: Arc<Health>,
    asks: mpsc::Receiver<Ask>,
    _stop: oneshot::Sender<()>,
}

struct Shared {
    asks: mpsc::Sender<Ask>,
    health: Arc<Health>,
    scrapes: Arc<Turns>,
    /// The last answer, and when it was given.
    status: Mutex<Option<(Instant, serde_json::Value)>>,
    context: ResourceContext,
}

impl Endpoint {
    /// Binds `address`, and that alone, and starts the thread.
    ///
    /// # Errors
    /// The address cannot be had, or no thread.
    pub fn start(
        address: SocketAddr,
        context: ResourceContext,
        health: Health,
    ) -> Result<Self, ListenError> {
        let bind = |source| ListenError::Bind { address, source };
        let listener = TcpListener::bind(address).map_err(bind)?;
        listener.set_nonblocking(true).map_err(bind)?;
        let bound = listener.local_addr().map_err(bind)?;
        let thread = |source| ListenError::Thread { address, source };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(thread)?;
        let health = Arc::new(health);
        let (asks, asked) = mpsc::channel(MOST_ASKS);
        let (stop, stopped) = oneshot::channel::<()>();
        let shared = Arc::new(Shared {
            asks,
            health: Arc::clone(&health),
            scrapes: Turns::new(MOST_SCRAPES),
            status: Mutex::default(),
            context,
        });
        std::thread::Builder::new()
            .name("http".to_owned())
            .spawn(move || runtime.block_on(serve(listener, shared, stopped)))
            .map_err(thread)?;
        Ok(Self {
            address: bound,
            health,
            asks: asked,
            _stop: stop,
        })
    }

    /// The next question that somebody waits for.
    pub async fn asked(&mut self) -> Ask {
        while let Some(ask) = self.asks.recv().await {
            if ask.is_awaited() {
                return ask;
            }
        }
        // The thread is gone: nobody asks any more.
        std::future::pending().await
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>, stopped: oneshot::Receiver<()>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return log::warn!("no answers over HTTP: {error}"),
    };
    let router = Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/status", get(status))
        .fallback(absent)
        .with_state(shared);
    tokio::select! {
        () = bounded::serve(listener, router) => {}
        _ = stopped => {}
    }
}

const PATHS: &str = "memtrace: /metrics /healthz /readyz /status\n";

async fn index() -> &'static str {
    PATHS
}

async fn absent() -> impl IntoResponse {
    (StatusCode::NOT_FOUND, PATHS)
}

async fn metrics(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    let format = Format::accepted(accept.unwrap_or_default());
    let Some(turn) = Turns::take(&shared.scrapes, TURN).await else {
        return busy("other scrapes are under way");
    };
    let Some(snapshot) = answered(&shared, Ask::Metrics).await else {
        return busy("the agent does not answer");
    };
    let text = Bytes::from(text(scraped(&snapshot, &shared.context), format));
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static(format.content_type()),
        ),
        (header::CONTENT_LENGTH, text.len().into()),
    ];
    (headers, turn.body(pieces(text))).into_response()
}

async fn status(State(shared): State<Arc<Shared>>) -> Response {
    match tokio::time::timeout(ANSWER, recent_status(&shared)).await {
        Ok(Some(status)) => axum::Json(status).into_response(),
        Ok(None) | Err(_) => busy("the agent does not answer"),
    }
}

/// The agent looks through all that it holds for one: those who ask at the same time share it.
async fn recent_status(shared: &Shared) -> Option<serde_json::Value> {
    let mut last = shared.status.lock().await;
    if let Some((at, status)) = last.as_ref()
        && at.elapsed() < STATUS_LASTS
    {
        return Some(status.clone());
    }
    let status = answered(shared, Ask::Status).await?;
    *last = Some((Instant::now(), status.clone()));
    Some(status)
}

async fn healthz(State(shared): State<Arc<Shared>>) -> Response {
    if shared.health.is_alive() {
        "ok\n".into_response()
    } else {
        busy("no interval was read for too long")
    }
}

async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    if shared.health.is_ready() {
        "ok\n".into_response()
    } else {
        busy("the first interval is not read yet")
    }
}

async fn answered<T>(shared: &Shared, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
    let (sender, answer) = oneshot::channel();
    let answered = async {
        // Those who went away take up the room until the agent comes to them.
        shared.asks.send(ask(sender)).await.ok()?;
        answer.await.ok()
    };
    tokio::time::timeout(ANSWER, answered).await.ok()?
}

fn busy(why: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response()
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
