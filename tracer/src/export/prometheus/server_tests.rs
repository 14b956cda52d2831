use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::SystemTime,
};

use super::*;
use crate::model::snapshot::{HostReading, ProbeRun, SelfReading};

/// A scrape of it has a megabyte for each of `probes`.
fn snapshot(probes: usize) -> Arc<Snapshot> {
    let probe = |number: usize| ProbeRun {
        probe: format!("{number}{}", "x".repeat(512 << 10)),
        run_time_ns: Some(1),
        run_count: Some(1),
    };
    Arc::new(Snapshot {
        time: SystemTime::now(),
        started: SystemTime::now(),
        host: HostReading::default(),
        cgroups: Vec::new(),
        own: SelfReading {
            probes: (0..probes).map(probe).collect(),
            ..SelfReading::default()
        },
    })
}

/// An endpoint whose agent answers, and how often it was asked.
fn answering(snapshot: Arc<Snapshot>) -> (SocketAddr, Arc<AtomicU64>) {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let health = Health::new(Duration::from_secs(1));
    let mut endpoint = Endpoint::start(address, ResourceContext::default(), health).unwrap();
    let address = endpoint.address;
    let asked = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async move {
            // More than any test asks.
            for _ in 0..100 {
                let ask = endpoint.asked().await;
                count.fetch_add(1, Ordering::Relaxed);
                match ask {
                    Ask::Metrics(sender) => drop(sender.send(Arc::clone(&snapshot))),
                    Ask::Status(sender) => drop(sender.send(serde_json::json!({}))),
                }
            }
        });
    });
    (address, asked)
}

fn get(address: SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

fn assert_is_answered(mut stream: TcpStream, least_bytes: usize) {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let first = answer.lines().next().unwrap_or_default();
    assert!(first.contains(" 200 OK"), "{first}");
    assert!(answer.len() >= least_bytes, "{} bytes", answer.len());
}

#[test]
fn readers_that_are_stuck_make_way_for_a_scrape() {
    // More than the buffers between the two ends hold.
    const MIB: usize = 12;
    let (address, _) = answering(snapshot(MIB));
    let mut stuck: Vec<TcpStream> = (0..MOST_SCRAPES)
        .map(|_| get(address, "/metrics"))
        .collect();
    for reader in &mut stuck {
        reader.read_exact(&mut [0_u8]).expect("it has begun");
    }
    assert_is_answered(get(address, "/metrics"), MIB << 20);
}

#[tokio::test]
async fn an_ask_waits_for_room_and_those_of_who_went_away_are_not_answered() {
    let (asks, asked) = mpsc::channel(MOST_ASKS);
    let (stop, _stopped) = oneshot::channel();
    let health = Arc::new(Health::new(Duration::from_secs(1)));
    let shared = Shared {
        asks,
        health: Arc::clone(&health),
        scrapes: Turns::new(MOST_SCRAPES),
        status: Mutex::default(),
        context: ResourceContext::default(),
    };
    let mut endpoint = Endpoint {
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        health,
        asks: asked,
        _stop: stop,
    };
    for _ in 0..MOST_ASKS {
        let (sender, _) = oneshot::channel();
        shared.asks.try_send(Ask::Metrics(sender)).unwrap();
    }
    let answer = answered(&shared, Ask::Status);
    let agent = async {
        match tokio::time::timeout(ANSWER, endpoint.asked()).await {
            Ok(Ask::Status(sender)) => sender.send(serde_json::json!({})).unwrap(),
            other => panic!("{other:?}"),
        }
    };
    // In this order: the agent is not asked before there is no room.
    let (answer, ()) = tokio::join!(answer, agent);
    assert!(answer.is_some());
}

#[test]
fn the_agent_is_asked_for_its_status_once_a_second_however_often_others_ask() {
    let (address, asked) = answering(snapshot(0));
    let begun = Instant::now();
    for _ in 0..10 {
        assert_is_answered(get(address, "/status"), 1);
    }
    let most = 1 + begun.elapsed().as_secs();
    assert!(asked.load(Ordering::Relaxed) <= most);
}
