//! Page faults of a cgroup, against `perf stat` and `wait4(2)`.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memtrace_tests::agent::{Agent, about, number};
use memtrace_tests::cgroup::Cgroup;
use memtrace_tests::machine::{self, PAGE};
use memtrace_tests::workload::Workload;
use serde_json::Value;

const PAGES: u64 = 60_000;

#[test]
fn faults_of_a_cgroup_are_those_that_wait4_gives_for_its_process() -> Result<()> {
    let agent = Agent::start(&[])?;
    let cgroup = Cgroup::new("fault")?;
    let mut workload = Workload::start(&cgroup, &touch())?;
    let report = workload.report()?;
    ensure!(number(&report, "pages")? == PAGES);
    let end = workload.success()?;
    ensure!(end.faults() >= PAGES, "the workload lied: {end:?}");
    matches(&agent, cgroup, end.faults())?;
    agent.stop().map(drop)
}

#[test]
fn faults_of_a_cgroup_are_those_that_perf_counts() -> Result<()> {
    let Some(perf) = machine::tool("perf")? else {
        return Ok(());
    };
    let agent = Agent::start(&[])?;
    let cgroup = Cgroup::new("fault-perf")?;
    let directory = tempfile::tempdir()?;
    let output = directory.path().join("perf.csv");
    let mut command = Command::new(perf);
    command
        .args(["stat", "-x,", "-e", "page-faults", "-o"])
        .arg(&output)
        .arg("--")
        .arg(machine::workload()?)
        .arg("--cgroup")
        .arg(cgroup.directory())
        .args(touch());
    let mut workload = Workload::spawn(command)?;
    workload.report()?;
    workload.success()?;
    let text = fs::read_to_string(&output)?;
    let counted = text
        .lines()
        .find(|line| line.contains("page-faults"))
        .and_then(|line| line.split(',').next()?.parse().ok())
        .with_context(|| format!("no count in perf's output: {text}"))?;
    ensure!(counted >= PAGES, "perf counted only {counted}");
    matches(&agent, cgroup, counted)?;
    agent.stop().map(drop)
}

fn touch() -> Vec<String> {
    let bytes = (PAGES * PAGE).to_string();
    vec!["touch".into(), "--bytes".into(), bytes]
}

/// memtrace's faults come within 1% of `expected` and stay there up to the cgroup's last line.
fn matches(agent: &Agent, cgroup: Cgroup, expected: u64) -> Result<()> {
    let id = cgroup.id()?;
    let close = |line: &Value| {
        let sum = |minor: &str, major: &str| Some(line[minor].as_u64()? + line[major].as_u64()?);
        let near =
            |faults: Option<u64>| faults.is_some_and(|n| n.abs_diff(expected) * 100 <= expected);
        near(sum("minor_faults", "major_faults"))
            && near(sum("exited_minor_faults", "exited_major_faults"))
    };
    agent.wait_for(
        &format!("a cgroup line with {expected} faults within 1%"),
        Duration::from_secs(15),
        |line| about("cgroup", id)(line) && close(line),
    )?;
    cgroup.remove()?;
    let last = agent.wait_for("the cgroup's last line", Duration::from_secs(15), |line| {
        about("cgroup", id)(line) && line["removed"] == true
    })?;
    ensure!(
        close(&last),
        "expected {expected} faults at the end: {last}"
    );
    Ok(())
}
