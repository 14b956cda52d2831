//! Incidents: whose limit it was.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use memtrace_tests::agent::{Agent, number, of_type};
use memtrace_tests::cgroup::{Cgroup, Version};
use memtrace_tests::incident::{assert_is_logged, assert_means, of_victim, time, victim, victims};
use memtrace_tests::kernel_log::KernelLog;
use memtrace_tests::machine::{self, MIB};
use memtrace_tests::swap::Swap;
use memtrace_tests::workload::{Workload, start_asker};
use serde_json::Value;

const LIMIT: u64 = 32 * MIB;
const TOO_MUCH: &str = "134217728";

/// Runs one process in `cgroup` until it is killed; gives its incident, held against the log.
fn killed_in(agent: &Agent, cgroup: &Cgroup) -> Result<(u32, Value)> {
    let mut log = KernelLog::open()?;
    let workload = Workload::start(cgroup, &["--comm", "mt-limit", "oom", "--bytes", TOO_MUCH])?;
    let pid = workload.pid();
    let end = workload.end()?;
    ensure!(end.killed(), "not killed: {end:?}");
    let incident = of_victim(agent, pid)?;
    assert_is_logged(agent, &incident, &log.whole_oom_of(pid)?)?;
    assert_eq!(incident["trigger"]["pid"], pid, "{incident}");
    assert_eq!(incident["trigger"]["tid"], pid, "{incident}");
    Ok((pid, incident))
}

#[test]
fn a_process_at_its_own_limit_is_told_in_every_field() -> Result<()> {
    let agent = Agent::start(&[])?;
    let cgroup = Cgroup::new("own-limit")?;
    cgroup.limit(LIMIT)?;
    let mut log = KernelLog::open()?;
    let began = (Timestamp::try_from(SystemTime::now())?, boot_time_ns()?);
    let arguments = [
        "--comm", "mt-own", "--uid", "1234", "oom", "--bytes", TOO_MUCH,
    ];
    let workload = Workload::start(&cgroup, &arguments)?;
    let pid = workload.pid();
    let end = workload.end()?;
    ensure!(end.killed(), "not killed: {end:?}");
    let ended = (Timestamp::try_from(SystemTime::now())?, boot_time_ns()?);
    let incident = of_victim(&agent, pid)?;
    assert_is_logged(&agent, &incident, &log.whole_oom_of(pid)?)?;

    let moment = time(&incident["time"])?;
    // Two clocks, read one after the other.
    let inexact = SignedDuration::from_millis(5);
    ensure!(
        moment >= began.0 - inexact && moment <= ended.0 + inexact,
        "{incident}"
    );
    let booted = incident["boot_time_ns"].as_u64().context("no boot time")?;
    ensure!((began.1..=ended.1).contains(&booted), "{incident}");
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    assert_eq!(incident["boot_id"], boot_id.trim(), "{incident}");

    let id = cgroup.id()?;
    let path = cgroup.path();
    assert_eq!(incident["charged"]["cgroup_id"], id, "{incident}");
    assert_eq!(incident["charged"]["limit_bytes"], LIMIT, "{incident}");
    let trigger = &incident["trigger"];
    assert_eq!(trigger["pid"], pid, "{incident}");
    assert_eq!(trigger["tid"], pid, "{incident}");
    assert_eq!(trigger["process_comm"], "mt-own", "{incident}");
    assert_eq!(trigger["cgroup"], path, "{incident}");
    assert_eq!(trigger["cgroup_id"], id, "{incident}");
    let without_swap = machine::memory_info("SwapTotal")? == 0;
    if without_swap && !incident["request"]["total_bytes"].is_null() {
        assert_eq!(incident["request"]["total_bytes"], LIMIT, "{incident}");
    }

    let victim = victim(&incident, pid)?;
    let program = machine::workload()?.display().to_string();
    let command_line = format!("{program} {}", arguments.join(" "));
    assert_eq!(victim["command_line"], command_line, "{incident}");
    assert_eq!(victim["executable"], program, "{incident}");
    assert_eq!(victim["tid"], pid, "{incident}");
    assert_eq!(victim["uid"], 1234, "{incident}");
    assert_eq!(victim["cgroup"], path, "{incident}");
    assert_eq!(victim["cgroup_id"], id, "{incident}");
    assert_eq!(victim["leaf_cgroup"], Value::Null, "{incident}");
    assert_eq!(victim["leaf_cgroup_id"], Value::Null, "{incident}");
    assert!(!without_swap || victim["swap_bytes"] == 0, "{incident}");
    assert_eq!(victim["namespace_pid"], pid, "{incident}");
    assert_eq!(victim["container_init"], false, "{incident}");
    assert_eq!(victim["killed"], true, "{incident}");
    let started = time(&victim["started"])?;
    // A tick of /proc/PID/stat.
    let inexact = SignedDuration::from_millis(15);
    ensure!(
        started >= began.0 - inexact && started <= ended.0,
        "{incident}"
    );

    assert_eq!(incident["killer"], Value::Null, "{incident}");
    assert_eq!(incident["stall"], Value::Null, "{incident}");
    assert_eq!(incident["kernel_counts"]["oom_kill_local"], 1, "{incident}");
    assert_eq!(cgroup.oom_kills()?, 1);
    let missed = &incident["kernel_counts"]["missed"];
    ensure!(missed.is_null() || missed == 0, "{incident}");
    if cgroup.version() == Version::V2 {
        let counts = &incident["kernel_counts"];
        assert_eq!(counts["oom_kill_hierarchical"], 1, "{incident}");
        assert_eq!(
            counts["oom_hierarchical"],
            cgroup.count("memory.events", "oom")?
        );
    }
    assert_led_up(&incident["evidence"], pid)?;
    assert_means(&incident, &["mt-own"]);
    // Each incident has one id, whatever is written about it.
    let id = &incident["id"];
    let others = agent.all(|line| of_type("oom_incident")(line) && line["id"] != *id);
    assert!(
        others.iter().all(|other| self::victim(other, pid).is_err()),
        "{others:?}"
    );
    agent.stop().map(drop)
}

/// The process grew to the limit, and it alone.
fn assert_led_up(evidence: &Value, pid: u32) -> Result<()> {
    let usage = evidence["usage"].as_array().context("no usage")?;
    let last = usage.last().context("no usage")?;
    assert_eq!(last["before_ms"], 0, "{evidence}");
    ensure!(
        last["usage_bytes"].as_u64() >= Some(LIMIT - MIB),
        "{evidence}"
    );
    let times: Vec<u64> = usage
        .iter()
        .filter_map(|u| u["before_ms"].as_u64())
        .collect();
    ensure!(
        times.is_sorted_by(|older, newer| older > newer),
        "{evidence}"
    );
    let growers = evidence["growers"].as_array().context("no growers")?;
    let grower = growers.first().context("nobody grew")?;
    assert_eq!(grower["pid"], pid, "{evidence}");
    ensure!(
        grower["grown_bytes"].as_i64() > Some(LIMIT as i64 / 2),
        "{evidence}"
    );
    ensure!(grower["share"].as_f64() > Some(0.9), "{evidence}");
    ensure!(
        evidence["reclaim"]["count"].as_u64() > Some(0),
        "{evidence}"
    );
    let mapped = evidence["allocations"]["mmap_bytes"].as_u64();
    ensure!(mapped >= Some(4 * LIMIT), "{evidence}");
    Ok(())
}

#[test]
fn the_limit_of_the_parent_and_of_the_grandparent_is_told_apart_from_the_victims_cgroup()
-> Result<()> {
    let agent = Agent::start(&[])?;
    for depth in 1..=2 {
        let top = Cgroup::new("limit-above")?;
        top.limit(LIMIT)?;
        let middle = top.child("middle")?;
        let leaf = match depth {
            1 => None,
            _ => Some(middle.child("leaf")?),
        };
        let inside = leaf.as_ref().unwrap_or(&middle);
        inside.limit(4 * LIMIT)?;
        let (pid, incident) = killed_in(&agent, inside)?;
        assert_eq!(incident["charged"]["cgroup"], top.path(), "{incident}");
        assert_eq!(incident["charged"]["cgroup_id"], top.id()?, "{incident}");
        assert_eq!(incident["charged"]["limit_bytes"], LIMIT, "{incident}");
        assert_eq!(incident["trigger"]["cgroup"], inside.path(), "{incident}");
        let victim = victim(&incident, pid)?;
        assert_eq!(victim["cgroup"], inside.path(), "{incident}");
        assert_eq!(victim["cgroup_id"], inside.id()?, "{incident}");
        assert_eq!(incident["kernel_counts"]["oom_kill_local"], 1, "{incident}");
        drop(leaf);
        drop(middle);
    }
    agent.stop().map(drop)
}

#[test]
fn a_victim_whose_memory_is_mostly_shared_is_told_so() -> Result<()> {
    const SHARED: u64 = 64 * MIB;
    let agent = Agent::start(&[])?;
    let cgroup = Cgroup::new("shared")?;
    cgroup.limit(SHARED + LIMIT)?;
    let mut log = KernelLog::open()?;
    let shared = SHARED.to_string();
    let arguments = [
        "--comm",
        "mt-shared",
        "oom",
        "--shared-bytes",
        &shared,
        "--bytes",
        TOO_MUCH,
    ];
    let workload = Workload::start(&cgroup, &arguments)?;
    let pid = workload.pid();
    let end = workload.end()?;
    ensure!(end.killed(), "not killed: {end:?}");
    let incident = of_victim(&agent, pid)?;
    assert_is_logged(&agent, &incident, &log.whole_oom_of(pid)?)?;
    // Far more than what the kernel may not have summed up yet, and than a program on a tmpfs has.
    let victim = victim(&incident, pid)?;
    let told = number(victim, "shmem_bytes")?;
    let near = SHARED * 7 / 8..=SHARED * 9 / 8;
    ensure!(near.contains(&told), "{incident}");
    assert_means(&incident, &[" shared) was killed"]);
    agent.stop().map(drop)
}

#[test]
fn of_equal_limits_the_one_that_the_kernel_names_is_told() -> Result<()> {
    let agent = Agent::start(&[])?;
    let pod = Cgroup::new("equal-limits")?;
    pod.limit(LIMIT)?;
    let container = pod.child("container")?;
    container.limit(LIMIT)?;
    killed_in(&agent, &container)?;
    drop(container);
    agent.stop().map(drop)
}

#[test]
fn a_victim_below_its_memory_cgroup_keeps_its_leaf() -> Result<()> {
    let parent = Cgroup::new("no-controller")?;
    if parent.version() == Version::V1 {
        machine::skip("on v1 every cgroup of the memory hierarchy has the memory controller");
        return Ok(());
    }
    let agent = Agent::start(&[])?;
    parent.limit(LIMIT)?;
    let leaf = parent.child_without_controller("leaf")?;
    let (pid, incident) = killed_in(&agent, &leaf)?;
    assert_eq!(incident["charged"]["cgroup"], parent.path(), "{incident}");
    assert_eq!(incident["charged"]["cgroup_id"], parent.id()?, "{incident}");
    let victim = victim(&incident, pid)?;
    assert_eq!(victim["cgroup"], parent.path(), "{incident}");
    assert_eq!(victim["leaf_cgroup"], leaf.path(), "{incident}");
    assert_eq!(victim["leaf_cgroup_id"], leaf.id()?, "{incident}");
    drop(leaf);
    agent.stop().map(drop)
}

#[test]
fn a_trigger_in_another_cgroup_than_the_victim_is_told_apart() -> Result<()> {
    // A dying process gives its memory back in portions of up to 40 MiB, and since Linux 5.14 the
    // kernel looks for another victim before the last one: the others must be enough for the asker.
    const ROOM: u64 = 128 * MIB;
    let agent = Agent::start(&[])?;
    let pod = Cgroup::new("common-limit")?;
    pod.limit(ROOM)?;
    let (big, small) = (pod.child("big")?, pod.child("small")?);
    let bytes = (ROOM * 3 / 4).to_string();
    let mut hog = Workload::start(&big, &["--comm", "mt-hog", "touch", "--bytes", &bytes])?;
    hog.report()?;
    let mut log = KernelLog::open()?;
    let mut asker = start_asker(&small, "mt-asker", ROOM / 2)?;
    let (victim_pid, trigger_pid) = (hog.pid(), asker.pid());
    asker.report()?;
    ensure!(hog.end()?.killed(), "the bigger one was not killed");

    let incident = of_victim(&agent, victim_pid)?;
    assert_is_logged(&agent, &incident, &log.whole_oom_of(victim_pid)?)?;
    assert_eq!(incident["charged"]["cgroup"], pod.path(), "{incident}");
    assert_eq!(incident["charged"]["cgroup_id"], pod.id()?, "{incident}");
    let trigger = &incident["trigger"];
    assert_eq!(trigger["pid"], trigger_pid, "{incident}");
    assert_eq!(trigger["comm"], "mt-asker", "{incident}");
    assert_eq!(trigger["cgroup"], small.path(), "{incident}");
    assert_eq!(trigger["cgroup_id"], small.id()?, "{incident}");
    let victim = victim(&incident, victim_pid)?;
    assert_eq!(victim["cgroup"], big.path(), "{incident}");
    assert_eq!(victim["cgroup_id"], big.id()?, "{incident}");
    asker.success()?;
    drop((big, small));
    agent.stop().map(drop)
}

#[test]
fn an_oom_with_swap_tells_both_limits_and_what_was_swapped_out() -> Result<()> {
    const SWAP: u64 = 16 * MIB;
    let Some(swap) = Swap::on()? else {
        return Ok(());
    };
    let agent = Agent::start(&[])?;
    let cgroup = Cgroup::new("swap")?;
    cgroup.limit(LIMIT)?;
    cgroup.limit_swap(LIMIT, SWAP)?;
    let (pid, incident) = killed_in(&agent, &cgroup)?;
    let expected = match cgroup.version() {
        Version::V1 => LIMIT + SWAP,
        Version::V2 => SWAP,
    };
    let charged = &incident["charged"];
    assert_eq!(charged["swap_limit_bytes"], expected, "{incident}");
    let used = charged["swap_usage_bytes"]
        .as_u64()
        .context("no swap usage")?;
    ensure!(used > expected / 2, "{incident}");
    let victim = victim(&incident, pid)?;
    let swapped = victim["swap_bytes"].as_u64().context("no swap")?;
    // On v1 also what is in memory may have its place in swap still.
    ensure!(
        swapped > SWAP / 2 && swapped <= expected + MIB,
        "{incident}"
    );
    drop(swap);
    agent.stop().map(drop)
}

#[test]
fn a_protected_process_is_never_the_victim() -> Result<()> {
    if !machine::may_protect()? {
        machine::skip("no CAP_SYS_RESOURCE to protect a process from the OOM killer");
        return Ok(());
    }
    let agent = Agent::start(&[])?;
    let cgroup = Cgroup::new("protected")?;
    cgroup.limit(LIMIT)?;
    let bytes = (LIMIT * 3 / 4).to_string();
    let arguments = [
        "--comm",
        "mt-safe",
        "--oom-score-adj",
        "-1000",
        "touch",
        "--bytes",
        &bytes,
    ];
    let mut safe = Workload::start(&cgroup, &arguments)?;
    safe.report()?;
    let (pid, incident) = killed_in(&agent, &cgroup)?;
    assert_eq!(victims(&incident).len(), 1, "{incident}");
    assert_eq!(victim(&incident, pid)?["oom_score_adj"], 0, "{incident}");
    let safe_pid = safe.pid();
    agent.wait_intervals(2)?;
    let lines = agent.all(|line| of_type("oom_incident")(line) && victim(line, safe_pid).is_ok());
    ensure!(lines.is_empty(), "{lines:?}");
    safe.success()?;
    agent.stop().map(drop)
}

/// `CLOCK_BOOTTIME`.
fn boot_time_ns() -> Result<u64> {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)?;
    Ok(u64::try_from(Duration::from(now).as_nanos())?)
}
