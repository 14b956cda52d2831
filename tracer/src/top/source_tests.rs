use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::sync_channel,
    },
    thread::JoinHandle,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::top::fixture::{MIB, agent, details, leaking, listed, sized};

/// Long enough for a machine under load.
const LONG: Duration = Duration::from_secs(60);

type Answer = dyn Fn(&str) -> (u16, Value) + Send + Sync;

/// A server on a Unix socket; gone with its socket when dropped.
struct Fake {
    socket: PathBuf,
    /// Targets of the requests so far.
    asked: Arc<Mutex<Vec<String>>>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    fn start(
        socket: PathBuf,
        answer: impl Fn(&str) -> (u16, Value) + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(&socket).unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let stopped = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (asked, stopped) = (Arc::clone(&asked), Arc::clone(&stopped));
            move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    if stopped.load(Ordering::SeqCst) {
                        return;
                    }
                    serve(stream, &asked, &answer);
                }
            }
        });
        Self {
            socket,
            asked,
            stopped,
            thread: Some(thread),
        }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = UnixStream::connect(&self.socket);
        let _ = fs::remove_file(&self.socket);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn serve(mut stream: UnixStream, asked: &Mutex<Vec<String>>, answer: &Answer) {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(read) if read > 0 => request.extend(&buffer[..read]),
            _ => return,
        }
    }
    let request = String::from_utf8(request).unwrap();
    let target = request.split(' ').nth(1).unwrap();
    asked.lock().unwrap().push(target.to_owned());
    let (status, body) = answer(target);
    let body = body.to_string();
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    // Who asked may have gone.
    let _ = stream.write_all((head + &body).as_bytes());
}

/// Two cgroups of one interval, with fields of a later version.
fn usual(target: &str) -> (u16, Value) {
    if target == "/v1/agent" {
        let mut agent = serde_json::to_value(agent(1)).unwrap();
        agent["new_in_a_later_version"] = json!({"a": [1]});
        (200, agent)
    } else if target.starts_with("/v1/cgroups?") {
        let rows = vec![leaking(1, "/leaky"), sized(2, "/calm", MIB)];
        let mut list = serde_json::to_value(listed(1, rows)).unwrap();
        list["items"][0]["new_in_a_later_version"] = json!("x");
        (200, list)
    } else if target == "/v1/cgroups/1" {
        (
            200,
            serde_json::to_value(details(leaking(1, "/leaky"), 1)).unwrap(),
        )
    } else {
        (404, json!({"error": "no state directory"}))
    }
}

fn asked() -> Asked {
    Asked {
        cgroups: CgroupQuery::default(),
        incidents: IncidentQuery::default(),
        every: Duration::from_millis(10),
        own: false,
    }
}

fn watch(socket: &Path) -> (Sender<Wants>, Receiver<Told>) {
    let (sender, told) = sync_channel(1000);
    let tell = move |told| sender.send(told).is_ok();
    (start(client(socket).unwrap(), asked(), tell).unwrap(), told)
}

/// The first that is wanted.
fn wait_for<T>(told: &Receiver<Told>, wanted: impl Fn(Told) -> Option<T>) -> T {
    loop {
        if let Some(found) = wanted(told.recv_timeout(LONG).unwrap()) {
            return found;
        }
    }
}

fn is_agent(told: Told) -> Option<()> {
    matches!(told, Told::Agent(_)).then_some(())
}

fn lost(told: Told) -> Option<String> {
    match told {
        Told::Lost { why, .. } => Some(why),
        _ => None,
    }
}

fn directory() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("agent.sock");
    (directory, socket)
}

#[test]
fn a_list_is_asked_for_once_an_interval_and_histories_at_first() {
    let (_directory, socket) = directory();
    let fake = Fake::start(socket.clone(), usual);
    let (_wants, told) = watch(&socket);
    let list = wait_for(&told, |told| match told {
        Told::Cgroups(list) => Some(list),
        _ => None,
    });
    assert_eq!(list.items.len(), 2);
    (0..3).for_each(|_| wait_for(&told, is_agent));
    let asked = fake.asked();
    let lists: Vec<_> = asked.iter().filter(|it| it.contains("cgroups")).collect();
    assert_eq!(lists.len(), 1, "{asked:?}");
    assert!(lists[0].contains("recent=60"), "{asked:?}");
}

#[test]
fn only_the_cgroup_that_is_looked_at_is_asked_for_and_a_refusal_is_told() {
    let (_directory, socket) = directory();
    let fake = Fake::start(socket.clone(), usual);
    let (wants, told) = watch(&socket);
    let of = |id, paused| Wants {
        details: Some(id),
        paused,
        incidents: false,
    };
    let answer = |told| match told {
        Told::Details(id, answer) => Some((id, answer)),
        _ => None,
    };
    wants.send(of(1, false)).unwrap();
    let (id, record) = wait_for(&told, answer);
    assert_eq!((id, record.unwrap().row.cgroup), (1, "/leaky".to_owned()));
    let before = fake.asked().len();
    assert!(wait_for(&told, answer).1.is_ok());
    assert!(!fake.asked()[before..].iter().any(|it| it.contains('?')));
    wants.send(of(9, false)).unwrap();
    let refused = wait_for(&told, |told| answer(told).filter(|(id, _)| *id == 9));
    assert_eq!(refused.1.unwrap_err(), "no state directory");
    wants
        .send(Wants {
            incidents: true,
            ..Wants::default()
        })
        .unwrap();
    let refused = wait_for(&told, |told| match told {
        Told::Incidents(answer) => Some(answer),
        _ => None,
    });
    assert_eq!(refused.unwrap_err(), "no state directory");
}

#[test]
fn an_agent_that_goes_is_lost_and_one_that_comes_back_is_found() {
    let (_directory, socket) = directory();
    let fake = Fake::start(socket.clone(), usual);
    let (_wants, told) = watch(&socket);
    wait_for(&told, is_agent);
    drop(fake);
    let why = wait_for(&told, lost);
    assert!(why.contains("agent.sock") && !why.contains('\n'), "{why}");
    let _fake = Fake::start(socket, usual);
    wait_for(&told, is_agent);
}

#[test]
fn what_is_no_agent_is_told_and_ends_nothing() {
    let (_directory, socket) = directory();
    let _fake = Fake::start(socket.clone(), |_| (200, json!([1, 2])));
    let (_wants, told) = watch(&socket);
    let why = wait_for(&told, lost);
    assert!(
        why.contains("no agent that this memtrace understands"),
        "{why}"
    );
    wait_for(&told, lost);
}

#[test]
fn the_thread_ends_when_nobody_hears_it() {
    let (_directory, socket) = directory();
    let fake = Fake::start(socket.clone(), usual);
    let (wants, told) = watch(&socket);
    wait_for(&told, is_agent);
    drop(told);
    // It finds out at the next round, and drops its end.
    while wants.send(Wants::default()).is_ok() {
        std::thread::yield_now();
    }
    drop(fake);
}
