//! A state directory that is damaged, fills up, or goes while an agent runs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memtrace_tests::agent::{Agent, number, of_type, run, text};
use memtrace_tests::cgroup::Cgroup;
use memtrace_tests::incident::of_victim;
use memtrace_tests::machine::{MIB, oom_kills, poll};
use memtrace_tests::workload::Workload;
use nix::mount::{MsFlags, mount, umount};
use nix::time::{ClockId, clock_gettime};

use crate::oom::run_into_limit;

/// Kills a process; gives the id of the incident that the agent told.
fn incident(agent: &Agent) -> Result<String> {
    let cgroup = Cgroup::new("state")?;
    let pid = run_into_limit(&cgroup, b"mt-state")?;
    let line = of_victim(agent, pid)?;
    Ok(line["id"].as_str().context("no id")?.to_owned())
}

fn is_stored(state: &Path, id: &str) -> Result<bool> {
    let state = state.to_str().context("no text")?;
    Ok(text(&run(&["incidents", "--json", "--state-dir", state])?)?.contains(id))
}

fn wait_stored(state: &Path, id: &str) -> Result<()> {
    poll("the incident on disk", Duration::from_secs(10), || {
        Ok(is_stored(state, id)?.then_some(()))
    })
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            files(&path, found)?;
        } else {
            found.push(path);
        }
    }
    Ok(())
}

/// Has state of every kind: an incident, growth that is judged, a history. Gives the id of the incident.
fn filled(state: &Path) -> Result<String> {
    let path = state.to_str().context("no text")?;
    let agent = Agent::start(&[
        "--state-dir",
        path,
        "--interval",
        "200ms",
        "--time-scale",
        "120",
    ])?;
    let cgroup = Cgroup::new("state-growth")?;
    cgroup.limit(256 * MIB)?;
    let rate = (2 * MIB).to_string();
    let leak = ["leak", "--calm-ms", "0", "--bytes-per-second", &rate];
    let workload = Workload::start(&cgroup, &leak)?;
    let id = incident(&agent)?;
    agent.wait_intervals(20)?;
    workload.success()?;
    agent.stop()?;
    Ok(id)
}

/// Fills the store with copies of an incident, nearly to its cap.
fn crowd(state: &Path, id: &str) -> Result<()> {
    const SEGMENTS: u32 = 14;
    const SEGMENT: usize = 4 << 20;
    let mut segments = Vec::new();
    files(&state.join("incidents"), &mut segments)?;
    let text = segments.iter().map(fs::read_to_string);
    let text = text.collect::<std::io::Result<Vec<_>>>()?.concat();
    let line = text.lines().find(|line| line.contains(id));
    let line = line.context("no record")?;
    let mut copies = 0;
    for segment in 0..SEGMENTS {
        let mut text = String::with_capacity(SEGMENT);
        while text.len() + line.len() + 16 < SEGMENT {
            copies += 1;
            text.push_str(&line.replace(id, &format!("{id}-{copies}")));
            text.push('\n');
        }
        let path = format!("incidents/{:08}.jsonl", 100 + segment);
        fs::write(state.join(path), text)?;
    }
    Ok(())
}

/// As if an agent had looked at the kernel's count of kills just now.
fn looked_now(state: &Path) -> Result<()> {
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let uptime = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME)?);
    let count = serde_json::json!({
        "boot_id": boot_id.trim(),
        "boot_time_ns": u64::try_from(uptime.as_nanos())?,
        "time": jiff::Timestamp::now().to_string(),
        "oom_kills": oom_kills()?,
    });
    Ok(fs::write(
        state.join("kernel-count.json"),
        count.to_string(),
    )?)
}

#[test]
fn a_full_store_is_read_by_an_agent_that_has_less_memory() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let state = directory.path();
    let path = state.to_str().context("no text")?;
    let agent = Agent::start(&["--state-dir", path])?;
    let id = incident(&agent)?;
    wait_stored(state, &id)?;
    agent.stop()?;
    crowd(state, &id)?;
    // A kill in its absence: the store is read for what was told of it.
    looked_now(state)?;
    run_into_limit(&Cgroup::new("absence")?, b"mt-absence")?;
    let room = Cgroup::new("little-room")?;
    room.limit(44 * MIB)?;
    let agent = Agent::start_in(&room, &["--state-dir", path])?;
    agent.wait_for("kills in its absence", Duration::from_secs(30), |line| {
        line["kind"] == "missed_kills" && line["kernel_counts"]["not_running_since"].is_string()
    })?;
    assert_eq!(room.oom_kills()?, 0, "the agent's own cgroup");
    agent.stop().map(drop)
}

type Damage = fn(&Path) -> std::io::Result<()>;

const WAYS: [(&str, Damage); 5] = [
    ("noise", |path| {
        let mut bytes = fs::read(path)?;
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte ^= (index as u8).wrapping_mul(31) | 1;
        }
        fs::write(path, bytes)
    }),
    ("nothing", |path| fs::write(path, b"")),
    ("a half", |path| {
        let bytes = fs::read(path)?;
        fs::write(path, &bytes[..bytes.len() / 2])
    }),
    ("a directory", |path| {
        fs::remove_file(path)?;
        fs::create_dir(path)
    }),
    ("a link", |path| {
        fs::remove_file(path)?;
        symlink("/dev/zero", path)
    }),
];

/// What is said of a state directory: by `memtrace incidents`, and by an agent that starts with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Said {
    damaged_records: bool,
    growth_store_damaged: u64,
    timeline_store_damaged: u64,
    /// That kills came while no memtrace ran.
    absence: bool,
    kernel_count_not_saved: bool,
    /// That another agent may have the directory.
    not_locked: bool,
}

/// Of one that is whole.
const WHOLE: Said = Said {
    damaged_records: false,
    growth_store_damaged: 0,
    timeline_store_damaged: 0,
    absence: true,
    kernel_count_not_saved: false,
    not_locked: false,
};

/// Files of one kind, each damaged in one way, and what is said of that.
struct Case {
    name: String,
    damaged: Vec<(PathBuf, Damage)>,
    said: Said,
}

fn cases(source: &Path) -> Result<Vec<Case>> {
    let mut found = Vec::new();
    files(source, &mut found)?;
    let found = found
        .iter()
        .map(|path| Ok(path.strip_prefix(source)?.to_owned()));
    let all = found.collect::<Result<Vec<PathBuf>>>()?;
    let of_store = |store: &str| -> Vec<PathBuf> {
        let files = all.iter().filter(|file| file.starts_with(store));
        files.cloned().collect()
    };
    let (growth, timelines) = (of_store("growth"), of_store("timelines"));
    ensure!(growth.len().min(timelines.len()) >= WAYS.len(), "{all:?}");
    let each = WAYS.len() as u64;
    let growth_damaged = Said {
        growth_store_damaged: each,
        ..WHOLE
    };
    let timelines_damaged = Said {
        timeline_store_damaged: each,
        ..WHOLE
    };
    let mut cases = Vec::new();
    for (shards, said) in [(&growth, growth_damaged), (&timelines, timelines_damaged)] {
        let ways = WAYS.map(|(_, damage)| damage);
        cases.push(Case {
            name: format!("some of {}", shards[0].display()),
            damaged: shards.iter().cloned().zip(ways).collect(),
            said,
        });
    }
    for (way, damage) in WAYS {
        let mut add = |files: &[PathBuf], said: Said| {
            cases.push(Case {
                name: format!("{way} in {} files: {}", files.len(), files[0].display()),
                damaged: files.iter().map(|file| (file.clone(), damage)).collect(),
                said,
            });
        };
        let everything = Said {
            damaged_records: way != "nothing",
            growth_store_damaged: growth.len() as u64,
            timeline_store_damaged: timelines.len() as u64,
            absence: false,
            kernel_count_not_saved: way == "a directory",
            // What the lock says is only for messages.
            not_locked: ["a directory", "a link"].contains(&way),
        };
        add(&all, everything);
        let Said {
            damaged_records,
            kernel_count_not_saved,
            not_locked,
            ..
        } = everything;
        add(
            &["incidents/00000001.jsonl".into()],
            Said {
                damaged_records,
                ..WHOLE
            },
        );
        add(
            &["agent.lock".into()],
            Said {
                not_locked,
                ..WHOLE
            },
        );
        let not_counted = Said {
            absence: false,
            kernel_count_not_saved,
            ..WHOLE
        };
        add(&["kernel-count.json".into()], not_counted);
    }
    Ok(cases)
}

#[test]
fn state_that_is_damaged_in_any_way_costs_itself_and_no_new_incident() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let source = directory.path();
    let old = filled(source)?;
    looked_now(source)?;
    run_into_limit(&Cgroup::new("absence")?, b"mt-absence")?;
    for case in cases(source)?.into_iter().step_by(super::step()) {
        costs_itself(source, &old, &case).with_context(|| case.name.clone())?;
    }
    Ok(())
}

fn costs_itself(source: &Path, old: &str, case: &Case) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let state = directory.path();
    copy(source, state)?;
    for (file, damage) in &case.damaged {
        damage(&state.join(file)).with_context(|| file.display().to_string())?;
    }
    let path = state.to_str().context("no text")?;
    let listed = run(&["incidents", "--json", "--state-dir", path])?;
    let agent = Agent::start(&["--state-dir", path, "--interval", "200ms"])?;
    let id = incident(&agent)?;
    wait_stored(state, &id)?;
    if case.said.kernel_count_not_saved {
        agent.wait_for("the counter", Duration::from_secs(15), |line| {
            of_type("self")(line) && line["lost"]["kernel_count_not_saved"].as_u64() > Some(0)
        })?;
    }
    agent.wait_intervals(1)?;
    let own = agent.last(of_type("self")).context("no self line")?;
    let lost = |cause: &str| number(&own["lost"], cause);
    let absence = agent.all(|line| line["kernel_counts"]["not_running_since"].is_string());
    let said = Said {
        damaged_records: String::from_utf8_lossy(&listed.stderr).contains("damaged records"),
        growth_store_damaged: lost("growth_store_damaged")?,
        timeline_store_damaged: lost("timeline_store_damaged")?,
        absence: !absence.is_empty(),
        kernel_count_not_saved: lost("kernel_count_not_saved")? > 0,
        not_locked: agent.stderr().contains("uses the same --state-dir"),
    };
    assert_eq!(said, case.said, "{}: {own}", case.name);
    agent.stop()?;
    ensure!(is_stored(state, &id)?, "the new incident is not there");
    let of_incidents = |(file, _): &(PathBuf, Damage)| file.starts_with("incidents");
    if !case.damaged.iter().any(of_incidents) {
        ensure!(is_stored(state, old)?, "the old incident is gone");
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir(&target)?;
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

#[test]
fn a_disk_that_fills_up_and_has_room_again_keeps_what_comes_then() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let state = directory.path();
    let flags = MsFlags::empty();
    mount(Some("tmpfs"), state, Some("tmpfs"), flags, Some("size=4m"))?;
    let result = fills_up(state);
    umount(state)?;
    result
}

fn fills_up(state: &Path) -> Result<()> {
    let agent = Agent::start(&["--state-dir", state.to_str().context("no text")?])?;
    let before = incident(&agent)?;
    wait_stored(state, &before)?;
    let filler = state.join("filler");
    // As much as there is room for.
    let _ = fs::write(&filler, vec![0; 8 << 20]);
    let during: Vec<String> = (0..6).map(|_| incident(&agent)).collect::<Result<_>>()?;
    agent.wait_for("the counter", Duration::from_secs(15), |line| {
        of_type("self")(line) && line["lost"]["incident_store_failed"].as_u64() > Some(0)
    })?;
    ensure!(is_stored(state, &before)?, "what was there is gone");
    fs::remove_file(filler)?;
    let after = incident(&agent)?;
    wait_stored(state, &after)?;
    ensure!(is_stored(state, &before)?, "what was there is gone");
    let lost = during.iter().map(|id| is_stored(state, id));
    let lost = lost.collect::<Result<Vec<bool>>>()?;
    ensure!(lost.contains(&false), "there was room");
    agent.stop().map(drop)
}

#[test]
fn a_directory_that_is_removed_under_an_agent_costs_what_was_in_it() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let state = directory.path().join("state");
    let agent = Agent::start(&["--state-dir", state.to_str().context("no text")?])?;
    let before = incident(&agent)?;
    wait_stored(&state, &before)?;
    fs::remove_dir_all(&state)?;
    let after = incident(&agent)?;
    wait_stored(&state, &after)?;
    ensure!(!is_stored(&state, &before)?, "it was removed");
    agent.stop().map(drop)
}
