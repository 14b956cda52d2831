//! Names of pods and containers from a real containerd over its CRI socket.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memtrace_tests::agent::{Agent, of_type};
use memtrace_tests::backend::{self, free_port, request, scraped};
use memtrace_tests::containerd::{Container, Containerd, Pod};
use memtrace_tests::machine::{MIB, is_vm, patience, poll};
use memtrace_tests::processes::LEAKING_FUNCTION;
use memtrace_tests::prometheus::Prometheus;
use memtrace_tests::recording::Recorder;
use serde_json::Value;

use crate::leak_state::SECONDS_AS_TWO_MINUTES;
use crate::otlp::{EVERY_SECOND, rotel, sending};

const LIMIT: u64 = 32 * MIB;
const NAMESPACE: &str = "prod";
const OOM: [&str; 3] = ["oom", "--bytes", "134217728"];

fn agent(containerd: &Containerd, more: &[&str]) -> Result<Agent> {
    let socket = containerd.socket();
    let socket = socket.to_str().context("no UTF-8")?;
    let own = ["--identity", "cri", "--cri-socket", socket];
    Agent::start_with(&[&own, more].concat(), &EVERY_SECOND)
}

/// The incident of the kill in this container must name its pod.
fn is_told(agent: &Agent, pod: &Pod, name: &str, container: &Container) -> Result<()> {
    let end = container.end()?;
    // Of a brief container containerd on a busy machine misses that it was an OOM.
    ensure!(end.exit_code == 137, "{end:?}");
    let incident = agent.wait_for("the incident", Duration::from_secs(15), |line| {
        of_type("oom_incident")(line)
            && line["complete"] == true
            && line["charged"]["cgroup"] == container.path.as_str()
    })?;
    let names = &incident["charged"]["names"];
    for (field, expected) in [
        ("namespace", NAMESPACE),
        ("pod", name),
        ("pod_uid", &pod.uid),
        ("container", "web"),
        ("container_id", &container.id),
        ("container_runtime", "containerd"),
    ] {
        ensure!(
            names[field] == expected,
            "{field} should be {expected}: {incident}"
        );
    }
    Ok(())
}

#[test]
fn a_container_that_is_oom_killed_has_its_pod_in_the_incident() -> Result<()> {
    let Some(containerd) = Containerd::start()? else {
        return Ok(());
    };
    let agent = agent(&containerd, &[])?;
    let pod = containerd.pod(NAMESPACE, "shop-0", &[("app", "shop")])?;
    let calm = [&OOM[..], &["--calm-ms", "1500"]].concat();
    let container = pod.run("web", &calm, LIMIT)?;
    is_told(&agent, &pod, "shop-0", &container)?;
    let end = container.end()?;
    ensure!(end.reason == "OOMKilled", "{end:?}");
    agent.stop().map(drop)
}

#[test]
fn a_container_that_lives_for_a_tenth_of_a_second_has_its_pod_in_the_incident() -> Result<()> {
    let Some(containerd) = Containerd::start()? else {
        return Ok(());
    };
    let agent = agent(&containerd, &[])?;
    for (name, arguments) in [("brief-0", &OOM[..]), ("brief-1", &OOM), ("brief-2", &OOM)] {
        let pod = containerd.pod(NAMESPACE, name, &[])?;
        let container = pod.run("web", arguments, LIMIT)?;
        let end = container.end()?;
        // containerd notes the start after it: what ends at once may have ended before.
        let lived = end.finished_at.saturating_sub(end.started_at).max(0);
        let lived = Duration::from_nanos(u64::try_from(lived)?);
        // A tenth of a second, where nothing else runs.
        let brief = patience(Duration::from_secs(1));
        ensure!(lived < brief, "it lived {lived:?}");
        is_told(&agent, &pod, name, &container)?;
    }
    agent.stop().map(drop)
}

#[test]
fn a_pod_is_recorded_by_its_name_and_its_file_is_found_in_the_container() -> Result<()> {
    let Some(containerd) = Containerd::start()? else {
        return Ok(());
    };
    let leak = ["leak-on", "--bytes-per-second", "4194304"];
    let pod = containerd.pod(NAMESPACE, "leaky-0", &[])?;
    let _leaking = pod.run("web", &leak, 256 * MIB)?;
    let neighbour = containerd.pod(NAMESPACE, "other-0", &[])?;
    let _other = neighbour.run("web", &leak, 256 * MIB)?;
    let socket = containerd.socket();
    let socket = socket.to_str().context("no UTF-8")?;
    let arguments = ["--identity", "cri", "--cri-socket", socket];
    let asked = ["--pod", "prod/leaky-0"];
    let recorder = Recorder::start(&[&arguments[..], &asked].concat(), Duration::from_secs(5))?;
    let recording = recorder.finish()?;
    let told = recording.summary();
    let first = recording.stacks.first().context("nothing recorded")?;
    ensure!(first.has(LEAKING_FUNCTION), "{told}");
    let mut processes: Vec<u64> = recording.stacks.iter().map(|stack| stack.pid).collect();
    processes.dedup();
    ensure!(processes.len() == 1, "only one process leaks in it: {told}");
    let resident = recording.of_function(LEAKING_FUNCTION).resident;
    let truth = 5.0 * 4.0 * MIB as f64;
    // It leaks a little longer than the recording says: until its end, and while it is read, which takes an
    // emulated machine long.
    let most = truth * 1.5 + 4.0 * resident.error;
    ensure!(
        resident.bytes > truth / 2.0 && (is_vm() || resident.bytes < most),
        "{told}"
    );
    Ok(())
}

#[test]
fn a_scrape_has_the_pod_and_the_container_and_status_says_who_named_them() -> Result<()> {
    let Some(containerd) = Containerd::start()? else {
        return Ok(());
    };
    // One pod is older than the agent, one younger.
    let old = containerd.pod(NAMESPACE, "old-0", &[])?;
    let first = old.run("web", &["sleep"], LIMIT)?;
    let port = free_port()?;
    let agent = agent(&containerd, &["--listen", &format!("127.0.0.1:{port}")])?;
    let young = containerd.pod(NAMESPACE, "young-0", &[])?;
    let second = young.run("web", &["sleep"], LIMIT)?;
    for (pod, container) in [("old-0", &first), ("young-0", &second)] {
        let labels = [
            format!("container_id=\"{}\"", container.id),
            format!("k8s_namespace_name=\"{NAMESPACE}\""),
            format!("k8s_pod_name=\"{pod}\""),
            "k8s_container_name=\"web\"".to_owned(),
        ];
        poll("the labels in a scrape", Duration::from_secs(20), || {
            scraped(port, "container_memory_usage_bytes", &labels)
        })?;
    }
    let (_, status) = request(port, "GET", "/status", "")?;
    ensure!(status.contains("\"cri\""), "{status}");
    let told: Value = serde_json::from_str(&status)?;
    ensure!(told.to_string().contains("synced"), "{status}");
    agent.stop().map(drop)
}

#[test]
fn a_leaking_and_a_killed_container_come_out_of_prometheus_and_as_events_with_their_pods()
-> Result<()> {
    let (Some(prometheus), Some(collector)) = (
        backend::program("MEMTRACE_PROMETHEUS", "prometheus")?,
        backend::program("MEMTRACE_ROTEL", "rotel-agent")?,
    ) else {
        return Ok(());
    };
    let Some(containerd) = Containerd::start()? else {
        return Ok(());
    };
    let directory = tempfile::tempdir()?;
    let (grpc, http, port) = (free_port()?, free_port()?, free_port()?);
    let _collector = rotel(&collector, directory.path(), grpc, http)?;
    let endpoint = format!("http://127.0.0.1:{grpc}");
    let listen = format!("127.0.0.1:{port}");
    let more = [
        &["--listen", &listen][..],
        &sending("grpc", &endpoint),
        &SECONDS_AS_TWO_MINUTES,
    ];
    let agent = agent(&containerd, &more.concat())?;
    let prometheus = Prometheus::scraping(&prometheus, "memtrace", port, &[])?;
    let leaking = containerd.pod(NAMESPACE, "cart-0", &[])?;
    let leak = ["leak-on", "--bytes-per-second", "2097152"];
    let _leak = leaking.run("app", &leak, 256 * MIB)?;
    let killed = containerd.pod(NAMESPACE, "pay-0", &[])?;
    let calm = [&OOM[..], &["--calm-ms", "5000"]].concat();
    let container = killed.run("web", &calm, LIMIT)?;
    is_told(&agent, &killed, "pay-0", &container)?;
    let labels = |pod: &str, container: &str| {
        format!(
            "k8s_namespace_name=\"{NAMESPACE}\",k8s_pod_name=\"{pod}\",k8s_container_name=\"{container}\""
        )
    };
    for (what, query) in [
        (
            "the kill",
            format!(
                "memtrace_oom_kills_total{{{}}} == 1",
                labels("pay-0", "web")
            ),
        ),
        (
            "the leak",
            format!(
                "memtrace_leak_state{{{},memtrace_leak_state=~\"suspected|confirmed\"}} == 1",
                labels("cart-0", "app")
            ),
        ),
    ] {
        poll(what, Duration::from_secs(150), || {
            let found = prometheus.server().query(&query)?;
            Ok((!found.is_empty()).then_some(()))
        })?;
    }
    for (pod, event) in [
        ("pay-0", "memtrace.oom.kill"),
        ("cart-0", "memtrace.memory.leak.suspected"),
    ] {
        poll(event, Duration::from_secs(20), || {
            let log = std::fs::read(directory.path().join("log"))?;
            let log = String::from_utf8_lossy(&log).into_owned();
            let named = [
                format!("k8s.namespace.name: Str({NAMESPACE})"),
                format!("k8s.pod.name: Str({pod})"),
            ];
            let found = log.split("ResourceLog #").any(|resource| {
                resource.contains(&format!("EventName: {event}\n"))
                    && named.iter().all(|name| resource.contains(name))
            });
            Ok(found.then_some(()))
        })?;
    }
    agent.stop().map(drop)
}
