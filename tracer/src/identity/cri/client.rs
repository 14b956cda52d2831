//! Calls to a runtime over its CRI socket, and what their failures mean to a person.
//!
//! Owns one connection; must not make another when it is lost.

use std::{
    error::Error,
    fmt, io,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use thiserror::Error;
use tokio::{net::UnixStream, time};
use tonic::{Code, Request, Status, client::Grpc, transport::Channel, transport::Endpoint};
use tonic_prost::ProstCodec;

use super::messages::{
    Container, ListContainersRequest, ListContainersResponse, ListPodSandboxRequest,
    ListPodSandboxResponse, PodSandbox, VersionRequest, VersionResponse,
};
use crate::{grpc_answer::Repairing, host::escape::display, identity::path::Runtime};

/// The longest that a call may take.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// The longest answer. Source: kubelets take as much (`maxMsgSize` in `cri-client`).
const MOST_BYTES: usize = 16 << 20;
const MOST_MESSAGE_CHARS: usize = 200;

/// A runtime does not answer.
#[derive(Debug, Error)]
#[error("{}: {cause}", display(socket.as_os_str().as_encoded_bytes(), 200))]
pub struct CriError {
    socket: PathBuf,
    cause: Cause,
}

/// Why, and what to do about it.
#[derive(Debug, Error)]
enum Cause {
    #[error(
        "there is no such socket; start the container runtime or name its socket by --cri-socket"
    )]
    Missing,
    #[error(
        "permission denied; run memtrace as root or as a member of the group that owns the socket, \
         and in a container mount the socket"
    )]
    Denied,
    #[error(
        "nothing listens there; start the container runtime or name its socket by --cri-socket"
    )]
    Refused,
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error(
        "no answer to {method} within {} s; the container runtime hangs or is overloaded",
        PATIENCE.as_secs()
    )]
    Slow { method: &'static str },
    #[error(
        "it does not serve CRI v1 ({0}); enable the runtime's CRI plugin (containerd: \
         disabled_plugins) or update it to containerd 1.6 or CRI-O 1.23"
    )]
    NotServed(String),
    #[error("the connection was lost or does not speak gRPC ({0}); is it a CRI socket?")]
    Broken(String),
    #[error("{method} failed: {code:?} {message}")]
    Refusal {
        method: &'static str,
        code: Code,
        message: String,
    },
}

impl CriError {
    fn new(socket: &Path, cause: Cause) -> Self {
        Self {
            socket: socket.to_owned(),
            cause,
        }
    }

    /// A connection that was good before may have ended with a restart of the runtime.
    pub fn is_lost_connection(&self) -> bool {
        matches!(self.cause, Cause::Broken(_))
    }
}

/// A connection to a runtime that has told its version.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    grpc: Grpc<Repairing<Channel>>,
    /// `None`: another than those that memtrace knows.
    pub runtime: Option<Runtime>,
}

impl Client {
    /// Connects and asks for the version.
    ///
    /// # Errors
    /// Nobody answers, or not in CRI v1.
    pub async fn connect(socket: &Path) -> Result<Self, CriError> {
        let error = |cause| CriError::new(socket, cause);
        let stream = time::timeout(PATIENCE, UnixStream::connect(socket))
            .await
            .map_err(|_| error(Cause::Slow { method: "connect" }))?
            .map_err(|cause| {
                error(match cause.kind() {
                    io::ErrorKind::NotFound => Cause::Missing,
                    io::ErrorKind::PermissionDenied => Cause::Denied,
                    io::ErrorKind::ConnectionRefused => Cause::Refused,
                    _ => Cause::Connect(cause),
                })
            })?;
        let channel = time::timeout(PATIENCE, over(stream))
            .await
            .map_err(|_| error(Cause::Slow { method: "connect" }))?
            .map_err(|cause| error(Cause::Broken(innermost(&cause))))?;
        let mut client = Self {
            socket: socket.to_owned(),
            grpc: Grpc::new(Repairing(channel)).max_decoding_message_size(MOST_BYTES),
            runtime: None,
        };
        let version: VersionResponse = client
            .call(
                "/runtime.v1.RuntimeService/Version",
                VersionRequest {
                    version: "v1".into(),
                },
            )
            .await?;
        client.runtime = match version.runtime_name.as_str() {
            "containerd" => Some(Runtime::Containerd),
            "cri-o" => Some(Runtime::CriO),
            "docker" => Some(Runtime::Docker),
            _ => None,
        };
        Ok(client)
    }

    /// All containers, dead ones too.
    ///
    /// # Errors
    /// The runtime does not tell in time.
    pub async fn containers(&mut self) -> Result<Vec<Container>, CriError> {
        let request = ListContainersRequest {};
        let answer: ListContainersResponse = self
            .call("/runtime.v1.RuntimeService/ListContainers", request)
            .await?;
        Ok(answer.containers)
    }

    /// All sandboxes, dead ones too.
    ///
    /// # Errors
    /// The runtime does not tell in time.
    pub async fn sandboxes(&mut self) -> Result<Vec<PodSandbox>, CriError> {
        let request = ListPodSandboxRequest {};
        let answer: ListPodSandboxResponse = self
            .call("/runtime.v1.RuntimeService/ListPodSandbox", request)
            .await?;
        Ok(answer.items)
    }

    async fn call<Q, A>(&mut self, path: &'static str, request: Q) -> Result<A, CriError>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let method = path.rsplit('/').next().unwrap_or(path);
        let grpc = &mut self.grpc;
        let answer = time::timeout(PATIENCE, async {
            let ready = grpc.ready().await;
            ready.map_err(|cause| Cause::Broken(innermost(&cause)))?;
            let path = PathAndQuery::from_static(path);
            let codec = ProstCodec::<Q, A>::default();
            let answer = grpc.unary(Request::new(request), path, codec).await;
            answer.map_err(|status| of_status(method, &status))
        });
        match answer.await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(cause)) => Err(CriError::new(&self.socket, cause)),
            Err(_) => Err(CriError::new(&self.socket, Cause::Slow { method })),
        }
    }
}

/// A channel over this stream, which cannot reconnect.
async fn over(stream: UnixStream) -> Result<Channel, tonic::transport::Error> {
    let stream = Mutex::new(Some(TokioIo::new(stream)));
    let connector = tower::service_fn(move |_| {
        let stream = stream.lock().ok().and_then(|mut stream| stream.take());
        async move { stream.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionAborted)) }
    });
    // The name is not looked up; gRPC wants one.
    Endpoint::from_static("http://localhost")
        .connect_with_connector(connector)
        .await
}

fn of_status(method: &'static str, status: &Status) -> Cause {
    let message = printable(status.message());
    match status.code() {
        Code::Unimplemented => Cause::NotServed(message),
        // With a source the status was made here: no answer came.
        _ if status.source().is_some() => Cause::Broken(innermost(status)),
        code => Cause::Refusal {
            method,
            code,
            message,
        },
    }
}

fn innermost(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    printable(innermost)
}

fn printable(text: impl fmt::Display) -> String {
    display(text.to_string().as_bytes(), MOST_MESSAGE_CHARS)
}
