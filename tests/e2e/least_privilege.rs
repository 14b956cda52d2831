//! With the capabilities that the unit and the manifests ask for, and no others, everything works.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memtrace_tests::agent::{Agent, number, of_type};
use memtrace_tests::backend::{self, free_port, scraped};
use memtrace_tests::capability::{Capability, mask};
use memtrace_tests::cgroup::Cgroup;
use memtrace_tests::containerd::Containerd;
use memtrace_tests::incident::{of_victim, victim};
use memtrace_tests::machine::{self, MIB, PAGE, poll};
use memtrace_tests::workload::{Workload, join_before_exec};
use serde_json::Value;
use tempfile::TempDir;

use crate::otlp::{EVERY_SECOND, logged_event, rotel, sending};

const UNIT: &str = include_str!("../../deploy/systemd/memtrace.service");
const LIMIT: u64 = 32 * MIB;
const TOO_MUCH: &str = "134217728";
const NOBODY: u32 = 65534;

/// What the unit lets the agent keep.
fn asked_for() -> Result<Vec<Capability>> {
    let line = UNIT
        .lines()
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let names = line.context("the unit has no CapabilityBoundingSet")?;
    let mut names: Vec<&str> = names.split_whitespace().collect();
    // BPF maps are locked memory there.
    if machine::kernel_before(5, 11) {
        names.push("CAP_SYS_RESOURCE");
    }
    names.into_iter().map(Capability::named).collect()
}

fn confined(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Agent> {
    let capabilities = asked_for()?;
    let agent = Agent::start_confined(&capabilities, arguments, environment)?;
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid()))?;
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        let value = status
            .lines()
            .find_map(|line| line.strip_prefix(set)?.strip_prefix(':'));
        let value = u64::from_str_radix(value.context("no such set")?.trim(), 16)?;
        ensure!(value == mask(&capabilities), "{set} is {value:x}");
    }
    Ok(agent)
}

/// A copy of the workload that everybody may execute.
fn workload_of_all() -> Result<(TempDir, PathBuf)> {
    let directory = tempfile::tempdir()?;
    let all = || fs::Permissions::from_mode(0o755);
    fs::set_permissions(directory.path(), all())?;
    let copy = directory.path().join("workload");
    fs::copy(machine::workload()?, &copy)?;
    fs::set_permissions(&copy, all())?;
    Ok((directory, copy))
}

/// The incident of that victim, which must have what it ran.
fn has_command(agent: &Agent, pid: u32, program: &Path, first_argument: &str) -> Result<Value> {
    let incident = of_victim(agent, pid)?;
    let victim = victim(&incident, pid)?;
    let program = program.display().to_string();
    assert_eq!(victim["uid"], NOBODY, "{incident}");
    assert_eq!(victim["executable"], program, "{incident}");
    assert_eq!(
        victim["command_line"],
        format!("{program} {first_argument} --bytes {TOO_MUCH}"),
        "{incident}"
    );
    Ok(incident)
}

fn probes(agent: &Agent) -> Result<Value> {
    let start = agent.last(of_type("start")).context("no start line")?;
    Ok(start["probes"].clone())
}

#[test]
fn few_capabilities_attach_what_all_attach() -> Result<()> {
    let all = Agent::start(&[])?;
    let expected = probes(&all)?;
    all.stop()?;
    let few = confined(&[], &[])?;
    ensure!(expected.is_object(), "{expected}");
    assert_eq!(probes(&few)?, expected);
    few.stop().map(drop)
}

#[test]
fn few_capabilities_tell_growth_and_kill_of_another_user_with_its_command() -> Result<()> {
    let (_directory, program) = workload_of_all()?;
    let cgroup = Cgroup::new("least")?;
    cgroup.limit(LIMIT)?;
    let start = |arguments: &[&str]| -> Result<Workload> {
        let mut command = Command::new(&program);
        join_before_exec(&mut command, &cgroup)?;
        command.args(arguments).uid(NOBODY).gid(NOBODY);
        Workload::spawn(command)
    };
    // Of a process older than the agent only /proc has the command, which is closed to other users.
    let mut older = start(&["child-first", "--bytes", TOO_MUCH])?;
    let child = number(&older.report()?, "child")?;
    let agent = confined(&[], &[])?;
    older.resume()?;
    older.report()?;
    has_command(&agent, u32::try_from(child)?, &program, "child-first")?;
    older.success()?;
    let grown = 16 * MIB;
    let mut grower = start(&["touch", "--bytes", &grown.to_string()])?;
    grower.report()?;
    let (path, pid) = (cgroup.path(), grower.pid());
    // Before 6.2 a thread keeps up to 64 pages to itself (`SPLIT_RSS_COUNTING`); of v1's memory.stat each CPU
    // keeps up to 32 (`MEMCG_CHARGE_BATCH`).
    let counted = grown - 64 * PAGE;
    agent.wait_for("the growth", Duration::from_secs(10), |line| {
        of_type("cgroup")(line)
            && line["cgroup"] == path.as_str()
            && line["anon_bytes"].as_u64() >= Some(counted)
    })?;
    let told = agent.wait_for("the process", Duration::from_secs(10), |line| {
        of_type("process")(line)
            && line["pid"] == pid
            && line["rss_anon_bytes"].as_u64() >= Some(counted)
    });
    told.with_context(|| format!("{:?}", agent.all(|line| line["pid"] == pid)))?;
    let killed = start(&["oom", "--bytes", TOO_MUCH])?;
    let incident = has_command(&agent, killed.pid(), &program, "oom")?;
    assert_eq!(incident["charged"]["limit_bytes"], LIMIT, "{incident}");
    agent.stop().map(drop)
}

#[test]
fn few_capabilities_name_containers_and_export_them() -> Result<()> {
    let Some(rotel_program) = backend::program("MEMTRACE_ROTEL", "rotel-agent")? else {
        return Ok(());
    };
    let Some(containerd) = Containerd::start()? else {
        return Ok(());
    };
    let directory = tempfile::tempdir()?;
    let (grpc, http, listen) = (free_port()?, free_port()?, free_port()?);
    let _server = rotel(&rotel_program, directory.path(), grpc, http)?;
    let socket = containerd.socket();
    let endpoint = format!("http://127.0.0.1:{grpc}");
    let listen_at = format!("127.0.0.1:{listen}");
    let mut arguments = vec![
        "--identity",
        "cri",
        "--cri-socket",
        socket.to_str().context("no UTF-8")?,
        "--listen",
        &listen_at,
    ];
    arguments.extend(sending("grpc", &endpoint));
    let agent = confined(&arguments, &EVERY_SECOND)?;
    let pod = containerd.pod("prod", "least-0", &[])?;
    let calm = ["oom", "--bytes", TOO_MUCH, "--calm-ms", "3000"];
    let container = pod.run("web", &calm, LIMIT)?;
    let labels = ["k8s_pod_name=\"least-0\"", "k8s_container_name=\"web\""];
    poll("the container in a scrape", Duration::from_secs(20), || {
        scraped(listen, "container_memory_usage_bytes", &labels)
    })?;
    container.end()?;
    let incident = agent.wait_for("the incident", Duration::from_secs(15), |line| {
        of_type("oom_incident")(line)
            && line["complete"] == true
            && line["charged"]["cgroup"] == container.path.as_str()
    })?;
    assert_eq!(incident["charged"]["names"]["pod"], "least-0", "{incident}");
    let pid = incident["victims"][0]["pid"]
        .as_u64()
        .context("no victim")?;
    let event = poll("the event", Duration::from_secs(20), || {
        let log = fs::read(directory.path().join("log"))?;
        let log = String::from_utf8_lossy(&log).into_owned();
        Ok(logged_event(&log, &container.path, u32::try_from(pid)?))
    })?;
    ensure!(event.contains("memtrace.oom"), "{event}");
    agent.stop().map(drop)
}
