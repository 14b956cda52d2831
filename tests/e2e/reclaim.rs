//! Time that processes lose while they reclaim memory for their own limit.

use std::time::Duration;

use anyhow::{Result, ensure};
use memtrace_tests::agent::{Agent, about, number};
use memtrace_tests::cgroup::Cgroup;
use memtrace_tests::machine::{self, MIB};
use memtrace_tests::workload::Workload;
use serde_json::Value;

use crate::oom::run_into_limit;

#[test]
fn a_process_that_reads_files_beyond_its_limit_stalls_in_reclaim() -> Result<()> {
    let directory = tempfile::tempdir()?;
    if machine::is_vm() && machine::is_memory_only(directory.path())? {
        machine::skip("no file system on a disk");
        return Ok(());
    }
    let agent = Agent::start(&[])?;
    let cgroup = Cgroup::new("reclaim")?;
    cgroup.limit(32 * MIB)?;
    let path = directory.path().join("big-file");
    let path = path.to_string_lossy();
    let bytes = (128 * MIB).to_string();
    let arguments = ["file-io", "--path", &path, "--bytes", &bytes];
    let mut workload = Workload::start(&cgroup, &arguments)?;
    let report = workload.report()?;
    ensure!(number(&report, "read")? == 128 * MIB, "{report}");
    let line = stalled(&agent, cgroup.id()?)?;
    ensure!(number(&line, "usage_bytes")? <= 32 * MIB, "{line}");
    workload.success()?;
    agent.stop().map(drop)
}

#[test]
fn a_process_that_runs_into_its_limit_stalls_in_reclaim_before_it_is_killed() -> Result<()> {
    let agent = Agent::start(&[])?;
    let idle = Cgroup::new("no-reclaim")?;
    let resting = Workload::start(&idle, &["pause"])?;
    let cgroup = Cgroup::new("reclaim-kill")?;
    run_into_limit(&cgroup, b"mt-reclaim")?;
    stalled(&agent, cgroup.id()?)?;
    // A neighbour without a limit did not stall.
    let line = agent.wait_for(
        "a line of the neighbour",
        Duration::from_secs(15),
        about("cgroup", idle.id()?),
    )?;
    assert_eq!(line["reclaim_count"], 0, "{line}");
    assert_eq!(line["reclaim_stall_ns"], 0, "{line}");
    resting.success()?;
    agent.stop().map(drop)
}

/// A line of the cgroup that tells of a stall.
pub fn stalled(agent: &Agent, id: u64) -> Result<Value> {
    agent.wait_for("a stall in reclaim", Duration::from_secs(15), |line| {
        about("cgroup", id)(line)
            && line["reclaim_count"].as_u64() > Some(0)
            && line["reclaim_stall_ns"].as_u64() > Some(0)
    })
}
