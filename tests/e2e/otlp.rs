//! Metrics in real backends: Prometheus and VictoriaMetrics over HTTP, rotel over gRPC.
//!
//! `MEMTRACE_PROMETHEUS`, `MEMTRACE_VICTORIAMETRICS` and `MEMTRACE_ROTEL` name the programs;
//! `cargo xtask test` fetches the last two.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memtrace_tests::agent::Agent;
use memtrace_tests::backend::{self, Server, free_port};
use memtrace_tests::cgroup::Cgroup;
use memtrace_tests::machine::{MIB, poll, skip};
use memtrace_tests::workload::Workload;
use serde_json::Value;

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
    let _server = Server::start(
        quiet(Command::new(program), directory.path())?
            .args(["start", "--exporter", "blackhole"])
            .args(["--debug-log", "metrics"])
            .args(["--debug-log-verbosity", "detailed"])
            .args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{grpc}")])
            .args(["--otlp-http-endpoint", &format!("127.0.0.1:{http}")]),
        grpc,
    )?;
    let agent = sending_to(&format!("http://127.0.0.1:{grpc}"), "grpc")?;
    let (cgroup, workload) = busy_cgroup()?;
    let path = cgroup.path();
    poll("the usage in the log", Duration::from_secs(30), || {
        let log = fs::read(directory.path().join("log"))?;
        let usage = logged_usage(&String::from_utf8_lossy(&log), &path);
        Ok(usage.filter(|usage| (BYTES..BYTES + BESIDE).contains(usage)))
    })?;
    workload.success()?;
    agent.stop().map(drop)
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

/// The newest usage of a cgroup in the collector's detailed log.
fn logged_usage(log: &str, path: &str) -> Option<u64> {
    let (_, resource) = log.rsplit_once(&format!("memtrace.cgroup.path: Str({path})"))?;
    let resource = resource.split("ResourceMetrics #").next()?;
    let (_, metric) = resource.split_once("Name: container.memory.usage\n")?;
    let (_, value) = metric.split_once("Value: ")?;
    value.lines().next()?.trim().parse().ok()
}

fn sending_to(endpoint: &str, protocol: &str) -> Result<Agent> {
    let arguments = ["--otlp-endpoint", endpoint, "--otlp-protocol", protocol];
    Agent::start_with(&arguments, &[("OTEL_METRIC_EXPORT_INTERVAL", "1000")])
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
