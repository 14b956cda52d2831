//! Cgroups and processes too short-lived for polling.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use memtrace_tests::agent::{Agent, about, number, of_type};
use memtrace_tests::cgroup::{Cgroup, Version};
use memtrace_tests::incident::of_victim;
use memtrace_tests::machine::{self, MIB, PAGE};
use memtrace_tests::workload::Workload;
use serde_json::Value;

use crate::oom::run_into_limit;

const CHILDREN: u64 = 200;
/// Up to 6.1 each thread keeps up to 64 pages out of /proc/PID/statm (TASK_RSS_EVENTS_THRESH).
const UNCOUNTED: u64 = 64 * PAGE;

#[test]
fn a_cgroup_that_lives_between_two_readings_is_reported_with_its_process() -> Result<()> {
    let agent = Agent::start(&["--interval", "3s"])?;
    let longest = machine::patience(Duration::from_millis(50));
    for _ in 0..10 {
        // Begins right behind a reading.
        agent.wait_after(
            agent.mark(),
            "an interval",
            Duration::from_secs(20),
            of_type("self"),
        )?;
        let mark = agent.mark();
        let born = Instant::now();
        let cgroup = Cgroup::new("brief")?;
        let (path, id) = (cgroup.path(), cgroup.id()?);
        Workload::start(&cgroup, &["nothing"])?.success()?;
        cgroup.remove()?;
        if born.elapsed() > longest {
            // The machine was busy; what follows would prove nothing.
            continue;
        }
        let line = agent.wait_after(
            mark,
            "a line of the brief cgroup",
            Duration::from_secs(20),
            |line| about("cgroup", id)(line) && line["exits"].as_u64() >= Some(1),
        )?;
        assert_eq!(line["cgroup"], path, "{line}");
        assert_eq!(line["removed"], true, "{line}");
        assert_eq!(line["execs"], 1, "{line}");
        assert_eq!(line["exits"], 1, "{line}");
        ensure!(number(&line, "exited_minor_faults")? > 0, "{line}");
        ensure!(number(&line, "exited_peak_rss_bytes")? > 0, "{line}");
        return agent.stop().map(drop);
    }
    bail!("no cgroup lived less than {longest:?} in ten attempts");
}

#[test]
fn short_lived_processes_are_counted_with_their_faults() -> Result<()> {
    let agent = Agent::start(&[])?;
    let cgroup = Cgroup::new("children")?;
    let id = cgroup.id()?;
    let count = CHILDREN.to_string();
    let arguments = ["children", "--count", &count, "--pages", "100"];
    let mut workload = Workload::start(&cgroup, &arguments)?;
    workload.report()?;
    let end = workload.success()?;
    // The children and their parent.
    let line = agent.wait_for("all the exits", Duration::from_secs(15), |line| {
        about("cgroup", id)(line) && line["exits"].as_u64() >= Some(CHILDREN + 1)
    })?;
    assert_eq!(line["exits"], CHILDREN + 1, "{line}");
    assert_eq!(line["execs"], 1, "{line}");
    let faults = number(&line, "exited_minor_faults")? + number(&line, "exited_major_faults")?;
    ensure!(
        faults.abs_diff(end.faults()) * 100 <= end.faults(),
        "wait4 counted {}: {line}",
        end.faults()
    );
    agent.stop().map(drop)
}

#[test]
fn the_end_of_a_big_process_is_reported_with_the_peak_that_wait4_gives() -> Result<()> {
    let agent = Agent::start(&[])?;
    let cgroup = Cgroup::new("big")?;
    let bytes = (48 * MIB).to_string();
    let mut workload = Workload::start(&cgroup, &["touch", "--bytes", &bytes])?;
    workload.report()?;
    let pid = workload.pid();
    let end = workload.success()?;
    let line = agent.wait_for("the process_exit line", Duration::from_secs(15), |line| {
        of_type("process_exit")(line) && line["pid"] == pid
    })?;
    assert_eq!(line["peak_rss_bytes"], end.peak_rss_bytes, "{line}");
    assert_eq!(line["cgroup"], cgroup.path(), "{line}");
    assert_eq!(line["cgroup_id"], cgroup.id()?, "{line}");
    let faults = number(&line, "minor_faults")? + number(&line, "major_faults")?;
    ensure!(
        faults.abs_diff(end.faults()) * 100 <= end.faults(),
        "wait4 counted {}: {line}",
        end.faults()
    );
    agent.stop().map(drop)
}

#[test]
fn a_process_whose_leader_ended_first_keeps_its_name_and_its_numbers() -> Result<()> {
    let agent = Agent::start(&[])?;
    let cgroup = Cgroup::new("leader")?;
    let bytes = (32 * MIB).to_string();
    let arguments = ["--comm", "mt-leader", "leader-first", "--bytes", &bytes];
    let workload = Workload::start(&cgroup, &arguments)?;
    let pid = workload.pid();
    let end = workload.success()?;
    let line = agent.wait_for("the process_exit line", Duration::from_secs(15), |line| {
        of_type("process_exit")(line) && line["cgroup"] == cgroup.path()
    })?;
    assert_eq!(line["pid"], pid, "{line}");
    assert_eq!(line["comm"], "mt-leader", "{line}");
    assert_eq!(line["peak_rss_bytes"], end.peak_rss_bytes, "{line}");
    let id = cgroup.id()?;
    let line = agent.wait_for("the exit", Duration::from_secs(15), |line| {
        about("cgroup", id)(line) && line["exits"].as_u64() >= Some(1)
    })?;
    // Two threads, one process.
    assert_eq!(line["exits"], 1, "{line}");
    ensure!(has_faults(&line, end.faults())?, "not {end:?}: {line}");
    agent.stop().map(drop)
}

/// Its threads end at the same time, so that several find themselves to be the last.
#[test]
fn a_process_of_many_threads_ends_once_with_the_faults_of_all() -> Result<()> {
    const ENDS: u64 = 30;
    const THREADS: u64 = 40;
    let agent = Agent::start(&["--exit-min-rss", "0"])?;
    let cgroup = Cgroup::new("threads")?;
    let (count, bytes) = (THREADS.to_string(), MIB.to_string());
    let arguments = ["threads", "--count", &count, "--bytes", &bytes];
    let mut faults = 0;
    for _ in 0..ENDS {
        let end = Workload::start(&cgroup, &arguments)?.success()?;
        faults += end.faults();
    }
    let id = cgroup.id()?;
    let path = cgroup.path();
    cgroup.remove()?;
    let last = agent.wait_for("the last line", Duration::from_secs(15), |line| {
        about("cgroup", id)(line) && line["removed"] == true
    })?;
    assert_eq!(last["exits"], ENDS, "{last}");
    ensure!(has_faults(&last, faults)?, "not {faults}: {last}");
    let told = agent.all(|line| of_type("process_exit")(line) && line["cgroup"] == path);
    assert_eq!(told.len() as u64, ENDS, "{told:?}");
    agent.stop().map(drop)
}

/// The kernel sets it in one of the threads that find themselves to be the last, and not always the first.
#[test]
fn the_peak_of_a_process_whose_threads_end_at_once_is_the_one_that_wait4_gives() -> Result<()> {
    const ENDS: u64 = 30;
    const THREADS: u64 = 40;
    // Above the peak of this test, which the workload has as its own until it ends.
    let agent = Agent::start(&["--exit-min-rss", "32MiB"])?;
    let (count, bytes) = (THREADS.to_string(), MIB.to_string());
    let arguments = ["threads", "--count", &count, "--bytes", &bytes];
    let mut ended = Vec::new();
    for _ in 0..ENDS {
        let cgroup = Cgroup::new("peak")?;
        let end = Workload::start(&cgroup, &arguments)?.success()?;
        ended.push((cgroup.id()?, cgroup.path(), end.peak_rss_bytes));
        cgroup.remove()?;
    }
    for (id, path, peak_rss_bytes) in ended {
        let last = agent.wait_for("the last line", Duration::from_secs(15), |line| {
            about("cgroup", id)(line) && line["removed"] == true
        })?;
        assert_eq!(last["exited_peak_rss_bytes"], peak_rss_bytes, "{last}");
        let told = agent.wait_for("the process_exit line", Duration::from_secs(15), |line| {
            of_type("process_exit")(line) && line["cgroup"] == path
        })?;
        assert_eq!(told["peak_rss_bytes"], peak_rss_bytes, "{told}");
    }
    agent.stop().map(drop)
}

/// Within 1%, and whatever the last threads touch on their way out.
fn has_faults(line: &Value, expected: u64) -> Result<bool> {
    let told = number(line, "exited_minor_faults")? + number(line, "exited_major_faults")?;
    Ok(told.abs_diff(expected) * 100 <= expected)
}

#[test]
fn a_growing_process_is_named_with_its_size() -> Result<()> {
    let agent = Agent::start(&[])?;
    let cgroup = Cgroup::new("grower")?;
    let id = cgroup.id()?;
    let bytes = (64 * MIB).to_string();
    let arguments = ["--comm", "mt-grower", "touch", "--bytes", &bytes];
    let mut workload = Workload::start(&cgroup, &arguments)?;
    workload.report()?;
    let line = agent.wait_for("the process line", Duration::from_secs(15), |line| {
        about("process", id)(line) && line["rss_anon_bytes"].as_u64() >= Some(64 * MIB - UNCOUNTED)
    })?;
    assert_eq!(line["pid"], workload.pid(), "{line}");
    assert_eq!(line["comm"], "mt-grower", "{line}");
    ensure!(number(&line, "rss_anon_bytes")? < 72 * MIB, "{line}");
    workload.success()?;
    agent.stop().map(drop)
}

/// Among so many others a reading takes a while, in which some of them end, and OOM kills come.
#[test]
fn each_of_many_short_lived_cgroups_is_told_once_as_removed_with_its_process() -> Result<()> {
    const OTHERS: usize = 500;
    const BRIEF: usize = 400;
    let agent = Agent::start(&["--interval", "100ms"])?;
    let _others: Vec<Cgroup> = (0..OTHERS)
        .map(|_| Cgroup::new("idle"))
        .collect::<Result<_>>()?;
    let mark = agent.mark();
    let mut ids = Vec::with_capacity(BRIEF);
    let killed = Cgroup::new("killed")?;
    killed.limit(4 * MIB)?;
    let bytes = (8 * MIB).to_string();
    let mut doomed = Vec::new();
    for index in 0..BRIEF {
        if index % 4 == 0 {
            doomed.push(Workload::start(&killed, &["oom", "--bytes", &bytes])?);
        }
        let cgroup = Cgroup::new("brief")?;
        ids.push(cgroup.id()?);
        Workload::start(&cgroup, &["nothing"])?.success()?;
        cgroup.remove()?;
    }
    for workload in doomed {
        ensure!(workload.end()?.killed());
    }
    let last = ids.last().copied().unwrap_or_default();
    let removed = |id| move |line: &_| about("cgroup", id)(line) && line["removed"] == true;
    agent.wait_after(mark, "the last", Duration::from_secs(20), removed(last))?;
    agent.wait_intervals(3)?;
    for id in ids {
        let told = agent.all(removed(id));
        ensure!(told.len() == 1, "{id} told {} times: {told:?}", told.len());
        assert_eq!(told[0]["exits"], 1, "{}", told[0]);
        assert_eq!(told[0]["execs"], 1, "{}", told[0]);
    }
    agent.stop().map(drop)
}

#[test]
fn a_cgroup_that_was_renamed_is_told_by_its_new_path_and_apart_from_the_next_of_that_name()
-> Result<()> {
    let parent = Cgroup::new("renamed")?;
    if parent.version() != Version::V1 {
        machine::skip("only cgroup v1 lets cgroups be renamed");
        return Ok(());
    }
    let mut renamed = parent.child("before")?;
    let id = renamed.id()?;
    let agent = Agent::start(&[])?;
    agent.wait_for("the cgroup", Duration::from_secs(10), about("cgroup", id))?;
    renamed.rename("after")?;
    let next = parent.child("before")?;
    let bytes = (8 * MIB).to_string();
    let mut beside = Workload::start(&next, &["touch", "--bytes", &bytes])?;
    beside.report()?;
    let path = renamed.path();
    agent.wait_for("the new path", Duration::from_secs(20), |line| {
        about("cgroup", id)(line) && line["cgroup"] == path.as_str()
    })?;
    let pid = run_into_limit(&renamed, b"mt-renamed")?;
    let incident = of_victim(&agent, pid)?;
    assert_eq!(incident["charged"]["cgroup"], path.as_str(), "{incident}");
    let growers = incident["evidence"]["growers"].to_string();
    ensure!(!growers.contains(&next.path()), "{incident}");
    ensure!(!growers.contains(&beside.pid().to_string()), "{incident}");
    beside.success()?;
    agent.stop().map(drop)
}
