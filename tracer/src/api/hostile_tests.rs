//! Whatever is sent, the server answers who asks next.

use std::{io::Write as _, thread};

use super::fixture::{FakeAgent, Numbers, cgroups};

const REQUESTS: [&str; 6] = [
    "GET /v1/agent HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /v1/cgroups?glob=%2F*&limit=2&sort=growth&recent=60 HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /v1/incidents?since=2026-11-21T07:00:00Z&kind=stall&pod=a/b HTTP/1.1\r\nHost: a\r\n\r\n",
    "HEAD /v1/cgroups/1/flamegraph.svg HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n",
    "POST /v1/leaks HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "GET /v1/incidents/2026 HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n",
];

fn assert_answers(agent: &FakeAgent) {
    assert_eq!(agent.request("GET", "/v1/agent").0, 200);
}

#[test]
fn random_bytes_are_refused_and_the_next_is_answered() {
    let agent = FakeAgent::start(cgroups(3), true);
    let mut numbers = Numbers(1);
    for _ in 0..200 {
        let length = numbers.next() % 2000;
        let bytes: Vec<u8> = (0..length).map(|_| numbers.next() as u8).collect();
        let answer = agent.exchange(&bytes);
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{bytes:?}");
    }
    assert_answers(&agent);
}

#[test]
fn mangled_requests_are_survived() {
    let agent = FakeAgent::start(cgroups(3), true);
    let mut numbers = Numbers(2);
    for round in 0..1500 {
        let request = REQUESTS[round % REQUESTS.len()];
        let mut bytes = request.as_bytes().to_vec();
        for _ in 0..=numbers.next() % 6 {
            let at = numbers.next() as usize % bytes.len();
            match numbers.next() % 4 {
                0 => bytes.truncate(at.max(1)),
                1 => bytes[at] = numbers.next() as u8,
                2 => bytes.insert(at, b"%/?&=\0\r\n"[numbers.next() as usize % 8]),
                _ => {
                    let again = bytes[at..].to_vec();
                    bytes.extend(again);
                }
            }
        }
        agent.exchange(&bytes);
    }
    assert_answers(&agent);
}

#[test]
fn headers_and_parameters_without_end_are_cut() {
    let agent = FakeAgent::start(cgroups(3), false);
    let endless = [
        format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 20)),
        format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(1 << 20)),
        format!("GET / HTTP/1.1\r\n{}\r\n", "A: a\r\n".repeat(100_000)),
        format!(
            "GET /v1/cgroups?{} HTTP/1.1\r\n\r\n",
            "limit=1&".repeat(400)
        ),
        format!(
            "GET /v1/cgroups?glob={} HTTP/1.1\r\n\r\n",
            "{a,".repeat(1000)
        ),
        format!(
            "GET /v1/cgroups?glob={} HTTP/1.1\r\n\r\n",
            "*?[a-z]".repeat(400)
        ),
    ];
    for request in &endless {
        let answer = agent.exchange(request.as_bytes());
        assert!(answer.len() < 16 << 10, "{} bytes", answer.len());
    }
    assert_answers(&agent);
}

#[test]
fn peers_that_go_away_in_the_middle_are_survived() {
    let agent = FakeAgent::start(cgroups(5000), false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let mut stream = agent.connect();
                    let request = b"GET /v1/cgroups HTTP/1.1\r\nHost: a\r\n\r\n";
                    // Cut when others crowd it out.
                    let _ = stream.write_all(request);
                }
            });
        }
    });
    assert_answers(&agent);
}
