//! With the capabilities that the unit and the manifests ask for, and no others, everything works; without any
//! one of them something does not.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memtrace_tests::agent::{Agent, about, command, number, of_type};
use memtrace_tests::backend::{self, free_port, scraped};
use memtrace_tests::capability::{self, Capability, mask};
use memtrace_tests::cgroup::Cgroup;
use memtrace_tests::containerd::Containerd;
use memtrace_tests::incident::{of_victim, victim};
use memtrace_tests::machine::{self, MIB, PAGE, poll};
use memtrace_tests::workload::{Workload, join_before_exec};
use nix::sys::resource::{Resource, setrlimit};
use serde_json::Value;
use tempfile::TempDir;

use crate::otlp::{EVERY_SECOND, logged_event, rotel, sending};

const UNIT: &str = include_str!("../../deploy/systemd/memtrace.service");
const LIMIT: u64 = 32 * MIB;
const TOO_MUCH: &str = "134217728";
const NOBODY: u32 = 65534;

/// Names of what the unit lets the agent keep.
fn of_unit() -> Result<Vec<&'static str>> {
    let line = UNIT
        .lines()
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let names = line.context("the unit has no CapabilityBoundingSet")?;
    Ok(names.split_whitespace().collect())
}

/// What the agent is to be given on this kernel.
fn asked_for() -> Result<Vec<Capability>> {
    let mut names = of_unit()?;
    // BPF maps are locked memory there, of which the unit allows any amount.
    if machine::kernel_before(5, 11) {
        names.push("CAP_SYS_RESOURCE");
    }
    names.into_iter().map(Capability::named).collect()
}

/// All of that but one.
fn all_but(name: &str) -> Result<Vec<Capability>> {
    let all = asked_for()?;
    let left = all.iter().filter(|one| one.name != name).cloned();
    let left: Vec<Capability> = left.collect();
    ensure!(left.len() + 1 == all.len(), "{name} is not asked for");
    Ok(left)
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

/// A workload of a user who is not root.
fn start_as_nobody(program: &Path, cgroup: &Cgroup, arguments: &[&str]) -> Result<Workload> {
    let mut command = Command::new(program);
    join_before_exec(&mut command, cgroup)?;
    command.args(arguments).uid(NOBODY).gid(NOBODY);
    Workload::spawn(command)
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
    let start = |arguments: &[&str]| start_as_nobody(&program, &cgroup, arguments);
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
fn doctor_names_the_one_that_is_missing_and_the_kernel_hooks_nothing_without_the_first_two()
-> Result<()> {
    for name in of_unit()? {
        let mut doctor = command(&["doctor", "--json"])?;
        capability::only(&mut doctor, &all_but(name)?)?;
        let output = doctor.output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        let found: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("without {name} it tells no findings: {errors}"))?;
        let problems = found["problems"].as_array().context("no problems")?;
        let missing: Vec<&str> = problems
            .iter()
            .filter_map(Value::as_str)
            .filter(|problem| problem.starts_with("CAP_"))
            .collect();
        let is_named = |problem: &&str| problem.starts_with(&format!("{name} is missing: "));
        ensure!(
            missing.len() == 1 && missing.iter().all(is_named),
            "{name}: {found}"
        );
        let to_run = ["CAP_BPF", "CAP_PERFMON"].contains(&name);
        let (verdict, code) = if to_run {
            ("cannot_run", 2)
        } else {
            ("degraded", 1)
        };
        assert_eq!(found["verdict"], verdict, "{name}: {found}");
        assert_eq!(output.status.code(), Some(code), "{name}: {found}");
        let probes = found["probes"].as_array().context("no probes")?;
        let hooks = probes.iter().any(|probe| probe["hook"].is_string());
        assert_eq!(hooks, !to_run, "{name}: {found}");
    }
    Ok(())
}

/// Exit code and stderr of a short run.
fn ended_run(prepare: impl FnOnce(&mut Command) -> Result<()>) -> Result<(Option<i32>, String)> {
    let state = tempfile::tempdir()?;
    let mut run = command(&["run", "--output", "none", "--duration", "1s"])?;
    run.arg("--state-dir").arg(state.path());
    prepare(&mut run)?;
    let output = run.output()?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((output.status.code(), errors))
}

#[test]
fn without_bpf_or_perfmon_it_does_not_start_and_names_that_one() -> Result<()> {
    for (name, other) in [("CAP_BPF", "CAP_PERFMON"), ("CAP_PERFMON", "CAP_BPF")] {
        let left = all_but(name)?;
        let (code, errors) = ended_run(|run| capability::only(run, &left))?;
        assert_eq!(code, Some(77), "{errors}");
        ensure!(
            errors.contains(&format!("not permitted: {name} (")) && !errors.contains(other),
            "{errors}"
        );
    }
    Ok(())
}

#[test]
fn before_5_11_it_does_not_start_without_sys_resource_and_names_the_limit_that_it_raises()
-> Result<()> {
    const USUAL: u64 = 64 << 10;
    if !machine::kernel_before(5, 11) {
        machine::skip("BPF maps are no locked memory here");
        return Ok(());
    }
    let left = all_but("CAP_SYS_RESOURCE")?;
    let (code, errors) = ended_run(|run| {
        let limit = || Ok(setrlimit(Resource::RLIMIT_MEMLOCK, USUAL, USUAL)?);
        // SAFETY: only setrlimit(2), which is safe after fork.
        unsafe { run.pre_exec(limit) };
        capability::only(run, &left)
    })?;
    assert_eq!(code, Some(1), "{errors}");
    for told in ["the kernel refused memtrace's BPF maps", "CAP_SYS_RESOURCE"] {
        ensure!(errors.contains(told), "no {told} in {errors}");
    }
    Ok(())
}

#[test]
fn without_sys_ptrace_it_is_not_told_what_another_user_ran_before() -> Result<()> {
    let (_directory, program) = workload_of_all()?;
    let cgroup = Cgroup::new("untraced")?;
    cgroup.limit(LIMIT)?;
    let arguments = ["child-first", "--bytes", TOO_MUCH];
    let mut older = start_as_nobody(&program, &cgroup, &arguments)?;
    let child = u32::try_from(number(&older.report()?, "child")?)?;
    let agent = Agent::start_confined(&all_but("CAP_SYS_PTRACE")?, &[], &[])?;
    older.resume()?;
    older.report()?;
    let incident = of_victim(&agent, child)?;
    let victim = victim(&incident, child)?;
    assert_eq!(victim["uid"], NOBODY, "{incident}");
    for field in ["executable", "command_line"] {
        ensure!(victim[field].is_null(), "{field} is told: {incident}");
    }
    older.success()?;
    agent.stop().map(drop)
}

#[test]
fn without_dac_read_search_a_cgroup_that_its_user_closed_has_no_sizes_and_that_is_counted()
-> Result<()> {
    let cgroup = Cgroup::new("closed")?;
    let (id, directory) = (cgroup.id()?, cgroup.directory());
    chown(directory, Some(NOBODY), Some(NOBODY))?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
    let grow = || Workload::start(&cgroup, &["touch", "--bytes", "16777216"]);
    let is_about = |line: &Value| about("cgroup", id)(line) && line["removed"] != true;
    let agent = confined(&[], &[])?;
    let first = grow()?;
    agent.wait_for("its size", Duration::from_secs(10), |line| {
        is_about(line) && line["usage_bytes"].as_u64() >= Some(16 * MIB)
    })?;
    agent.stop()?;
    first.success()?;

    let agent = Agent::start_confined(&all_but("CAP_DAC_READ_SEARCH")?, &[], &[])?;
    let mut second = grow()?;
    second.report()?;
    agent.wait_for("the loss", Duration::from_secs(10), |line| {
        let failed = line["lost"]["cgroup_reading_failed"].as_u64();
        of_type("self")(line) && failed > Some(0)
    })?;
    agent.wait_intervals(2)?;
    // The kernel side counts there all the same.
    let told = agent.all(is_about);
    ensure!(!told.is_empty(), "nothing is told of it");
    let sized = told.iter().find(|line| !line["usage_bytes"].is_null());
    ensure!(sized.is_none(), "{sized:?}");
    second.success()?;
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
