use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
    task::JoinHandle,
};

use super::{
    fake::{Fake, World},
    messages::{Container, ContainerMetadata, PodSandbox, PodSandboxMetadata},
    *,
};
use crate::identity::{
    facts::{ContainerKind, RuntimeContainer},
    path::Runtime,
};

/// The follower under test, on a socket of its own.
struct Followed {
    directory: TempDir,
    updates: mpsc::Receiver<Update>,
    wanted: mpsc::Sender<Wanted>,
    task: JoinHandle<()>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Followed {
    fn new(prepare: impl FnOnce(&Path)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("cri.sock");
        prepare(&socket);
        let (send, updates) = mpsc::channel(256);
        let (wanted, take) = mpsc::channel(64);
        let config = CriConfig::at(socket);
        let task = tokio::spawn(follow(config, send, take, Arc::default()));
        Self {
            directory,
            updates,
            wanted,
            task,
        }
    }

    /// With a runtime that has these.
    fn of(world: World) -> (Self, Fake) {
        let mut fake = None;
        let followed = Self::new(|socket| {
            fake = Some(Fake::resume(socket, Arc::new(Mutex::new(world))));
        });
        (followed, fake.unwrap())
    }

    fn socket(&self) -> std::path::PathBuf {
        self.directory.path().join("cri.sock")
    }

    async fn next(&mut self) -> Update {
        let next = time::timeout(Duration::from_secs(8), self.updates.recv());
        next.await.expect("no update").expect("it ended")
    }

    async fn containers(&mut self) -> Vec<RuntimeContainer> {
        match self.next().await {
            Update::RuntimeIs(Source::Cri, containers) => containers,
            other => panic!("{other:?}"),
        }
    }

    async fn state(&mut self) -> SourceState {
        match self.next().await {
            Update::Source(Source::Cri, state) => state,
            other => panic!("{other:?}"),
        }
    }

    async fn failing(&mut self) -> String {
        match self.state().await {
            SourceState::Failing(why) => why,
            other => panic!("{other:?}"),
        }
    }

    async fn nothing_for(&mut self, ms: u64) {
        let next = time::timeout(Duration::from_millis(ms), self.updates.recv()).await;
        assert!(next.is_err(), "{next:?}");
    }

    async fn want(&self, container_id: &str) {
        let container_id = container_id.into();
        self.wanted.send(Wanted { container_id }).await.unwrap();
    }
}

fn sandbox(number: usize) -> PodSandbox {
    PodSandbox {
        id: format!("5{number:063x}"),
        metadata: Some(PodSandboxMetadata {
            name: format!("shop-{number}"),
            uid: format!("00000000-0000-0000-0000-{number:012}"),
            namespace: "prod".into(),
        }),
        created_at: number as i64,
        ..PodSandbox::default()
    }
}

pub fn container(number: usize) -> Container {
    Container {
        id: id(number),
        pod_sandbox_id: sandbox(number).id,
        metadata: Some(ContainerMetadata {
            name: "web".into(),
            attempt: 2,
        }),
        state: 1,
        created_at: number as i64,
        ..Container::default()
    }
}

pub fn id(number: usize) -> String {
    format!("c{number:063x}")
}

pub fn world(numbers: std::ops::Range<usize>) -> World {
    World {
        sandboxes: numbers.clone().map(sandbox).collect(),
        containers: numbers.map(container).collect(),
        ..World::default()
    }
}

#[tokio::test]
async fn containers_and_sandboxes_come_with_their_pod_before_the_source_is_in_sync() {
    let (mut followed, _fake) = Followed::of(world(0..1));
    let told = followed.containers().await;
    assert_eq!(followed.state().await, SourceState::Synced);
    let [sandbox, web] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(sandbox.container.kind, ContainerKind::Sandbox);
    assert_eq!(sandbox.pod, web.pod);
    assert_eq!(web.container.id, Some(id(0)));
    assert_eq!(web.container.name, "web");
    assert_eq!(web.container.runtime, Some(Runtime::Containerd));
    assert_eq!(web.container.restart_count, Some(2));
    let pod = web.pod.as_ref().unwrap();
    assert_eq!(
        (pod.namespace.as_str(), pod.name.as_str()),
        ("prod", "shop-0")
    );
    assert_eq!(pod.sandbox_id, sandbox.container.id);
}

#[tokio::test]
async fn a_wanted_container_is_told_within_milliseconds() {
    let (mut followed, fake) = Followed::of(world(0..1));
    followed.containers().await;
    followed.state().await;
    time::sleep(GAP).await;
    fake.with(|world| world.containers.push(container(1)));
    let asked = Instant::now();
    followed.want(&id(1)).await;
    assert_eq!(followed.containers().await.len(), 3);
    assert!(
        asked.elapsed() < Duration::from_millis(40),
        "{:?}",
        asked.elapsed()
    );
}

#[tokio::test]
async fn wants_share_lists_and_known_containers_need_none() {
    let (mut followed, fake) = Followed::of(world(0..100));
    followed.containers().await;
    followed.state().await;
    followed.want(&id(50)).await;
    followed.nothing_for(100).await;
    assert_eq!(fake.with(|world| world.lists), 1);
    fake.with(|world| world.containers.extend((200..300).map(container)));
    for number in 200..300 {
        followed.want(&id(number)).await;
    }
    assert_eq!(followed.containers().await.len(), 300);
    followed.nothing_for(100).await;
    let lists = fake.with(|world| world.lists);
    assert!((2..=4).contains(&lists), "{lists} lists");
}

#[tokio::test]
async fn a_container_that_is_listed_late_is_found_by_another_look() {
    let (mut followed, fake) = Followed::of(world(0..1));
    followed.containers().await;
    followed.state().await;
    followed.want(&id(7)).await;
    followed.nothing_for(70).await;
    fake.with(|world| world.containers.push(container(7)));
    assert_eq!(followed.containers().await.len(), 3);
    followed.want(&id(8)).await;
    followed.nothing_for(800).await;
    let lists = fake.with(|world| world.lists);
    followed.nothing_for(300).await;
    assert_eq!(fake.with(|world| world.lists), lists, "it was given up");
}

#[tokio::test]
async fn a_restart_of_the_runtime_is_told_and_got_over() {
    let (mut followed, fake) = Followed::of(world(0..2));
    followed.containers().await;
    assert_eq!(followed.state().await, SourceState::Synced);
    let world = fake.stop();
    followed.want(&id(9)).await;
    let why = followed.failing().await;
    assert!(
        why.contains("cri.sock") && why.contains("--cri-socket"),
        "{why}"
    );
    world.lock().unwrap().containers.push(container(9));
    let _fake = Fake::resume(&followed.socket(), world);
    assert_eq!(followed.containers().await.len(), 5);
    assert_eq!(followed.state().await, SourceState::Synced);
}

#[tokio::test]
async fn a_restart_that_is_over_when_it_is_noticed_is_no_failure() {
    let (mut followed, fake) = Followed::of(world(0..2));
    followed.containers().await;
    followed.state().await;
    let world = fake.stop();
    let _fake = Fake::resume(&followed.socket(), Arc::clone(&world));
    world.lock().unwrap().containers.push(container(9));
    followed.want(&id(9)).await;
    assert_eq!(followed.containers().await.len(), 5);
    followed.nothing_for(200).await;
}

#[tokio::test]
async fn a_socket_that_is_missing_is_told_once_and_found_later() {
    let mut followed = Followed::new(|_| {});
    let why = followed.failing().await;
    assert!(why.contains("no such socket"), "{why}");
    followed.nothing_for(500).await;
    let fake = Fake::start(&followed.socket());
    fake.with(|world| *world = self::world(0..1));
    assert_eq!(followed.containers().await.len(), 2);
    assert_eq!(followed.state().await, SourceState::Synced);
}

#[tokio::test]
async fn a_runtime_that_is_too_slow_is_told() {
    let delay = PATIENCE_AND_MORE;
    let (mut followed, fake) = Followed::of(World {
        delay,
        ..world(0..1)
    });
    let why = followed.failing().await;
    assert!(why.contains("within 2 s"), "{why}");
    fake.with(|world| world.delay = Duration::ZERO);
    assert_eq!(followed.containers().await.len(), 2);
    assert_eq!(followed.state().await, SourceState::Synced);
}

const PATIENCE_AND_MORE: Duration = client::PATIENCE.saturating_add(Duration::from_secs(1));

#[tokio::test]
async fn what_does_not_speak_grpc_is_told() {
    for answer in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], &[0xff; 4096], b""] {
        let mut followed = Followed::new(|socket| {
            let listener = UnixListener::bind(socket).unwrap();
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let _ = stream.read(&mut [0; 64]).await;
                    let _ = stream.write_all(answer).await;
                }
            });
        });
        let why = followed.failing().await;
        assert!(why.contains("is it a CRI socket?"), "{why}");
        followed.nothing_for(150).await;
    }
}

#[tokio::test]
async fn a_runtime_without_cri_is_told_with_the_remedy() {
    let mut followed = Followed::new(fake::without_cri);
    let why = followed.failing().await;
    assert!(
        why.contains("CRI v1") && why.contains("disabled_plugins"),
        "{why}"
    );
}

#[tokio::test]
async fn a_thousand_containers_are_told_at_once_and_not_again() {
    let (mut followed, fake) = Followed::of(world(0..1000));
    assert_eq!(followed.containers().await.len(), 2000);
    assert_eq!(followed.state().await, SourceState::Synced);
    followed.want("unknown").await;
    followed.nothing_for(300).await;
    assert!(fake.with(|world| world.lists) >= 2);
}

#[tokio::test]
async fn a_flood_of_containers_that_there_are_not_has_the_runtime_asked_rarely() {
    let (mut followed, fake) = Followed::of(world(0..1));
    followed.containers().await;
    followed.state().await;
    let began = Instant::now();
    let mut number = 1000;
    while began.elapsed() < Duration::from_secs(4) {
        followed.want(&id(number)).await;
        number += 1;
        time::sleep(Duration::from_millis(5)).await;
    }
    let lists = fake.with(|world| world.lists);
    assert!((9..=14).contains(&lists), "{lists} lists in 4 s");
    // A real one is named nevertheless, and the next at once.
    fake.with(|world| world.containers.push(container(1)));
    let asked = Instant::now();
    followed.want(&id(1)).await;
    assert_eq!(followed.containers().await.len(), 3);
    assert!(asked.elapsed() < Duration::from_millis(1200));
    fake.with(|world| world.containers.push(container(2)));
    let asked = Instant::now();
    followed.want(&id(2)).await;
    assert_eq!(followed.containers().await.len(), 4);
    assert!(asked.elapsed() < Duration::from_millis(100));
}

#[tokio::test]
async fn it_ends_when_nobody_listens() {
    let (mut followed, _fake) = Followed::of(world(0..1));
    followed.containers().await;
    followed.state().await;
    followed.updates.close();
    time::timeout(Duration::from_secs(1), &mut followed.task)
        .await
        .expect("it goes on")
        .unwrap();
}

/// Follows what is at the first of two sockets, of which there is none yet.
fn absent(optional: bool) -> Followed {
    let directory = tempfile::tempdir().unwrap();
    let sockets = ["other.sock", "cri.sock"].map(|name| directory.path().join(name));
    let sockets = sockets.each_ref().map(|socket| socket.to_str().unwrap());
    let mut config = CriConfig::first_of(&sockets, optional, Path::exists);
    config.look_every = Duration::from_millis(100);
    let (send, updates) = mpsc::channel(256);
    let (wanted, take) = mpsc::channel(64);
    let task = tokio::spawn(follow(config, send, take, Arc::default()));
    Followed {
        directory,
        updates,
        wanted,
        task,
    }
}

#[tokio::test]
async fn a_runtime_that_comes_later_is_found_whether_asked_for_or_not() {
    for optional in [true, false] {
        let mut followed = absent(optional);
        match followed.state().await {
            SourceState::Absent => assert!(optional),
            SourceState::Failing(why) => {
                assert!(!optional);
                let told = why.contains("cri.sock") && why.contains("--cri-socket");
                assert!(told, "{why}");
            }
            other => panic!("{other:?}"),
        }
        followed.want(&id(1)).await;
        let fake = Fake::start(&followed.socket());
        fake.with(|fake| *fake = world(1..2));
        assert_eq!(followed.containers().await.len(), 2);
        assert_eq!(followed.state().await, SourceState::Synced);
        // Gone again, it is one that fails: it has been there.
        drop(fake);
        followed.want(&id(9)).await;
        let why = followed.failing().await;
        assert!(why.contains("cri.sock"), "{why}");
    }
}
