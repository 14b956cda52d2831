//! Metrics and OOM events in real backends: Prometheus and VictoriaMetrics over HTTP, rotel over
//! both.
//!
//! `MEMTRACE_PROMETHEUS`, `MEMTRACE_VICTORIAMETRICS` and `MEMTRACE_ROTEL` name the programs;
//! `cargo xtask test` fetches them; the Prometheus that it gets has no OTLP receiver.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memtrace_tests::agent::Agent;
use memtrace_tests::backend::{self, Server, free_port};
use memtrace_tests::cgroup::Cgroup;
use memtrace_tests::leak::MINUTES_AS_HOURS;
use memtrace_tests::machine::{MIB, poll, skip};
use memtrace_tests::workload::Workload;
use serde_json::Value;

use crate::oom::run_into_limit;

/// Metrics are exported this often.
pub(crate) const EVERY_SECOND: [(&str, &str); 1] = [("OTEL_METRIC_EXPORT_INTERVAL", "1000")];
const BYTES: u64 = 24 * MIB;
/// What the kernel may charge beside the workload's own pages.
const BESIDE: u64 = 8 * MIB;

#[test]
fn prometheus_gives_back_the_usage_of_a_cgroup() -> Result<()> {
    let Some(program) = backend::program("MEMTRACE_PROMETHEUS", "prometheus")? else {
        return Ok(());
    };
    let directory = tempfile::tempdir()?;
    let port = free_port()?;
    let config = directory.path().join("prometheus.yml");
    fs::write(&config, "global: {}\n")?;
    let help = Command::new(&program).arg("--help").output()?;
    let help = String::from_utf8([help.stdout, help.stderr].concat())?;
    // Prometheus 3 made a flag of what was a feature.
    let receiver = if help.contains("web.enable-otlp-receiver") {
        "--web.enable-otlp-receiver"
    } else {
        "--enable-feature=otlp-write-receiver"
    };
    let server = Server::start(
        quiet(Command::new(program), directory.path())?
            .arg(receiver)
            .arg(format!("--config.file={}", config.display()))
            .arg("--storage.tsdb.path=data")
            .arg(format!("--web.listen-address=127.0.0.1:{port}")),
        port,
    )?;
    let (status, _) = server.request("POST", "/api/v1/otlp/v1/metrics")?;
    if status == 404 {
        // Debian's packages are built so (2.53 and 3.5, at least).
        skip("this prometheus was built without its OTLP receiver");
        return Ok(());
    }
    comes_back(&server, &format!("http://127.0.0.1:{port}/api/v1/otlp"))
}

#[test]
fn victoriametrics_gives_back_the_usage_of_a_cgroup() -> Result<()> {
    let Some(program) = backend::program("MEMTRACE_VICTORIAMETRICS", "victoria-metrics")? else {
        return Ok(());
    };
    let directory = tempfile::tempdir()?;
    let port = free_port()?;
    let server = Server::start(
        quiet(Command::new(program), directory.path())?
            .arg("-storageDataPath=data")
            .arg(format!("-httpListenAddr=127.0.0.1:{port}"))
            .arg("-opentelemetry.usePrometheusNaming")
            // By default the newest 30 s are hidden.
            .arg("-search.latencyOffset=0s"),
        port,
    )?;
    comes_back(&server, &format!("http://127.0.0.1:{port}/opentelemetry"))
}

#[test]
fn a_collector_takes_the_usage_of_a_cgroup_over_grpc() -> Result<()> {
    let Some(program) = backend::program("MEMTRACE_ROTEL", "rotel-agent")? else {
        return Ok(());
    };
    let directory = tempfile::tempdir()?;
    let (grpc, http) = (free_port()?, free_port()?);
    let _server = rotel(&program, directory.path(), grpc, http)?;
    let agent = sending_to(&format!("http://127.0.0.1:{grpc}"), "grpc")?;
    let (cgroup, workload) = busy_cgroup()?;
    let path = cgroup.path();
    poll("the usage in the log", Duration::from_secs(30), || {
        let log = fs::read(directory.path().join("log"))?;
        let usage = logged_number(
            &String::from_utf8_lossy(&log),
            &path,
            "container.memory.usage",
        );
        Ok(usage.filter(|usage| (BYTES..BYTES + BESIDE).contains(usage)))
    })?;
    workload.success()?;
    agent.stop().map(drop)
}

#[test]
fn a_collector_takes_the_event_and_the_count_of_an_oom_kill() -> Result<()> {
    let Some(program) = backend::program("MEMTRACE_ROTEL", "rotel-agent")? else {
        return Ok(());
    };
    for protocol in ["grpc", "http/protobuf"] {
        let directory = tempfile::tempdir()?;
        let (grpc, http) = (free_port()?, free_port()?);
        let _server = rotel(&program, directory.path(), grpc, http)?;
        let port = if protocol == "grpc" { grpc } else { http };
        let agent = sending_to(&format!("http://127.0.0.1:{port}"), protocol)?;
        let cgroup = Cgroup::new("otlp-oom")?;
        let pid = run_into_limit(&cgroup, b"mt-otlp")?;
        let path = cgroup.path();
        let log = || -> Result<String> {
            let log = fs::read(directory.path().join("log"))?;
            Ok(String::from_utf8_lossy(&log).into_owned())
        };
        let event = poll("the event in the log", Duration::from_secs(30), || {
            Ok(logged_event(&log()?, &path, pid))
        })?;
        for expected in [
            "EventName: memtrace.oom.kill",
            "SeverityNumber: SEVERITY_NUMBER_ERROR(17)",
            "memtrace.oom.kind: Str(cgroup_oom)",
            "memtrace.oom.victim.comm: Str(mt-otlp)",
            &format!("memtrace.oom.victim.cgroup.id: Int({})", cgroup.id()?),
            &format!("memtrace.oom.charged.cgroup.path: Str({path})"),
            &format!("memtrace.oom.trigger.pid: Int({pid})"),
        ] {
            ensure!(event.contains(expected), "no {expected} in {event}");
        }
        poll("the count in the log", Duration::from_secs(30), || {
            let kills = logged_number(&log()?, &path, "memtrace.oom.kills");
            Ok(kills.filter(|kills| *kills == 1))
        })?;
        agent.stop()?;
        let log = log()?;
        let events = log.matches(&format!("-> process.pid: Int({pid})")).count();
        assert_eq!(events, 1, "one event for one victim: {log}");
    }
    Ok(())
}

#[test]
fn a_collector_takes_the_event_and_the_gauges_of_a_cgroup_near_its_limit() -> Result<()> {
    const LIMIT: u64 = 64 * MIB;
    let Some(program) = backend::program("MEMTRACE_ROTEL", "rotel-agent")? else {
        return Ok(());
    };
    let directory = tempfile::tempdir()?;
    let (grpc, http) = (free_port()?, free_port()?);
    let _server = rotel(&program, directory.path(), grpc, http)?;
    let endpoint = format!("http://127.0.0.1:{grpc}");
    let mut arguments = sending("grpc", &endpoint).to_vec();
    arguments.extend(MINUTES_AS_HOURS);
    let agent = Agent::start_with(&arguments, &EVERY_SECOND)?;
    let cgroup = Cgroup::new("otlp-near")?;
    cgroup.limit(LIMIT)?;
    let bytes = (LIMIT / 100 * 93).to_string();
    let mut workload = Workload::start(&cgroup, &["touch", "--bytes", &bytes])?;
    workload.report()?;
    let path = cgroup.path();
    let log = || -> Result<String> {
        let log = fs::read(directory.path().join("log"))?;
        Ok(String::from_utf8_lossy(&log).into_owned())
    };
    let about = format!("-> memtrace.memory.limit.cgroup.path: Str({path})\n");
    let event = poll("the event in the log", Duration::from_secs(30), || {
        Ok(logged_record(&log()?, &path, &about))
    })?;
    for expected in [
        "EventName: memtrace.memory.limit.near",
        "SeverityNumber: SEVERITY_NUMBER_WARN(13)",
        &format!("memtrace.memory.limit_bytes: Int({LIMIT})"),
    ] {
        ensure!(event.contains(expected), "no {expected} in {event}");
    }
    poll("the gauges in the log", Duration::from_secs(30), || {
        let log = log()?;
        let near = logged_number(&log, &path, "memtrace.memory.near_limit");
        let held = logged_number(&log, &path, "memtrace.memory.unreclaimable");
        let confirmed = logged_number(&log, &path, "memtrace.leak.state");
        let fits = held.is_some_and(|held| (LIMIT / 100 * 92..LIMIT).contains(&held));
        Ok((near == Some(1) && fits && confirmed == Some(0)).then_some(()))
    })?;
    workload.success()?;
    agent.stop().map(drop)
}

/// A collector that writes what it receives into the file `log` of `directory`.
pub(crate) fn rotel(program: &Path, directory: &Path, grpc: u16, http: u16) -> Result<Server> {
    Server::start(
        quiet(Command::new(program), directory)?
            .args(["start", "--exporter", "blackhole"])
            .args(["--debug-log", "metrics", "--debug-log", "logs"])
            .args(["--debug-log-verbosity", "detailed"])
            .args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{grpc}")])
            .args(["--otlp-http-endpoint", &format!("127.0.0.1:{http}")]),
        grpc,
    )
}

/// The event about a victim in the collector's detailed log, if it is on its cgroup's resource.
pub(crate) fn logged_event(log: &str, path: &str, pid: u32) -> Option<String> {
    logged_record(log, path, &format!("-> process.pid: Int({pid})\n"))
}

/// The first record with that line, on the resource of a cgroup.
fn logged_record(log: &str, path: &str, about: &str) -> Option<String> {
    let resources = log.split("ResourceLog #").skip(1);
    let on_cgroup = format!("memtrace.cgroup.path: Str({path})");
    let mut records = resources
        .filter(|resource| resource.contains(&on_cgroup))
        .flat_map(|resource| resource.split("LogRecord #").skip(1));
    // Whole only with the flags, which come last.
    records
        .find(|record| record.contains(about) && record.contains("Flags:"))
        .map(str::to_owned)
}

/// Sends there and asks until the usage of a cgroup is what a process in it holds.
fn comes_back(server: &Server, endpoint: &str) -> Result<()> {
    let agent = sending_to(endpoint, "http/protobuf")?;
    let (cgroup, workload) = busy_cgroup()?;
    let path = cgroup.path();
    poll("the cgroup's usage", Duration::from_secs(30), || {
        let usage = stored_usage(server, &path)?;
        Ok(usage.filter(|usage| (BYTES..BYTES + BESIDE).contains(usage)))
    })?;
    workload.success()?;
    agent.stop().map(drop)
}

fn stored_usage(server: &Server, path: &str) -> Result<Option<u64>> {
    // Prometheus keeps most resource attributes in a series of their own.
    let target = server
        .query("target_info")?
        .into_iter()
        .find(|series| names(&series["metric"], path));
    let usage = server.query("container_memory_usage_bytes")?;
    let mut usage = usage.iter().filter(|series| {
        let labels = &series["metric"];
        names(labels, path)
            || target.as_ref().is_some_and(|target| {
                let same = |label: &&str| labels[*label] == target["metric"][*label];
                ["job", "instance"].iter().all(same)
            })
    });
    let Some(series) = usage.next() else {
        return Ok(None);
    };
    ensure!(usage.next().is_none(), "more than one series for {path}");
    let bytes: f64 = series["value"][1].as_str().context("no value")?.parse()?;
    Ok(Some(bytes as u64))
}

fn names(labels: &Value, path: &str) -> bool {
    let mut labels = labels.as_object().into_iter().flatten();
    labels.any(|(_, label)| label == path)
}

/// The newest value of a metric of a cgroup in the collector's detailed log.
pub(crate) fn logged_number(log: &str, path: &str, metric: &str) -> Option<u64> {
    let (_, resource) = log.rsplit_once(&format!("memtrace.cgroup.path: Str({path})"))?;
    let resource = resource.split("ResourceMetrics #").next()?;
    let (_, metric) = resource.split_once(&format!("Name: {metric}\n"))?;
    let (_, value) = metric.split_once("Value: ")?;
    value.lines().next()?.trim().parse().ok()
}

fn sending_to(endpoint: &str, protocol: &str) -> Result<Agent> {
    Agent::start_with(&sending(protocol, endpoint), &EVERY_SECOND)
}

pub(crate) fn sending<'a>(protocol: &'a str, endpoint: &'a str) -> [&'a str; 4] {
    ["--otlp-endpoint", endpoint, "--otlp-protocol", protocol]
}

/// A cgroup with a process that holds [`BYTES`].
fn busy_cgroup() -> Result<(Cgroup, Workload)> {
    let cgroup = Cgroup::new("otlp")?;
    let bytes = BYTES.to_string();
    let mut workload = Workload::start(&cgroup, &["touch", "--bytes", &bytes])?;
    workload.report()?;
    Ok((cgroup, workload))
}

/// Works in `directory` and writes into the file `log` there.
fn quiet(mut command: Command, directory: &Path) -> Result<Command> {
    let log = File::create(directory.join("log"))?;
    command
        .current_dir(directory)
        .stdout(Stdio::from(log.try_clone()?))
        .stderr(Stdio::from(log));
    Ok(command)
}
