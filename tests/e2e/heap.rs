//! Bytes that programs ask for and give back, against strace and the program's own account.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memtrace_tests::agent::{Agent, about, number};
use memtrace_tests::calls::Sums;
use memtrace_tests::cgroup::Cgroup;
use memtrace_tests::machine;
use memtrace_tests::strace;
use memtrace_tests::workload::Workload;
use serde_json::Value;

/// Fewer would mean that the wrong uses of [`memtrace_tests::calls`] are no longer wrong.
const REFUSED: u64 = 20;

#[test]
fn requested_and_released_bytes_equal_the_programs_own_account() -> Result<()> {
    let agent = Agent::start(&[])?;
    let cgroup = Cgroup::new("heap")?;
    let id = cgroup.id()?;
    let mut workload = Workload::start(&cgroup, &["calls"])?;
    workload.report()?;
    agent.wait_intervals(2)?;
    let before = totals(&agent, id)?;
    workload.resume()?;
    ensure!(workload.line()? == "done");
    agent.wait_intervals(2)?;
    let seen = totals(&agent, id)?.since(before);

    workload.resume()?;
    let report = workload.report()?;
    let expected = Sums::of(&report).context("no sums in the report")?;
    workload.success()?;
    ensure!(number(&report, "refused")? >= REFUSED, "{report}");
    assert_eq!(seen, expected, "memtrace's totals and the program's");
    agent.stop().map(drop)
}

#[test]
fn requested_and_released_bytes_equal_what_strace_saw() -> Result<()> {
    let Some(strace) = machine::tool("strace")? else {
        return Ok(());
    };
    let agent = Agent::start(&[])?;
    let cgroup = Cgroup::new("heap-strace")?;
    let id = cgroup.id()?;
    let directory = tempfile::tempdir()?;
    let output = directory.path().join("strace.txt");
    let mut command = Command::new(strace);
    command
        .args(["-f", "-X", "raw", "-e", strace::TRACE, "-o"])
        .arg(&output)
        .arg("--")
        .arg(machine::workload()?)
        .arg("--cgroup")
        .arg(cgroup.directory())
        .arg("calls");
    let mut workload = Workload::spawn(command)?;
    workload.report()?;
    workload.resume()?;
    workload.line()?;
    workload.resume()?;
    let own = Sums::of(&workload.report()?).context("no sums in the report")?;
    workload.success()?;

    let expected = strace::sums_after_joining(&fs::read_to_string(&output)?)?;
    ensure!(
        expected.mmap_bytes >= own.mmap_bytes && own.mmap_bytes > 0,
        "strace saw {expected:?}, less than the program did: {own:?}"
    );
    agent.wait_for(&format!("{expected:?}"), Duration::from_secs(15), |line| {
        about("cgroup", id)(line) && Sums::of(line) == Some(expected)
    })?;
    agent.wait_intervals(2)?;
    assert_eq!(totals(&agent, id)?, expected, "the totals went on changing");
    agent.stop().map(drop)
}

#[test]
fn without_the_heap_probe_its_fields_are_null_and_nothing_is_attached() -> Result<()> {
    let agent = Agent::start(&["--heap", "off"])?;
    let start = agent
        .last(|line| line["type"] == "start")
        .context("no start line")?;
    let probes = start["probes"].as_object().context("no probes")?;
    let attached: Vec<_> = probes
        .iter()
        .filter(|(name, hook)| name.starts_with("heap") && !hook.is_null())
        .collect();
    ensure!(attached.is_empty(), "attached: {attached:?}");
    ensure!(
        !probes["oom.mark_victim"].is_null(),
        "no other probe either: {start}"
    );

    let cgroup = Cgroup::new("heap-off")?;
    let workload = Workload::start(&cgroup, &["pause"])?;
    let line = agent.wait_for(
        "a line of the cgroup",
        Duration::from_secs(15),
        about("cgroup", cgroup.id()?),
    )?;
    for field in Sums::FIELDS {
        ensure!(line.get(field) == Some(&Value::Null), "{field} in {line}");
    }
    workload.success()?;
    agent.stop().map(drop)
}

fn totals(agent: &Agent, id: u64) -> Result<Sums> {
    let line = agent
        .last(about("cgroup", id))
        .context("no line of the cgroup")?;
    Sums::of(&line).with_context(|| format!("no heap totals in {line}"))
}
