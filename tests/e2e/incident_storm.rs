//! Incidents as fast as the kernel makes them, and cgroups that do not live to see theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memtrace_tests::agent::{self, Agent, of_type};
use memtrace_tests::cgroup::Cgroup;
use memtrace_tests::incident::{
    assert_victim_is, is_complete, is_kernel_kill, of_victim, pids, stored, victim, victims,
};
use memtrace_tests::kernel_log::KernelLog;
use memtrace_tests::machine::{self, MIB};
use memtrace_tests::storm::Storm;
use memtrace_tests::workload::Workload;
use serde_json::Value;

use crate::oom::run_into_limit;

#[test]
fn a_cgroup_that_is_removed_right_after_the_kill_keeps_its_incident() -> Result<()> {
    let agent = Agent::start(&[])?;
    for _ in 0..10 {
        let mut log = KernelLog::open()?;
        let parent = Cgroup::new("removed")?;
        let cgroup = parent.child("brief")?;
        let (path, id) = (cgroup.path(), cgroup.id()?);
        let (top, top_id) = (parent.path(), parent.id()?);
        parent.limit(16 * MIB)?;
        let arguments = ["--comm", "mt-brief", "oom", "--bytes", "67108864"];
        let workload = Workload::start(&cgroup, &arguments)?;
        let pid = workload.pid();
        ensure!(workload.end()?.killed(), "not killed");
        cgroup.remove()?;
        parent.remove()?;
        let incident = of_victim(&agent, pid)?;
        assert_eq!(incident["kind"], "cgroup_oom", "{incident}");
        assert_eq!(incident["charged"]["cgroup"], top, "{incident}");
        assert_eq!(incident["charged"]["cgroup_id"], top_id, "{incident}");
        assert_eq!(incident["charged"]["limit_bytes"], 16 * MIB, "{incident}");
        let victim = victim(&incident, pid)?;
        assert_eq!(victim["cgroup"], path, "{incident}");
        assert_eq!(victim["cgroup_id"], id, "{incident}");
        assert_victim_is(victim, &log.kill_of(pid)?)?;
        let counted = &incident["kernel_counts"]["oom_kill_local"];
        ensure!(counted.is_null() || counted == 1, "{incident}");
    }
    let missed = agent.all(|line| line["kind"] == "missed_kills");
    ensure!(missed.is_empty(), "{missed:?}");
    agent.stop().map(drop)
}

#[test]
fn a_storm_of_1000_kills_in_50_cgroups_is_told_without_loss_by_an_agent_of_64_mib() -> Result<()> {
    let room = Cgroup::new("agent-room")?;
    room.limit(64 * MIB)?;
    let agent = Agent::start_in(&room, &[])?;
    let mut storm = Storm::prepare(50, 20)?;
    storm.begin()?;
    let expected = storm.victims()?;
    let counted = storm.counted()?;
    assert_eq!(expected.len(), 1000, "a pid came twice");
    assert_eq!(counted.values().sum::<u64>(), 1000, "{counted:?}");

    all_told(&agent, &expected)?;
    storm.end()?;
    let incidents = newest_of_each(&agent.all(is_complete))?;
    let about: Vec<&Value> = incidents
        .values()
        .filter(|incident| is_about(incident, &expected))
        .collect();
    assert_eq!(about.len(), 1000, "incidents");
    let mut told: BTreeMap<String, u64> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for incident in about {
        assert_eq!(incident["kind"], "cgroup_oom", "{incident}");
        assert_eq!(victims(incident).len(), 1, "{incident}");
        for pid in pids(incident) {
            ensure!(seen.insert(pid), "{pid} is told twice: {incident}");
            let path = expected
                .get(&pid)
                .with_context(|| format!("{pid}: {incident}"))?;
            assert_eq!(victim(incident, pid)?["cgroup"], *path, "{incident}");
            assert_eq!(incident["charged"]["cgroup"], *path, "{incident}");
            assert_eq!(incident["trigger"]["pid"], pid, "{incident}");
            *told.entry(path.clone()).or_default() += 1;
        }
    }
    assert_eq!(told, counted);
    let marks = agent.all(of_type("oom_kill"));
    let marked: Vec<u64> = marks
        .iter()
        .filter_map(|line| line["victim_pid"].as_u64())
        .collect();
    for pid in expected.keys() {
        let marks = marked
            .iter()
            .filter(|mark| **mark == u64::from(*pid))
            .count();
        assert_eq!(marks, 1, "oom_kill lines of {pid}");
    }
    nothing_lost(&agent)?;
    let missed = agent.all(|line| line["kind"] == "missed_kills");
    ensure!(
        missed.is_empty(),
        "{} that were not: {missed:?}",
        missed.len()
    );
    assert_eq!(room.oom_kills()?, 0, "the agent's own cgroup");
    agent.stop()?;
    drop(room);
    Ok(())
}

#[test]
fn an_agent_killed_in_the_storm_and_restarted_tells_nothing_twice_and_keeps_its_store() -> Result<()>
{
    let directory = tempfile::tempdir()?;
    let state = directory.path().to_str().context("no text")?;
    let first = Agent::start(&["--state-dir", state])?;
    let mut storm = Storm::prepare(20, 30)?;
    storm.begin()?;
    machine::poll("the middle of the storm", Duration::from_secs(60), || {
        Ok((first.all(is_complete).len() >= 150).then_some(()))
    })?;
    let before: Vec<Value> = first.kill()?.into_iter().filter(is_complete).collect();
    let second = Agent::start(&["--state-dir", state])?;
    let expected = storm.victims()?;
    storm.end()?;
    // One more, which ends what was before it.
    let last = Cgroup::new("after-the-storm")?;
    let last_pid = run_into_limit(&last, b"mt-last")?;
    of_victim(&second, last_pid)?;
    let while_running = stored(state)?;
    let after: Vec<Value> = second.all(is_complete);
    second.stop()?;
    let stored = stored(state)?;
    ensure!(stored.len() >= while_running.len(), "some are gone");

    let before = newest_of_each(&before)?;
    let after = newest_of_each(&after)?;
    let twice: Vec<&String> = after.keys().filter(|id| before.contains_key(*id)).collect();
    ensure!(twice.is_empty(), "told by both: {twice:?}");
    let mut ids = BTreeSet::new();
    let mut owners: BTreeMap<u32, &Value> = BTreeMap::new();
    for incident in &stored {
        ensure!(ids.insert(id(incident)?), "two of {}", incident["id"]);
        for pid in pids(incident) {
            if let Some(other) = owners.insert(pid, incident) {
                anyhow::bail!("{pid} is in {other} and in {incident}");
            }
        }
    }
    for (id, incident) in before.iter().chain(&after) {
        ensure!(ids.contains(id), "not stored: {incident}");
    }
    for (pid, path) in &expected {
        if let Some(incident) = owners.get(pid) {
            assert_eq!(victim(incident, *pid)?["cgroup"], *path, "{incident}");
        }
    }
    let about = before
        .values()
        .filter(|incident| is_about(incident, &expected));
    ensure!(about.count() >= 100, "the first one told too little");
    Ok(())
}

#[test]
fn an_agent_whose_reader_goes_away_in_the_storm_it_began_in_leaves_no_kill_untold() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let state = directory.path().to_str().context("no text")?;
    let mut storm = Storm::prepare(20, 30)?;
    let arguments = ["run", "--output", "json", "--interval", "500ms"];
    let mut command = agent::command(&arguments)?;
    command.args(["--state-dir", state]).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let mut reader = BufReader::new(child.stdout.take().context("no stdout")?);
    reader.read_line(&mut String::new())?;
    storm.begin()?;
    for _ in 0..60 {
        reader.read_line(&mut String::new())?;
    }
    drop(reader);
    agent::wait(&mut child, Duration::from_secs(20))?;
    let expected = storm.victims()?;
    storm.end()?;

    let second = Agent::start(&["--state-dir", state])?;
    second.wait_intervals(2)?;
    second.stop()?;
    let stored = stored(state)?;
    let seen: BTreeSet<u32> = stored
        .iter()
        .filter(|incident| is_about(incident, &expected))
        .flat_map(pids)
        .collect();
    let missed: u64 = stored
        .iter()
        .filter_map(|incident| incident["kernel_counts"]["missed"].as_u64())
        .sum();
    assert_eq!(seen.len() as u64 + missed, expected.len() as u64);
    Ok(())
}

/// Waits until every process was told of.
fn all_told(agent: &Agent, expected: &BTreeMap<u32, String>) -> Result<()> {
    let mut missing = 0;
    let told = machine::poll("all incidents", Duration::from_secs(30), || {
        let told: BTreeSet<u32> = agent.all(is_complete).iter().flat_map(pids).collect();
        missing = expected.keys().filter(|pid| !told.contains(pid)).count();
        Ok((missing == 0).then_some(()))
    });
    told.with_context(|| {
        let lost = agent.last(of_type("self")).map(|line| line["lost"].clone());
        format!("{missing} are missing; lost: {lost:?}; {}", agent.stderr())
    })
}

fn newest_of_each(incidents: &[Value]) -> Result<BTreeMap<String, Value>> {
    incidents
        .iter()
        .map(|incident| Ok((id(incident)?, incident.clone())))
        .collect()
}

fn id(incident: &Value) -> Result<String> {
    let id = incident["id"].as_str();
    Ok(id
        .with_context(|| format!("no id in {incident}"))?
        .to_owned())
}

fn is_about(incident: &Value, expected: &BTreeMap<u32, String>) -> bool {
    is_kernel_kill(incident) && pids(incident).iter().any(|pid| expected.contains_key(pid))
}

fn nothing_lost(agent: &Agent) -> Result<()> {
    agent.wait_intervals(1)?;
    let line = agent.last(of_type("self")).context("no self line")?;
    let lost = line["lost"].as_object().context("no lost")?;
    for (cause, count) in lost {
        let about = ["oom", "incident", "record", "output", "store"];
        let harmless = !about.iter().any(|word| cause.contains(word));
        ensure!(harmless || count == 0, "{cause}: {count}");
    }
    Ok(())
}
