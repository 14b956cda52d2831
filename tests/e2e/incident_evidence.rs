//! Incidents: who grew before it.

use anyhow::{Context, Result, ensure};
use memtrace_tests::agent::Agent;
use memtrace_tests::cgroup::Cgroup;
use memtrace_tests::incident::{of_victim, victims};
use memtrace_tests::machine::{self, MIB};
use memtrace_tests::workload::{Workload, start_asker};
use serde_json::Value;

const LIMIT: u64 = 100 * MIB;
/// What the big process holds; `touch` keeps it.
const HELD: u64 = 66 * MIB;
const BESIDE: u64 = LIMIT - HELD;

fn start(cgroup: &Cgroup, comm: &str, bytes: u64) -> Result<Workload> {
    let bytes = bytes.to_string();
    Workload::start(cgroup, &["--comm", comm, "touch", "--bytes", &bytes])
}

/// An idle process that is older than memtrace is killed for what a young one takes.
///
/// Both are on the same CPU: what another one holds in advance is given back late (`drain_all_stock`,
/// mm/memcontrol.c), so that the cgroup may be below its limit when somebody is killed. Whose limit
/// it was is known then only by a count of OOMs from before, or by the kernel's own word.
fn killed_for_another(app: &Cgroup, side: &Cgroup, interval: &str) -> Result<()> {
    let cpu = machine::cpu()?;
    let mut idle = machine::on_cpu(cpu, || start(app, "mt-app", HELD))?;
    idle.report()?;
    let agent = Agent::start(&["--interval", interval])?;
    agent.wait_intervals(1)?;
    let mut grower = machine::on_cpu(cpu, || start_asker(side, "mt-side", HELD))?;
    let (idle_pid, grower_pid) = (idle.pid(), grower.pid());
    grower.report()?;
    ensure!(idle.end()?.killed(), "the bigger one was not killed");
    let incident = of_victim(&agent, idle_pid)?;
    assert_eq!(victims(&incident).len(), 1, "{incident}");
    assert_eq!(incident["trigger"]["pid"], grower_pid, "{incident}");
    assert_who_grew(&incident["evidence"], grower_pid)?;
    grower.success()?;
    agent.stop().map(drop)
}

fn assert_who_grew(evidence: &Value, pid: u32) -> Result<()> {
    let growers = evidence["growers"].as_array().context("no growers")?;
    let [grower, others @ ..] = &growers[..] else {
        anyhow::bail!("nobody grew: {evidence}");
    };
    // Before Linux 6.2 a task keeps 64 pages of its count to itself, and gives them up when it ends.
    let others = others.iter().map(|other| other["grown_bytes"].as_u64());
    ensure!(others.sum::<Option<u64>>() < Some(MIB), "{evidence}");
    assert_eq!(grower["pid"], pid, "{evidence}");
    assert_eq!(grower["comm"], "mt-side", "{evidence}");
    let grown = grower["grown_bytes"].as_u64().context("not grown")?;
    ensure!(grown.abs_diff(BESIDE) < 6 * MIB, "{evidence}");
    ensure!(grower["share"].as_f64() > Some(0.97), "{evidence}");
    let usage = evidence["usage"].as_array().context("no usage")?;
    let first = usage.first().context("no usage")?;
    let held = first["usage_bytes"].as_u64().context("no usage")?;
    ensure!(held.abs_diff(HELD) < 6 * MIB, "{evidence}");
    // It is younger than that.
    let over = grower["over_ms"].as_u64().context("no time")?;
    ensure!(Some(over) <= first["before_ms"].as_u64(), "{evidence}");
    let mapped = evidence["allocations"]["mmap_bytes"].as_u64();
    ensure!(mapped >= Some(HELD), "{evidence}");
    Ok(())
}

#[test]
fn an_idle_victim_that_is_older_than_memtrace_did_not_grow_but_the_trigger_did() -> Result<()> {
    // Each process is younger or older than the last interval: both are told the same.
    for interval in ["500ms", "5s"] {
        let limited = Cgroup::new("who-grew")?;
        limited.limit(LIMIT)?;
        killed_for_another(&limited, &limited, interval)?;
    }
    Ok(())
}

#[test]
fn growth_and_allocations_of_another_cgroup_below_the_limit_are_told() -> Result<()> {
    let limited = Cgroup::new("who-grew-beside")?;
    limited.limit(LIMIT)?;
    let (app, side) = (limited.child("app")?, limited.child("side")?);
    killed_for_another(&app, &side, "5s")?;
    drop((app, side));
    Ok(())
}
