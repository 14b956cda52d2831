//! The thread that answers on the socket, and what it asks the agent.
//!
//! A thread of its own: an answer of many megabytes delays no probe of liveness. The agent hands over what
//! is cheap to hand over; choosing, ordering and writing happen here.

use std::{os::unix::net::UnixListener, path::PathBuf, sync::Arc, time::Duration};

use axum::Router;
use tokio::sync::{mpsc, oneshot};

use crate::{
    export::prometheus::{bounded, turns::Turns},
    stacks::profile::Profile,
};

use super::{
    answer,
    query::{LeakQuery, TimelineQuery},
    records::{AgentRecord, CgroupDetails, LeakRecord, Listed, Timeline},
    rows::Sources,
    socket::{ApiSocket, SocketError},
};

/// Connections at the same time.
pub const MOST_CONNECTIONS: usize = 16;
/// Questions that wait for the agent.
const MOST_ASKS: usize = 8;
/// Lists and profiles that are held while they are read; whoever asks for one thing needs no turn.
const MOST_ANSWERS: usize = 6;
/// Threads that read the store and draw profiles, for as long as somebody asks.
const WORKERS: usize = 2;
const WORKERS_REST: Duration = Duration::from_secs(5);

/// A question to the agent. One that is not answered is an error to who asked.
#[derive(Debug)]
pub enum Ask {
    Agent(oneshot::Sender<Box<AgentRecord>>),
    Cgroups {
        /// With the history of usage.
        histories: bool,
        answer: oneshot::Sender<Sources>,
    },
    Cgroup(u64, oneshot::Sender<Option<Box<CgroupDetails>>>),
    Profile(u64, oneshot::Sender<Result<Arc<Profile>, NoProfile>>),
    Leaks(LeakQuery, oneshot::Sender<Listed<LeakRecord>>),
    Timelines(TimelineQuery, oneshot::Sender<Listed<Timeline>>),
}

/// Why there is no profile of a cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoProfile {
    #[error("no memory cgroup has this id")]
    NoCgroup,
    #[error(
        "pages are not sampled by this agent: --stacks is off, or `memtrace doctor` says what the kernel lacks"
    )]
    NotSampled,
    #[error(
        "nothing is sampled of this cgroup: only those that grow are watched; `memtrace record --cgroup` looks at any"
    )]
    NotWatched,
}

/// The server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("cannot start the thread that answers on {}: {source}", path.display())]
    Thread {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// A running server. Dropping it ends it and removes its socket.
#[derive(Debug)]
pub struct ApiServer {
    asks: mpsc::Receiver<Ask>,
    _stop: oneshot::Sender<()>,
    _socket: ApiSocket,
}

/// What answers share.
pub struct Shared {
    pub asks: mpsc::Sender<Ask>,
    pub turns: Arc<Turns>,
    /// Where incidents are stored; `None`: nowhere.
    pub state_dir: Option<PathBuf>,
}

impl ApiServer {
    /// Listens at `path` and starts the thread.
    ///
    /// # Errors
    /// The socket cannot be had, or no thread.
    pub fn start(path: &std::path::Path, state_dir: Option<PathBuf>) -> Result<Self, ApiError> {
        let (socket, listener) = ApiSocket::listen(path)?;
        let thread = |source| ApiError::Thread {
            path: path.to_owned(),
            source,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .thread_name("api-worker")
            .max_blocking_threads(WORKERS)
            .thread_keep_alive(WORKERS_REST)
            .build()
            .map_err(thread)?;
        let (asks, asked) = mpsc::channel(MOST_ASKS);
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::new(Shared {
            asks,
            turns: Turns::new(MOST_ANSWERS),
            state_dir,
        });
        std::thread::Builder::new()
            .name("api".to_owned())
            .spawn(move || {
                runtime.block_on(serve(listener, shared, stopped));
                // What still reads a slow disk ends with the process.
                runtime.shutdown_background();
            })
            .map_err(thread)?;
        Ok(Self {
            asks: asked,
            _stop: stop,
            _socket: socket,
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

async fn serve(listener: UnixListener, shared: Arc<Shared>, stopped: oneshot::Receiver<()>) {
    let listener = match tokio::net::UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return log::warn!("no answers on the API's socket: {error}"),
    };
    let router = Router::new().fallback(answer::answer).with_state(shared);
    let process = |stream: &tokio::net::UnixStream, _: &_| {
        let peer = stream.peer_cred().ok();
        peer.and_then(|peer| peer.pid())
    };
    tokio::select! {
        () = bounded::serve_peers(listener, router, MOST_CONNECTIONS, process) => {}
        _ = stopped => {}
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
