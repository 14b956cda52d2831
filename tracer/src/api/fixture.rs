//! A server with an agent that answers from memory, for the tests of both sides.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::stacks::{
    code::Root,
    profile::{Estimate, Frame, Kind, Profile, ProfileStack},
};

use super::{
    records::{AgentRecord, CgroupDetails, Listed},
    rows::{RowSource, Sources, tests::source},
    server::{ApiServer, Ask, NoProfile},
};

/// Ends when it is dropped.
pub struct FakeAgent {
    pub socket: PathBuf,
    pub directory: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FakeAgent {
    /// One with these cgroups, and whether it stores incidents.
    pub fn start(sources: Vec<RowSource>, stores: bool) -> Self {
        Self::answering(stores, move |ask| told(ask, &sources))
    }

    /// One that lets `answer` do with questions what it likes.
    pub fn answering(stores: bool, mut answer: impl FnMut(Ask) + Send + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("run/agent.sock");
        let state_dir = stores.then(|| directory.path().to_owned());
        let mut server = ApiServer::start(&socket, state_dir).unwrap();
        let (stop, mut stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.build().unwrap().block_on(async {
                loop {
                    tokio::select! {
                        ask = server.asked() => answer(ask),
                        _ = &mut stopped => return,
                    }
                }
            });
        });
        Self {
            socket,
            directory,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub fn connect(&self) -> UnixStream {
        connect(&self.socket)
    }

    /// Sends bytes, gives all that comes.
    pub fn exchange(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        // A server that has seen enough closes before all is written.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    }

    /// The same for a request that asks to end the connection.
    pub fn raw(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    }

    /// Status, headers and body of a request.
    pub fn request(&self, method: &str, target: &str) -> (u16, String, Vec<u8>) {
        self.request_of("1.1", method, target)
    }

    fn request_of(&self, version: &str, method: &str, target: &str) -> (u16, String, Vec<u8>) {
        let request =
            format!("{method} {target} HTTP/{version}\r\nHost: a\r\nConnection: close\r\n\r\n");
        let answer = self.raw(request.as_bytes());
        let end = answer
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .unwrap();
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_lowercase(), answer[end + 4..].to_vec())
    }

    /// The same of HTTP/1.0, whose body is not in chunks.
    pub fn whole(&self, target: &str) -> (u16, String, Vec<u8>) {
        self.request_of("1.0", "GET", target)
    }

    /// What a request that is refused is told.
    pub fn refused(&self, method: &str, target: &str) -> (u16, String) {
        let (status, head, body) = self.request(method, target);
        assert!(head.contains("content-type: application/json"), "{head}");
        let body: BTreeMap<String, String> = serde_json::from_slice(&body).unwrap();
        (status, body["error"].clone())
    }
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the fake agent panicked");
        }
    }
}

pub fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).unwrap();
    let patience = Some(Duration::from_secs(30));
    stream.set_read_timeout(patience).unwrap();
    stream.set_write_timeout(patience).unwrap();
    stream
}

/// The same numbers each time.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = self.0.wrapping_add(1);
        self.0 >> 33
    }
}

/// `count` cgroups, `/0` with least memory.
pub fn cgroups(count: u64) -> Vec<RowSource> {
    (0..count)
        .map(|id| source(id, &format!("/{id}"), Some(id << 20)))
        .collect()
}

fn told(ask: Ask, sources: &[RowSource]) {
    let time = Timestamp::UNIX_EPOCH;
    let known = |id: u64| sources.iter().find(|source| source.cgroup_id == id);
    // Who asked may have gone.
    match ask {
        Ask::Agent(answer) => drop(answer.send(Box::new(agent()))),
        Ask::Cgroups { answer, .. } => drop(answer.send(Sources {
            time: SystemTime::UNIX_EPOCH,
            sources: sources.to_vec(),
        })),
        Ask::Cgroup(id, answer) => drop(answer.send(known(id).map(details))),
        Ask::Profile(id, answer) => drop(answer.send(match known(id) {
            Some(_) => Ok(Arc::new(profile())),
            None => Err(NoProfile::NoCgroup),
        })),
        Ask::Leaks(_, answer) => drop(answer.send(empty(time))),
        Ask::Timelines(_, answer) => drop(answer.send(empty(time))),
    }
}

fn empty<T>(time: Timestamp) -> Listed<T> {
    Listed {
        time,
        items: Vec::new(),
        left_out: 0,
    }
}

pub fn agent() -> AgentRecord {
    AgentRecord {
        version: "1.2.3".to_owned(),
        kernel: "6.12.0".to_owned(),
        cgroup_mode: "v2".to_owned(),
        hostname: Some("host".to_owned()),
        time: Timestamp::UNIX_EPOCH,
        started: Timestamp::UNIX_EPOCH,
        interval_seconds: 5.0,
        pid: 7,
        rss_bytes: None,
        cpu_ns: Some(1),
        cgroups: 2,
        leaks: true,
        stacks: false,
        state_dir: None,
        mem_total_bytes: Some(1 << 30),
        mem_available_bytes: None,
        swap_total_bytes: None,
        swap_free_bytes: None,
        oom_kills: Some(0),
        probes: BTreeMap::from([("oom.mark_victim".to_owned(), None)]),
        losses: BTreeMap::from([("output_dropped".to_owned(), 0)]),
    }
}

fn details(source: &RowSource) -> Box<CgroupDetails> {
    Box::new(CgroupDetails {
        time: Timestamp::UNIX_EPOCH,
        row: source.row(0),
        names: None,
        since: Timestamp::UNIX_EPOCH,
        file_bytes: None,
        shmem_bytes: None,
        kernel_bytes: None,
        swap_bytes: None,
        peak_bytes: None,
        high_bytes: None,
        processes: Vec::new(),
        leak: None,
        stacks: None,
        timeline: None,
    })
}

fn profile() -> Profile {
    let from = SystemTime::UNIX_EPOCH;
    let bytes = Estimate {
        bytes: 400_000.0,
        error_bytes: 40_000.0,
    };
    Profile {
        scope: "/app".to_owned(),
        from,
        until: from + Duration::from_secs(60),
        base: from,
        pages_per_sample: 64,
        anon_bytes: None,
        lost_samples: 0,
        programs: Vec::new(),
        stacks: vec![ProfileStack {
            pid: 7,
            comm: "app".to_owned(),
            kind: Kind::Resident,
            frames: [Arc::new(Frame {
                function: Some("leak".to_owned()),
                module: "app".to_owned(),
                offset: 16,
                source: None,
                inlined: false,
            })]
            .into(),
            root: Root::Reached,
            resident: bytes,
            growth: bytes,
            touched: bytes,
            samples: 4,
            oldest: Duration::from_secs(60),
            median_age: Duration::from_secs(30),
        }],
    }
}
