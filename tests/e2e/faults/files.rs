//! Files of the kernel that cannot be read, processes that vanish, and descriptors that run out.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memtrace_tests::agent::{Agent, about, number, of_type};
use memtrace_tests::backend::{free_port, request};
use memtrace_tests::cgroup::{Cgroup, Version};
use memtrace_tests::incident::{is_complete, of_victim, victim};
use memtrace_tests::machine::MIB;
use memtrace_tests::refused_calls::Kind;
use memtrace_tests::workload::Workload;
use nix::errno::Errno;
use serde_json::Value;

use crate::oom::run_into_limit;

/// A file of a cgroup and the field that only it tells.
const OF_CGROUP_V1: &[(&str, &str)] = &[
    ("memory.usage_in_bytes", "usage_bytes"),
    ("memory.stat", "anon_bytes"),
    ("memory.limit_in_bytes", "limit_bytes"),
    ("memory.max_usage_in_bytes", "peak_bytes"),
    ("memory.failcnt", "/events/max"),
    ("memory.oom_control", "/events_local/oom_kill"),
];
const OF_CGROUP_V2: &[(&str, &str)] = &[
    ("memory.current", "usage_bytes"),
    ("memory.stat", "anon_bytes"),
    ("memory.max", "limit_bytes"),
    ("memory.events", "/events/max"),
    ("memory.events.local", "/events_local/oom_kill"),
];
const OF_HOST: &[(&str, &str)] = &[
    ("/proc/meminfo", "mem_total_bytes"),
    ("/proc/vmstat", "oom_kills"),
];

/// The file that cannot be read, by how its path ends.
type Unreadable = Arc<Mutex<Option<&'static str>>>;

/// An agent that gets EIO where it opens that file, or reads one that it has kept.
fn agent(arguments: &[&str]) -> Result<(Agent, Unreadable)> {
    let unreadable = Unreadable::default();
    let kinds = [Kind::OPEN, Kind::any(libc::SYS_pread64)];
    let agent = Agent::start_refused(arguments, &[], &kinds, {
        let unreadable = Arc::clone(&unreadable);
        move |call| {
            let end = (*unreadable.lock().expect("test panicked"))?;
            let path = match call.number {
                libc::SYS_openat => call.opens(),
                _ => call.descriptor(0),
            }?;
            // By whole names: `memory.events` is no `memory.events.local`.
            let is_it = if end.starts_with('/') {
                path == Path::new(end)
            } else {
                path.file_name().is_some_and(|name| name == end)
            };
            is_it.then_some(Errno::EIO)
        }
    })?;
    Ok((agent, unreadable))
}

fn set(unreadable: &Unreadable, end: Option<&'static str>) {
    *unreadable.lock().expect("agent's thread panicked") = end;
}

fn field<'a>(line: &'a Value, name: &str) -> &'a Value {
    if name.starts_with('/') {
        line.pointer(name).unwrap_or(&Value::Null)
    } else {
        &line[name]
    }
}

#[test]
fn a_file_that_cannot_be_read_is_null_and_counted_and_all_others_are_told() -> Result<()> {
    let (agent, unreadable) = agent(&[])?;
    let cgroup = Cgroup::new("unreadable")?;
    cgroup.limit(512 * MIB)?;
    let id = cgroup.id()?;
    // Grows all the time, so that it is read in full each interval.
    let rate = (4 * MIB).to_string();
    let leak = ["leak", "--calm-ms", "0", "--bytes-per-second", &rate];
    let workload = Workload::start(&cgroup, &leak)?;
    let files = match cgroup.version() {
        Version::V1 => OF_CGROUP_V1,
        Version::V2 => OF_CGROUP_V2,
    };
    let of_it = |line: &Value| about("cgroup", id)(line);
    let whole =
        |line: &Value| of_it(line) && files.iter().all(|(_, name)| field(line, name).is_u64());
    agent.wait_for("a whole line", Duration::from_secs(15), whole)?;
    for (file, lost) in files {
        let before = lost_of(&agent, "cgroup_reading_failed")?;
        let mark = agent.mark();
        set(&unreadable, Some(file));
        let line = agent.wait_after(mark, file, Duration::from_secs(15), |line| {
            of_it(line) && field(line, lost).is_null()
        })?;
        for (_, name) in files.iter().filter(|(_, name)| name != lost) {
            ensure!(field(&line, name).is_u64(), "{file} costs {name}: {line}");
        }
        agent.wait_intervals(1)?;
        ensure!(lost_of(&agent, "cgroup_reading_failed")? > before, "{file}");
        set(&unreadable, None);
        let mark = agent.mark();
        agent.wait_after(mark, "all of it again", Duration::from_secs(15), whole)?;
    }
    for (file, lost) in OF_HOST {
        let before = lost_of(&agent, "host_reading_failed")?;
        let mark = agent.mark();
        set(&unreadable, Some(file));
        let line = agent.wait_after(mark, file, Duration::from_secs(15), |line| {
            of_type("host")(line) && line[lost].is_null()
        })?;
        for (_, name) in OF_HOST.iter().filter(|(_, name)| name != lost) {
            ensure!(line[name].is_u64(), "{file} costs {name}: {line}");
        }
        agent.wait_intervals(1)?;
        ensure!(lost_of(&agent, "host_reading_failed")? > before, "{file}");
        set(&unreadable, None);
    }
    let changed = agent.all(|line| of_type("limit_changed")(line) && line["cgroup_id"] == id);
    ensure!(changed.is_empty(), "no limit was changed: {changed:?}");
    workload.success()?;
    agent.stop().map(drop)
}

fn lost_of(agent: &Agent, cause: &str) -> Result<u64> {
    agent.wait_for("a self line", Duration::from_secs(10), of_type("self"))?;
    number(
        &agent.last(of_type("self")).context("no self line")?["lost"],
        cause,
    )
}

#[test]
fn kills_while_the_kernels_counts_cannot_be_read_are_neither_lost_nor_missed() -> Result<()> {
    let (agent, unreadable) = agent(&[])?;
    // Kills of others that came while the hooks were attached are told as missed by now.
    agent.wait_intervals(3)?;
    let before = agent.all(|line| line["kind"] == "missed_kills").len();
    for file in ["/proc/vmstat", "memory.oom_control", "memory.events.local"] {
        let cgroup = Cgroup::new("uncounted")?;
        set(&unreadable, Some(file));
        agent.wait_intervals(1)?;
        let pid = run_into_limit(&cgroup, b"mt-uncounted")?;
        of_victim(&agent, pid)?;
        set(&unreadable, None);
        agent.wait_intervals(1)?;
        let missed = agent
            .all(|line| line["kind"] == "missed_kills")
            .split_off(before);
        ensure!(missed.is_empty(), "{file}: {missed:?}");
    }
    agent.stop().map(drop)
}

#[test]
fn what_procfs_hides_of_a_victim_is_null_and_its_kill_is_told() -> Result<()> {
    for (file, lost) in [("stat", "share"), ("cmdline", "none"), ("cgroup", "none")] {
        let (agent, unreadable) = agent(&[])?;
        set(&unreadable, Some(file));
        let cgroup = Cgroup::new("no-proc")?;
        let pid = run_into_limit(&cgroup, b"mt-no-proc")?;
        let incident = of_victim(&agent, pid)?;
        let victim = victim(&incident, pid)?;
        assert_eq!(victim["cgroup"], cgroup.path(), "{file} {lost}: {incident}");
        ensure!(victim["anon_bytes"].as_u64() > Some(16 * MIB), "{incident}");
        agent.stop()?;
    }
    Ok(())
}

#[test]
fn processes_that_vanish_while_they_are_read_cost_nothing() -> Result<()> {
    let agent = Agent::start(&["--interval", "100ms"])?;
    let cgroup = Cgroup::new("vanish")?;
    for _ in 0..4 {
        let children = ["children", "--count", "300", "--pages", "40"];
        let mut workload = Workload::start(&cgroup, &children)?;
        workload.resume()?;
        workload.end()?;
    }
    let pid = run_into_limit(&cgroup, b"mt-vanish")?;
    of_victim(&agent, pid)?;
    agent.wait_intervals(2)?;
    let id = cgroup.id()?;
    let exits = agent.last(about("cgroup", id)).context("no line")?;
    ensure!(number(&exits, "exits")? >= 1200, "{exits}");
    for cause in [
        "cgroup_reading_failed",
        "host_reading_failed",
        "record_not_decoded",
    ] {
        assert_eq!(lost_of(&agent, cause)?, 0, "{cause}");
    }
    agent.stop().map(drop)
}

#[test]
fn without_descriptors_kills_are_told_and_connections_wait_without_a_spin() -> Result<()> {
    let port = free_port()?;
    let listen = format!("127.0.0.1:{port}");
    let exhausted = Arc::new(Mutex::new(false));
    let kinds = [Kind::OPEN, Kind::any(libc::SYS_accept4)];
    let agent = Agent::start_refused(&["--listen", &listen], &[], &kinds, {
        let exhausted = Arc::clone(&exhausted);
        move |_| {
            exhausted
                .lock()
                .expect("test panicked")
                .then_some(Errno::EMFILE)
        }
    })?;
    *exhausted.lock().expect("agent's thread panicked") = true;
    let _waits = std::net::TcpStream::connect(("127.0.0.1", port))?;
    let before = agent.refused();
    let cgroup = Cgroup::new("no-descriptors")?;
    let pid = run_into_limit(&cgroup, b"mt-no-fd")?;
    let incident = agent.wait_for("the incident", Duration::from_secs(20), |line| {
        is_complete(line) && victim(line, pid).is_ok()
    })?;
    assert_eq!(incident["charged"]["limit_bytes"], 32 * MIB, "{incident}");
    agent.wait_intervals(4)?;
    let tries = agent.refused() - before;
    // A loop around accept(2) would make a hundred thousand.
    ensure!(tries < 20_000, "{tries} refused calls");
    *exhausted.lock().expect("agent's thread panicked") = false;
    assert_eq!(request(port, "GET", "/healthz", "")?.0, 200);
    agent.wait_intervals(1)?;
    ensure!(lost_of(&agent, "cgroup_reading_failed")? > 0);
    agent.stop().map(drop)
}
