use std::{
    fs,
    io::{Read as _, Write as _},
};

use super::super::{
    fixture::{FakeAgent, cgroups},
    records::{CgroupRow, Listed},
    route::{MOST_URI_BYTES, PATHS},
};
use crate::incident::Incident;

fn incident(n: u32) -> String {
    let text = include_str!("../incident/fixtures/cgroup_oom.json");
    let mut incident: Incident = serde_json::from_str(text).unwrap();
    incident.id = format!("2026112{n}-{n}");
    incident.time += jiff::SignedDuration::from_secs(n.into());
    serde_json::to_string(&incident).unwrap() + "\n"
}

/// Bytes that fill the buffers of a socket many times.
fn many() -> FakeAgent {
    FakeAgent::start(cgroups(20_000), false)
}

#[test]
fn every_path_answers_with_what_it_says() {
    let agent = FakeAgent::start(cgroups(2), true);
    let incidents = agent.directory.path().join("incidents");
    fs::create_dir(&incidents).unwrap();
    fs::write(incidents.join("00000001.jsonl"), incident(1)).unwrap();
    for path in PATHS {
        let id = if path.contains("incidents") {
            "latest"
        } else {
            "1"
        };
        let path = path.replace("ID", id);
        let (status, head, body) = agent.request("GET", &path);
        assert_eq!(status, 200, "{path}: {head}");
        let is_json = head.contains("content-type: application/json");
        assert_eq!(
            is_json,
            !path.contains("flamegraph") && !path.contains("profile"),
            "{path}"
        );
        assert!(!body.is_empty(), "{path}");
        let (status, _, body) = agent.request("HEAD", &path);
        assert_eq!((status, body.len()), (200, 0), "{path}");
    }
    let svg = agent.request("GET", "/v1/cgroups/1/flamegraph.svg").2;
    assert!(String::from_utf8(svg).unwrap().contains("leak"));
    let gzip = agent.request("GET", "/v1/cgroups/1/profile.pb.gz").2;
    assert!(gzip.starts_with(&[0x1f, 0x8b]));
}

#[test]
fn a_list_is_whole_json_however_long_it_is_and_tells_what_it_leaves_out() {
    let agent = many();
    for (limit, told) in [(1, 1), (15_000, 15_000), (100_000, 20_000)] {
        let (_, _, body) = agent.whole(&format!("/v1/cgroups?limit={limit}"));
        let listed: Listed<CgroupRow> = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (listed.items.len(), listed.left_out),
            (told, 20_000 - told as u64)
        );
        assert_eq!(listed.items[0].cgroup, "/19999");
    }
}

#[test]
fn what_is_refused_is_told_as_json() {
    let agent = FakeAgent::start(cgroups(2), false);
    let long = format!("/v1/cgroups?glob={}", "a".repeat(MOST_URI_BYTES));
    for (method, target, status, wanted) in [
        ("GET", "/", 404, "/v1/agent"),
        ("GET", "/status", 404, "/v1/agent"),
        ("POST", "/v1/agent", 405, "GET and HEAD"),
        ("DELETE", "/v1/cgroups/1", 405, "GET and HEAD"),
        ("GET", "/v1/cgroups?colour=red", 400, "colour"),
        ("GET", "/v1/cgroups?limit=0", 400, "from 1 to 100000"),
        ("GET", "/v1/cgroups/x", 400, "x is no id"),
        ("GET", "/v1/cgroups/9", 404, "9"),
        (
            "GET",
            "/v1/cgroups/9/profile.folded",
            404,
            "no memory cgroup",
        ),
        ("GET", "/v1/incidents", 404, "state directory"),
        ("GET", "/v1/incidents/latest", 404, "state directory"),
        ("GET", &long, 414, "4096 bytes"),
    ] {
        let (told, error) = agent.refused(method, target);
        assert_eq!(told, status, "{method} {target}: {error}");
        assert!(error.contains(wanted), "{method} {target}: {error}");
    }
    let (_, head, _) = agent.request("PUT", "/v1/leaks");
    assert!(head.contains("allow: get, head"), "{head}");
}

#[test]
fn an_incident_is_found_by_the_beginning_of_its_id_and_the_newest_come_first() {
    let agent = FakeAgent::start(Vec::new(), true);
    let (status, error) = agent.refused("GET", "/v1/incidents/latest");
    assert_eq!((status, error.as_str()), (404, "no incident is stored"));
    let directory = agent.directory.path().join("incidents");
    fs::create_dir(&directory).unwrap();
    let stored = [incident(1), incident(3), "damage\n".to_owned(), incident(2)].concat();
    fs::write(directory.join("00000001.jsonl"), stored).unwrap();
    let id = |target: &str| -> String {
        let body = agent.request("GET", target).2;
        let incident: Incident = serde_json::from_slice(&body).unwrap();
        incident.id
    };
    assert_eq!(id("/v1/incidents/latest"), "20261123-3");
    assert_eq!(id("/v1/incidents/20261122"), "20261122-2");
    let (status, error) = agent.refused("GET", "/v1/incidents/2026112");
    assert_eq!(status, 409);
    assert!(error.contains("20261121-1"), "{error}");
    assert_eq!(agent.refused("GET", "/v1/incidents/x").0, 404);
    let (_, _, body) = agent.whole("/v1/incidents?limit=2");
    let listed: Listed<Incident> = serde_json::from_slice(&body).unwrap();
    let ids: Vec<&str> = listed
        .items
        .iter()
        .map(|incident| incident.id.as_str())
        .collect();
    assert_eq!(
        (ids, listed.left_out),
        (vec!["20261123-3", "20261122-2"], 1)
    );
}

#[test]
fn readers_that_are_stuck_hold_up_neither_the_agent_nor_others() {
    let agent = many();
    let mut stuck = Vec::new();
    // More than may be answered at a time.
    for _ in 0..super::MOST_ANSWERS + 3 {
        let mut stream = agent.connect();
        stream
            .write_all(b"GET /v1/cgroups?limit=100000 HTTP/1.1\r\nHost: a\r\n\r\n")
            .unwrap();
        // It has begun, and nobody reads on.
        let mut head = [0; 64];
        stream.read_exact(&mut head).unwrap();
        assert!(head.starts_with(b"HTTP/1.1 200"));
        stuck.push(stream);
    }
    assert_eq!(agent.request("GET", "/v1/agent").0, 200);
    for _ in 0..2 {
        let (status, _, body) = agent.whole("/v1/cgroups?limit=100000");
        assert_eq!(status, 200);
        let listed: Listed<CgroupRow> = serde_json::from_slice(&body).unwrap();
        assert_eq!(listed.items.len(), 20_000);
    }
    // The first made way for others, and sees that it has not got all.
    let mut rest = Vec::new();
    let _ = stuck[0].read_to_end(&mut rest);
    assert!(!rest.ends_with(b"0\r\n\r\n"));
}

#[test]
fn connections_that_say_nothing_make_way_for_one_that_asks() {
    let agent = FakeAgent::start(cgroups(2), false);
    let mut silent = Vec::new();
    for _ in 0..3 {
        for begun in [
            &b""[..],
            b"GET /v1/ag",
            b"GET /v1/agent HTTP/1.1\r\nHost: a\r\n",
        ] {
            for _ in 0..super::MOST_CONNECTIONS {
                let mut stream = agent.connect();
                stream.write_all(begun).unwrap();
                silent.push(stream);
            }
        }
        assert_eq!(agent.request("GET", "/v1/agent").0, 200);
    }
}

#[test]
fn a_peer_that_never_sends_is_cut() {
    let agent = FakeAgent::start(Vec::new(), false);
    let mut silent = agent.connect();
    silent
        .write_all(b"GET /v1/agent HTTP/1.1\r\nHost: ")
        .unwrap();
    let mut answer = Vec::new();
    // Else this read times out.
    silent.read_to_end(&mut answer).unwrap();
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
}

#[test]
fn an_agent_that_is_gone_is_told_and_its_socket_is_removed() {
    let agent = FakeAgent::answering(false, drop);
    let (status, error) = agent.refused("GET", "/v1/agent");
    assert_eq!(status, 503);
    assert!(error.contains("the agent does not answer"), "{error}");
    let socket = agent.socket.clone();
    drop(agent);
    assert!(!socket.exists());
}
