use std::{fs, path::PathBuf};

use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::{root::Root, *};
use crate::identity::{directory::Directory, names::NamingOptions, path::parse};

/// A host with Docker and Podman, and the follower under test.
struct Followed {
    host: TempDir,
    updates: mpsc::Receiver<Update>,
    wanted: mpsc::Sender<Wanted>,
    left_out: Arc<AtomicU64>,
    present: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn id(number: usize) -> String {
    format!("{number:064x}")
}

fn docker_file(host: &TempDir, number: usize) -> PathBuf {
    host.path()
        .join("var/lib/docker/containers")
        .join(id(number))
        .join("config.v2.json")
}

/// As Docker does: another file in its place.
fn write_docker(host: &TempDir, number: usize, name: &str) {
    let file = docker_file(host, number);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let text = format!(
        r#"{{"ID":"{}","Name":"/{name}","Image":"sha256:ab","Config":{{"Image":"redis:7","Labels":null}}}}"#,
        id(number)
    );
    fs::write(file.with_extension("new"), text).unwrap();
    fs::rename(file.with_extension("new"), file).unwrap();
}

fn write_podman(host: &TempDir, numbers: &[usize]) {
    let list = host
        .path()
        .join("var/lib/containers/storage/overlay-containers/volatile-containers.json");
    fs::create_dir_all(list.parent().unwrap()).unwrap();
    let entry = |number: &usize| {
        let metadata = r#"{\"image-name\":\"quay.io/x:1\",\"name\":\"p\"}"#;
        format!(
            r#"{{"id":"{}","names":["p{number}"],"image":"","metadata":"{metadata}"}}"#,
            id(*number)
        )
    };
    let entries: Vec<_> = numbers.iter().map(entry).collect();
    fs::write(
        list.with_extension("new"),
        format!("[{}]", entries.join(",")),
    )
    .unwrap();
    fs::rename(list.with_extension("new"), list).unwrap();
}

impl Followed {
    fn new(prepare: impl FnOnce(&TempDir)) -> Self {
        Self::on(PACE, |host| {
            fs::create_dir_all(host.path().join("var/lib/docker/containers")).unwrap();
            write_podman(host, &[]);
            prepare(host);
        })
    }

    fn on(pace: Pace, prepare: impl FnOnce(&TempDir)) -> Self {
        let host = tempfile::tempdir().unwrap();
        prepare(&host);
        let config = FilesConfig::find(Root::at(host.path()));
        let (send, updates) = mpsc::channel(256);
        let (wanted, take) = mpsc::channel(1024);
        let left_out = Arc::default();
        let present = Arc::new(AtomicBool::new(!config.is_empty()));
        let following = follow_at(
            pace,
            config,
            send,
            take,
            Arc::clone(&left_out),
            Arc::clone(&present),
        );
        let task = tokio::spawn(following);
        Self {
            host,
            updates,
            wanted,
            left_out,
            present,
            task,
        }
    }

    async fn next(&mut self) -> Update {
        let next = time::timeout(Duration::from_secs(5), self.updates.recv());
        next.await.expect("no update").expect("it ended")
    }

    async fn names(&mut self) -> Vec<String> {
        match self.next().await {
            Update::RuntimeChanged {
                source: Source::Files,
                containers,
                gone,
            } if gone.is_empty() => {
                let names = containers.into_iter();
                names.map(|listed| listed.container.name).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    async fn nothing_for(&mut self, ms: u64) {
        let next = time::timeout(Duration::from_millis(ms), self.updates.recv()).await;
        assert!(next.is_err(), "{next:?}");
    }

    async fn want(&self, number: usize) {
        let container_id = id(number);
        self.wanted.send(Wanted { container_id }).await.unwrap();
    }

    async fn synced(&mut self) {
        let synced = Update::Source(Source::Files, SourceState::Synced);
        assert_eq!(self.next().await, synced);
    }
}

#[tokio::test]
async fn a_wanted_container_is_told_when_it_is_asked_for_and_not_at_the_next_look() {
    let mut followed = Followed::new(|_| {});
    followed.synced().await;
    time::sleep(GAP).await;
    write_docker(&followed.host, 1, "web");
    write_podman(&followed.host, &[2]);
    for (number, name) in [(1, "web"), (2, "p2")] {
        let asked = Instant::now();
        followed.want(number).await;
        assert_eq!(followed.names().await, [name]);
        let took = asked.elapsed();
        assert!(took < PACE.with_stores / 2, "{took:?}");
    }
}

#[tokio::test]
async fn a_host_full_of_containers_is_named_at_the_start() {
    let mut followed = Followed::new(|host| {
        for number in 0..700 {
            write_docker(host, number, &format!("c{number}"));
        }
    });
    for number in 0..700 {
        followed.want(number).await;
    }
    let mut named = 0;
    while named < 700 {
        match followed.next().await {
            Update::RuntimeChanged { containers, .. } => named += containers.len(),
            Update::Source(..) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(followed.left_out.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_file_that_comes_late_is_found_by_another_look() {
    let mut followed = Followed::new(|_| {});
    followed.synced().await;
    followed.want(1).await;
    followed.nothing_for(50).await;
    write_docker(&followed.host, 1, "late");
    assert_eq!(followed.names().await, ["late"]);
}

#[tokio::test]
async fn what_is_wanted_again_is_told_again() {
    let mut followed = Followed::new(|host| write_docker(host, 1, "web"));
    followed.synced().await;
    for _ in 0..2 {
        followed.want(1).await;
        assert_eq!(followed.names().await, ["web"]);
    }
}

#[test]
fn renamed_and_removed_containers_are_told_by_the_next_look_at_all() {
    let host = tempfile::tempdir().unwrap();
    for number in 1..4 {
        write_docker(&host, number, &format!("c{number}"));
    }
    write_podman(&host, &[4]);
    let config = FilesConfig::find(Root::at(host.path()));
    let mut reader = Reader::new(&config);
    let first = reader.look((1..6).map(id).collect(), true);
    assert_eq!((first.containers.len(), first.known.len()), (4, 4));
    let quiet = reader.look(Vec::new(), true);
    assert!(
        quiet.containers.is_empty() && quiet.gone.is_empty(),
        "{quiet:?}"
    );

    write_docker(&host, 1, "renamed");
    fs::remove_dir_all(docker_file(&host, 2).parent().unwrap()).unwrap();
    write_podman(&host, &[]);
    let mut later = reader.look(Vec::new(), true);
    assert_eq!(later.containers.len(), 1);
    assert_eq!(later.containers[0].container.name, "renamed");
    later.gone.sort();
    assert_eq!(later.gone, [id(2), id(4)]);
    assert!(later.problem.is_none());
}

#[test]
fn a_file_that_cannot_be_read_spoils_no_other() {
    let host = tempfile::tempdir().unwrap();
    write_docker(&host, 1, "web");
    write_docker(&host, 2, "torn");
    fs::write(docker_file(&host, 2), "{").unwrap();
    let config = FilesConfig::find(Root::at(host.path()));
    let looked = Reader::new(&config).look(vec![id(2), id(1)], true);
    assert_eq!(looked.containers.len(), 1);
    assert!(looked.problem.is_none() && !looked.known.contains(&id(2)));
}

#[test]
fn a_file_that_cannot_be_read_in_one_store_hides_no_other_store() {
    let host = tempfile::tempdir().unwrap();
    write_docker(&host, 1, "torn");
    fs::write(docker_file(&host, 1), "{").unwrap();
    write_podman(&host, &[1]);
    let config = FilesConfig::find(Root::at(host.path()));
    let looked = Reader::new(&config).look(vec![id(1)], true);
    assert_eq!(looked.containers.len(), 1, "{looked:?}");
    assert_eq!(looked.containers[0].container.name, "p1");
    assert!(looked.known.contains(&id(1)));
}

#[tokio::test]
async fn a_list_that_cannot_be_read_is_told_and_got_over() {
    let list = "var/lib/containers/storage/overlay-containers/volatile-containers.json";
    let mut followed = Followed::new(|host| fs::write(host.path().join(list), "[{").unwrap());
    let told = followed.next().await;
    let Update::Source(Source::Files, SourceState::Failing(why)) = told else {
        panic!("{told:?}");
    };
    assert!(why.starts_with("/var/lib/containers/storage/"), "{why}");
    // Docker goes on.
    write_docker(&followed.host, 1, "web");
    followed.want(1).await;
    assert_eq!(followed.names().await, ["web"]);
}

#[tokio::test]
async fn it_ends_when_nobody_listens() {
    let mut followed = Followed::new(|_| {});
    followed.synced().await;
    followed.updates.close();
    time::timeout(Duration::from_secs(1), &mut followed.task)
        .await
        .expect("it goes on")
        .unwrap();
}

#[tokio::test]
async fn the_cgroup_of_a_plain_container_has_its_name() {
    let mut followed = Followed::new(|host| write_docker(host, 1, "web"));
    followed.synced().await;
    followed.want(1).await;
    let mut directory = Directory::new(NamingOptions::default());
    directory.apply(followed.next().await, Duration::ZERO);
    let path = PathBuf::from(format!("/system.slice/docker-{}.scope", id(1)));
    let names = directory.names(&parse(&path));
    assert_eq!(names.short().as_deref(), Some("web"));
    assert_eq!(names.image.as_deref(), Some("redis:7"));
    assert_eq!(names.container_runtime.as_deref(), Some("docker"));
    assert_eq!((names.pod, names.service), (None, None));
    let below = parse(&path.join("init.scope"));
    assert_eq!(directory.names(&below).container, None);
}

#[tokio::test]
async fn stores_that_come_later_are_looked_into() {
    let soon = Pace {
        with_stores: Duration::from_millis(100),
        without: Duration::from_millis(50),
    };
    let mut followed = Followed::on(soon, |_| {});
    let absent = Update::Source(Source::Files, SourceState::Absent);
    assert_eq!(followed.next().await, absent);
    assert!(!followed.present.load(Ordering::Relaxed));
    write_docker(&followed.host, 1, "web");
    followed.synced().await;
    assert!(followed.present.load(Ordering::Relaxed));
    followed.want(1).await;
    assert_eq!(followed.names().await, ["web"]);
    // Podman beside Docker.
    write_podman(&followed.host, &[2]);
    time::sleep(soon.with_stores * 2).await;
    followed.want(2).await;
    assert_eq!(followed.names().await, ["p2"]);
}
