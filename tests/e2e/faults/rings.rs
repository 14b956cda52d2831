//! Rings that are full, because memtrace is stopped for longer than they last.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memtrace_tests::agent::{Agent, about, number, of_type};
use memtrace_tests::cgroup::Cgroup;
use memtrace_tests::machine::MIB;
use memtrace_tests::storm::Storm;
use memtrace_tests::workload::Workload;
use nix::sys::signal::Signal;

use super::suspended::all_accounted;

/// In a second several times more samples of stacks than their ring holds.
const BYTES_PER_SECOND: u64 = 512 * MIB;
/// Stacks of younger processes are not sampled.
const OLD_ENOUGH_MS: u64 = 1_100;

#[test]
fn kills_beyond_the_ring_are_told_as_missed() -> Result<()> {
    let agent = Agent::start(&[])?;
    let mut storm = Storm::prepare(50, 60)?;
    // A kill is missed in a cgroup whose count was read before it.
    agent.wait_intervals(2)?;
    agent.signal(Signal::SIGSTOP)?;
    storm.begin()?;
    let expected = storm.victims()?;
    agent.signal(Signal::SIGCONT)?;
    let missed = all_accounted(&agent, &expected)?;
    storm.end()?;
    let own = agent.last(of_type("self")).context("no self line")?;
    ensure!(own["lost"]["oom_ring_full"].as_u64() > Some(0), "{own}");
    ensure!(missed > 0, "{own}");
    agent.stop().map(drop)
}

#[test]
fn a_cgroup_whose_making_was_lost_is_found_in_the_next_interval() -> Result<()> {
    let agent = Agent::start(&[])?;
    agent.wait_intervals(1)?;
    agent.signal(Signal::SIGSTOP)?;
    for _ in 0..3000 {
        Cgroup::new("flood")?.remove()?;
    }
    let grower = Cgroup::new("behind-the-flood")?;
    let rate = (4 * MIB).to_string();
    let leak = ["leak", "--calm-ms", "0", "--bytes-per-second", &rate];
    let workload = Workload::start(&grower, &leak)?;
    agent.signal(Signal::SIGCONT)?;
    let id = grower.id()?;
    agent.wait_for("the cgroup", Duration::from_secs(10), about("cgroup", id))?;
    agent.wait_for("the loss", Duration::from_secs(10), |line| {
        of_type("self")(line) && line["lost"]["event_ring_full"].as_u64() > Some(0)
    })?;
    workload.success()?;
    agent.stop().map(drop)
}

#[test]
fn stacks_beyond_their_ring_are_counted_and_cost_no_fault_and_no_kill() -> Result<()> {
    let agent = Agent::start(&["--stacks", "on"])?;
    let mut storm = Storm::prepare(5, 2)?;
    let cgroup = Cgroup::new("stacks-beyond")?;
    let id = cgroup.id()?;
    agent.wait_intervals(2)?;
    agent.signal(Signal::SIGSTOP)?;
    let (calm, rate) = (OLD_ENOUGH_MS.to_string(), BYTES_PER_SECOND.to_string());
    let leak = ["leak", "--calm-ms", &calm, "--bytes-per-second", &rate];
    let mut workload = Workload::start(&cgroup, &leak)?;
    workload.report()?;
    thread::sleep(Duration::from_secs(1));
    let end = workload.success()?;
    storm.begin()?;
    let expected = storm.victims()?;
    agent.signal(Signal::SIGCONT)?;
    assert_eq!(all_accounted(&agent, &expected)?, 0, "missed");
    storm.end()?;
    let line = agent.wait_for("the end of the process", Duration::from_secs(15), |line| {
        about("cgroup", id)(line) && line["exits"].as_u64() == Some(1)
    })?;
    let faults = number(&line, "exited_minor_faults")? + number(&line, "exited_major_faults")?;
    ensure!(
        faults.abs_diff(end.faults()) * 100 <= end.faults(),
        "wait4 counted {}: {line}",
        end.faults()
    );
    let own = agent.last(of_type("self")).context("no self line")?;
    ensure!(own["lost"]["stack_ring_full"].as_u64() > Some(0), "{own}");
    assert_eq!(own["lost"]["oom_ring_full"], 0, "{own}");
    agent.stop().map(drop)
}
