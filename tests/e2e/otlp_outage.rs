//! A backend that is away: every incident arrives once, oldest first, also when the agent dies.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memtrace_tests::agent::{Agent, of_type};
use memtrace_tests::backend::{self, Server, free_port};
use memtrace_tests::cgroup::Cgroup;
use memtrace_tests::incident;
use memtrace_tests::machine::poll;
use tempfile::TempDir;

use crate::oom::run_into_limit;
use crate::otlp::{EVERY_SECOND, rotel, sending};

/// Marks the processes of this module in the collector's log.
const COMM: &[u8] = b"mt-outage";

/// A collector that comes and goes on the same ports; each run has a log of its own.
struct Collector {
    program: std::path::PathBuf,
    ports: (u16, u16),
    runs: Vec<TempDir>,
}

impl Collector {
    fn find() -> Result<Option<Self>> {
        let found = backend::program("MEMTRACE_ROTEL", "rotel-agent")?;
        let Some(program) = found else {
            return Ok(None);
        };
        Ok(Some(Self {
            program,
            ports: (free_port()?, free_port()?),
            runs: Vec::new(),
        }))
    }

    fn start(&mut self) -> Result<Server> {
        let directory = tempfile::tempdir()?;
        let server = rotel(&self.program, directory.path(), self.ports.0, self.ports.1)?;
        self.runs.push(directory);
        Ok(server)
    }

    /// Victims in the order in which they came, of all runs.
    fn victims(&self) -> Result<Vec<u32>> {
        let mut victims = Vec::new();
        for run in &self.runs {
            let log = fs::read(run.path().join("log"))?;
            let log = String::from_utf8_lossy(&log);
            let records = log.split("LogRecord #").skip(1);
            let ours = format!("memtrace.oom.victim.comm: Str({})", COMM.escape_ascii());
            for record in records.filter(|record| record.contains(&ours)) {
                let (_, pid) = record
                    .split_once("-> process.pid: Int(")
                    .context("no pid")?;
                let (pid, _) = pid.split_once(')').context("no pid")?;
                victims.push(pid.parse()?);
            }
        }
        Ok(victims)
    }

    fn wait_for(&self, pids: &[u32]) -> Result<()> {
        let arrived = poll("the last event", Duration::from_secs(30), || {
            Ok((self.victims()?.len() >= pids.len()).then_some(()))
        });
        // What came twice would follow.
        thread::sleep(Duration::from_millis(500));
        assert_eq!(self.victims()?, pids);
        arrived
    }
}

fn agent(collector: &Collector, protocol: &str, state: &Path) -> Result<Agent> {
    let port = match protocol {
        "grpc" => collector.ports.0,
        _ => collector.ports.1,
    };
    let endpoint = format!("http://127.0.0.1:{port}");
    let state = state.display().to_string();
    let mut arguments = sending(protocol, &endpoint).to_vec();
    arguments.extend(["--state-dir", &state]);
    let mut environment = EVERY_SECOND.to_vec();
    environment.push(("OTEL_EXPORTER_OTLP_TIMEOUT", "2000"));
    Agent::start_with(&arguments, &environment)
}

/// Kills a process by its limit in a cgroup of its own, and waits until the agent told it.
fn kill(agent: &Agent) -> Result<u32> {
    let cgroup = Cgroup::new("otlp-outage")?;
    let pid = run_into_limit(&cgroup, COMM)?;
    incident::of_victim(agent, pid)?;
    Ok(pid)
}

/// Of all files that wait.
fn queued_bytes(state: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(state.join("otlp"))? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}

#[test]
fn incidents_during_an_outage_arrive_once_and_in_order() -> Result<()> {
    let Some(mut collector) = Collector::find()? else {
        return Ok(());
    };
    for protocol in ["grpc", "http/protobuf"] {
        collector.runs.clear();
        let state = tempfile::tempdir()?;
        let mut pids = Vec::new();
        let server = collector.start()?;
        let agent = agent(&collector, protocol, state.path())?;
        pids.push(kill(&agent)?);
        collector.wait_for(&pids)?;
        assert_eq!(queued_bytes(state.path())?, 0, "nothing waits");
        drop(server);
        for _ in 0..4 {
            pids.push(kill(&agent)?);
        }
        poll("the queue on disk", Duration::from_secs(5), || {
            Ok((queued_bytes(state.path())? > 0).then_some(()))
        })?;
        thread::sleep(Duration::from_secs(2));
        let _server = collector.start()?;
        pids.push(kill(&agent)?);
        collector.wait_for(&pids)?;
        poll("an empty queue", Duration::from_secs(5), || {
            Ok((queued_bytes(state.path())? == 0).then_some(()))
        })?;
        agent.wait_intervals(1)?;
        let own = agent.last(of_type("self")).context("no self line")?;
        let lost = own["lost"].as_object().context("no losses")?;
        ensure!(
            lost.iter()
                .all(|(cause, count)| !cause.starts_with("otlp_events") || *count == 0),
            "{own}"
        );
        agent.stop()?;
    }
    Ok(())
}

#[test]
fn incidents_of_an_agent_that_was_killed_during_an_outage_arrive_once() -> Result<()> {
    let Some(mut collector) = Collector::find()? else {
        return Ok(());
    };
    let state = tempfile::tempdir()?;
    let mut pids = Vec::new();
    let first = agent(&collector, "grpc", state.path())?;
    for _ in 0..3 {
        pids.push(kill(&first)?);
    }
    // The exporter's thread is a moment behind the line.
    thread::sleep(Duration::from_millis(200));
    first.kill()?;
    ensure!(queued_bytes(state.path())? > 0, "nothing is kept");

    // Ended in peace while the backend is away: what waits stays too.
    let second = agent(&collector, "grpc", state.path())?;
    pids.push(kill(&second)?);
    second.stop()?;

    let third = agent(&collector, "grpc", state.path())?;
    pids.push(kill(&third)?);
    let _server = collector.start()?;
    collector.wait_for(&pids)?;
    poll("an empty queue", Duration::from_secs(5), || {
        Ok((queued_bytes(state.path())? == 0).then_some(()))
    })?;
    third.stop()?;
    // A last agent finds nothing to send.
    let last = agent(&collector, "grpc", state.path())?;
    last.wait_intervals(2)?;
    last.stop()?;
    assert_eq!(collector.victims()?, pids);
    Ok(())
}
