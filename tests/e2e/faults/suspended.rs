//! An agent that does not run for a while: stopped, starved of CPU time, or with little memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use memtrace_tests::agent::{Agent, about, of_type};
use memtrace_tests::cgroup::Cgroup;
use memtrace_tests::incident::{is_complete, of_victim, pids, time, victim};
use memtrace_tests::machine::{MIB, poll};
use memtrace_tests::storm::Storm;
use memtrace_tests::workload::Workload;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::oom::run_into_limit;

/// How long it is stopped; `MEMTRACE_STOPPED_S` sets another time by hand.
const STOPPED: Duration = Duration::from_secs(5);
/// Of the process that grows meanwhile.
const BYTES_PER_SECOND: u64 = 4 * MIB;

#[test]
fn kills_and_growth_while_it_is_stopped_are_told_as_they_were() -> Result<()> {
    let stopped = seconds_of("MEMTRACE_STOPPED_S", STOPPED)?;
    let agent = Agent::start(&[])?;
    let grower = Cgroup::new("stopped-growth")?;
    let rate = BYTES_PER_SECOND.to_string();
    let leak = ["leak", "--calm-ms", "0", "--bytes-per-second", &rate];
    let workload = Workload::start(&grower, &leak)?;
    let id = grower.id()?;
    let grows = |line: &Value| {
        let growth = line["growth_bytes_per_second"].as_f64();
        about("cgroup", id)(line) && growth > Some(BYTES_PER_SECOND as f64 / 4.0)
    };
    agent.wait_for("the growth", Duration::from_secs(20), grows)?;
    let mut storm = Storm::prepare(10, 10)?;
    storm.begin()?;
    poll("the middle of the storm", Duration::from_secs(30), || {
        Ok((agent.all(is_complete).len() >= 5).then_some(()))
    })?;
    let mark = agent.mark();
    let (began, clock) = (Timestamp::now(), Instant::now());
    agent.signal(Signal::SIGSTOP)?;
    let expected = storm.victims()?;
    let counted: u64 = storm.counted()?.values().sum();
    thread::sleep(stopped.saturating_sub(clock.elapsed()));
    let ended = Timestamp::now();
    agent.signal(Signal::SIGCONT)?;
    storm.end()?;

    assert_eq!(counted, expected.len() as u64);
    assert_eq!(all_accounted(&agent, &expected)?, 0, "missed");
    // Kernel time: when it happened, not when it was told.
    let after = agent.all(is_complete);
    let while_stopped = after.iter().filter(|incident| {
        let marked = incident["victims"][0]["marked"].as_str();
        let at = marked.and_then(|text| text.parse::<Timestamp>().ok());
        at.is_some_and(|at| at > began && at < ended)
    });
    ensure!(
        while_stopped.count() > 0,
        "nothing happened while it was stopped"
    );
    let slack = jiff::SignedDuration::from_secs(1);
    for incident in &after {
        for pid in pids(incident)
            .iter()
            .filter(|pid| expected.contains_key(pid))
        {
            let marked = time(&victim(incident, *pid)?["marked"])?;
            ensure!(marked < ended + slack, "{incident}");
        }
    }
    // The rate is over the time that passed: a gap, not a jump.
    agent.wait_after(mark, "growth after it", Duration::from_secs(20), grows)?;
    agent.wait_intervals(2)?;
    let jumps = agent.all(|line| {
        let growth = line["growth_bytes_per_second"].as_f64();
        about("cgroup", id)(line) && growth > Some(BYTES_PER_SECOND as f64 * 3.0)
    });
    ensure!(jumps.is_empty(), "{jumps:?}");
    workload.success()?;
    agent.stop().map(drop)
}

#[test]
fn with_next_to_no_cpu_time_incidents_are_late_but_whole() -> Result<()> {
    let agent = Agent::start(&[])?;
    for entry in fs::read_dir(format!("/proc/{}/task", agent.pid()))? {
        let thread: u32 = entry?.file_name().to_string_lossy().parse()?;
        // SAFETY: takes numbers only.
        let status = unsafe { libc::setpriority(libc::PRIO_PROCESS, thread, 19) };
        ensure!(status == 0, std::io::Error::last_os_error());
    }
    let mut storm = Storm::prepare(10, 6)?;
    storm.begin()?;
    let expected = storm.victims()?;
    assert_eq!(all_accounted(&agent, &expected)?, 0, "missed");
    storm.end()?;
    let own = agent.last(of_type("self")).context("no self line")?;
    for cause in [
        "oom_ring_full",
        "record_not_decoded",
        "incident_store_dropped",
    ] {
        assert_eq!(own["lost"][cause], 0, "{own}");
    }
    agent.stop().map(drop)
}

#[test]
fn an_agent_of_32_mib_outlives_kills_among_hundreds_of_cgroups() -> Result<()> {
    let cgroups = number_of("MEMTRACE_CGROUPS", 300)?;
    let room = Cgroup::new("little-room")?;
    room.limit(32 * MIB)?;
    let parent = Cgroup::new("crowd")?;
    let crowd = (0..cgroups).map(|index| parent.child(&format!("c{index}")));
    let _crowd: Vec<Cgroup> = crowd.collect::<Result<_>>()?;
    let agent = Agent::start_in(&room, &[])?;
    let warned = agent.stderr();
    ensure!(warned.contains("own memory limit is 32 MiB"), "{warned}");
    let mut storm = Storm::prepare(20, 10)?;
    storm.begin()?;
    let expected = storm.victims()?;
    assert_eq!(all_accounted(&agent, &expected)?, 0, "missed");
    storm.end()?;
    agent.wait_intervals(2)?;
    assert_eq!(room.oom_kills()?, 0, "the agent's own cgroup");
    let own = agent.last(of_type("self")).context("no self line")?;
    ensure!(own["cgroups"].as_u64() >= Some(cgroups), "{own}");
    println!("peak: {} bytes of {}", peak(&room)?, 32 * MIB);
    agent.stop().map(drop)
}

fn peak(cgroup: &Cgroup) -> Result<String> {
    let read = |name| fs::read_to_string(cgroup.directory().join(name));
    let text = read("memory.max_usage_in_bytes").or_else(|_| read("memory.peak"));
    Ok(text.unwrap_or_default().trim().to_owned())
}

#[test]
fn a_kill_after_the_clock_was_stepped_has_the_new_time() -> Result<()> {
    // The step is made by a library before libc: the machine's clock is everybody's.
    let Some(clock) = super::clock::Stepped::make()? else {
        return Ok(());
    };
    let environment = clock.environment();
    let environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let agent = Agent::start_with(&[], &environment)?;
    let (grower, born) = (Cgroup::new("stepped")?, Instant::now());
    let rate = BYTES_PER_SECOND.to_string();
    let leak = ["leak", "--calm-ms", "0", "--bytes-per-second", &rate];
    let workload = Workload::start(&grower, &leak)?;
    let id = grower.id()?;
    agent.wait_for("the growth", Duration::from_secs(20), about("cgroup", id))?;
    // Kills of others that came while the hooks were attached are told as missed by now.
    agent.wait_intervals(3)?;
    let missed_before = agent.all(|line| line["kind"] == "missed_kills").len();
    for offset_s in [3600, -7200, 0] {
        clock.step(offset_s)?;
        let cgroup = Cgroup::new("stepped-kill")?;
        let before = Timestamp::now();
        let pid = run_into_limit(&cgroup, b"mt-stepped")?;
        let incident = of_victim(&agent, pid)?;
        let marked = time(&victim(&incident, pid)?["marked"])?;
        let step = jiff::SignedDuration::from_secs(offset_s);
        let off = marked.duration_since(before + step);
        ensure!(
            off.abs() < jiff::SignedDuration::from_secs(10),
            "{off}: {incident}"
        );
        memtrace_tests::incident::assert_died(victim(&incident, pid)?)?;
        agent.wait_intervals(2)?;
        if offset_s < 0 {
            // Later than whoever makes a cgroup sets its limit.
            thread::sleep(Duration::from_secs(11).saturating_sub(born.elapsed()));
            grower.limit(4096 * MIB)?;
            agent.wait_for("the limit", Duration::from_secs(15), |line| {
                of_type("limit_changed")(line) && line["cgroup_id"] == id
            })?;
        }
    }
    let wild = agent.all(|line| {
        let growth = line["growth_bytes_per_second"].as_f64();
        about("cgroup", id)(line) && growth.is_some_and(|growth| growth.abs() > 64.0 * MIB as f64)
    });
    ensure!(wild.is_empty(), "{wild:?}");
    let missed = agent
        .all(|line| line["kind"] == "missed_kills")
        .split_off(missed_before);
    ensure!(missed.is_empty(), "{missed:?}");
    workload.success()?;
    agent.stop().map(drop)
}

/// Waits until each of these processes was told as a victim, once, or its cgroup's kill as missed; gives how
/// many were missed.
pub(super) fn all_accounted(agent: &Agent, expected: &BTreeMap<u32, String>) -> Result<u64> {
    let paths: BTreeSet<&str> = expected.values().map(String::as_str).collect();
    let mut told = Vec::new();
    let mut missed = 0;
    let accounted = poll("all kills", Duration::from_secs(90), || {
        let incidents = agent.all(is_complete);
        told = incidents
            .iter()
            .flat_map(pids)
            .filter(|pid| expected.contains_key(pid))
            .collect();
        let lost = incidents.iter().filter(|incident| {
            let path = incident["charged"]["cgroup"].as_str();
            incident["kind"] == "missed_kills" && path.is_some_and(|path| paths.contains(path))
        });
        missed = lost
            .filter_map(|incident| incident["kernel_counts"]["missed"].as_u64())
            .sum();
        Ok((told.len() as u64 + missed >= expected.len() as u64).then_some(()))
    });
    accounted
        .with_context(|| format!("{} told, {missed} missed of {}", told.len(), expected.len()))?;
    agent.wait_intervals(1)?;
    let once: BTreeSet<u32> = told.iter().copied().collect();
    assert_eq!(once.len(), told.len(), "told twice");
    assert_eq!(
        told.len() as u64 + missed,
        expected.len() as u64,
        "{missed} missed"
    );
    println!("{} told, {missed} missed", told.len());
    Ok(missed)
}

fn number_of(variable: &str, usual: u64) -> Result<u64> {
    match std::env::var(variable) {
        Ok(text) => text.parse().with_context(|| format!("{variable}={text}")),
        Err(_) => Ok(usual),
    }
}

fn seconds_of(variable: &str, usual: Duration) -> Result<Duration> {
    Ok(Duration::from_secs(number_of(variable, usual.as_secs())?))
}
