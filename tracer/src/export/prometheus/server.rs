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

    /// The next question.
    pub async fn asked(&mut self) -> Ask {
        match self.asks.recv().await {
            Some(ask) => ask,
            // The thread is gone: nobody asks any more.
            None => std::future::pending().await,
        }
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
    shared.asks.try_send(ask(sender)).ok()?;
    tokio::time::timeout(ANSWER, answer).await.ok()?.ok()
}

fn busy(why: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpStream,
        time::SystemTime,
    };

    use super::*;
    use crate::model::snapshot::{HostReading, ProbeRun, SelfReading};

    /// A scrape of it has a megabyte for each of `probes`.
    fn snapshot(probes: usize) -> Arc<Snapshot> {
        let probe = |number: usize| ProbeRun {
            probe: format!("{number}{}", "x".repeat(512 << 10)),
            run_time_ns: Some(1),
            run_count: Some(1),
        };
        Arc::new(Snapshot {
            time: SystemTime::now(),
            started: SystemTime::now(),
            host: HostReading::default(),
            cgroups: Vec::new(),
            own: SelfReading {
                probes: (0..probes).map(probe).collect(),
                ..SelfReading::default()
            },
        })
    }

    /// An endpoint whose agent answers, and how often it was asked.
    fn answering(snapshot: Arc<Snapshot>) -> (SocketAddr, Arc<AtomicU64>) {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let health = Health::new(Duration::from_secs(1));
        let mut endpoint = Endpoint::start(address, ResourceContext::default(), health).unwrap();
        let address = endpoint.address;
        let asked = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&asked);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap();
            runtime.block_on(async move {
                // More than any test asks.
                for _ in 0..100 {
                    let ask = endpoint.asked().await;
                    count.fetch_add(1, Ordering::Relaxed);
                    match ask {
                        Ask::Metrics(sender) => drop(sender.send(Arc::clone(&snapshot))),
                        Ask::Status(sender) => drop(sender.send(serde_json::json!({}))),
                    }
                }
            });
        });
        (address, asked)
    }

    fn get(address: SocketAddr, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    fn assert_is_answered(mut stream: TcpStream, least_bytes: usize) {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let first = answer.lines().next().unwrap_or_default();
        assert!(first.contains(" 200 OK"), "{first}");
        assert!(answer.len() >= least_bytes, "{} bytes", answer.len());
    }

    #[test]
    fn readers_that_are_stuck_make_way_for_a_scrape() {
        // More than the buffers between the two ends hold.
        const MIB: usize = 12;
        let (address, _) = answering(snapshot(MIB));
        let mut stuck: Vec<TcpStream> = (0..MOST_SCRAPES)
            .map(|_| get(address, "/metrics"))
            .collect();
        for reader in &mut stuck {
            reader.read_exact(&mut [0_u8]).expect("it has begun");
        }
        assert_is_answered(get(address, "/metrics"), MIB << 20);
    }

    #[test]
    fn the_agent_is_asked_for_its_status_once_a_second_however_often_others_ask() {
        let (address, asked) = answering(snapshot(0));
        let begun = Instant::now();
        for _ in 0..10 {
            assert_is_answered(get(address, "/status"), 1);
        }
        let most = 1 + begun.elapsed().as_secs();
        assert!(asked.load(Ordering::Relaxed) <= most);
    }
}
