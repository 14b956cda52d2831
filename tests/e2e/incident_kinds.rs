//! Incidents: what is not a kill at a cgroup's limit.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memtrace_tests::agent::{Agent, number, of_type};
use memtrace_tests::cgroup::{Cgroup, Version};
use memtrace_tests::freezer::Freezer;
use memtrace_tests::incident::{
    assert_died, assert_is_logged, assert_means, is_kernel_kill, of_cgroup, of_victim, victim,
};
use memtrace_tests::kernel_log::KernelLog;
use memtrace_tests::machine::{self, MIB};
use memtrace_tests::workload::{Workload, start_asker};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const LIMIT: u64 = 32 * MIB;

/// The kernel chooses the biggest process, finds that it was killed already and only marks it.
#[test]
fn a_mark_of_a_process_that_was_exiting_is_no_kill() -> Result<()> {
    // A process gives its memory back in portions of up to 40 MiB, and the kernel forgets the mark
    // before the last one: smaller ones would have the kernel kill the other process as well.
    const ROOM: u64 = 128 * MIB;
    let agent = Agent::start(&[])?;
    let cgroup = Cgroup::new("marked")?;
    cgroup.limit(ROOM)?;
    let bytes = (ROOM - 8 * MIB).to_string();
    let arguments = ["--comm", "mt-exiting", "touch", "--bytes", &bytes];
    let mut exiting = Workload::start(&cgroup, &arguments)?;
    exiting.report()?;
    let pid = exiting.pid();
    // Dropped, and by that thawed, before anybody waits for the process.
    let Some(freezer) = Freezer::find()? else {
        machine::skip("no v1 freezer to keep a killed process from exiting");
        return Ok(());
    };
    freezer.freeze(pid)?;
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL)?;
    let mut asker = start_asker(&cgroup, "mt-asker", 16 * MIB)?;
    // Gets its memory as soon as the other one is gone: the mark has thawed it.
    asker.report()?;
    ensure!(exiting.end()?.killed(), "it was killed by the test");
    assert_eq!(cgroup.oom_kills()?, 0, "the kernel killed somebody");

    let incident = of_victim(&agent, pid)?;
    assert_eq!(incident["kind"], "marked_exiting", "{incident}");
    assert_eq!(incident["trigger"]["comm"], "mt-asker", "{incident}");
    assert_eq!(incident["trigger"]["pid"], asker.pid(), "{incident}");
    let victim = victim(&incident, pid)?;
    assert_eq!(victim["comm"], "mt-exiting", "{incident}");
    assert_eq!(victim["killed"], false, "{incident}");
    assert_eq!(victim["cgroup"], cgroup.path(), "{incident}");
    assert_died(victim)?;
    assert_means(&incident, &["exiting", "nobody was killed", "no kill"]);
    asker.success()?;
    nobody_else_killed_in(&agent, &cgroup)?;
    agent.stop().map(drop)
}

#[test]
fn a_cgroup_held_at_its_limit_without_an_oom_is_a_stall() -> Result<()> {
    let agent = Agent::start(&["--stall-after", "2s"])?;
    let cgroup = Cgroup::new("stall")?;
    let at_high = cgroup.version() == Version::V2;
    if at_high {
        cgroup.high(Some(LIMIT))?;
    } else {
        cgroup.limit(LIMIT)?;
        cgroup.disable_oom_kill(true)?;
    }
    let bytes = (4 * LIMIT).to_string();
    let mut workload = Workload::start(&cgroup, &["touch", "--bytes", &bytes])?;
    let incident = of_cgroup(&agent, "stall", cgroup.id()?)?;
    assert_eq!(incident["charged"]["cgroup"], cgroup.path(), "{incident}");
    assert_eq!(
        incident["charged"]["known_by"], "cgroup_files",
        "{incident}"
    );
    let usage = incident["charged"]["usage_bytes"].as_u64();
    ensure!(usage.context("no usage")? >= LIMIT - MIB, "{incident}");
    assert_eq!(incident["victims"], Value::Array(Vec::new()), "{incident}");
    let stall = &incident["stall"];
    // Two intervals of a second may be a little less than two seconds.
    ensure!(number(stall, "duration_ms")? >= 1900, "{incident}");
    assert_eq!(stall["at_high"], at_high, "{incident}");
    assert_eq!(stall["oom_disabled"], !at_high, "{incident}");
    assert_eq!(stall["ongoing"], true, "{incident}");
    // On v1 the counter is of memory and swap together, which no file that was read has.
    let swap = &incident["charged"]["swap_usage_bytes"];
    ensure!(at_high || swap.is_null(), "{incident}");
    assert_means(&incident, &["stall", "stuck", "pinned", "waits", "held"]);

    // With more room it goes on, and the incident ends.
    if at_high {
        cgroup.high(None)?;
    } else {
        cgroup.unlimit()?;
    }
    workload.report()?;
    workload.success()?;
    let id = &incident["id"];
    agent.wait_for("the end of the stall", Duration::from_secs(30), |line| {
        of_type("oom_incident")(line)
            && line["id"] == *id
            && line["complete"] == true
            && line["stall"]["ongoing"] == false
    })?;
    assert_eq!(cgroup.oom_kills()?, 0);
    nobody_else_killed_in(&agent, &cgroup)?;
    agent.stop().map(drop)
}

#[test]
fn a_busy_cgroup_below_its_limit_is_no_stall() -> Result<()> {
    let agent = Agent::start(&["--stall-after", "1s"])?;
    let cgroup = Cgroup::new("no-stall")?;
    cgroup.limit(4 * LIMIT)?;
    let bytes = LIMIT.to_string();
    let mut workload = Workload::start(&cgroup, &["touch", "--bytes", &bytes])?;
    workload.report()?;
    agent.wait_intervals(5)?;
    let stalls = agent.all(|line| of_type("oom_incident")(line) && line["kind"] == "stall");
    ensure!(stalls.is_empty(), "{stalls:?}");
    workload.success()?;
    agent.stop().map(drop)
}

#[test]
fn a_kill_by_earlyoom_is_told_with_its_killer() -> Result<()> {
    user_space_kill(&[], "earlyoom")
}

#[test]
fn a_kill_by_a_process_that_the_option_names_is_told_with_its_killer() -> Result<()> {
    user_space_kill(
        &["--oom-killer", "mt-other", "--oom-killer", "mt-my-killer"],
        "mt-my-killer",
    )
}

fn user_space_kill(options: &[&str], killer: &str) -> Result<()> {
    let agent = Agent::start(options)?;
    let cgroup = Cgroup::new("user-space")?;
    let (pid, killer_pid, aside) = killed_by(&cgroup, killer, &[])?;
    let incident = of_victim(&agent, pid)?;
    assert_eq!(incident["kind"], "user_space_kill", "{incident}");
    assert_eq!(incident["killer"]["comm"], killer, "{incident}");
    assert_eq!(incident["killer"]["pid"], killer_pid, "{incident}");
    assert_eq!(incident["killer"]["cgroup"], aside, "{incident}");
    assert_eq!(incident["charged"], Value::Null, "{incident}");
    let victim = victim(&incident, pid)?;
    assert_eq!(victim["comm"], "mt-prey", "{incident}");
    assert_eq!(victim["killed"], true, "{incident}");
    assert_eq!(victim["cgroup"], cgroup.path(), "{incident}");
    assert_eq!(victim["cgroup_id"], cgroup.id()?, "{incident}");
    let anon = victim["anon_bytes"].as_u64();
    ensure!(anon.is_none_or(|bytes| bytes >= 15 * MIB), "{incident}");
    assert_died(victim)?;
    assert_means(&incident, &[killer]);
    assert_eq!(cgroup.oom_kills()?, 0);
    agent.stop().map(drop)
}

/// As most services do.
#[test]
fn who_handles_the_sigterm_of_earlyoom_and_ends_well_was_killed_by_it() -> Result<()> {
    let agent = Agent::start(&[])?;
    let cgroup = Cgroup::new("obeys")?;
    let bytes = (16 * MIB).to_string();
    let arguments = ["--comm", "mt-prey", "obey", "--bytes", &bytes];
    let mut prey = Workload::start(&cgroup, &arguments)?;
    prey.report()?;
    let pid = prey.pid();
    let aside = Cgroup::new("killer")?;
    let pid_text = pid.to_string();
    let arguments = ["--comm", "earlyoom", "terminate", "--pid", &pid_text];
    let mut hunter = Workload::start(&aside, &arguments)?;
    hunter.report()?;
    prey.success()?;
    hunter.success()?;
    let incident = of_victim(&agent, pid)?;
    assert_eq!(incident["kind"], "user_space_kill", "{incident}");
    assert_eq!(incident["killer"]["comm"], "earlyoom", "{incident}");
    assert_eq!(incident["killer"]["signal"], 15, "{incident}");
    let victim = victim(&incident, pid)?;
    assert_eq!(victim["killed"], true, "{incident}");
    assert_died(victim)?;
    assert_means(&incident, &["told to end (SIGTERM)"]);
    agent.stop().map(drop)
}

#[test]
fn a_kill_by_anybody_else_is_no_incident() -> Result<()> {
    let agent = Agent::start(&[])?;
    let cgroup = Cgroup::new("other-killer")?;
    killed_by(&cgroup, "mt-somebody", &[])?;
    no_user_space_kill_in(&agent, &cgroup)?;
    agent.stop().map(drop)
}

/// Any process may take any name.
#[test]
fn who_calls_itself_earlyoom_without_its_rights_is_nobody() -> Result<()> {
    let agent = Agent::start(&[])?;
    let cgroup = Cgroup::new("forged-killer")?;
    killed_by(&cgroup, "earlyoom", &["--uid", "65534"])?;
    no_user_space_kill_in(&agent, &cgroup)?;
    // Root of a container has the capability, but not the PIDs of the host.
    let arguments = ["namespace-kill", "--killer", "earlyoom"];
    Workload::start(&cgroup, &arguments)?.success()?;
    no_user_space_kill_in(&agent, &cgroup)?;
    agent.stop().map(drop)
}

fn no_user_space_kill_in(agent: &Agent, cgroup: &Cgroup) -> Result<()> {
    agent.wait_intervals(4)?;
    let path = cgroup.path();
    let about = agent.all(|line| {
        let mut victims = line["victims"].as_array().into_iter().flatten();
        of_type("oom_incident")(line) && victims.any(|victim| victim["cgroup"] == path)
    });
    ensure!(about.is_empty(), "{about:?}");
    Ok(())
}

/// Has a process of that name kill one in the cgroup, both started with `options`; gives the pids of both,
/// killed first, and the cgroup of the killer.
fn killed_by(cgroup: &Cgroup, killer: &str, options: &[&str]) -> Result<(u32, u32, String)> {
    let bytes = (16 * MIB).to_string();
    let arguments = [options, &["--comm", "mt-prey", "touch", "--bytes", &bytes]].concat();
    let mut prey = Workload::start(cgroup, &arguments)?;
    prey.report()?;
    let pid = prey.pid();
    let aside = Cgroup::new("killer")?;
    let pid_text = pid.to_string();
    let arguments = [options, &["--comm", killer, "kill", "--pid", &pid_text]].concat();
    let mut hunter = Workload::start(&aside, &arguments)?;
    hunter.report()?;
    let killer_pid = hunter.pid();
    ensure!(prey.end()?.killed(), "not killed");
    hunter.success()?;
    Ok((pid, killer_pid, aside.path()))
}

/// Needs a machine with little memory, all for itself:
/// `cargo xtask vm --memory 448M -- --ignored a_machine_without_memory`.
#[test]
#[ignore = "takes all memory of the machine"]
fn a_machine_without_memory_is_a_global_oom_without_a_charged_cgroup() -> Result<()> {
    ensure!(machine::is_vm(), "only in a machine started for it");
    let total = machine::memory_info("MemTotal")?;
    ensure!(total < 640 * MIB, "too much memory for this test: {total}");
    let agent = Agent::start(&[])?;
    let cgroup = Cgroup::new("global")?;
    let mut log = KernelLog::open()?;
    let bytes = (total - 16 * MIB).to_string();
    let arguments = [
        "--comm",
        "mt-global",
        "--oom-score-adj",
        "1000",
        "oom",
        "--bytes",
        &bytes,
    ];
    let workload = Workload::start(&cgroup, &arguments)?;
    let pid = workload.pid();
    ensure!(workload.end()?.killed(), "not killed");
    let incident = of_victim(&agent, pid)?;
    let report = log.whole_oom_of(pid)?;
    ensure!(
        report.kills.iter().all(|kill| !kill.by_cgroup),
        "{report:?}"
    );
    assert_is_logged(&agent, &incident, &report)?;
    let victim = victim(&incident, pid)?;
    assert_eq!(victim["oom_score_adj"], 1000, "{incident}");
    assert_eq!(victim["cgroup"], cgroup.path(), "{incident}");
    assert_means(&incident, &["machine", "host", "node"]);
    // memory.events counts kills of a whole machine's OOM as well.
    assert_eq!(
        incident["kernel_counts"]["oom_kill_local"],
        cgroup.oom_kills()?,
        "{incident}"
    );
    agent.stop().map(drop)
}

fn nobody_else_killed_in(agent: &Agent, cgroup: &Cgroup) -> Result<()> {
    agent.wait_intervals(2)?;
    let id = cgroup.id()?;
    let kills = agent.all(|line| {
        of_type("oom_incident")(line)
            && (is_kernel_kill(line) || line["kind"] == "missed_kills")
            && line["charged"]["cgroup_id"] == id
    });
    ensure!(kills.is_empty(), "{kills:?}");
    Ok(())
}
