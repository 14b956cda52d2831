//! Incidents: who was killed.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memtrace_tests::agent::{Agent, number, of_type};
use memtrace_tests::cgroup::{Cgroup, Version};
use memtrace_tests::incident::{
    assert_died, assert_is_logged, assert_means, of_victim, pids, victim, victims,
};
use memtrace_tests::kernel_log::KernelLog;
use memtrace_tests::machine::{self, MIB, PAGE};
use memtrace_tests::workload::Workload;
use serde_json::Value;

const LIMIT: u64 = 32 * MIB;
const TOO_MUCH: &str = "134217728";

#[test]
fn a_killed_child_leaves_its_parent_and_the_incident_says_so() -> Result<()> {
    let agent = Agent::start(&[])?;
    let cgroup = Cgroup::new("child")?;
    cgroup.limit(LIMIT)?;
    let mut log = KernelLog::open()?;
    let mut parent = Workload::start(&cgroup, &["child-first", "--bytes", TOO_MUCH])?;
    let child = number(&parent.report()?, "child")? as u32;
    parent.resume()?;
    let ended = parent.report()?;
    assert_eq!(ended["signal"], libc::SIGKILL, "{ended}");
    let incident = of_victim(&agent, child)?;
    assert_is_logged(&agent, &incident, &log.whole_oom_of(child)?)?;
    assert_eq!(pids(&incident), BTreeSet::from([child]), "{incident}");
    let victim = victim(&incident, child)?;
    assert_eq!(victim["comm"], "mt-child", "{incident}");
    // It never executed anything: its image is its parent's.
    let program = machine::workload()?.display().to_string();
    assert_eq!(victim["executable"], program, "{incident}");
    assert_eq!(
        victim["command_line"],
        format!("{program} child-first --bytes {TOO_MUCH}"),
        "{incident}"
    );
    parent.success()?;
    agent.stop().map(drop)
}

#[test]
fn process_1_of_a_container_outlives_its_child() -> Result<()> {
    let agent = Agent::start(&[])?;
    let cgroup = Cgroup::new("container-child")?;
    cgroup.limit(LIMIT)?;
    let mut log = KernelLog::open()?;
    let mut outer = Workload::start(&cgroup, &["namespace-child", "--bytes", TOO_MUCH])?;
    let child = host_pid(&cgroup, 2)?;
    outer.resume()?;
    let ended = outer.report()?;
    assert_eq!(ended["ended"], 2, "{ended}");
    assert_eq!(ended["signal"], libc::SIGKILL, "{ended}");
    let incident = of_victim(&agent, child)?;
    assert_is_logged(&agent, &incident, &log.whole_oom_of(child)?)?;
    assert_eq!(pids(&incident), BTreeSet::from([child]), "{incident}");
    let victim = victim(&incident, child)?;
    assert_eq!(victim["comm"], "mt-inner", "{incident}");
    assert_eq!(victim["namespace_pid"], 2, "{incident}");
    assert_eq!(victim["container_init"], false, "{incident}");
    assert_means(&incident, &["PID 1"]);
    assert_means(&incident, &["goes on", "survive", "not report OOMKilled"]);
    // Process 1 is still there.
    host_pid(&cgroup, 1)?;
    outer.success()?;
    agent.stop().map(drop)
}

#[test]
fn process_1_of_a_container_is_told_as_such() -> Result<()> {
    let agent = Agent::start(&[])?;
    let cgroup = Cgroup::new("container-init")?;
    cgroup.limit(LIMIT)?;
    let mut log = KernelLog::open()?;
    let mut outer = Workload::start(&cgroup, &["namespace-init", "--bytes", TOO_MUCH])?;
    let init = host_pid(&cgroup, 1)?;
    outer.resume()?;
    let ended = outer.report()?;
    assert_eq!(ended["ended"], init, "{ended}");
    assert_eq!(ended["signal"], libc::SIGKILL, "{ended}");
    let incident = of_victim(&agent, init)?;
    assert_is_logged(&agent, &incident, &log.whole_oom_of(init)?)?;
    let victim = victim(&incident, init)?;
    assert_eq!(victim["namespace_pid"], 1, "{incident}");
    assert_eq!(victim["container_init"], true, "{incident}");
    assert_means(&incident, &["137", "OOMKilled"]);
    outer.success()?;
    agent.stop().map(drop)
}

#[test]
fn a_group_kill_of_1_process_is_one_incident() -> Result<()> {
    group_kill(1)
}

#[test]
fn a_group_kill_of_5_processes_is_one_incident_with_every_victim() -> Result<()> {
    group_kill(5)
}

#[test]
fn a_group_kill_of_50_processes_is_one_incident_with_every_victim() -> Result<()> {
    group_kill(50)
}

fn group_kill(count: u64) -> Result<()> {
    let cgroup = Cgroup::new("group")?;
    if cgroup.version() == Version::V1 {
        machine::skip("memory.oom.group is of v2");
        return Ok(());
    }
    let agent = Agent::start(&[])?;
    // Even 50 processes need page tables.
    cgroup.limit(2 * LIMIT)?;
    cgroup.kill_as_a_group()?;
    let mut log = KernelLog::open()?;
    let (count_text, bytes) = (count.to_string(), (64 * PAGE).to_string());
    let arguments = [
        "--comm",
        "mt-group",
        "family",
        "--count",
        &count_text,
        "--bytes",
        &bytes,
        "--more",
        TOO_MUCH,
    ];
    let mut leader = Workload::start(&cgroup, &arguments)?;
    let report = leader.report()?;
    let expected: BTreeSet<u32> = cgroup.pids()?.into_iter().collect();
    assert_eq!(expected.len() as u64, count, "{report}");
    let pid = leader.pid();
    leader.resume()?;
    ensure!(leader.end()?.killed(), "not killed");

    let incident = of_victim(&agent, pid)?;
    assert_eq!(pids(&incident), expected, "{incident}");
    let report = log.whole_oom_of(pid)?;
    let lost = || agent.last(of_type("self")).map(|line| line["lost"].clone());
    assert_is_logged(&agent, &incident, &report).with_context(|| format!("lost: {:?}", lost()))?;
    // The kernel may kill, log and count its first choice once more as a member of the group.
    assert_eq!(cgroup.oom_kills()?, report.kills.len() as u64, "{report:?}");
    assert_eq!(incident["group_kill"], true, "{incident}");
    assert_eq!(incident["trigger"]["pid"], pid, "{incident}");
    assert_eq!(incident["charged"]["cgroup_id"], cgroup.id()?, "{incident}");
    for victim in victims(&incident) {
        assert_eq!(victim["cgroup"], cgroup.path(), "{victim}");
        assert_eq!(victim["killed"], true, "{victim}");
    }
    let counts = &incident["kernel_counts"];
    assert_eq!(counts["oom_kill_local"], cgroup.oom_kills()?, "{incident}");
    // `oom_group_kill` is in memory.events since 5.17.
    if let Ok(kills) = cgroup.count("memory.events", "oom_group_kill") {
        assert_eq!(kills, 1);
        assert_eq!(counts["oom_group_kill_hierarchical"], 1, "{incident}");
    }
    assert_means(&incident, &["group"]);
    // Nobody is told a second time, in another incident, and the kernel's count is no miss.
    agent.wait_intervals(3)?;
    let id = &incident["id"];
    let others = agent.all(|line| {
        of_type("oom_incident")(line)
            && line["id"] != *id
            && (!pids(line).is_disjoint(&expected) || line["kind"] == "missed_kills")
    });
    assert!(others.is_empty(), "{others:?}");
    agent.stop().map(drop)
}

#[test]
fn a_thread_that_is_not_the_leader_is_the_trigger_and_its_process_the_victim() -> Result<()> {
    let agent = Agent::start(&[])?;
    let cgroup = Cgroup::new("thread")?;
    cgroup.limit(LIMIT)?;
    let mut log = KernelLog::open()?;
    let arguments = ["--comm", "mt-process", "second-thread", "--bytes", TOO_MUCH];
    let mut workload = Workload::start(&cgroup, &arguments)?;
    let report = workload.report()?;
    let (pid, tid) = (workload.pid(), number(&report, "tid")?);
    ensure!(u64::from(pid) != tid, "{report}");
    workload.resume()?;
    ensure!(workload.end()?.killed(), "not killed");
    let incident = of_victim(&agent, pid)?;
    assert_is_logged(&agent, &incident, &log.whole_oom_of(pid)?)?;
    let trigger = &incident["trigger"];
    assert_eq!(trigger["pid"], pid, "{incident}");
    assert_eq!(trigger["tid"], tid, "{incident}");
    assert_eq!(trigger["comm"], "mt-thread", "{incident}");
    assert_eq!(trigger["process_comm"], "mt-process", "{incident}");
    assert_eq!(pids(&incident), BTreeSet::from([pid]), "{incident}");
    assert_eq!(victim(&incident, pid)?["comm"], "mt-process", "{incident}");
    agent.stop().map(drop)
}

#[test]
fn control_bytes_of_names_and_arguments_are_escaped() -> Result<()> {
    let agent = Agent::start(&[])?;
    let cgroup = Cgroup::new("bytes")?;
    let pid = kill_with_hostile_names(&cgroup)?;
    let incident = of_victim(&agent, pid)?;
    let victim = victim(&incident, pid)?;
    assert_eq!(victim["comm"], r#"a\n"b\\c\x1b\xff d"#, "{incident}");
    assert_eq!(incident["trigger"]["comm"], victim["comm"], "{incident}");
    let shown = victim["command_line"].as_str().context("no command line")?;
    ensure!(
        shown.contains(r"line\nbreak \x1b[31mred bad\xff\xc3utf8"),
        "{incident}"
    );
    ensure!(!shown.chars().any(char::is_control), "{incident}");
    let meaning = incident["meaning"].to_string();
    ensure!(!meaning.contains('\u{1b}'), "{incident}");
    assert_died(victim)?;
    agent.stop().map(drop)
}

#[test]
fn command_lines_can_be_switched_off() -> Result<()> {
    let agent = Agent::start(&["--no-command-lines"])?;
    let cgroup = Cgroup::new("secret")?;
    let pid = kill_with_hostile_names(&cgroup)?;
    let incident = of_victim(&agent, pid)?;
    assert_eq!(
        victim(&incident, pid)?["command_line"],
        Value::Null,
        "{incident}"
    );
    ensure!(!incident.to_string().contains("[31mred"), "{incident}");
    agent.stop().map(drop)
}

fn kill_with_hostile_names(cgroup: &Cgroup) -> Result<u32> {
    cgroup.limit(LIMIT)?;
    let arguments: [&[u8]; 8] = [
        b"--comm",
        b"a\n\"b\\c\x1b\xff d",
        b"oom",
        b"--bytes",
        TOO_MUCH.as_bytes(),
        b"line\nbreak",
        b"\x1b[31mred",
        b"bad\xff\xc3utf8",
    ];
    let arguments = arguments.map(|bytes| OsString::from(OsStr::from_bytes(bytes)));
    let workload = Workload::start(cgroup, &arguments)?;
    let pid = workload.pid();
    ensure!(workload.end()?.killed(), "not killed");
    Ok(pid)
}

/// The pid, in the first namespace, of the process that has `inner` in one below.
fn host_pid(cgroup: &Cgroup, inner: u32) -> Result<u32> {
    let inner = inner.to_string();
    machine::poll("the PID namespace", Duration::from_secs(10), || {
        Ok(cgroup.pids()?.into_iter().find(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            let pids: Vec<&str> = pids.unwrap_or_default().split_whitespace().collect();
            pids.len() > 1 && pids.last() == Some(&inner.as_str())
        }))
    })
}
