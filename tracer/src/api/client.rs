//! Asks a running agent over its socket.
//!
//! [`Client`] for who has a runtime, [`Blocking`] for who has none. What is answered is bounded in size and
//! time: whatever listens there, a command ends.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::{Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use nix::unistd::geteuid;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use crate::host::escape;

use super::{
    parameters::target,
    query::{CgroupQuery, IncidentQuery, LeakQuery, TimelineQuery},
    records::{
        AgentRecord, CgroupDetails, CgroupRow, IncidentRecord, LeakRecord, Listed, Timeline,
    },
};

/// Longest answer.
const MOST_BYTES: usize = 256 << 20;
/// Time for a question and its whole answer: more than the agent takes under load.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most characters of what the agent says of an error.
const MOST_SHOWN: usize = 2000;
/// Of an id that is asked for; the rest cannot be of one.
const MOST_ID_BYTES: usize = 256;

/// The agent did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "no agent answers on {}: {source}\nstart one (sudo memtrace run, or systemctl start memtrace), or name its socket with --socket",
        socket.display()
    )]
    NotRunning {
        socket: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("not permitted to ask the agent on {}\nrun it as root (with sudo), as the agent is", socket.display())]
    NotPermitted { socket: PathBuf },
    #[error(
        "what listens on {} is of user {user}, neither root nor you: it was asked nothing\n\
         name the socket of an agent with --socket, or ask as that user: sudo -u '#{user}' memtrace …",
        socket.display()
    )]
    NotTrusted { socket: PathBuf, user: u32 },
    #[error("{message}")]
    Refused {
        /// Of HTTP.
        status: u16,
        /// By the agent, escaped.
        message: String,
    },
    #[error("what answers on {} is no agent that this memtrace understands: {cause}", socket.display())]
    BadAnswer { socket: PathBuf, cause: String },
    #[error(
        "the agent on {} did not answer within {} s: it may be stopped, or the host is short of CPU",
        socket.display(), after.as_secs()
    )]
    TimedOut { socket: PathBuf, after: Duration },
}

impl ClientError {
    /// 77 is `EX_NOPERM` of sysexits.h.
    pub fn exit_code(&self) -> u8 {
        match self {
            ClientError::NotPermitted { .. } => 77,
            _ => 1,
        }
    }
}

#[derive(Deserialize)]
struct ErrorRecord {
    error: String,
}

/// Asks the agent that listens on one socket; a connection for each question.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    patience: Duration,
}

impl Client {
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
            patience: PATIENCE,
        }
    }

    /// Waits for an answer this long.
    #[must_use]
    pub fn within(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// # Errors
    /// As all questions: nobody answers, or not what was asked.
    pub async fn agent(&self) -> Result<AgentRecord, ClientError> {
        self.get("/v1/agent").await
    }

    /// # Errors
    /// As [`Client::agent`].
    pub async fn cgroups(&self, query: &CgroupQuery) -> Result<Listed<CgroupRow>, ClientError> {
        self.get(&target("/v1/cgroups", &query.pairs())).await
    }

    /// # Errors
    /// As [`Client::agent`]; [`ClientError::Refused`] with 404 if the agent does not know it.
    pub async fn cgroup(&self, id: u64) -> Result<CgroupDetails, ClientError> {
        self.get(&format!("/v1/cgroups/{id}")).await
    }

    /// # Errors
    /// As [`Client::agent`].
    pub async fn leaks(&self, query: &LeakQuery) -> Result<Listed<LeakRecord>, ClientError> {
        self.get(&target("/v1/leaks", &query.pairs())).await
    }

    /// # Errors
    /// As [`Client::agent`].
    pub async fn timelines(&self, query: &TimelineQuery) -> Result<Listed<Timeline>, ClientError> {
        self.get(&target("/v1/timelines", &query.pairs())).await
    }

    /// # Errors
    /// As [`Client::agent`].
    pub async fn incidents(
        &self,
        query: &IncidentQuery,
    ) -> Result<Listed<IncidentRecord>, ClientError> {
        self.get(&target("/v1/incidents", &query.pairs())).await
    }

    /// `id`: also the beginning of one, or `latest`.
    ///
    /// # Errors
    /// As [`Client::agent`]; [`ClientError::Refused`] with 404 if there is none, 409 if there are several.
    pub async fn incident(&self, id: &str) -> Result<IncidentRecord, ClientError> {
        let is_of_id = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if id.is_empty() || id.len() > MOST_ID_BYTES || !id.chars().all(is_of_id) {
            return Err(ClientError::Refused {
                status: StatusCode::NOT_FOUND.as_u16(),
                message: format!("{} is no id of an incident", shown(id)),
            });
        }
        self.get(&format!("/v1/incidents/{id}")).await
    }

    /// SVG of what holds the memory of a cgroup that is watched.
    ///
    /// # Errors
    /// As [`Client::agent`]; [`ClientError::Refused`] with 404 if nothing is sampled of it.
    pub async fn flamegraph(&self, id: u64) -> Result<Bytes, ClientError> {
        self.bytes(&format!("/v1/cgroups/{id}/flamegraph.svg"))
            .await
    }

    async fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        let bytes = self.bytes(target).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.bad(&error.to_string()))
    }

    async fn bytes(&self, target: &str) -> Result<Bytes, ClientError> {
        let asked = self.ask(target);
        let timed_out = |_| ClientError::TimedOut {
            socket: self.socket.clone(),
            after: self.patience,
        };
        tokio::time::timeout(self.patience, asked)
            .await
            .map_err(timed_out)?
    }

    async fn ask(&self, target: &str) -> Result<Bytes, ClientError> {
        let stream = UnixStream::connect(&self.socket).await;
        let stream = stream.map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => ClientError::NotPermitted {
                socket: self.socket.clone(),
            },
            _ => ClientError::NotRunning {
                socket: self.socket.clone(),
                source,
            },
        })?;
        self.trust(&stream)?;
        let bad = |error: hyper::Error| self.bad(&error.to_string());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(bad)?;
        let request = Request::get(target)
            .header(header::HOST, "localhost")
            .body(Empty::<Bytes>::new())
            .map_err(|error| self.bad(&error.to_string()))?;
        let answered = async {
            let response = sender.send_request(request).await.map_err(bad)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MOST_BYTES)
                .collect()
                .await;
            let body = body.map_err(|error| match error.is::<LengthLimitError>() {
                true => self.bad(&format!("its answer is longer than {MOST_BYTES} bytes")),
                false => self.bad(&error.to_string()),
            })?;
            Ok((status, body.to_bytes()))
        };
        tokio::pin!(answered, connection);
        let (status, bytes) = tokio::select! {
            biased;
            answered = &mut answered => answered?,
            // Its end may be known before that of the answer.
            _ = &mut connection => answered.await?,
        };
        match status {
            StatusCode::OK => Ok(bytes),
            status => Err(self.refused(status, &bytes)),
        }
    }

    /// Anybody may have put a socket where one is looked for: whose it is, the kernel says.
    fn trust(&self, stream: &UnixStream) -> Result<(), ClientError> {
        let peer = stream
            .peer_cred()
            .map_err(|source| ClientError::NotRunning {
                socket: self.socket.clone(),
                source,
            })?;
        match peer.uid() {
            user if user == 0 || user == geteuid().as_raw() => Ok(()),
            user => Err(ClientError::NotTrusted {
                socket: self.socket.clone(),
                user,
            }),
        }
    }

    fn refused(&self, status: StatusCode, bytes: &[u8]) -> ClientError {
        match serde_json::from_slice(bytes) {
            Ok(ErrorRecord { error }) => ClientError::Refused {
                status: status.as_u16(),
                // In one line: it looks like none of memtrace's own.
                message: escape::again(&error, MOST_SHOWN),
            },
            Err(_) => self.bad(&format!("HTTP status {}", status.as_u16())),
        }
    }

    fn bad(&self, cause: &str) -> ClientError {
        ClientError::BadAnswer {
            socket: self.socket.clone(),
            cause: shown(cause),
        }
    }
}

/// In one line.
fn shown(text: &str) -> String {
    escape::display(text.as_bytes(), MOST_SHOWN)
}

/// The same for who has no runtime.
#[derive(Debug)]
pub struct Blocking {
    client: Client,
    runtime: tokio::runtime::Runtime,
}

impl Blocking {
    /// # Errors
    /// No event loop can be made: no file descriptor is left.
    pub fn new(client: Client) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Self { client, runtime })
    }

    /// # Errors
    /// As [`Client::agent`]; the same for the others.
    pub fn agent(&self) -> Result<AgentRecord, ClientError> {
        self.runtime.block_on(self.client.agent())
    }

    /// # Errors
    /// As [`Client::cgroups`].
    pub fn cgroups(&self, query: &CgroupQuery) -> Result<Listed<CgroupRow>, ClientError> {
        self.runtime.block_on(self.client.cgroups(query))
    }

    /// # Errors
    /// As [`Client::cgroup`].
    pub fn cgroup(&self, id: u64) -> Result<CgroupDetails, ClientError> {
        self.runtime.block_on(self.client.cgroup(id))
    }

    /// # Errors
    /// As [`Client::leaks`].
    pub fn leaks(&self, query: &LeakQuery) -> Result<Listed<LeakRecord>, ClientError> {
        self.runtime.block_on(self.client.leaks(query))
    }

    /// # Errors
    /// As [`Client::timelines`].
    pub fn timelines(&self, query: &TimelineQuery) -> Result<Listed<Timeline>, ClientError> {
        self.runtime.block_on(self.client.timelines(query))
    }

    /// # Errors
    /// As [`Client::incidents`].
    pub fn incidents(&self, query: &IncidentQuery) -> Result<Listed<IncidentRecord>, ClientError> {
        self.runtime.block_on(self.client.incidents(query))
    }

    /// # Errors
    /// As [`Client::incident`].
    pub fn incident(&self, id: &str) -> Result<IncidentRecord, ClientError> {
        self.runtime.block_on(self.client.incident(id))
    }

    /// # Errors
    /// As [`Client::flamegraph`].
    pub fn flamegraph(&self, id: u64) -> Result<Bytes, ClientError> {
        self.runtime.block_on(self.client.flamegraph(id))
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
