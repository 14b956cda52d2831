//! Which code leaks, told by the running agent: with the verdict, and with the incident that it ends in.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memtrace_tests::agent::{Agent, about, number, of_type};
use memtrace_tests::cgroup::Cgroup;
use memtrace_tests::incident::of_victim;
use memtrace_tests::leak::state;
use memtrace_tests::machine::{self, MIB};
use memtrace_tests::processes::LEAKING_FUNCTION;
use memtrace_tests::recording::{Recorder, Stack};
use memtrace_tests::workload::Workload;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::leak_state::SECONDS_AS_TWO_MINUTES;

const LIMIT: u64 = 128 * MIB;
const RATE: u64 = 2 * MIB;
/// What it tells is at most so old, seconds.
const REFRESHED: u64 = 35;
const STANDARD_ERRORS: f64 = 4.0;

fn start_leak(cgroup: &Cgroup, calm_ms: u64, rate: u64) -> Result<Workload> {
    let (calm_ms, rate) = (calm_ms.to_string(), rate.to_string());
    let arguments = ["leak", "--calm-ms", &calm_ms, "--bytes-per-second", &rate];
    Workload::start(cgroup, &arguments)
}

/// `false` and a word where this kernel does not tell what was touched.
fn can_sample(agent: &Agent) -> bool {
    let can = !agent.stderr().contains("no stacks of resident memory");
    if !can {
        machine::skip("this kernel tells no addresses of page faults");
    }
    can
}

/// The first one, which must be the leak; all call paths that go through it held between these many bytes. A slow
/// machine has several: what takes too long to unwind is cut, and counted.
fn assert_first(stacks: &Value, pid: u32, least: u64, most: u64) -> Result<()> {
    let stacks = stacks.as_array().context("no stacks")?;
    let first = stacks.first().context("no stack at all")?;
    let stack = Stack::of(first)?;
    println!("{first}");
    ensure!(stack.has(LEAKING_FUNCTION), "{first}");
    assert_eq!(stack.pid, u64::from(pid), "{first}");
    let (mut bytes, mut variance, mut share) = (0.0, 0.0, 0.0);
    for told in stacks {
        let one = Stack::of(told)?;
        if one.has(LEAKING_FUNCTION) {
            bytes += one.resident.bytes;
            variance += one.resident.error.powi(2);
            share += told["share"].as_f64().context("no share")?;
        }
    }
    ensure!(share > 0.9, "{stacks:?}");
    let margin = STANDARD_ERRORS * f64::sqrt(variance);
    ensure!(
        bytes + margin >= least as f64 && bytes - margin <= most as f64,
        "not {least} to {most}: {stacks:?}"
    );
    ensure!(
        stack.growth.bytes > 2.0 * stack.growth.error,
        "did not surely grow: {first}"
    );
    Ok(())
}

/// Waits until the workload has leaked up to its limit; the incident of that.
fn end_by_limit(agent: &Agent, cgroup: &Cgroup, workload: Workload) -> Result<Value> {
    let pid = workload.pid();
    machine::poll("the OOM kill", Duration::from_secs(90), || {
        Ok((cgroup.oom_kills()? > 0).then_some(()))
    })?;
    let incident = of_victim(agent, pid)?;
    ensure!(workload.end()?.killed(), "it was not killed");
    Ok(incident)
}

#[test]
fn a_verdict_and_the_oom_that_follows_name_the_leaking_function() -> Result<()> {
    let agent = Agent::start(&SECONDS_AS_TWO_MINUTES)?;
    if !can_sample(&agent) {
        return agent.stop().map(drop);
    }
    let cgroup = Cgroup::new("stacks-agent")?;
    cgroup.limit(LIMIT)?;
    let mut workload = start_leak(&cgroup, 0, RATE)?;
    let pid = workload.pid();
    workload.report()?;
    // Of this age it was looked at more than once; the first look may have come before the first sample.
    let line = agent.wait_for("a confirmed leak", Duration::from_secs(90), |line| {
        of_type("leak")(line) && line["cgroup"] == cgroup.path() && state(line) == "confirmed"
    })?;
    let held = cgroup.usage()?;
    let behind = REFRESHED * RATE;
    assert_first(&line["stacks"], pid, held.saturating_sub(behind), held)?;

    let incident = end_by_limit(&agent, &cgroup, workload)?;
    let stacks = &incident["evidence"]["stacks"];
    assert_first(stacks, pid, LIMIT - behind, LIMIT)?;
    agent.stop().map(drop)
}

#[test]
fn of_a_fast_leak_an_oom_tells_what_was_touched_up_to_its_end() -> Result<()> {
    let agent = Agent::start(&[])?;
    if !can_sample(&agent) {
        return agent.stop().map(drop);
    }
    let cgroup = Cgroup::new("stacks-fast")?;
    cgroup.limit(LIMIT)?;
    // Old enough to be sampled when it begins.
    let mut workload = start_leak(&cgroup, 5000, 64 * MIB)?;
    let pid = workload.pid();
    workload.report()?;
    let incident = end_by_limit(&agent, &cgroup, workload)?;
    let anon = number(&incident["victims"][0], "anon_bytes")?;
    let stacks = &incident["evidence"]["stacks"];
    assert_first(stacks, pid, anon.saturating_sub(2 * MIB), LIMIT)?;
    agent.stop().map(drop)
}

#[test]
fn without_stacks_nothing_more_is_attached_and_no_incident_has_any() -> Result<()> {
    let mut arguments = SECONDS_AS_TWO_MINUTES.to_vec();
    let with = attached(&Agent::start(&arguments)?)?;
    arguments.extend(["--stacks", "off"]);
    let agent = Agent::start(&arguments)?;
    let without = attached(&agent)?;
    let more = without.iter().find(|probe| !with.contains(probe));
    ensure!(more.is_none(), "attached without stacks only: {more:?}");

    let cgroup = Cgroup::new("stacks-off")?;
    cgroup.limit(16 * MIB)?;
    let mut workload = start_leak(&cgroup, 0, RATE)?;
    workload.report()?;
    let incident = end_by_limit(&agent, &cgroup, workload)?;
    let stacks = &incident["evidence"]["stacks"];
    ensure!(
        stacks.is_null() || stacks.as_array().is_some_and(Vec::is_empty),
        "{incident}"
    );
    let id = cgroup.id()?;
    for line in agent.all(about("leak", id)) {
        let stacks = &line["stacks"];
        ensure!(stacks.as_array().is_none_or(Vec::is_empty), "{line}");
    }
    let line = agent.last(of_type("self")).context("no self line")?;
    let samples_lost = line["lost"].as_object().context("no losses")?;
    let lost = samples_lost
        .iter()
        .find(|(cause, count)| cause.starts_with("stack_") && count.as_u64() != Some(0));
    ensure!(lost.is_none(), "sampled all the same: {lost:?}");
    agent.stop().map(drop)
}

fn attached(agent: &Agent) -> Result<Vec<String>> {
    let start = agent.last(of_type("start")).context("no start line")?;
    let probes = start["probes"].as_object().context("no probes")?;
    let attached = probes.iter().filter(|(_, hook)| !hook.is_null());
    Ok(attached
        .map(|(name, hook)| format!("{name} {hook}"))
        .collect())
}

/// Needs nothing but this crate's own workload: for every kernel.
#[test]
fn record_names_the_leaking_function_of_a_program_in_rust() -> Result<()> {
    const RATE: u64 = 8 * MIB;
    let agent = Agent::start(&[])?;
    let can = can_sample(&agent);
    agent.stop()?;
    if !can {
        return Ok(());
    }
    let cgroup = Cgroup::new("stacks-record")?;
    let rate = RATE.to_string();
    let arguments = ["leak", "--calm-ms", "2000", "--bytes-per-second", &rate];
    let mut workload = Workload::start(&cgroup, &arguments)?;
    let path = cgroup.path();
    let recorder = Recorder::start(&["--cgroup", &path], Duration::from_secs(8))?;
    workload.report()?;
    let recording = recorder.finish()?;
    let held = cgroup.usage()?;
    let told = recording.summary();
    println!("{told}{}", recording.tree);
    let first = recording.stacks.first().context("nothing recorded")?;
    ensure!(first.has(LEAKING_FUNCTION), "{told}");
    assert_eq!(first.pid, u64::from(workload.pid()), "{told}");
    let leak = recording.of_function(LEAKING_FUNCTION);
    let margin = STANDARD_ERRORS * leak.resident.error;
    ensure!(
        leak.resident.bytes <= held as f64 + margin && leak.resident.bytes > 8.0 * MIB as f64,
        "{held} in the cgroup:\n{told}"
    );
    ensure!(
        leak.growth.bytes > 2.0 * leak.growth.error,
        "did not surely grow:\n{told}"
    );
    workload.success().map(drop)
}

/// As on a machine so busy that it has no time for names.
#[test]
fn a_verdict_waits_for_no_names() -> Result<()> {
    let agent = Agent::start(&SECONDS_AS_TWO_MINUTES)?;
    if !can_sample(&agent) {
        return agent.stop().map(drop);
    }
    let cgroup = Cgroup::new("stacks-unnamed")?;
    let mut workload = start_leak(&cgroup, 0, RATE)?;
    workload.report()?;
    let worker = machine::poll("the worker that names", Duration::from_secs(20), || {
        only_child_of(agent.pid())
    })?;
    kill(worker, Signal::SIGSTOP)?;
    let line = agent.wait_for("growth", Duration::from_secs(60), |line| {
        of_type("leak")(line) && line["cgroup"] == cgroup.path() && state(line) == "growing"
    })?;
    let first = line["stacks"][0].clone();
    let stack = Stack::of(&first).with_context(|| format!("no stacks: {line}"))?;
    assert_eq!(stack.pid, u64::from(workload.pid()), "{first}");
    let unnamed = |frame: &String| frame.contains("+0x");
    ensure!(stack.frames.iter().all(unnamed), "{first}");
    kill(worker, Signal::SIGCONT)?;
    agent.stop().map(drop)
}

fn only_child_of(pid: u32) -> Result<Option<Pid>> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may have ended meanwhile.
        let children = fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
        if let Some(child) = children.split_whitespace().next() {
            return Ok(Some(Pid::from_raw(child.parse()?)));
        }
    }
    Ok(None)
}
