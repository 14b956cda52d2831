//! The limit that holds: the smallest of a cgroup, its ancestors and the machine.

use std::time::Duration;

use anyhow::{Result, ensure};
use memtrace_tests::agent::{Agent, about, number};
use memtrace_tests::cgroup::Cgroup;
use memtrace_tests::machine::{self, MIB};
use memtrace_tests::workload::Workload;
use serde_json::Value;

#[test]
fn the_smaller_limit_of_the_parent_is_the_childs_effective_limit() -> Result<()> {
    let parent = Cgroup::new("nested")?;
    parent.limit(64 * MIB)?;
    let wide = parent.child("wide")?;
    wide.limit(128 * MIB)?;
    let narrow = parent.child("narrow")?;
    narrow.limit(48 * MIB)?;
    let free = parent.child("free")?;
    let agent = Agent::start(&[])?;
    let expected = [
        (&wide, Some(128 * MIB), 64 * MIB),
        (&narrow, Some(48 * MIB), 48 * MIB),
        (&free, None, 64 * MIB),
    ];
    for (cgroup, limit, effective) in expected {
        let line = line_of(&agent, cgroup)?;
        assert_eq!(line["limit_bytes"], Value::from(limit), "{line}");
        assert_eq!(line["effective_limit_bytes"], effective, "{line}");
    }
    // A change while memtrace runs counts as well.
    parent.limit(56 * MIB)?;
    agent.wait_for("the new limit", Duration::from_secs(30), |line| {
        about("cgroup", wide.id().unwrap_or(0))(line) && line["effective_limit_bytes"] == 56 * MIB
    })?;
    for child in [wide, narrow, free] {
        child.remove()?;
    }
    agent.stop().map(drop)
}

#[test]
fn without_any_limit_the_machine_is_the_effective_limit() -> Result<()> {
    let cgroup = Cgroup::new("unlimited")?;
    let agent = Agent::start(&[])?;
    let line = line_of(&agent, &cgroup)?;
    assert_eq!(line["limit_bytes"], Value::Null, "{line}");
    let total = machine::memory_info("MemTotal")?;
    let effective = number(&line, "effective_limit_bytes")?;
    ensure!(effective == total, "the machine has {total} bytes: {line}");
    agent.stop().map(drop)
}

/// The first line of the cgroup once a process in it made it change.
fn line_of(agent: &Agent, cgroup: &Cgroup) -> Result<Value> {
    let mut workload = Workload::start(cgroup, &["touch", "--bytes", "4194304"])?;
    workload.report()?;
    let id = cgroup.id()?;
    let line = agent.wait_for("a line of the cgroup", Duration::from_secs(15), |line| {
        about("cgroup", id)(line) && line["usage_bytes"].as_u64() >= Some(4 * MIB)
    })?;
    workload.success()?;
    Ok(line)
}
