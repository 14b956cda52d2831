//! OOM kills, against the kernel log.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use anyhow::{Result, ensure};
use memtrace_tests::agent::{Agent, number, of_type};
use memtrace_tests::cgroup::Cgroup;
use memtrace_tests::incident::is_near_log;
use memtrace_tests::kernel_log::KernelLog;
use memtrace_tests::machine::MIB;
use memtrace_tests::workload::Workload;
use serde_json::Value;

const LIMIT: u64 = 32 * MIB;

/// Runs a workload into its limit; gives its pid.
pub fn run_into_limit(cgroup: &Cgroup, comm: &[u8]) -> Result<u32> {
    cgroup.limit(LIMIT)?;
    let bytes = (4 * LIMIT).to_string();
    let arguments: [&OsStr; 5] = [
        "--comm".as_ref(),
        OsStr::from_bytes(comm),
        "oom".as_ref(),
        "--bytes".as_ref(),
        bytes.as_ref(),
    ];
    let workload = Workload::start(cgroup, &arguments.map(OsString::from))?;
    let pid = workload.pid();
    let end = workload.end()?;
    ensure!(end.killed(), "not killed: {end:?}");
    Ok(pid)
}

/// memtrace's line about the kill of that process.
pub fn line_about(agent: &Agent, pid: u32) -> Result<Value> {
    agent.wait_for("the oom_kill line", Duration::from_secs(10), |line| {
        of_type("oom_kill")(line) && line["victim_pid"] == pid
    })
}

#[test]
fn an_oom_kill_equals_the_kernel_log_in_every_field() -> Result<()> {
    let agent = Agent::start(&[])?;
    let cgroup = Cgroup::new("oom")?;
    let mut log = KernelLog::open()?;
    let pid = run_into_limit(&cgroup, b"mt-oom")?;
    let kernel = log.kill_of(pid)?;
    let line = line_about(&agent, pid)?;

    let kib = |field: &str| number(&line, field).map(|bytes| bytes / 1024);
    assert_eq!(line["victim_comm"], kernel.comm, "{line}");
    assert_eq!(line["victim_tid"], pid, "{line}");
    assert_eq!(line["victim_uid"], kernel.uid, "{line}");
    assert_eq!(kib("total_vm_bytes")?, kernel.total_vm_kib, "{line}");
    for (field, logged) in [
        ("anon_bytes", kernel.anon_kib),
        ("file_bytes", kernel.file_kib),
        ("shmem_bytes", kernel.shmem_kib),
    ] {
        let near = is_near_log(field, kib(field)?, logged);
        ensure!(near, "{field}: {logged} KiB in the log, {line}");
    }
    assert_eq!(kib("page_table_bytes")?, kernel.page_tables_kib, "{line}");
    assert_eq!(line["oom_score_adj"], kernel.oom_score_adj, "{line}");
    // Nothing is swapped out here, and the kernel log does not say.
    assert_eq!(line["swap_bytes"], 0, "{line}");

    let id = cgroup.id()?;
    assert_eq!(line["cgroup"], cgroup.path(), "{line}");
    assert_eq!(line["cgroup_id"], id, "{line}");
    // The only process there is its own trigger.
    assert_eq!(line["trigger_pid"], pid, "{line}");
    assert_eq!(line["trigger_comm"], kernel.comm, "{line}");
    assert_eq!(line["trigger_cgroup"], cgroup.path(), "{line}");
    assert_eq!(line["trigger_cgroup_id"], id, "{line}");
    agent.stop().map(drop)
}

#[test]
fn an_oom_kill_is_reported_once_and_without_waiting_for_the_interval() -> Result<()> {
    let agent = Agent::start(&["--interval", "300s"])?;
    let cgroup = Cgroup::new("oom-at-once")?;
    let pid = run_into_limit(&cgroup, b"mt-oom")?;
    line_about(&agent, pid)?;
    let second = Cgroup::new("oom-at-once")?;
    let second_pid = run_into_limit(&second, b"mt-oom")?;
    line_about(&agent, second_pid)?;
    // Rings keep their order: a second line about the first kill would be here by now.
    let lines = agent.all(|line| of_type("oom_kill")(line) && line["victim_pid"] == pid);
    assert_eq!(lines.len(), 1, "{lines:?}");
    agent.stop().map(drop)
}

#[test]
fn a_kill_by_the_limit_above_names_the_cgroup_of_the_victim() -> Result<()> {
    let agent = Agent::start(&[])?;
    let parent = Cgroup::new("oom-above")?;
    parent.limit(LIMIT)?;
    let child = parent.child("inside")?;
    let workload = Workload::start(&child, &["oom", "--bytes", "134217728"])?;
    let pid = workload.pid();
    let end = workload.end()?;
    ensure!(end.killed(), "not killed: {end:?}");
    let line = line_about(&agent, pid)?;
    assert_eq!(line["cgroup"], child.path(), "{line}");
    assert_eq!(line["cgroup_id"], child.id()?, "{line}");
    drop(child);
    agent.stop().map(drop)
}

#[test]
fn two_instances_see_the_same_kill() -> Result<()> {
    let first = Agent::start(&[])?;
    let second = Agent::start(&[])?;
    let cgroup = Cgroup::new("oom-twice")?;
    let pid = run_into_limit(&cgroup, b"mt-oom")?;
    let (mut one, mut other) = (line_about(&first, pid)?, line_about(&second, pid)?);
    // Each program ran at its own moment.
    one["time"].take();
    other["time"].take();
    assert_eq!(one, other);
    // The end of one must not end the other.
    first.stop()?;
    let later = Cgroup::new("oom-twice")?;
    let pid = run_into_limit(&later, b"mt-oom")?;
    line_about(&second, pid)?;
    second.stop().map(drop)
}
