//! A runtime to test against: answers on a socket what it is told to.

use std::{
    fs,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    thread::{self, JoinHandle},
    time::Duration,
};

use axum::{Router, body::Body, routing::post};
use prost::Message;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::oneshot,
    time,
};
use tonic::{
    Response, Status,
    codegen::tokio_stream::Stream,
    server::Grpc,
    service::Routes,
    transport::{Server, server::Router as Serving},
};
use tonic_prost::ProstCodec;

use super::messages::*;

/// What the runtime has and how it behaves.
#[derive(Debug, Default)]
pub struct World {
    pub sandboxes: Vec<PodSandbox>,
    pub containers: Vec<Container>,
    /// Before each answer.
    pub delay: Duration,
    /// How many times containers were listed.
    pub lists: usize,
}

/// A served [`World`]; what is connected to it breaks when it is dropped.
#[derive(Debug)]
pub struct Fake {
    pub world: Arc<Mutex<World>>,
    socket: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    pub fn start(socket: &Path) -> Self {
        Self::resume(socket, Arc::default())
    }

    /// Serves a world as it was left.
    pub fn resume(socket: &Path, world: Arc<Mutex<World>>) -> Self {
        let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        let served = Arc::clone(&world);
        let (stop, stopped) = oneshot::channel();
        // With a runtime of its own end the connections that were accepted, too.
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let incoming = Incoming(UnixListener::from_std(listener).unwrap());
                tokio::select! {
                    ended = serving(&served).serve_with_incoming(incoming) => ended.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        Self {
            world,
            socket: socket.to_owned(),
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Ends it with its connections; gives what it had.
    pub fn stop(self) -> Arc<Mutex<World>> {
        Arc::clone(&self.world)
    }

    pub fn with<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        change(&mut self.world.lock().unwrap())
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = fs::remove_file(&self.socket);
    }
}

fn serving(world: &Arc<Mutex<World>>) -> Serving {
    let version = method(world, |_, _: VersionRequest| VersionResponse {
        runtime_name: "containerd".into(),
        runtime_version: "1.6.20".into(),
    });
    let containers = method(world, |world, _: ListContainersRequest| {
        world.lists += 1;
        ListContainersResponse {
            containers: world.containers.clone(),
        }
    });
    let sandboxes = method(world, |world, _: ListPodSandboxRequest| {
        ListPodSandboxResponse {
            items: world.sandboxes.clone(),
        }
    });
    let routes = Router::new()
        .route("/runtime.v1.RuntimeService/Version", version)
        .route("/runtime.v1.RuntimeService/ListContainers", containers)
        .route("/runtime.v1.RuntimeService/ListPodSandbox", sandboxes);
    Server::builder().add_routes(Routes::from(routes))
}

fn method<Q, A>(
    world: &Arc<Mutex<World>>,
    answer: fn(&mut World, Q) -> A,
) -> axum::routing::MethodRouter
where
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
{
    let world = Arc::clone(world);
    post(move |request: http::Request<Body>| {
        let world = Arc::clone(&world);
        async move {
            let service = tower::service_fn(move |request: tonic::Request<Q>| {
                let world = Arc::clone(&world);
                async move {
                    let delay = world.lock().unwrap().delay;
                    time::sleep(delay).await;
                    let answer = answer(&mut world.lock().unwrap(), request.into_inner());
                    Ok::<_, Status>(Response::new(answer))
                }
            });
            let mut grpc = Grpc::new(ProstCodec::<A, Q>::default());
            grpc.unary(service, request).await
        }
    })
}

/// The connections to a listener; they break with the task that serves it.
struct Incoming(UnixListener);

impl Stream for Incoming {
    type Item = std::io::Result<UnixStream>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0
            .poll_accept(context)
            .map(|accepted| Some(accepted.map(|(stream, _)| stream)))
    }
}

/// A gRPC server that knows no method, as containerd without its CRI plugin.
pub fn without_cri(socket: &Path) {
    let listener = UnixListener::bind(socket).unwrap();
    let serving = Server::builder().add_routes(Routes::default());
    tokio::spawn(async move { serving.serve_with_incoming(Incoming(listener)).await });
}
