//! A host that is suspended to memory until its clock wakes it: in a virtual machine only.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use memtrace_tests::agent::{Agent, about};
use memtrace_tests::cgroup::Cgroup;
use memtrace_tests::incident::{assert_died, of_victim, time, victim};
use memtrace_tests::machine::{self, MIB};
use memtrace_tests::workload::Workload;
use nix::time::{ClockId, clock_gettime};
use serde_json::Value;

use crate::oom::run_into_limit;

const ASLEEP: Duration = Duration::from_secs(20);
const BYTES_PER_SECOND: u64 = 4 * MIB;
const ALARM: &str = "/sys/class/rtc/rtc0/wakealarm";

#[test]
fn after_a_suspend_kills_have_their_time_and_rates_are_over_the_time_that_passed() -> Result<()> {
    // Debian's 6.1 does not wake in QEMU, with or without memtrace.
    let wakes = machine::kernel_before(6, 1) || !machine::kernel_before(6, 2);
    if !machine::is_vm() || !wakes || !Path::new(ALARM).exists() {
        machine::skip("no virtual machine that may be suspended");
        return Ok(());
    }
    let agent = Agent::start(&[])?;
    let grower = Cgroup::new("asleep-growth")?;
    let id = grower.id()?;
    let rate = BYTES_PER_SECOND.to_string();
    let leak = ["leak", "--calm-ms", "0", "--bytes-per-second", &rate];
    let workload = Workload::start(&grower, &leak)?;
    let grows = |line: &Value| {
        let growth = line["growth_bytes_per_second"].as_f64();
        about("cgroup", id)(line) && growth > Some(BYTES_PER_SECOND as f64 / 4.0)
    };
    agent.wait_for("the growth", Duration::from_secs(20), grows)?;
    let before = a_kill_is_told_at(&agent, "before")?;
    let mark = agent.mark();
    suspend()?;
    let after = a_kill_is_told_at(&agent, "after")?;
    let between = after.duration_since(before);
    ensure!(between.unsigned_abs() > ASLEEP / 2, "{between}");
    agent.wait_after(mark, "growth after it", Duration::from_secs(20), grows)?;
    agent.wait_intervals(2)?;
    let wrong = agent.all(|line| {
        let growth = line["growth_bytes_per_second"].as_f64();
        let jump = about("cgroup", id)(line) && growth > Some(BYTES_PER_SECOND as f64 * 3.0);
        jump || line["kind"] == "missed_kills"
    });
    ensure!(wrong.is_empty(), "{wrong:?}");
    workload.success()?;
    agent.stop().map(drop)
}

/// When the kernel chose the victim, as it is told, which is now.
fn a_kill_is_told_at(agent: &Agent, name: &str) -> Result<Timestamp> {
    let cgroup = Cgroup::new(&format!("asleep-{name}"))?;
    let began = Timestamp::now();
    let pid = run_into_limit(&cgroup, b"mt-asleep")?;
    let incident = of_victim(agent, pid)?;
    let victim = victim(&incident, pid)?;
    assert_died(victim)?;
    let marked = time(&victim["marked"])?;
    let slack = SignedDuration::from_secs(1);
    ensure!(
        marked > began - slack && marked < Timestamp::now() + slack,
        "{name}: {began}: {incident}"
    );
    Ok(marked)
}

/// Ends when the machine was woken.
fn suspend() -> Result<()> {
    let asleep_before = time_asleep()?;
    fs::write(ALARM, "0").context("cannot clear the alarm")?;
    fs::write(ALARM, format!("+{}", ASLEEP.as_secs())).context("cannot set the alarm")?;
    fs::write("/sys/power/state", "mem").context("cannot suspend")?;
    let slept = time_asleep()?.saturating_sub(asleep_before);
    ensure!(slept > ASLEEP / 2, "slept {slept:?} only");
    Ok(())
}

/// Since the machine was started: only one of the clocks goes on meanwhile.
fn time_asleep() -> Result<Duration> {
    let awake = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
    let all = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME)?);
    Ok(all.saturating_sub(awake))
}
