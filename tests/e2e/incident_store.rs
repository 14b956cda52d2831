//! Incidents on disk and on the terminal: `memtrace incidents`, `memtrace oom`.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use memtrace_tests::agent::{self, Agent, of_type, run, text};
use memtrace_tests::cgroup::Cgroup;
use memtrace_tests::incident::{is_complete, of_victim, stored, time, victim};
use memtrace_tests::machine;
use nix::mount::{MsFlags, mount, umount};
use serde_json::Value;

use crate::oom::run_into_limit;

#[test]
fn kills_in_its_absence_are_told_from_its_end_on() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let state = directory.path().to_str().context("no text")?;
    let first = Agent::start(&["--state-dir", state])?;
    first.wait_intervals(3)?;
    let still_running = Timestamp::now();
    first.stop()?;
    run_into_limit(&Cgroup::new("absence")?, b"mt-absence")?;
    let second = Agent::start(&["--state-dir", state])?;
    let line = second.wait_for("kills in its absence", Duration::from_secs(30), |line| {
        line["kind"] == "missed_kills" && line["kernel_counts"]["not_running_since"].is_string()
    })?;
    let since = time(&line["kernel_counts"]["not_running_since"])?;
    ensure!(since >= still_running, "{line}");
    second.stop().map(drop)
}

#[test]
fn incidents_are_listed_and_shown_while_an_agent_runs_and_after() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let state = directory.path().to_str().context("no text")?;
    let agent = Agent::start(&["--state-dir", state])?;
    let cgroup = Cgroup::new("stored")?;
    let pid = run_into_limit(&cgroup, b"mt-stored")?;
    let line = of_victim(&agent, pid)?;
    let id = line["id"].as_str().context("no id")?;
    let path = cgroup.path();
    let mut agent = Some(agent);
    for running in [true, false] {
        if !running && let Some(agent) = agent.take() {
            agent.stop()?;
        }
        let list = text(&run(&["incidents", "--state-dir", state])?)?;
        let row = list.lines().find(|row| row.contains(id));
        let row = row.with_context(|| format!("no {id} in {list}"))?;
        ensure!(row.contains("mt-stored") && row.contains(&path), "{row}");

        let shown = text(&run(&["incidents", "show", id, "--state-dir", state])?)?;
        for wanted in [id, "mt-stored", &path, &pid.to_string(), "32.0M"] {
            ensure!(shown.contains(wanted), "no {wanted} in {shown}");
        }
        ensure!(shown.lines().count() > 3, "{shown}");

        let json = text(&run(&[
            "incidents",
            "show",
            id,
            "--json",
            "--state-dir",
            state,
        ])?)?;
        same(
            &line,
            &serde_json::from_str(&json).with_context(|| json.clone())?,
        )?;
        // Others on this machine may have been killed too.
        let mut rows = stored(state)?;
        rows.retain(|row| row["id"] == id);
        assert_eq!(rows.len(), 1, "{rows:?}");
        same(&line, &rows[0])?;
    }
    Ok(())
}

/// All that the line said is in the store; only the type of the line need not be.
fn same(line: &Value, stored: &Value) -> Result<()> {
    for (field, value) in line.as_object().context("no object")? {
        if field != "type" {
            assert_eq!(*value, stored[field], "{field}");
        }
    }
    Ok(())
}

#[test]
fn an_output_that_nobody_reads_any_more_costs_no_incident() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let state = directory.path().to_str().context("no text")?;
    let cgroup = Cgroup::new("unread")?;
    let path = cgroup.path();
    // The next line is that of the kill.
    let arguments = [
        "run",
        "-o",
        "json",
        "-i",
        "1h",
        "--cgroup",
        &path,
        "--state-dir",
        state,
    ];
    let mut child = agent::command(&arguments)?
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
    let mut told = lines.by_ref().map_while(Result::ok);
    ensure!(told.any(|line| line.contains("\"type\":\"self\"")));
    drop(lines);

    let pid = run_into_limit(&cgroup, b"mt-unread")?;
    let status = agent::wait(&mut child, Duration::from_secs(15))?;
    ensure!(status.success(), "{status}");
    let rows = stored(state)?;
    let told = rows.iter().filter(|row| victim(row, pid).is_ok());
    assert_eq!(told.count(), 1, "{rows:?}");
    Ok(())
}

#[test]
fn an_empty_store_is_no_error_and_an_unknown_incident_is() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let state = directory.path().to_str().context("no text")?;
    let json = text(&run(&["incidents", "--json", "--state-dir", state])?)?;
    assert_eq!(json, "");
    let output = run(&["incidents", "show", "no-such-id", "--state-dir", state])?;
    ensure!(!output.status.success(), "{output:?}");
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(errors.contains("no-such-id"), "{errors}");
    Ok(())
}

#[test]
fn a_state_directory_is_one_agents_while_that_lives() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let state = directory.path().to_str().context("no text")?;
    let first = Agent::start(&["--state-dir", state])?;
    let second = run(&["run", "--output", "json", "--state-dir", state])?;
    let errors = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{errors}");
    ensure!(second.stdout.is_empty(), "{second:?}");
    for told in [state, &format!("PID {}", first.pid()), "--state-dir"] {
        ensure!(errors.contains(told), "no {told} in {errors}");
    }
    text(&run(&["incidents", "--state-dir", state])?)?;
    // The lock is gone with the process, however that ends.
    first.kill()?;
    let third = Agent::start(&["--state-dir", state])?;
    third.stop()?;
    Agent::start(&["--state-dir", state])?.stop().map(drop)
}

/// Others may be killed on the machine meanwhile: while an agent runs, or between two of them.
fn is_of_others(row: &Value) -> bool {
    let victims = row["victims"].as_array().map_or(&[][..], Vec::as_slice);
    let is_ours = |victim: &Value| victim["comm"] == "mt-torn";
    row["kind"] == "missed_kills" || (!victims.is_empty() && !victims.iter().any(is_ours))
}

#[test]
fn damage_at_the_end_of_the_store_costs_no_other_incident() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let state = directory.path().to_str().context("no text")?;
    let ids = |state: &str| -> Result<Vec<String>> {
        let id = |row: &Value| Ok(row["id"].as_str().context("no id")?.to_owned());
        let rows = stored(state)?;
        rows.iter()
            .filter(|row| !is_of_others(row))
            .map(id)
            .collect()
    };
    let mut expected = Vec::new();
    for _ in 0..2 {
        let agent = Agent::start(&["--state-dir", state])?;
        let cgroup = Cgroup::new("torn")?;
        let pid = run_into_limit(&cgroup, b"mt-torn")?;
        let line = of_victim(&agent, pid)?;
        expected.push(line["id"].as_str().context("no id")?.to_owned());
        agent.stop()?;
        for entry in std::fs::read_dir(directory.path())? {
            let path = entry?.path();
            if path.is_file() {
                let mut file = std::fs::File::options().append(true).open(&path)?;
                // What a crash leaves of a record.
                std::io::Write::write_all(&mut file, b"{\"id\":\"to")?;
            }
        }
        let mut found = ids(state)?;
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
    }
    Ok(())
}

#[test]
fn a_full_or_read_only_disk_costs_a_counter_and_not_the_agent() -> Result<()> {
    for options in ["size=4k,nr_inodes=2", "ro"] {
        let directory = tempfile::tempdir()?;
        let mut flags = MsFlags::empty();
        let mut data = Some(options);
        if options == "ro" {
            flags = MsFlags::MS_RDONLY;
            data = None;
        }
        mount(Some("tmpfs"), directory.path(), Some("tmpfs"), flags, data)?;
        let result = without_room(directory.path().to_str().context("no text")?);
        umount(directory.path())?;
        result.with_context(|| options.to_owned())?;
    }
    Ok(())
}

fn without_room(state: &str) -> Result<()> {
    let agent = Agent::start(&["--state-dir", state])?;
    for _ in 0..3 {
        let cgroup = Cgroup::new("no-room")?;
        let pid = run_into_limit(&cgroup, b"mt-no-room")?;
        of_victim(&agent, pid)?;
    }
    let line = agent.wait_for("the counters", Duration::from_secs(15), |line| {
        let lost = |cause: &str| line["lost"][cause].as_u64();
        // Each incident is to be stored when it opens and when it is complete.
        of_type("self")(line)
            && lost("incident_store_failed") >= Some(6)
            && lost("kernel_count_not_saved") > Some(0)
    })?;
    for cause in ["growth_store_unusable", "timeline_store_unusable"] {
        assert_eq!(line["lost"][cause], 1, "{cause}: {line}");
    }
    agent.stop().map(drop)
}

#[test]
fn memtrace_oom_follows_incidents_and_nothing_else() -> Result<()> {
    let follower = Agent::spawn(agent::command(&["oom", "--json"])?)?;
    let pid = first_told(|pid| {
        let told = |line: &Value| is_complete(line) && victim(line, pid).is_ok();
        Ok(follower.last(told).is_some())
    })?;
    let lines = follower.all(|line| victim(line, pid).is_ok() && is_complete(line));
    assert_eq!(lines.len(), 1, "{lines:?}");
    let others = follower.all(|line| line["type"] != "oom_incident");
    ensure!(others.is_empty(), "{others:?}");
    follower.stop().map(drop)
}

#[test]
fn memtrace_oom_writes_one_line_of_text_for_each_incident() -> Result<()> {
    let mut child = agent::command(&["oom"])?
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let stdout = child.stdout.take().context("no stdout")?;
    let (sender, receiver) = mpsc::channel();
    let reader = thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let mut seen = Vec::new();
    let told = first_told(|pid| {
        seen.extend(receiver.try_iter());
        let pid = pid.to_string();
        Ok(seen.iter().any(|line| line.contains(&pid)))
    });
    child.kill()?;
    child.wait()?;
    reader.join().expect("reader thread panicked");
    let pid = told.with_context(|| format!("{seen:?}"))?.to_string();
    seen.extend(receiver.try_iter());
    let about: Vec<&String> = seen.iter().filter(|line| line.contains(&pid)).collect();
    assert_eq!(about.len(), 1, "{about:?}");
    ensure!(about[0].contains("mt-follow"), "{about:?}");
    Ok(())
}

/// Makes kills until one is told: the follower does not say when it is ready. Gives its pid.
fn first_told(mut told: impl FnMut(u32) -> Result<bool>) -> Result<u32> {
    for _ in 0..15 {
        let cgroup = Cgroup::new("follow")?;
        let pid = run_into_limit(&cgroup, b"mt-follow")?;
        let found = machine::poll("the incident", Duration::from_secs(1), || {
            Ok(told(pid)?.then_some(()))
        });
        if found.is_ok() {
            return Ok(pid);
        }
    }
    bail!("no incident was told")
}
