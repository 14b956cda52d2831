//! Files of cgroups and of the host that cannot be read, processes that vanish, and descriptors that run out.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memtrace_tests::agent::{Agent, about, number, of_type};
use memtrace_tests::backend::{free_port, request};
use memtrace_tests::cgroup::{Cgroup, Hierarchy, Version};
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
    ("memory.kmem.usage_in_bytes", "kernel_bytes"),
    ("memory.kmem.tcp.usage_in_bytes", "sock_bytes"),
    ("memory.failcnt", "/events/max"),
    ("memory.oom_control", "/events_local/oom_kill"),
];
const OF_CGROUP_V2: &[(&str, &str)] = &[
    ("memory.current", "usage_bytes"),
    ("memory.stat", "anon_bytes"),
    ("memory.max", "limit_bytes"),
    ("memory.peak", "peak_bytes"),
    ("memory.swap.current", "swap_bytes"),
    ("memory.high", "high_bytes"),
    ("memory.events", "/events/max"),
    ("memory.events.local", "/events_local/oom_kill"),
    ("memory.pressure", "pressure_some_ns"),
];
const OF_HOST: &[(&str, &str)] = &[
    ("/proc/meminfo", "mem_total_bytes"),
    ("/proc/vmstat", "oom_kills"),
    ("/proc/pressure/memory", "pressure_some_ns"),
];
/// Not of older kernels, nor of those without PSI, swap or accounting of the kernel's own memory.
const NOT_EVERYWHERE: &[&str] = &[
    "memory.kmem.usage_in_bytes",
    "memory.kmem.tcp.usage_in_bytes",
    "memory.peak",
    "memory.swap.current",
    "memory.pressure",
    "/proc/pressure/memory",
];

/// Those that this kernel has, of files in a directory.
fn there(
    directory: &Path,
    files: &'static [(&'static str, &'static str)],
) -> Vec<(&'static str, &'static str)> {
    let is_there =
        |file: &str| !NOT_EVERYWHERE.contains(&file) || fs::read(directory.join(file)).is_ok();
    let files = files.iter().copied();
    files.filter(|(file, _)| is_there(file)).collect()
}

/// The file that cannot be read: its name, or its whole path.
pub(super) type Unreadable = Arc<Mutex<Option<String>>>;

/// An agent that gets EIO where it opens that file, or reads one that it has kept.
pub(super) fn agent(arguments: &[&str], file: Option<&str>) -> Result<(Agent, Unreadable)> {
    let unreadable = Unreadable::default();
    set(&unreadable, file);
    let kinds = [Kind::OPEN, Kind::any(libc::SYS_pread64)];
    let agent = Agent::start_refused(arguments, &[], &kinds, {
        let unreadable = Arc::clone(&unreadable);
        move |call| {
            let unreadable = unreadable.lock().expect("test panicked");
            let file = unreadable.as_deref()?;
            let path = match call.number {
                libc::SYS_openat => call.opens(),
                _ => call.descriptor(0),
            }?;
            // By whole names: `memory.events` is no `memory.events.local`.
            let is_it = if file.starts_with('/') {
                path == Path::new(file)
            } else {
                path.file_name().is_some_and(|name| name == file)
            };
            is_it.then_some(Errno::EIO)
        }
    })?;
    Ok((agent, unreadable))
}

pub(super) fn set(unreadable: &Unreadable, file: Option<&str>) {
    *unreadable.lock().expect("agent's thread panicked") = file.map(str::to_owned);
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
    let (agent, unreadable) = agent(&[], None)?;
    let cgroup = Cgroup::new("unreadable")?;
    cgroup.limit(512 * MIB)?;
    let files = match cgroup.version() {
        Version::V1 => OF_CGROUP_V1,
        Version::V2 => {
            cgroup.high(Some(448 * MIB))?;
            OF_CGROUP_V2
        }
    };
    let files = there(cgroup.directory(), files);
    let id = cgroup.id()?;
    // Grows all the time, so that it is read in full each interval.
    let rate = (2 * MIB).to_string();
    let leak = ["leak", "--calm-ms", "0", "--bytes-per-second", &rate];
    let workload = Workload::start(&cgroup, &leak)?;
    let of_it = |line: &Value| about("cgroup", id)(line);
    let whole =
        |line: &Value| of_it(line) && files.iter().all(|(_, name)| field(line, name).is_u64());
    agent.wait_for("a whole line", Duration::from_secs(15), whole)?;
    for (file, lost) in &files {
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
    let files = there(Path::new("/"), OF_HOST);
    for (file, lost) in &files {
        let before = lost_of(&agent, "host_reading_failed")?;
        let mark = agent.mark();
        set(&unreadable, Some(file));
        let line = agent.wait_after(mark, file, Duration::from_secs(15), |line| {
            of_type("host")(line) && line[*lost].is_null()
        })?;
        for (_, name) in files.iter().filter(|(_, name)| name != lost) {
            ensure!(line[*name].is_u64(), "{file} costs {name}: {line}");
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
    let (agent, unreadable) = agent(&[], None)?;
    let of_cgroup = match Hierarchy::find()?.version {
        Version::V1 => "memory.oom_control",
        Version::V2 => "memory.events.local",
    };
    // Kills of others that came while the hooks were attached are told as missed by now.
    agent.wait_intervals(3)?;
    let before = agent.all(|line| line["kind"] == "missed_kills").len();
    for file in ["/proc/vmstat", of_cgroup] {
        let cgroup = Cgroup::new("uncounted")?;
        set(&unreadable, Some(file));
        agent.wait_intervals(1)?;
        let pid = run_into_limit(&cgroup, b"mt-uncounted")?;
        of_victim(&agent, pid)?;
        let refused = agent.refused();
        agent.wait_intervals(1)?;
        ensure!(agent.refused() > refused, "{file} was not read");
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
fn files_that_are_read_for_an_incident_cost_what_they_alone_tell() -> Result<()> {
    // Long: what happens is told by the reading for the incident, and by no other.
    let (agent, unreadable) = agent(&["--interval", "300s"], None)?;
    agent.wait_for(
        "the first reading",
        Duration::from_secs(15),
        of_type("self"),
    )?;
    let told = |file: Option<&str>| -> Result<(bool, bool)> {
        let cgroup = Cgroup::new("unread-incident")?;
        let bytes = (8 * MIB).to_string();
        let mut beside = Workload::start(&cgroup, &["touch", "--bytes", &bytes])?;
        beside.report()?;
        let refused = agent.refused();
        set(&unreadable, file);
        let pid = run_into_limit(&cgroup, b"mt-unread")?;
        let incident = of_victim(&agent, pid)?;
        set(&unreadable, None);
        let read = agent.refused() > refused;
        assert_eq!(read, file.is_some(), "{file:?} was not read");
        let growers = incident["evidence"]["growers"].as_array();
        let growers = growers.with_context(|| format!("no growers: {incident}"))?;
        ensure!(
            growers.iter().any(|grower| grower["pid"] == pid),
            "{incident}"
        );
        let is_told = growers.iter().any(|grower| grower["pid"] == beside.pid());
        beside.success()?;
        Ok((is_told, incident["group_kill"].is_boolean()))
    };
    assert_eq!(told(None)?, (true, true));
    assert_eq!(told(Some("cgroup.procs"))?, (false, true));
    // v1 has no such file: nobody is killed as a group there.
    if Hierarchy::find()?.version == Version::V2 {
        assert_eq!(told(Some("memory.oom.group"))?, (true, false));
    }
    agent.stop().map(drop)
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
