//! Files of a process that cannot be read.

use anyhow::{Result, ensure};
use memtrace_tests::agent::{Agent, number, of_type};
use memtrace_tests::cgroup::Cgroup;
use memtrace_tests::incident::{of_victim, victim};
use memtrace_tests::machine::MIB;
use memtrace_tests::workload::Workload;
use serde_json::Value;

use super::files::{Unreadable, agent, set};

const LIMIT: u64 = 32 * MIB;

/// A process grows for some intervals until it is killed, of which the incident tells all; gives how often
/// it was told as one that grows.
fn told_as_growing(agent: &Agent, unreadable: &Unreadable, hidden: Option<&str>) -> Result<usize> {
    let cgroup = Cgroup::new("no-proc")?;
    cgroup.limit(LIMIT)?;
    // Right behind a look at the processes: the next one finds it hidden.
    agent.wait_intervals(0)?;
    let rate = (LIMIT / 2).to_string();
    let workload = Workload::start(&cgroup, &["leak-on", "--bytes-per-second", &rate])?;
    let pid = workload.pid();
    let path = hidden.map(|file| format!("/proc/{pid}/{file}"));
    set(unreadable, path.as_deref());
    ensure!(workload.end()?.killed(), "not killed");
    let incident = of_victim(agent, pid)?;
    set(unreadable, None);
    let victim = victim(&incident, pid)?;
    assert_eq!(victim["cgroup"], cgroup.path(), "{hidden:?}: {incident}");
    ensure!(
        victim["anon_bytes"].as_u64() > Some(LIMIT / 2),
        "{incident}"
    );
    let grower = &incident["evidence"]["growers"][0];
    assert_eq!(grower["pid"], pid, "{hidden:?}: {incident}");
    let told = agent.all(|line: &Value| of_type("process")(line) && line["pid"] == pid);
    Ok(told.len())
}

#[test]
fn a_process_that_procfs_hides_is_not_told_as_growing_and_its_kill_is_told() -> Result<()> {
    let (agent, unreadable) = agent(&[], None)?;
    let told = told_as_growing(&agent, &unreadable, None)?;
    ensure!(told > 0, "nothing is told of a process that can be read");
    for file in ["stat", "statm"] {
        let before = agent.refused();
        let told = told_as_growing(&agent, &unreadable, Some(file))?;
        ensure!(agent.refused() > before, "{file} was not read");
        assert_eq!(told, 0, "{file}");
    }
    agent.stop().map(drop)
}

#[test]
fn a_command_line_that_procfs_hides_is_null_and_the_executable_is_told() -> Result<()> {
    let cgroup = Cgroup::new("no-command-line")?;
    cgroup.limit(LIMIT)?;
    let bytes = (4 * LIMIT).to_string();
    // Of a process that is older than memtrace only procfs has it.
    let mut parent = Workload::start(&cgroup, &["child-first", "--bytes", &bytes])?;
    let child = u32::try_from(number(&parent.report()?, "child")?)?;
    let (agent, _) = agent(&[], Some(&format!("/proc/{child}/cmdline")))?;
    ensure!(agent.refused() > 0, "it was not read");
    parent.resume()?;
    let incident = of_victim(&agent, child)?;
    parent.success()?;
    let victim = victim(&incident, child)?;
    ensure!(victim["command_line"].is_null(), "{victim}");
    ensure!(victim["executable"].is_string(), "{victim}");
    assert_eq!(victim["cgroup"], cgroup.path(), "{incident}");
    agent.stop().map(drop)
}
