//! The HTTP endpoint: scrapes, health, status.

use std::{ffi::OsStr, net::TcpStream, time::Duration};

use anyhow::{Result, ensure};
use memtrace_tests::agent::Agent;
use memtrace_tests::backend::{free_port, request, scraped};
use memtrace_tests::cgroup::Cgroup;
use memtrace_tests::machine::{MIB, poll};
use memtrace_tests::workload::Workload;
use serde_json::Value;

use crate::oom::run_into_limit;

const BYTES: u64 = 24 * MIB;
/// What the kernel may charge beside the workload's own pages.
const BESIDE: u64 = 8 * MIB;

fn listening() -> Result<(Agent, u16)> {
    let port = free_port()?;
    let agent = Agent::start(&["--listen", &format!("127.0.0.1:{port}")])?;
    Ok((agent, port))
}

#[test]
fn a_scrape_has_the_usage_of_a_cgroup_and_the_container_that_its_path_names() -> Result<()> {
    let (agent, port) = listening()?;
    let parent = Cgroup::new("listen")?;
    let id = "0123456789abcdef".repeat(4);
    let container = parent.child(&format!("docker-{id}.scope"))?;
    let bytes = BYTES.to_string();
    let mut workload = Workload::start(&container, &["touch", "--bytes", &bytes])?;
    workload.report()?;
    let label = format!("container_id=\"{id}\"");
    poll("the usage in a scrape", Duration::from_secs(20), || {
        let usage = scraped(port, "container_memory_usage_bytes", &[&label])?;
        let fits = |usage: &f64| (BYTES as f64..(BYTES + BESIDE) as f64).contains(usage);
        Ok(usage.filter(fits))
    })?;
    let (_, text) = request(port, "GET", "/metrics", "")?;
    let runtime = text
        .lines()
        .any(|line| line.contains(&label) && line.contains("container_runtime_name=\"docker\""));
    ensure!(runtime, "no runtime in {text}");
    let accept = "Accept: application/openmetrics-text; version=1.0.0\r\n";
    let (_, open) = request(port, "GET", "/metrics", accept)?;
    ensure!(open.ends_with("# EOF\n"), "no end of OpenMetrics");
    workload.success()?;
    drop(container);
    agent.stop().map(drop)
}

#[test]
fn the_kill_that_ended_a_cgroup_is_still_scraped_when_it_is_gone() -> Result<()> {
    let (agent, port) = listening()?;
    let cgroup = Cgroup::new("listen-oom")?;
    let path = cgroup.path();
    run_into_limit(&cgroup, b"mt-listen")?;
    cgroup.remove()?;
    let label = format!("memtrace_cgroup_path=\"{path}\"");
    poll("the kill in a scrape", Duration::from_secs(20), || {
        let kills = scraped(port, "memtrace_oom_kills_total", &[&label])?;
        Ok(kills.filter(|kills| *kills == 1.0))
    })?;
    poll("the usage to be gone", Duration::from_secs(20), || {
        let usage = scraped(port, "container_memory_usage_bytes", &[&label])?;
        Ok(usage.is_none().then_some(()))
    })?;
    agent.stop().map(drop)
}

#[test]
fn health_readiness_and_status_are_told_on_that_address_alone() -> Result<()> {
    let (agent, port) = listening()?;
    for path in ["/healthz", "/readyz"] {
        poll(path, Duration::from_secs(10), || {
            Ok((request(port, "GET", path, "")?.0 == 200).then_some(()))
        })?;
    }
    let (status, text) = request(port, "GET", "/status", "")?;
    assert_eq!(status, 200);
    let told: Value = serde_json::from_str(&text)?;
    ensure!(told["cgroups"].as_u64() > Some(0), "{told}");
    ensure!(
        told["probes"].is_array() && told["losses"].is_object(),
        "{told}"
    );
    for (path, expected) in [("/", 200), ("/other", 404)] {
        let (status, text) = request(port, "GET", path, "")?;
        assert_eq!(status, expected, "{path}");
        ensure!(
            text.contains("/metrics") && text.contains("/status"),
            "{path}: {text}"
        );
    }
    assert_eq!(request(port, "POST", "/metrics", "")?.0, 405);
    let elsewhere = TcpStream::connect(("127.0.0.2", port));
    ensure!(elsewhere.is_err(), "it listens on more than was asked");
    agent.stop().map(drop)
}

#[test]
fn connections_that_say_nothing_cost_the_agent_little_and_scrapes_nothing() -> Result<()> {
    let (agent, port) = listening()?;
    // Cgroups that come meanwhile cost other descriptors.
    let descriptors = || -> Result<usize> {
        let all = std::fs::read_dir(format!("/proc/{}/fd", agent.pid()))?;
        let targets = all.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        let is_socket =
            |target: &std::path::PathBuf| target.to_string_lossy().starts_with("socket:");
        Ok(targets.filter(is_socket).count())
    };
    let before = descriptors()?;
    let silent = |count: usize| -> Result<Vec<TcpStream>> {
        let connect = |_| Ok(TcpStream::connect(("127.0.0.1", port))?);
        (0..count).map(connect).collect()
    };
    let few = silent(12)?;
    assert_eq!(request(port, "GET", "/metrics", "")?.0, 200);
    let many = silent(300)?;
    agent.wait_intervals(1)?;
    let held = descriptors()?.saturating_sub(before);
    ensure!(held <= 70, "{held} descriptors more than before");
    drop((few, many));
    poll("a scrape after them", Duration::from_secs(10), || {
        Ok((request(port, "GET", "/metrics", "")?.0 == 200).then_some(()))
    })?;
    agent.stop().map(drop)
}

#[test]
fn a_port_that_is_taken_is_named_with_the_remedy() -> Result<()> {
    let (agent, port) = listening()?;
    let address = format!("127.0.0.1:{port}");
    let state = tempfile::tempdir()?;
    let arguments = [
        "run",
        "--output",
        "json",
        "--listen",
        &address,
        "--state-dir",
    ];
    let arguments = [&arguments.map(OsStr::new)[..], &[state.path().as_os_str()]].concat();
    let output = memtrace_tests::agent::command(&arguments)?.output()?;
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        error.contains(&address) && error.contains("--listen"),
        "{error}"
    );
    agent.stop().map(drop)
}
