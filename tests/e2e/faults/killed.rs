//! An agent that is killed again and again, at any moment, while kills and growth go on.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memtrace_tests::agent::{self, Agent, of_type};
use memtrace_tests::cgroup::Cgroup;
use memtrace_tests::incident::{is_complete, is_kernel_kill, of_victim, pids, stored};
use memtrace_tests::machine::{MIB, oom_kills, poll};
use memtrace_tests::refused_calls::loaded_programs;
use memtrace_tests::workload::Workload;
use serde_json::Value;

use crate::oom::run_into_limit;

/// How often it is killed; `MEMTRACE_KILLS` sets another number by hand.
const KILLS: u64 = 12;
/// An agent is killed within this time of its start, or of the moment from which it traces.
const LONGEST_MS: u64 = 1500;

/// Processes that run into their limit, one after the other.
struct Victims {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<u32>>>,
}

impl Victims {
    fn begin() -> Result<Self> {
        let cgroup = Cgroup::new("killed-agent")?;
        let ends = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let ends = Arc::clone(&ends);
            move || {
                let mut pids = Vec::new();
                while !ends.load(Ordering::SeqCst) {
                    pids.push(run_into_limit(&cgroup, b"mt-any-time")?);
                    thread::sleep(Duration::from_millis(100));
                }
                Ok(pids)
            }
        });
        Ok(Self { ends, thread })
    }

    fn end(self) -> Result<Vec<u32>> {
        self.ends.store(true, Ordering::SeqCst);
        self.thread.join().expect("thread panicked")
    }
}

/// Different each time, so that all moments have their turn; told when it fails.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn an_agent_killed_at_any_moment_leaves_nothing_and_loses_no_incident() -> Result<()> {
    let times = match std::env::var("MEMTRACE_KILLS") {
        Ok(text) => text.parse()?,
        Err(_) => KILLS.div_ceil(super::step() as u64),
    };
    let mut seed = seed();
    println!("seed {seed}");
    let programs_before = loaded_programs()?;
    let directory = tempfile::tempdir()?;
    let state = directory.path().join("state");
    let state = state.to_str().context("no text")?;
    let socket = directory.path().join("agent.sock");
    let socket = socket.to_str().context("no text")?;
    let arguments = ["--state-dir", state, "--api-socket", socket];

    // One that sees its end, so that there is a count to go on from.
    let first = Agent::start(&arguments)?;
    first.wait_intervals(1)?;
    // Kills of others on this machine may come between two lines of this test.
    let at_least_before = oom_kills()?;
    first.stop()?;
    let at_most_before = oom_kills()?;
    let accounted_before = accounted(&stored(state)?)?;
    let victims = Victims::begin()?;
    let grower = Cgroup::new("killed-agent-leak")?;
    let rate = (4 * MIB).to_string();
    let leak = ["leak", "--calm-ms", "0", "--bytes-per-second", &rate];
    let workload = Workload::start(&grower, &leak)?;
    let mut told = BTreeSet::new();
    let mut not_stored = 0;
    let mut alive_at_least_once = 0;
    for life in 0..times {
        let mut command = agent::command(&["run", "--output", "json", "--interval", "200ms"])?;
        command.args(arguments);
        let agent = Agent::spawn(command)?;
        // Every other one while it starts, at any moment of that.
        if life % 2 == 0 {
            agent.wait_for("the start line", Duration::from_secs(30), of_type("start"))?;
        }
        thread::sleep(Duration::from_millis(random(&mut seed) % LONGEST_MS));
        let lines = agent.kill()?;
        alive_at_least_once += u64::from(lines.iter().any(of_type("self")));
        let mut of_this = Vec::new();
        for incident in lines.into_iter().filter(is_complete) {
            let id = incident["id"].to_string();
            ensure!(told.insert(id.clone()), "told by two agents: {incident}");
            of_this.push(id);
        }
        // Readable at once, without an agent. What the last moment told may be on its way to the disk,
        // and what went before it is there.
        let stored: BTreeSet<String> = stored(state)?.iter().map(id).collect();
        let first_missing = of_this.iter().position(|id| !stored.contains(id));
        let after_it = &of_this[first_missing.unwrap_or(of_this.len())..];
        ensure!(
            !after_it.iter().any(|id| stored.contains(id)),
            "a gap: {of_this:?}"
        );
        ensure!(after_it.len() < 8, "not stored: {after_it:?}");
        not_stored += after_it.len();
    }
    ensure!(alive_at_least_once > 0, "no agent came to trace");
    let last = Agent::start(&arguments)?;
    last.wait_intervals(1)?;
    let made = victims.end()?;
    let end = Cgroup::new("last")?;
    let pid = run_into_limit(&end, b"mt-last")?;
    of_victim(&last, pid)?;
    let at_least = oom_kills()? - at_most_before;
    last.wait_intervals(2)?;
    workload.success()?;
    last.stop()?;
    let at_most = oom_kills()? - at_least_before;

    let stored = stored(state)?;
    let all = accounted(&stored)? - accounted_before;
    let seen: BTreeSet<u32> = stored
        .iter()
        .filter(|one| is_kernel_kill(one))
        .flat_map(pids)
        .collect();
    let missed = accounted(&stored)? - seen.len() as u64;
    let of_ours = made.iter().filter(|pid| seen.contains(pid)).count();
    println!(
        "{times} kills of the agent, {alive_at_least_once} after it began to trace; {} processes killed: \
         {of_ours} seen, {missed} missed on the machine, which counted {}; {not_stored} incidents told and not yet stored",
        made.len() + 1,
        at_most
    );
    ensure!(of_ours > 0, "no kill was seen");
    ensure!(
        (at_least..=at_most).contains(&all),
        "{all} seen and missed, the kernel counted {at_least} to {at_most}"
    );
    left_over(Path::new(state))?;
    ensure!(!Path::new(socket).exists(), "the socket is left");
    poll("the programs to go", Duration::from_secs(30), || {
        Ok((loaded_programs()? <= programs_before).then_some(()))
    })
}

/// Kills that incidents tell of, seen or missed; none twice.
fn accounted(stored: &[Value]) -> Result<u64> {
    let mut ids = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut missed = 0;
    for incident in stored {
        ensure!(ids.insert(incident["id"].to_string()), "twice: {incident}");
        missed += incident["kernel_counts"]["missed"].as_u64().unwrap_or(0);
        if is_kernel_kill(incident) {
            for pid in pids(incident) {
                ensure!(seen.insert(pid), "{pid} is in two incidents: {incident}");
            }
        }
    }
    Ok(seen.len() as u64 + missed)
}

fn id(incident: &Value) -> String {
    incident["id"].to_string()
}

fn seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(1, |since| since.as_nanos() as u64) | 1
}

/// Names in the state directory that only a writer at work has.
fn left_over(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            left_over(&path)?;
            continue;
        }
        let extension = path
            .extension()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let is_pid = !extension.is_empty() && extension.bytes().all(|byte| byte.is_ascii_digit());
        ensure!(!is_pid, "{} is left", path.display());
    }
    Ok(())
}
