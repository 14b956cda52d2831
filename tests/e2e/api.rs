//! The API on a Unix socket: who may ask, what is told, when it is there.

use std::{
    ffi::OsStr,
    io::{Read, Write},
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use memtrace_tests::agent::Agent;
use memtrace_tests::cgroup::Cgroup;
use memtrace_tests::machine::{MIB, poll};
use memtrace_tests::workload::Workload;
use serde_json::Value;
use tempfile::TempDir;

const BYTES_PER_SECOND: u64 = 8 * MIB;

struct Answering {
    agent: Agent,
    socket: PathBuf,
    _directory: TempDir,
}

impl Answering {
    fn start(arguments: &[&str]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let socket = directory.path().join("run/agent.sock");
        let path = socket.to_str().context("no text")?;
        let agent = Agent::start(&[&["--api-socket", path], arguments].concat())?;
        Ok(Self {
            agent,
            socket,
            _directory: directory,
        })
    }

    /// The answer to a request that is well.
    fn get(&self, target: &str) -> Result<Value> {
        let (status, body) = ask(&self.socket, "GET", target)?;
        ensure!(status == 200, "{target}: {status}: {body}");
        Ok(serde_json::from_str(&body)?)
    }
}

/// Status and body of the answer to a request.
pub fn ask(socket: &Path, method: &str, target: &str) -> Result<(u16, String)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    // HTTP/1.0: the body comes in one piece and ends with the connection.
    write!(
        stream,
        "{method} {target} HTTP/1.0\r\nHost: localhost\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).context("no status")?.parse()?;
    let (_, body) = answer.split_once("\r\n\r\n").context("no body")?;
    Ok((status, body.to_owned()))
}

#[test]
fn the_socket_is_roots_alone_and_goes_with_the_agent() -> Result<()> {
    let answering = Answering::start(&[])?;
    let socket = answering.socket.clone();
    let metadata = std::fs::symlink_metadata(&socket)?;
    ensure!(metadata.file_type().is_socket(), "no socket");
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let directory = std::fs::metadata(socket.parent().context("no directory")?)?;
    assert_eq!(directory.permissions().mode() & 0o777, 0o700);

    let told = answering.get("/v1/agent")?;
    assert_eq!(told["pid"], answering.agent.pid());
    assert_eq!(told["interval_seconds"], 0.5);
    ensure!(told["cgroups"].as_u64() > Some(0), "{told}");
    ensure!(
        told["probes"]
            .as_object()
            .is_some_and(|probes| !probes.is_empty()),
        "{told}"
    );
    ensure!(told["losses"]["output_dropped"] == 0, "{told}");

    let (status, body) = ask(&socket, "POST", "/v1/agent")?;
    ensure!(
        status == 405 && body.contains("\"error\""),
        "{status}: {body}"
    );
    let (status, body) = ask(&socket, "GET", "/v1/cgroups?colour=red")?;
    ensure!(status == 400 && body.contains("colour"), "{status}: {body}");
    answering.agent.stop()?;
    ensure!(!socket.exists(), "the socket is left");
    Ok(())
}

#[test]
fn a_cgroup_that_grows_is_told_with_its_processes() -> Result<()> {
    let answering = Answering::start(&[])?;
    let cgroup = Cgroup::new("api")?;
    let rate = BYTES_PER_SECOND.to_string();
    let leak = ["leak", "--calm-ms", "0", "--bytes-per-second", &rate];
    let workload = Workload::start(&cgroup, &leak)?;
    let query = format!("/v1/cgroups?sort=growth&recent=60&glob={}", cgroup.path());
    let row = poll("growth in /v1/cgroups", Duration::from_secs(20), || {
        let listed = answering.get(&query)?;
        let row = listed["items"][0].clone();
        let grows = row["growth_bytes_per_second"].as_f64() > Some(BYTES_PER_SECOND as f64 / 2.0);
        let holds = row["usage_bytes"].as_u64() > Some(8 * MIB);
        Ok((grows && holds).then_some(row))
    })?;
    assert_eq!(row["cgroup"], cgroup.path());
    let recent = row["recent_usage_bytes"].as_array().context("no history")?;
    ensure!(recent.len() > 1 && recent.len() <= 60, "{row}");

    let details = poll(
        "its process in the details",
        Duration::from_secs(20),
        || {
            let details = answering.get(&format!("/v1/cgroups/{}", row["cgroup_id"]))?;
            let is_it = details["processes"][0]["pid"] == workload.pid();
            Ok(is_it.then_some(details))
        },
    )?;
    let process = &details["processes"][0];
    ensure!(
        process["rss_anon_bytes"].as_u64() > Some(4 * MIB),
        "{details}"
    );
    ensure!(process["growth_bytes_per_second"].is_number(), "{details}");
    let path = cgroup.path();
    drop(workload);
    cgroup.remove()?;
    poll("the cgroup to be gone", Duration::from_secs(20), || {
        let living = answering.get(&format!("/v1/cgroups?glob={path}"))?;
        let gone = answering.get(&format!("/v1/cgroups?removed=true&glob={path}"))?;
        let is_gone = gone["items"][0]["removed"] == true;
        Ok((living["items"] == Value::Array(Vec::new()) && is_gone).then_some(()))
    })?;
    answering.agent.stop().map(drop)
}

#[test]
fn a_second_agent_names_the_first_and_the_remedy() -> Result<()> {
    let answering = Answering::start(&[])?;
    let state = tempfile::tempdir()?;
    let arguments = [
        OsStr::new("run"),
        OsStr::new("--output=none"),
        OsStr::new("--api-socket"),
        answering.socket.as_os_str(),
        OsStr::new("--state-dir"),
        state.path().as_os_str(),
    ];
    let output = memtrace_tests::agent::command(&arguments)?.output()?;
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    let pid = answering.agent.pid().to_string();
    for wanted in [
        &pid,
        "--api-socket none",
        &*answering.socket.to_string_lossy(),
    ] {
        ensure!(error.contains(wanted), "{error}");
    }
    answering.get("/v1/agent")?;
    answering.agent.stop().map(drop)
}

#[test]
fn an_agent_that_was_killed_leaves_a_socket_that_the_next_replaces() -> Result<()> {
    let first = Answering::start(&[])?;
    let socket = first.socket.clone();
    first.agent.kill()?;
    ensure!(socket.exists(), "nothing is left to replace");
    let path = socket.to_str().context("no text")?;
    let second = Agent::start(&["--api-socket", path])?;
    let (status, body) = ask(&socket, "GET", "/v1/agent")?;
    assert_eq!(status, 200);
    let told: Value = serde_json::from_str(&body)?;
    assert_eq!(told["pid"], second.pid());
    second.stop().map(drop)
}
