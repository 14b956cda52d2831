//! What happened to one container: `memtrace incidents`, `leaks` and `report`, of a real kill and a real leak.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memtrace_tests::agent::{Agent, run, text};
use memtrace_tests::cgroup::Cgroup;
use memtrace_tests::incident::of_victim;
use memtrace_tests::leak::accuses;
use memtrace_tests::machine::MIB;
use memtrace_tests::workload::Workload;
use serde_json::Value;

use crate::leak_state::SECONDS_AS_TWO_MINUTES;

#[test]
fn a_kill_becomes_a_row_a_page_and_a_ticket_while_no_agent_runs() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let state = directory.path().to_str().context("no text")?;
    let socket = directory.path().join("none.sock");
    let socket = socket.to_str().context("no text")?;
    let agent = Agent::start(&["--state-dir", state, "--api-socket", "none"])?;
    let cgroup = Cgroup::new("reported")?;
    let path = cgroup.path();
    cgroup.limit(32 * MIB)?;
    // It lives long enough for a curve of its memory.
    let life = ["--bytes", "134217728", "--calm-ms", "3000"];
    let arguments = [&["--comm", "mt-reported", "oom"][..], &life].concat();
    let killed = Workload::start(&cgroup, &arguments)?;
    let pid = killed.pid();
    ensure!(killed.end()?.killed(), "it lives on");
    let line = of_victim(&agent, pid)?;
    let id = line["id"].as_str().context("no id")?;
    agent.stop()?;

    let list = text(&run(&["incidents", "--utc", "--state-dir", state])?)?;
    let mut rows = list.lines();
    ensure!(
        rows.next().is_some_and(|head| head.starts_with("TIME")),
        "{list}"
    );
    // Others may be killed on this machine meanwhile.
    let row = rows
        .clone()
        .find(|row| row.contains(id))
        .context("no row")?;
    for wanted in [
        "Z  cgroup_oom  ",
        &path,
        &format!("mt-reported({pid})"),
        "32.0M",
        id,
    ] {
        ensure!(row.contains(wanted), "no {wanted} in {row}");
    }
    let none = text(&run(&[
        "incidents",
        "--pod",
        "no/such",
        "--state-dir",
        state,
    ])?)?;
    ensure!(none.is_empty(), "{none}");

    let report = |arguments: &[&str]| -> Result<String> {
        let mut line = vec!["report"];
        line.extend(arguments);
        line.extend(["--state-dir", state, "--socket", socket, "--utc"]);
        text(&run(&line)?)
    };
    let page = directory.path().join("x.html");
    report(&[id, "-o", page.to_str().context("no text")?])?;
    let page = fs::read_to_string(page)?;
    for wanted in [
        "<!DOCTYPE html>",
        "<svg",
        "mt-reported",
        id,
        "What to do next",
    ] {
        ensure!(page.contains(wanted), "no {wanted} in {page}");
    }
    for unwanted in ["<script", "src=\"http", "href=\"http"] {
        ensure!(!page.contains(unwanted), "{unwanted} in {page}");
    }
    let ticket = report(&["--cgroup", &path])?;
    ensure!(
        ticket.starts_with("# Memory report: ") && ticket.contains("limit 32.0M ┤"),
        "{ticket}"
    );
    let json: Value = serde_json::from_str(&report(&[id, "--format", "json"])?)?;
    assert_eq!(json["incidents"][0]["id"], id);
    assert_eq!(json["cgroup"], path.as_str());
    let last = rows.next_back().context("no row")?;
    let latest: Value = serde_json::from_str(&report(&["latest", "--format", "json"])?)?;
    let told = latest["incidents"].as_array().context("no incidents")?;
    ensure!(
        told.iter()
            .filter_map(|one| one["id"].as_str())
            .any(|one| last.ends_with(one)),
        "{last}"
    );

    let missing = run(&[
        "report",
        "no-such-id",
        "--state-dir",
        state,
        "--socket",
        socket,
    ])?;
    assert_eq!(missing.status.code(), Some(1));
    let nameless = run(&["report", "latest", "-o", "x.doc", "--state-dir", state])?;
    assert_eq!(nameless.status.code(), Some(2));
    Ok(())
}

#[test]
fn a_leak_is_told_by_leaks_and_by_its_report() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("agent.sock");
    let socket = socket.to_str().context("no text")?;
    let mut arguments = SECONDS_AS_TWO_MINUTES.to_vec();
    arguments.extend(["--api-socket", socket]);
    let agent = Agent::start(&arguments)?;
    let none = text(&run(&[
        "leaks",
        "--socket",
        socket,
        "--cgroup",
        "/no-such*",
    ])?)?;
    ensure!(
        none.contains("no cgroup that matches '/no-such*' is judged"),
        "{none}"
    );

    let cgroup = Cgroup::new("report-leak")?;
    cgroup.limit(256 * MIB)?;
    let path = cgroup.path();
    let rate = (2 * MIB).to_string();
    let leak = ["leak", "--calm-ms", "15000", "--bytes-per-second", &rate];
    let mut workload = Workload::start(&cgroup, &leak)?;
    workload.report()?;
    agent.wait_for("a suspicion", Duration::from_secs(90), accuses(&path))?;

    let told = text(&run(&["leaks", "--socket", socket, "--cgroup", &path])?)?;
    ensure!(told.starts_with(&format!("{path}: leak ")), "{told}");
    for wanted in [
        "/h (",
        "grows since",
        "to the limit",
        "its own limit of 256M",
        "evidence",
        "who  ",
    ] {
        ensure!(told.contains(wanted), "no {wanted} in {told}");
    }
    let failed = run(&["leaks", "--socket", socket, "--fail-on", "suspected"])?;
    assert_eq!(failed.status.code(), Some(3));
    let line = text(&run(&[
        "leaks", "--socket", socket, "--cgroup", &path, "--json",
    ])?)?;
    let line: Value = serde_json::from_str(&line)?;
    assert_eq!(line["cgroup"], path.as_str());

    let report = [
        "report", "--cgroup", &path, "--socket", socket, "--format", "json",
    ];
    let json: Value = serde_json::from_str(&text(&run(&report)?)?)?;
    let conclusion = json["conclusion"].as_str().context("no conclusion")?;
    ensure!(
        conclusion.contains("leak: anonymous memory grows by"),
        "{conclusion}"
    );
    let several = run(&["report", "--cgroup", "*", "--socket", socket])?;
    assert_eq!(several.status.code(), Some(1));
    let said = String::from_utf8_lossy(&several.stderr);
    ensure!(
        said.contains("matches") && said.contains("name one of them"),
        "{said}"
    );
    drop(workload);
    drop(cgroup);
    agent.stop().map(drop)
}
