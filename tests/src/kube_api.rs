//! A Kubernetes API server for tests: lists and watches pods over real HTTP, with the faults of real ones.
//!
//! Owns the protocol (pages, versions, events, bookmarks, 410 Gone) and nothing of what a pod means.
//! The unit tests of the agent include this file too, so it must use nothing of this crate.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    List,
    Watch,
    /// Of one node or namespace.
    Get,
}

/// How a request is answered instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// With this HTTP status and message.
    Status(u16, &'static str),
    /// Later by this.
    Slow(Duration),
    /// Never.
    Silent,
    /// With the first half, then nothing more.
    Stalls,
    /// With the first half, then the connection is cut.
    Cut,
    /// With these bytes.
    Garbage(&'static str),
    /// With an event `ERROR` of this code, as a watch from a version that is forgotten.
    ErrorEvent(u16),
    /// With an event of this many bytes that has no end of line.
    Endless(usize),
    /// Well, but nothing follows: the server ends the watch.
    Ends,
}

/// A request that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub verb: Verb,
    pub query: BTreeMap<String, String>,
    pub authorization: Option<String>,
}

/// A part of a watch's answer.
enum Part {
    Text(String),
    Cut,
}

#[derive(Default)]
struct Pods {
    version: u64,
    /// By namespace and name.
    pods: BTreeMap<(String, String), Value>,
    events: Vec<(u64, Value)>,
    /// Versions before this one are forgotten.
    forgotten: u64,
    faults: HashMap<Verb, (Fault, u32)>,
    watches: Vec<mpsc::UnboundedSender<Part>>,
    requests: Vec<Request>,
    token: Option<String>,
}

type Shared = Arc<Mutex<Pods>>;

/// The server; it ends when dropped.
pub struct KubeApi {
    address: SocketAddr,
    pods: Shared,
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl KubeApi {
    /// Starts it on a free port.
    pub fn start() -> Result<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Starts it at an address, for example that of one that was dropped.
    pub fn start_at(address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let pods = Shared::default();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&pods));
        let (stop, stopped) = oneshot::channel::<Infallible>();
        let thread = std::thread::spawn(move || {
            runtime
                .block_on(async {
                    let listener = tokio::net::TcpListener::from_std(listener)?;
                    tokio::select! {
                        done = axum::serve(listener, router).into_future() => done,
                        _ = stopped => Ok(()),
                    }
                })
                .unwrap_or_else(|error: io::Error| eprintln!("test API server: {error}"));
        });
        Ok(Self {
            address,
            pods,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A kubeconfig for this server.
    pub fn kubeconfig(&self, token: &str) -> String {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": self.url()}}],
            "users": [{"name": "test", "user": {"token": token}}],
        });
        config.to_string()
    }

    /// Accepts no other bearer token from now on.
    pub fn require_token(&self, token: &str) {
        self.lock().token = Some(token.to_owned());
    }

    /// Adds a pod, or changes it.
    pub fn put(&self, mut pod: Value) -> Result<()> {
        let key = key(&pod)?;
        let mut pods = self.lock();
        pods.version += 1;
        pod["metadata"]["resourceVersion"] = json!(pods.version.to_string());
        let known = pods.pods.insert(key, pod.clone()).is_some();
        pods.happened(if known { "MODIFIED" } else { "ADDED" }, pod);
        Ok(())
    }

    pub fn delete(&self, namespace: &str, name: &str) -> Result<()> {
        let mut pods = self.lock();
        let key = (namespace.to_owned(), name.to_owned());
        let mut pod = pods.pods.remove(&key).context("no such pod")?;
        pods.version += 1;
        pod["metadata"]["resourceVersion"] = json!(pods.version.to_string());
        pods.happened("DELETED", pod);
        Ok(())
    }

    /// Deletes a pod while nobody is told of it, as if all that happened since were forgotten.
    pub fn delete_unseen(&self, namespace: &str, name: &str) -> Result<()> {
        let mut pods = self.lock();
        let key = (namespace.to_owned(), name.to_owned());
        pods.pods.remove(&key).context("no such pod")?;
        pods.version += 2;
        pods.forgotten = pods.version;
        Ok(())
    }

    /// Tells all watches the newest version.
    pub fn bookmark(&self) {
        let mut pods = self.lock();
        pods.version += 1;
        let version = pods.version.to_string();
        let line = json!({"type": "BOOKMARK", "object": {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"resourceVersion": version, "creationTimestamp": null},
            "spec": {"containers": null}, "status": {},
        }});
        pods.tell(&format!("{line}\n"));
    }

    /// Forgets what happened until now; a watch or a next page from before is refused with 410.
    pub fn forget(&self) {
        let mut pods = self.lock();
        pods.version += 2;
        pods.forgotten = pods.version;
    }

    /// Sends a text as it is to all watches.
    pub fn send_raw(&self, text: &str) {
        self.lock().tell(text);
    }

    /// Ends all watches as a server does after their time.
    pub fn end_watches(&self) {
        self.lock().watches.clear();
    }

    /// Cuts the connections of all watches in the middle of a line.
    pub fn cut_watches(&self) {
        let mut pods = self.lock();
        pods.tell(r#"{"type":"MODIFIED","object":{"apiVersion":"v1","ki"#);
        for watch in pods.watches.drain(..) {
            let _ = watch.send(Part::Cut);
        }
    }

    /// Answers the next `times` requests of this kind with a fault.
    pub fn fail(&self, verb: Verb, fault: Fault, times: u32) {
        self.lock().faults.insert(verb, (fault, times));
    }

    /// Answers well again.
    pub fn mend(&self) {
        self.lock().faults.clear();
    }

    /// Watches that are open.
    pub fn open_watches(&self) -> usize {
        let mut pods = self.lock();
        pods.watches.retain(|watch| !watch.is_closed());
        pods.watches.len()
    }

    /// All requests that came.
    pub fn requests(&self) -> Vec<Request> {
        self.lock().requests.clone()
    }

    /// How many came.
    pub fn count(&self, verb: Verb) -> usize {
        let pods = self.lock();
        let same = pods.requests.iter().filter(|request| request.verb == verb);
        same.count()
    }

    fn lock(&self) -> MutexGuard<'_, Pods> {
        lock(&self.pods)
    }
}

impl Drop for KubeApi {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Pods {
    fn happened(&mut self, kind: &str, object: Value) {
        let event = json!({"type": kind, "object": object});
        self.tell(&format!("{event}\n"));
        self.events.push((self.version, event));
    }

    fn tell(&mut self, text: &str) {
        self.watches
            .retain(|watch| watch.send(Part::Text(text.to_owned())).is_ok());
    }

    fn fault(&mut self, verb: Verb) -> Option<Fault> {
        let (fault, times) = self.faults.get_mut(&verb)?;
        *times = times.checked_sub(1)?;
        Some(fault.clone())
    }

    /// A page; the token for the next one has the version and the place.
    fn list(&self, query: &BTreeMap<String, String>) -> Response {
        let (version, skip) = match query.get("continue").map(|token| token.split_once(':')) {
            Some(Some((version, skip))) => (
                version.parse().unwrap_or(0),
                skip.parse::<usize>().unwrap_or(0),
            ),
            _ => (self.version, 0),
        };
        if version < self.forgotten {
            return status(410, "The provided continue parameter is too old");
        }
        let limit = query.get("limit").and_then(|limit| limit.parse().ok());
        let limit: usize = limit.unwrap_or(usize::MAX);
        let mut matching = self
            .pods
            .values()
            .filter(|pod| selects(query, pod))
            .skip(skip);
        let items: Vec<&Value> = matching.by_ref().take(limit).collect();
        let rest = matching.count();
        let token = (rest > 0).then(|| format!("{version}:{}", skip + items.len()));
        let list = json!({
            "kind": "PodList",
            "apiVersion": "v1",
            "metadata": {
                "resourceVersion": version.to_string(),
                "continue": token,
                "remainingItemCount": if rest > 0 { Some(rest) } else { None },
            },
            "items": items,
        });
        ok(Body::from(list.to_string()))
    }

    /// What happened since a version, and what will.
    fn watch(&mut self, query: &BTreeMap<String, String>) -> Response {
        let version = query.get("resourceVersion");
        let version: u64 = version.and_then(|it| it.parse().ok()).unwrap_or(0);
        let (send, parts) = mpsc::unbounded_channel();
        if version < self.forgotten {
            let _ = send.send(Part::Text(error_event(410)));
            return streamed(parts);
        }
        for (_, event) in self.events.iter().filter(|(at, _)| *at > version) {
            let _ = send.send(Part::Text(format!("{event}\n")));
        }
        self.watches.push(send);
        streamed(parts)
    }
}

async fn answer(State(pods): State<Shared>, headers: HeaderMap, uri: Uri) -> Response {
    if uri.path() != "/api/v1/pods" {
        return object(&pods, &uri);
    }
    let query = query(&uri);
    let verb = match query.get("watch").map(String::as_str) {
        Some("true" | "1") => Verb::Watch,
        _ => Verb::List,
    };
    let authorization = headers.get("authorization");
    let authorization = authorization.and_then(|value| value.to_str().ok());
    let fault = {
        let mut pods = lock(&pods);
        pods.requests.push(Request {
            verb,
            query: query.clone(),
            authorization: authorization.map(str::to_owned),
        });
        let wanted = pods.token.as_ref().map(|token| format!("Bearer {token}"));
        if wanted.is_some() && wanted.as_deref() != authorization {
            return status(401, "Unauthorized");
        }
        pods.fault(verb)
    };
    let half = r#"{"kind":"PodList","apiVersion":"v1","metadata":{"resou"#;
    match fault {
        None => {}
        Some(Fault::Slow(pause)) => tokio::time::sleep(pause).await,
        Some(Fault::Silent) => std::future::pending().await,
        Some(Fault::Status(code, message)) => return status(code, message),
        Some(Fault::Garbage(text)) => return ok(Body::from(text)),
        Some(Fault::Stalls) => {
            let (send, parts) = mpsc::unbounded_channel();
            let _ = send.send(Part::Text(half.to_owned()));
            // Held for ever by the task that waits for the reader to go.
            tokio::spawn(async move { send.closed().await });
            return streamed(parts);
        }
        Some(Fault::Cut) => {
            let (send, parts) = mpsc::unbounded_channel();
            let _ = send.send(Part::Text(half.to_owned()));
            let _ = send.send(Part::Cut);
            return streamed(parts);
        }
        Some(Fault::ErrorEvent(code)) => return ok(Body::from(error_event(code))),
        Some(Fault::Endless(bytes)) => return ok(Body::from("x".repeat(bytes))),
        Some(Fault::Ends) => return ok(Body::empty()),
    }
    let mut pods = lock(&pods);
    match verb {
        Verb::List => pods.list(&query),
        Verb::Watch | Verb::Get => pods.watch(&query),
    }
}

/// Any node, and the namespace `kube-system`.
fn object(pods: &Shared, uri: &Uri) -> Response {
    let path = uri.path().strip_prefix("/api/v1/");
    let (kind, name) = match path.and_then(|path| path.split_once('/')) {
        Some(("nodes", name)) => ("Node", name),
        Some(("namespaces", "kube-system")) => ("Namespace", "kube-system"),
        _ => return status(404, "the server could not find the requested resource"),
    };
    if let Some(Fault::Status(code, message)) = lock(pods).fault(Verb::Get) {
        return status(code, message);
    }
    let metadata = json!({"name": name, "uid": format!("uid-{name}")});
    let object = json!({"kind": kind, "apiVersion": "v1", "metadata": metadata});
    ok(Body::from(object.to_string()))
}

fn lock(pods: &Mutex<Pods>) -> MutexGuard<'_, Pods> {
    pods.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ok(body: Body) -> Response {
    ([("content-type", "application/json")], body).into_response()
}

/// `v1.Status`.
fn failure(code: u16, message: &str) -> Value {
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        410 => "Expired",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
}

fn status(code: u16, message: &str) -> Response {
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = [("content-type", "application/json")];
    (status, json, failure(code, message).to_string()).into_response()
}

fn error_event(code: u16) -> String {
    let object = failure(code, "too old resource version");
    format!("{}\n", json!({"type": "ERROR", "object": object}))
}

fn streamed(parts: mpsc::UnboundedReceiver<Part>) -> Response {
    let body = stream::unfold(parts, |mut parts| async move {
        let part = match parts.recv().await? {
            Part::Text(text) => Ok(text),
            Part::Cut => {
                // What was sent before is to arrive before the end.
                tokio::time::sleep(Duration::from_millis(50)).await;
                Err(io::Error::from(io::ErrorKind::ConnectionReset))
            }
        };
        Some((part, parts))
    });
    ok(Body::from_stream(body))
}

fn selects(query: &BTreeMap<String, String>, pod: &Value) -> bool {
    let node = query
        .get("fieldSelector")
        .and_then(|selector| selector.strip_prefix("spec.nodeName="));
    node.is_none_or(|node| pod["spec"]["nodeName"] == *node)
}

fn key(pod: &Value) -> Result<(String, String)> {
    let text = |field: &str| {
        let text = pod["metadata"][field].as_str();
        text.map(str::to_owned)
            .context("a pod has a namespace and a name")
    };
    Ok((text("namespace")?, text("name")?))
}

fn query(uri: &Uri) -> BTreeMap<String, String> {
    let pairs = uri.query().unwrap_or_default().split('&');
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (decoded(key), decoded(value)))
        .collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after
            .get(..2)
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (first, code) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
                continue;
            }
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(first),
        }
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
