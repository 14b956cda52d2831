//! What happens, once for all tests here: a container of a pod and a plain service that do with memory
//! what there is a metric for, until both have leaked to death. Must not judge what was stored of it.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use memtrace_tests::agent::{Agent, about};
use memtrace_tests::backend::{self, Server, free_port};
use memtrace_tests::kube_api::KubeApi;
use memtrace_tests::machine::poll;
use memtrace_tests::prometheus::{Prometheus, Rule, Series, evaluated, names, stored};

use super::cgroups::Cgroups;
use super::lacking::{self, Lacking};
use super::rules;
use crate::leak_state::SECONDS_AS_FOUR_MINUTES;
use crate::otlp::EVERY_SECOND;

pub const JOB: &str = "memtrace";
pub const NODE: &str = "node-of-metrics";
pub const NAMESPACE: &str = "shop";
pub const POD: &str = "cart-7c9d8b5f4-k8zpw";
pub const CONTAINER: &str = "app";
pub const DEPLOYMENT: &str = "cart";
pub const VERSION: &str = "2.4";
pub const SOON: Duration = Duration::from_secs(30);

/// Whose series it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Host,
    Agent,
    Service,
    Pod,
    Container,
}

/// A cgroup of the scene.
#[derive(Debug, Clone)]
pub struct Place {
    pub level: Level,
    pub path: String,
    pub id: u64,
    /// What the kernel has no file or field for, and why that is known: metric to reason.
    pub lacks: Lacking,
}

/// What Prometheus has of it.
#[derive(Debug)]
pub struct Scraped {
    pub series: Vec<Series>,
    /// Of all series, those of other cgroups too.
    pub names: Vec<String>,
    pub kinds: Vec<(String, String)>,
    pub rules: Vec<Rule>,
    /// Title, expression and number of series at any time of each question of the dashboard.
    pub answers: Vec<(String, String, usize)>,
}

#[derive(Debug)]
pub struct Outcome {
    pub places: Vec<Place>,
    pub container_id: String,
    /// Where Prometheus scraped.
    pub scraped: String,
    /// What this machine does not have at all.
    pub lacks: Lacking,
    /// Bytes were swapped out of the cgroup of that path.
    pub swapped: Option<String>,
    pub prometheus: Option<Scraped>,
    pub victoria_metrics: Option<(Vec<Series>, Vec<String>)>,
}

/// What came of the one run; `None` where no backend is to be had.
pub fn outcome() -> Result<Option<&'static Outcome>> {
    static OUTCOME: OnceLock<Result<Option<Outcome>>> = OnceLock::new();
    match OUTCOME.get_or_init(run) {
        Ok(outcome) => Ok(outcome.as_ref()),
        Err(error) => Err(anyhow!("{error:#}")),
    }
}

fn run() -> Result<Option<Outcome>> {
    let prometheus = backend::program("MEMTRACE_PROMETHEUS", "prometheus")?;
    let victoria = backend::program("MEMTRACE_VICTORIAMETRICS", "victoria-metrics")?;
    if prometheus.is_none() && victoria.is_none() {
        return Ok(None);
    }
    let directory = tempfile::tempdir()?;
    let began = now()?;
    let cgroups = Cgroups::new()?;
    let api = KubeApi::start()?;
    api.put(cgroups.object())?;
    let stats = lacking::BpfStats::on();

    let victoria = victoria
        .map(|program| victoria_metrics(&program, directory.path()))
        .transpose()?;
    let scraped = free_port()?;
    let agent = agent(
        &api,
        directory.path(),
        scraped,
        victoria.as_ref().map(|(_, port)| *port),
    )?;
    poll("the endpoint", SOON, || {
        Ok(TcpStream::connect(("127.0.0.1", scraped)).ok())
    })?;
    let prometheus = prometheus
        .map(|program| Prometheus::scraping(&program, JOB, scraped, &rules::files()))
        .transpose()?;
    let id = cgroups.container.id()?;
    agent.wait_for("the container's name", SOON, |line| {
        about("cgroup", id)(line) && line["container"] == CONTAINER
    })?;
    let victoria = victoria.map(|(server, _)| server);
    let backends: Vec<&Server> = prometheus
        .iter()
        .map(Prometheus::server)
        .chain(&victoria)
        .collect();

    let mut callers = cgroups.start_each(&["calls"])?;
    for caller in &mut callers {
        caller.report()?;
    }
    // A rise is one only from what was stored before.
    cgroups.wait_until_stored(&backends, "container_memory_usage_bytes")?;
    for caller in &mut callers {
        caller.resume()?;
        caller.line()?;
        caller.resume()?;
        caller.report()?;
    }
    for caller in callers {
        caller.success()?;
    }
    let kept = cgroups.keep_files()?;
    for children in cgroups.start_each(&["children", "--count", "20", "--pages", "8"])? {
        children.success()?;
    }
    let swapped = cgroups.swap_out(&backends)?;
    let places = cgroups.places()?;
    cgroups.leak_to_death(&backends)?;
    agent.wait_intervals(8)?;

    let selector = format!(
        "{{__name__!=\"\",memtrace_cgroup_path=~\"|{}.*\"}}",
        cgroups.parent.path()
    );
    let prometheus = prometheus
        .map(|prometheus| -> Result<Scraped> {
            let server = prometheus.server();
            let now = now()?;
            let questions = rules::questions()?.into_iter();
            let answers = questions.map(|(title, expression)| {
                let series = evaluated(server, &expression, began, now)?;
                Ok((title, expression, series.len()))
            });
            Ok(Scraped {
                answers: answers.collect::<Result<_>>()?,
                series: stored(server, &selector)?,
                names: names(server)?,
                kinds: prometheus.kinds()?.into_iter().collect(),
                rules: prometheus.rules()?,
            })
        })
        .transpose()?;
    let victoria_metrics = victoria
        .map(|server| -> Result<_> { Ok((stored(&server, &selector)?, names(&server)?)) })
        .transpose()?;
    let outcome = Outcome {
        places,
        container_id: cgroups.container_id.clone(),
        scraped: format!("127.0.0.1:{scraped}"),
        lacks: lacking::in_machine(&stats),
        swapped,
        prometheus,
        victoria_metrics,
    };
    for workload in kept {
        workload.success()?;
    }
    agent.stop()?;
    Ok(Some(outcome))
}

fn agent(
    api: &KubeApi,
    directory: &Path,
    scraped: u16,
    victoria_metrics: Option<u16>,
) -> Result<Agent> {
    let config = directory.join("kubeconfig");
    fs::write(&config, api.kubeconfig("a-token"))?;
    let listen = format!("127.0.0.1:{scraped}");
    let endpoint = victoria_metrics.map(|port| format!("http://127.0.0.1:{port}/opentelemetry"));
    let mut arguments = SECONDS_AS_FOUR_MINUTES.to_vec();
    arguments.extend(["--identity", "kubernetes", "--node-name", NODE]);
    arguments.extend(["--listen", &listen]);
    if let Some(endpoint) = &endpoint {
        arguments.extend(crate::otlp::sending("http/protobuf", endpoint));
    }
    let mut environment = EVERY_SECOND.to_vec();
    environment.push(("KUBECONFIG", config.to_str().context("no UTF-8")?));
    // It takes no logs.
    environment.push(("OTEL_LOGS_EXPORTER", "none"));
    Agent::start_with(&arguments, &environment)
}

fn victoria_metrics(program: &Path, directory: &Path) -> Result<(Server, u16)> {
    let port = free_port()?;
    let mut command = Command::new(program);
    command
        .arg("-storageDataPath=victoria-metrics")
        .arg(format!("-httpListenAddr=127.0.0.1:{port}"))
        .arg("-opentelemetry.usePrometheusNaming")
        // By default the newest 30 s are hidden.
        .arg("-search.latencyOffset=0s")
        .current_dir(directory)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Ok((Server::start(&mut command, port)?, port))
}

fn now() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64())
}
