//! The connection to the API server, guarded: each answer begins in time, no line of one is endless, and
//! requests are paced.
//!
//! Owns what kube leaves open: it waits for an answer for ever, takes lines of any length, and opens a
//! watch that the server ends at once again without a pause.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Request, Response};
use kube::{
    Client, Config,
    client::{Body as KubeBody, ClientBuilder},
};
use thiserror::Error;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tower::{BoxError, Layer, Service};

/// Requests that may be made at once; a list of 1,000 pods takes eleven.
const BURST: u32 = 32;
/// Between requests when the burst is used up.
const PACE: Duration = Duration::from_secs(1);

/// What an answer may take, and when to ask again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Until an answer begins.
    pub answer: Duration,
    /// Of one line: a page of a list is one, and so is an event.
    pub line_bytes: usize,
    /// Until cluster and node are asked for again.
    pub place_again: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(30),
            line_bytes: 32 << 20,
            place_again: Duration::from_secs(30),
        }
    }
}

/// The server answers in a way that is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum Refused {
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
    #[error("an answer of more than {} MiB", .0 >> 20)]
    Long(usize),
}

/// A client, and how often it has opened a watch.
pub(super) struct Connection {
    pub watches: watch::Receiver<u64>,
    /// Host and port, for messages. Never the user information that a URL may have.
    pub server: String,
    pub client: Client,
}

impl Connection {
    /// Makes a client; connects when it is used.
    ///
    /// # Errors
    /// Certificates or credentials cannot be read.
    pub fn new(mut config: Config, limits: Limits) -> Result<Self, Box<kube::Error>> {
        config.connect_timeout = Some(limits.answer.min(Duration::from_secs(10)));
        // There is one back-off, that of the watcher; it also says what fails.
        config.default_retry = false;
        let url = &config.cluster_url;
        let server = match (url.host(), url.port_u16()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (Some(host), None) => host.to_owned(),
            (None, _) => "?".to_owned(),
        };
        let (opened, watches) = watch::channel(0);
        let guard = Guard { limits, opened };
        if config.cluster_url.scheme_str() == Some("http") {
            // Otherwise kube wants the system's authorities, which an image need not have.
            config.root_cert.get_or_insert_default();
        }
        let client = ClientBuilder::try_from(config)?.with_layer(&guard).build();
        Ok(Self {
            watches,
            server,
            client,
        })
    }
}

#[derive(Debug)]
struct Guard {
    limits: Limits,
    opened: watch::Sender<u64>,
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded {
            inner,
            limits: self.limits,
            opened: self.opened.clone(),
            used_up: Instant::now(),
        }
    }
}

struct Guarded<S> {
    inner: S,
    limits: Limits,
    opened: watch::Sender<u64>,
    /// When a pause of [`PACE`] for each request made would be over.
    used_up: Instant,
}

impl<S, B> Service<Request<KubeBody>> for Guarded<S>
where
    S: Service<Request<KubeBody>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<KubeBody>) -> Self::Future {
        let now = Instant::now();
        self.used_up = self.used_up.max(now) + PACE;
        let start = (self.used_up - PACE * BURST).max(now);
        let is_watch = request
            .uri()
            .query()
            .is_some_and(|query| query.split('&').any(|it| it == "watch=true"));
        let answer = self.inner.call(request);
        let (limits, opened) = (self.limits, self.opened.clone());
        Box::pin(async move {
            sleep_until(start).await;
            let response = timeout(limits.answer, answer)
                .await
                .map_err(|_| Refused::Late(limits.answer))??;
            if is_watch && response.status().is_success() {
                opened.send_modify(|count| *count = count.wrapping_add(1));
            }
            Ok(response.map(|body| bounded(body, limits.line_bytes)))
        })
    }
}

/// The body until a line of it is longer than `most` bytes.
fn bounded<B>(body: B, most: usize) -> Body
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let mut line = 0usize;
    let chunks = Body::new(body).into_data_stream().map(move |chunk| {
        let chunk = chunk.map_err(BoxError::from)?;
        for (index, part) in chunk.split(|byte| *byte == b'\n').enumerate() {
            line = if index == 0 {
                line + part.len()
            } else {
                part.len()
            };
            if line > most {
                return Err(BoxError::from(Refused::Long(most)));
            }
        }
        Ok(chunk)
    });
    Body::from_stream(chunks)
}
