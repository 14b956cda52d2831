use std::{
    io::{Read as _, Write as _},
    os::{fd::AsRawFd as _, unix::net::UnixListener},
    thread,
};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};

use super::*;
use crate::api::{
    fixture::{FakeAgent, Numbers, agent, cgroups},
    query::Selection,
};

fn blocking(socket: &Path) -> Blocking {
    Blocking::new(Client::new(socket)).unwrap()
}

/// A listener that answers one connection with these bytes, whatever is asked.
fn answering(bytes: Vec<u8>) -> (tempfile::TempDir, PathBuf, thread::JoinHandle<()>) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        // The client may have seen enough.
        let _ = stream.write_all(&bytes);
    });
    (dir, socket, thread)
}

fn told(bytes: &[u8]) -> Result<AgentRecord, ClientError> {
    let (_dir, socket, thread) = answering(bytes.to_vec());
    let told = blocking(&socket).agent();
    thread.join().unwrap();
    told
}

#[test]
fn the_client_reads_what_the_server_tells() {
    let server = FakeAgent::start(cgroups(3), false);
    let client = blocking(&server.socket);
    assert_eq!(client.agent().unwrap(), agent());
    let query = CgroupQuery {
        selection: Selection {
            glob: Some(crate::host::pattern::glob("/[12]").unwrap()),
            ..Selection::default()
        },
        limit: 1,
        ..CgroupQuery::default()
    };
    let listed = client.cgroups(&query).unwrap();
    assert_eq!((listed.items[0].cgroup_id, listed.left_out), (2, 1));
    assert_eq!(client.cgroup(1).unwrap().row.usage_bytes, Some(1 << 20));
    assert!(
        client
            .leaks(&LeakQuery::default())
            .unwrap()
            .items
            .is_empty()
    );
    assert!(
        client
            .timelines(&TimelineQuery::default())
            .unwrap()
            .items
            .is_empty()
    );
    assert!(client.flamegraph(1).unwrap().starts_with(b"<?xml"));
    match client.cgroup(9).unwrap_err() {
        ClientError::Refused { status, message } => {
            assert_eq!(status, 404);
            assert!(message.contains("no memory cgroup 9"), "{message}");
        }
        other => panic!("{other}"),
    }
    for id in ["", "a/b", "..%2f", "a b", "a\r\nHost: b", &"a".repeat(300)] {
        let error = client.incident(id).unwrap_err();
        assert!(
            matches!(error, ClientError::Refused { status: 404, .. }),
            "{error}"
        );
    }
    let error = client.incidents(&IncidentQuery::default()).unwrap_err();
    assert!(error.to_string().contains("state directory"), "{error}");
}

#[test]
fn no_agent_is_told_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let stale = dir.path().join("stale");
    drop(UnixListener::bind(&stale).unwrap());
    for socket in [dir.path().join("none"), stale] {
        let error = blocking(&socket).agent().unwrap_err();
        assert!(matches!(error, ClientError::NotRunning { .. }), "{error}");
        assert_eq!(error.exit_code(), 1);
        let text = error.to_string();
        assert!(
            text.contains("--socket") && text.contains("memtrace run"),
            "{text}"
        );
    }
}

#[test]
fn a_socket_of_another_user_is_not_asked() {
    if !geteuid().is_root() {
        // Only root can be another user.
        return;
    }
    const NOBODY: libc::c_long = 65534;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    let listen = |user: Option<libc::c_long>| {
        let path = path.clone();
        let thread = thread::spawn(move || {
            let fd = socket(
                AddressFamily::Unix,
                SockType::Stream,
                SockFlag::empty(),
                None,
            );
            let fd = fd.unwrap();
            bind(fd.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
            if let Some(user) = user {
                // SAFETY: takes no pointer; the system call changes this thread alone, which ends.
                assert_eq!(
                    unsafe { libc::syscall(libc::SYS_setresuid, user, user, user) },
                    0
                );
            }
            // The kernel remembers who does this.
            listen(&fd, Backlog::new(1).unwrap()).unwrap();
            fd
        });
        thread.join().unwrap()
    };
    let theirs = UnixListener::from(listen(Some(NOBODY)));
    let error = blocking(&path).agent().unwrap_err();
    assert!(
        matches!(error, ClientError::NotTrusted { user: 65534, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("--socket"), "{error}");
    let (mut stream, _) = theirs.accept().unwrap();
    let mut said = Vec::new();
    stream.read_to_end(&mut said).unwrap();
    assert!(said.is_empty(), "{said:?}");
    std::fs::remove_file(&path).unwrap();
    let own = listen(None);
    let client = Client::new(&path).within(Duration::from_millis(200));
    let error = Blocking::new(client).unwrap().agent().unwrap_err();
    assert!(matches!(error, ClientError::TimedOut { .. }), "{error}");
    drop(own);
}

#[test]
fn who_never_answers_is_given_up() {
    let server = FakeAgent::answering(false, std::mem::forget);
    let client = Client::new(&server.socket).within(Duration::from_millis(200));
    let error = Blocking::new(client).unwrap().agent().unwrap_err();
    assert!(matches!(error, ClientError::TimedOut { .. }), "{error}");
}

#[test]
fn what_is_no_answer_is_told_as_such_and_escaped() {
    let of = |status: &str, body: &str| {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
    };
    for bytes in [
        Vec::new(),
        b"220 ready\r\n".to_vec(),
        of("200 OK", ""),
        of("200 OK", "{}"),
        of("200 OK", &"[".repeat(100_000)),
        of("500 Oh", "<html>"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n{}".to_vec(),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n".to_vec(),
    ] {
        let error = told(&bytes).unwrap_err();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let shown: String = text.chars().take(80).collect();
        assert!(
            matches!(error, ClientError::BadAnswer { .. }),
            "{shown}: {error}"
        );
    }
    let hostile = r#"{"error": "a\u001b[31m\nmemtrace: all is well\r\u202e"}"#;
    let error = told(&of("404 No", hostile)).unwrap_err();
    let text = error.to_string();
    assert!(
        matches!(error, ClientError::Refused { status: 404, .. }),
        "{text}"
    );
    assert_eq!(text, r"a\x1b[31m\nmemtrace: all is well\r\xe2\x80\xae");
}

#[test]
fn an_answer_without_end_is_cut() {
    let (_dir, socket, thread) = {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            let block = vec![b'['; 1 << 20];
            while stream.write_all(&block).is_ok() {}
        });
        (dir, socket, thread)
    };
    let error = blocking(&socket).agent().unwrap_err();
    assert!(error.to_string().contains("longer than"), "{error}");
    thread.join().unwrap();
}

#[test]
fn answers_that_are_cut_or_mangled_never_panic() {
    let server = FakeAgent::start(cgroups(3), false);
    let whole = server.raw(b"GET /v1/agent HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(told(&whole).unwrap(), agent());
    let mut numbers = Numbers(7);
    for _ in 0..300 {
        let mut bytes = whole.clone();
        for _ in 0..=numbers.next() % 4 {
            let at = numbers.next() as usize % bytes.len();
            match numbers.next() % 3 {
                0 => bytes.truncate(at.max(1)),
                1 => bytes[at] = numbers.next() as u8,
                _ => bytes.insert(at, numbers.next() as u8),
            }
        }
        // Some are still an answer.
        if let Err(error) = told(&bytes) {
            let shown = error.to_string();
            assert!(!shown.contains(char::is_control), "{shown:?}");
        }
    }
}
