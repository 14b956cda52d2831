//! Maps and rings that the kernel does not give, that cannot be read, and that are full.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memtrace_tests::agent::{self, Agent, of_type};
use memtrace_tests::cgroup::Cgroup;
use memtrace_tests::incident::of_victim;
use memtrace_tests::refused_calls::{Call, Kind, Refusals};
use memtrace_tests::workload::Workload;
use nix::errno::Errno;

use crate::oom::run_into_limit;

const LOOK_UP: Kind = Kind::bpf(1);
const NEXT_KEY: Kind = Kind::bpf(4);

/// Of an agent that fails to start: its exit code and what it said.
fn start_without(
    kinds: &[Kind],
    refuses: impl FnMut(&Call) -> Option<Errno> + Send + 'static,
) -> Result<(Option<i32>, String)> {
    let state = tempfile::tempdir()?;
    let state = state.path().to_str().context("no text")?;
    let arguments = [
        "run",
        "--output",
        "json",
        "--duration",
        "1s",
        "--state-dir",
        state,
    ];
    let mut command = agent::command(&arguments)?;
    let _refusals = Refusals::of(&mut command, kinds, refuses)?;
    let output = command.output()?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((output.status.code(), errors))
}

#[test]
fn a_map_that_the_kernel_does_not_give_ends_the_start_and_is_named() -> Result<()> {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let (code, errors) = start_without(&[Kind::CREATE_MAP], {
        let seen = Arc::clone(&seen);
        move |call| {
            seen.lock().expect("test panicked").extend(call.map_name());
            None
        }
    })?;
    ensure!(code == Some(0), "{errors}");
    let names = seen.lock().expect("thread panicked").clone();
    let ours: Vec<&String> = names.iter().filter(|name| is_ours(name)).collect();
    ensure!(ours.len() > 15, "{names:?}");
    for name in ours.into_iter().step_by(super::step()) {
        let wanted = name.clone();
        let (code, errors) = start_without(&[Kind::CREATE_MAP], move |call| {
            (call.map_name()? == wanted).then_some(Errno::ENOMEM)
        })?;
        assert_eq!(code, Some(1), "{name}: {errors}");
        let told = errors.contains(name) && errors.contains("Cannot allocate memory");
        ensure!(told, "{name}: {errors}");
        ensure!(!errors.contains("panicked"), "{name}: {errors}");
    }
    Ok(())
}

/// Others are made to find out what the kernel can do.
fn is_ours(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

#[test]
fn maps_that_cannot_be_read_are_counted_and_kills_are_told() -> Result<()> {
    let fails = Arc::new(AtomicBool::new(false));
    let agent = Agent::start_refused(&[], &[], &[LOOK_UP, NEXT_KEY], {
        let fails = Arc::clone(&fails);
        move |_| fails.load(Ordering::SeqCst).then_some(Errno::EPERM)
    })?;
    fails.store(true, Ordering::SeqCst);
    let cgroup = Cgroup::new("unreadable-map")?;
    let pid = run_into_limit(&cgroup, b"mt-map")?;
    of_victim(&agent, pid)?;
    agent.wait_for("the counter", Duration::from_secs(10), |line| {
        of_type("self")(line) && line["lost"]["map_reading_failed"].as_u64() > Some(0)
    })?;
    agent.wait_intervals(1)?;
    let own = agent.last(of_type("self")).context("no self line")?;
    // No number is better than one that was not read.
    ensure!(own["lost"]["oom_ring_full"].is_null(), "{own}");
    fails.store(false, Ordering::SeqCst);
    agent.wait_intervals(1)?;
    let own = agent.last(of_type("self")).context("no self line")?;
    ensure!(own["lost"]["oom_ring_full"] == 0, "{own}");
    agent.stop().map(drop)
}

#[test]
fn full_maps_cost_counters_and_no_kill() -> Result<()> {
    let agent = Agent::start(&["--max-cgroups", "16", "--max-processes", "16"])?;
    let cgroups: Vec<Cgroup> = (0..32)
        .map(|_| Cgroup::new("many"))
        .collect::<Result<_>>()?;
    let _processes: Vec<Workload> = (cgroups.iter())
        .map(|cgroup| Workload::start(cgroup, &["sleep"]))
        .collect::<Result<_>>()?;
    let cgroup = Cgroup::new("full")?;
    let pid = run_into_limit(&cgroup, b"mt-full")?;
    of_victim(&agent, pid)?;
    agent.wait_intervals(1)?;
    let own = agent.last(of_type("self")).context("no self line")?;
    for cause in [
        "cgroup_not_tracked",
        "cgroup_map_full",
        "process_map_full",
        "command_map_full",
    ] {
        ensure!(own["lost"][cause].as_u64() > Some(0), "{cause}: {own}");
    }
    agent.stop().map(drop)
}
