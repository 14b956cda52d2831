//! Leaks over time: across restarts of the agent and of the container, and what is near its limit
//! without growing.

use std::ffi::OsStr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use memtrace_tests::agent::{Agent, about, of_type};
use memtrace_tests::cgroup::{Cgroup, unique};
use memtrace_tests::leak::{MINUTES_AS_HOURS, accuses, is_accused, seconds, state};
use memtrace_tests::machine::MIB;
use memtrace_tests::workload::Workload;
use serde_json::Value;

const LIMIT: u64 = 128 * MIB;
/// A second of clock counts as two minutes of analysis, each of which has more than one sample.
pub(crate) const SECONDS_AS_TWO_MINUTES: [&str; 4] = ["--interval", "200ms", "--time-scale", "120"];
/// A second of clock counts as four minutes of analysis, each of which has more than one sample.
pub(crate) const SECONDS_AS_FOUR_MINUTES: [&str; 4] =
    ["--interval", "100ms", "--time-scale", "240"];

#[test]
fn an_agent_that_is_started_again_goes_on_with_what_it_knew() -> Result<()> {
    let state_dir = tempfile::tempdir()?;
    let state_dir = state_dir.path().to_str().context("no text")?;
    let mut arguments = SECONDS_AS_TWO_MINUTES.to_vec();
    arguments.extend(["--state-dir", state_dir]);
    let agent = Agent::start(&arguments)?;
    let cgroup = Cgroup::new("leak-agent-restart")?;
    cgroup.limit(LIMIT)?;
    let id = cgroup.id()?;
    let mut workload = start_leak(&cgroup, 15_000, 2 * MIB)?;
    workload.report()?;
    let told = agent.wait_for(
        "a suspicion",
        Duration::from_secs(90),
        accuses(&cgroup.path()),
    )?;
    let since_s = seconds(&told, "since")?;
    agent.stop()?;

    let agent = Agent::start(&arguments)?;
    let line = agent.wait_for(
        "the verdict after the restart",
        Duration::from_secs(8),
        |line| about("cgroup", id)(line) && is_accused(&line["leak"]),
    )?;
    let off = seconds(&line["leak"], "since")? - since_s;
    ensure!(off.abs() <= 6.0, "the onset moved by {off} s: {line}");
    agent.wait_intervals(3)?;
    let lost = agent.all(|line| {
        about("leak", id)(line) && !is_accused(line) && line["near_limit_changed_to"].is_null()
    });
    ensure!(lost.is_empty(), "it started over: {lost:?}");
    workload.success()?;
    drop(cgroup);
    agent.stop().map(drop)
}

#[test]
fn a_leak_that_restarts_cut_short_is_found_across_them() -> Result<()> {
    const LIVES: usize = 7;
    /// Of this a life without earlier ones is suspected after 42 s, one behind two that grew after 26 s.
    const LIMIT: u64 = 192 * MIB;
    /// 140 minutes of analysis.
    const LIFE: Duration = Duration::from_secs(35);
    let agent = Agent::start(&SECONDS_AS_FOUR_MINUTES)?;
    let name = unique("leak-restarts");
    let mut accused_in = None;
    for life in 1..=LIVES {
        let cgroup = Cgroup::named(OsStr::new(&name))?;
        cgroup.limit(LIMIT)?;
        let path = cgroup.path();
        let mark = agent.mark();
        let mut workload = start_leak(&cgroup, 0, 2 * MIB)?;
        workload.report()?;
        let born = Instant::now();
        while born.elapsed() < LIFE && accused_in.is_none() {
            thread::sleep(Duration::from_millis(100));
            // Even so none comes near the limit.
            ensure!(cgroup.usage()? < LIMIT / 2, "too fast a leak for this test");
            let mut lines = agent.all(accuses(&path)).into_iter();
            accused_in = lines.next().map(|line| (life, line));
        }
        workload.success()?;
        cgroup.remove()?;
        if let Some((life, line)) = accused_in {
            ensure!(
                life > 2,
                "one life was enough, which proves nothing: {line}"
            );
            let epochs = line["evidence"]["epochs_growing"].as_u64();
            ensure!(epochs >= Some(2), "{line}");
            assert_eq!(line["cgroup"], path, "{line}");
            println!("found in life {life}");
            return agent.stop().map(drop);
        }
        agent.wait_after(mark, "the end of a life", Duration::from_secs(10), |line| {
            of_type("cgroup")(line) && line["cgroup"] == path && line["removed"] == true
        })?;
    }
    let told = agent.all(|line| line["type"] == "leak");
    anyhow::bail!("not found in {LIVES} lives: {told:?}")
}

#[test]
fn a_program_near_its_limit_that_does_not_grow_is_told_as_that_and_as_no_leak() -> Result<()> {
    const LIMIT: u64 = 64 * MIB;
    let agent = Agent::start(&MINUTES_AS_HOURS)?;
    let cgroup = Cgroup::new("leak-near-limit")?;
    cgroup.limit(LIMIT)?;
    let id = cgroup.id()?;
    let bytes = (LIMIT / 100 * 93).to_string();
    let mut workload = Workload::start(&cgroup, &["touch", "--bytes", &bytes])?;
    workload.report()?;
    let changes =
        |line: &Value| about("leak", id)(line) && !line["near_limit_changed_to"].is_null();
    let line = agent.wait_for("the nearness", Duration::from_secs(15), changes)?;
    assert_eq!(line["near_limit_changed_to"], true, "{line}");
    assert_eq!(line["near_limit"]["near"], true, "{line}");
    assert_eq!(line["near_limit"]["limit_bytes"], LIMIT, "{line}");
    let ratio = line["near_limit"]["ratio"].as_f64().context("no ratio")?;
    ensure!((0.92..0.97).contains(&ratio), "{line}");
    // Twenty minutes of analysis.
    agent.wait_intervals(20)?;
    let told = agent.all(changes);
    ensure!(told.len() == 1, "told more than once: {told:?}");
    let accused = agent.all(|line| {
        (about("leak", id)(line) && is_accused(line))
            || (about("cgroup", id)(line) && is_accused(&line["leak"]))
    });
    ensure!(accused.is_empty(), "{accused:?}");
    let line = agent.last(about("cgroup", id)).context("no line")?;
    assert_eq!(line["leak"]["near_limit"], true, "{line}");
    ensure!(state(&line["leak"]) != "growing", "{line}");
    workload.success()?;
    drop(cgroup);
    agent.stop().map(drop)
}

fn start_leak(cgroup: &Cgroup, calm_ms: u64, rate: u64) -> Result<Workload> {
    let (calm, rate) = (calm_ms.to_string(), rate.to_string());
    let arguments = ["leak", "--calm-ms", &calm, "--bytes-per-second", &rate];
    Workload::start(cgroup, &arguments)
}
