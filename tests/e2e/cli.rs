//! The command line: exit codes, signals, closed pipes, what is said on stderr.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use memtrace_tests::agent::{self, Agent, about, of_type};
use memtrace_tests::cgroup::{Cgroup, Hierarchy};
use memtrace_tests::machine::{self, patience};
use memtrace_tests::workload::Workload;
use nix::sys::signal::Signal;
use serde_json::Value;

#[test]
fn without_privileges_run_exits_77_and_names_the_capability() -> Result<()> {
    const NOBODY: u32 = 65534;
    // The build directory may be closed to others.
    let directory = tempfile::tempdir()?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    let copy = directory.path().join("memtrace");
    fs::copy(machine::memtrace()?, &copy)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    let mut command = Command::new(copy);
    command.args(["run", "--output", "json"]).current_dir("/");
    let output = output(command.uid(NOBODY).gid(NOBODY))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(77), "{stderr}");
    ensure!(stderr.contains("CAP_BPF"), "{stderr}");
    ensure!(output.stdout.is_empty(), "{output:?}");
    Ok(())
}

#[test]
fn a_thread_of_the_kernel_is_no_process_to_record() -> Result<()> {
    if fs::read_to_string("/proc/2/comm").ok().as_deref() != Some("kthreadd\n") {
        machine::skip("no thread of the kernel in this PID namespace");
        return Ok(());
    }
    let output = agent::run(&["record", "--pid", "2", "--duration", "1s"])?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    ensure!(
        stderr.contains("kthreadd (2) is a thread of the kernel"),
        "{stderr}"
    );
    Ok(())
}

#[test]
fn wrong_values_exit_2_and_name_the_flag() -> Result<()> {
    let wrong = [
        ["--interval", "x"],
        ["--interval", "0s"],
        ["--duration", "-1s"],
        ["--output", "xml"],
        ["--cgroup", "[a"],
        ["--heap", "maybe"],
        ["--fault-sample", "3"],
        ["--otlp-endpoint", "not a url"],
    ];
    for [flag, value] in wrong {
        let argument = format!("{flag}={value}");
        let output = output(&mut agent::command(&[
            "run", "--output", "json", &argument,
        ])?)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(2) && stderr.contains(flag) && output.stdout.is_empty(),
            "{argument}: {}: {stderr}",
            output.status
        );
    }
    Ok(())
}

#[test]
fn the_start_line_tells_the_machine_and_every_probe() -> Result<()> {
    let agent = Agent::start(&[])?;
    let start = agent.last(of_type("start")).context("no start line")?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let kernel = start["kernel"].as_str().context("no kernel")?;
    ensure!(kernel.contains(release.trim()), "{start}");
    assert_eq!(start["cgroup_mode"], Hierarchy::find()?.mode, "{start}");
    ensure!(
        start["version"].is_string() && start["time"].is_string(),
        "{start}"
    );
    let probes = start["probes"].as_object().context("no probes")?;
    ensure!(probes["oom.mark_victim"].is_string(), "{start}");
    for family in ["fault", "heap", "reclaim", "lifecycle"] {
        let hooked = probes
            .iter()
            .any(|(name, hook)| name.starts_with(family) && hook.is_string());
        ensure!(hooked, "nothing of {family} is attached: {start}");
    }
    agent.stop().map(drop)
}

#[test]
fn signals_end_it_well_within_two_seconds() -> Result<()> {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let agent = Agent::start(&["--interval", "60s"])?;
        let elapsed = agent.stop_by(signal)?;
        ensure!(
            elapsed < patience(Duration::from_secs(2)),
            "{signal}: {elapsed:?}"
        );
    }
    Ok(())
}

#[test]
fn the_last_changes_are_told_before_the_end() -> Result<()> {
    // So long an interval that only the flush at the end can tell of the cgroup.
    let state = tempfile::tempdir()?;
    let mut command = agent::command(&["run", "--output", "json", "--interval", "300s"])?;
    command.arg("--state-dir").arg(state.path());
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
    let first: Value = serde_json::from_str(&lines.next().context("no line")??)?;
    assert_eq!(first["type"], "start");
    let cgroup = Cgroup::new("flush")?;
    let id = cgroup.id()?;
    let mut workload = Workload::start(&cgroup, &["touch", "--bytes", "8388608"])?;
    workload.report()?;
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(child.id() as i32),
        Signal::SIGTERM,
    )?;
    let rest: Vec<Value> = lines
        .map(|line| Ok(serde_json::from_str(&line?)?))
        .collect::<Result<_>>()?;
    let status = agent::wait(&mut child, Duration::from_secs(10))?;
    ensure!(status.success(), "{status}");
    let told = rest.iter().rfind(|line| about("cgroup", id)(line));
    let told = told.with_context(|| format!("not told: {rest:?}"))?;
    ensure!(told["usage_bytes"].as_u64() >= Some(8 << 20), "{told}");
    ensure!(rest.iter().any(of_type("self")), "no self line at the end");
    workload.success().map(drop)
}

#[test]
fn it_ends_by_itself_after_the_given_duration() -> Result<()> {
    let began = Instant::now();
    let state = tempfile::tempdir()?;
    let mut command = agent::command(&["run", "--output", "json", "--interval", "500ms"])?;
    command.arg("--state-dir").arg(state.path());
    let output = output(command.args(["--duration", "2s"]))?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(began.elapsed() >= Duration::from_secs(2), "ended too early");
    let lines = String::from_utf8(output.stdout)?;
    ensure!(
        lines
            .lines()
            .filter(|line| line.contains("\"self\""))
            .count()
            >= 2,
        "{lines}"
    );
    Ok(())
}

#[test]
fn a_closed_stdout_ends_it_without_a_panic() -> Result<()> {
    let state = tempfile::tempdir()?;
    let mut command = agent::command(&["run", "--output", "json", "--interval", "500ms"])?;
    command.arg("--state-dir").arg(state.path());
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdout = BufReader::new(child.stdout.take().context("no stdout")?);
    let mut first = String::new();
    stdout.read_line(&mut first)?;
    drop(stdout);
    let status = agent::wait(&mut child, Duration::from_secs(15))?;
    let stderr = std::io::read_to_string(child.stderr.take().context("no stderr")?)?;
    ensure!(first.contains("\"start\""), "{first}{stderr}");
    ensure!(status.success(), "{status}: {stderr}");
    ensure!(!stderr.contains("panicked"), "{stderr}");
    Ok(())
}

#[test]
fn the_cgroup_filter_tells_only_what_matches() -> Result<()> {
    let wanted = Cgroup::new("wanted")?;
    let other = Cgroup::new("other")?;
    let glob = format!("{}*", wanted.path());
    let agent = Agent::start(&["--cgroup", &glob])?;
    let workloads =
        [&other, &wanted].map(|cgroup| Workload::start(cgroup, &["touch", "--bytes", "8388608"]));
    for workload in workloads {
        let mut workload = workload?;
        workload.report()?;
        workload.success()?;
    }
    agent.wait_for(
        "the cgroup",
        Duration::from_secs(15),
        about("cgroup", wanted.id()?),
    )?;
    agent.wait_intervals(2)?;
    let path = wanted.path();
    let others = agent.all(|line| {
        (of_type("cgroup")(line) || of_type("process")(line)) && line["cgroup"] != path.as_str()
    });
    ensure!(others.is_empty(), "{others:?}");
    agent.stop().map(drop)
}

#[test]
fn doctor_tells_its_findings_as_one_json_object() -> Result<()> {
    let output = output(&mut agent::command(&["doctor", "--json"])?)?;
    ensure!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
    let findings: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stdout).into_owned())?;
    ensure!(findings.is_object(), "{findings}");
    let text = findings.to_string();
    for told in ["mark_victim", Hierarchy::find()?.mode] {
        ensure!(text.contains(told), "{told} is missing: {text}");
    }
    let plain = self::output(&mut agent::command(&["doctor"])?)?;
    assert_eq!(plain.status.code(), output.status.code(), "{plain:?}");
    ensure!(!plain.stdout.is_empty(), "{plain:?}");
    Ok(())
}

#[test]
fn an_unreachable_otlp_endpoint_is_one_warning_and_counted_while_tracing_goes_on() -> Result<()> {
    let agent = Agent::start_with(
        &["--otlp-endpoint", "http://127.0.0.1:1"],
        &[
            ("OTEL_METRIC_EXPORT_INTERVAL", "500"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "500"),
        ],
    )?;
    let lost = |line: &Value| -> u64 {
        let causes = line["lost"].as_object().into_iter().flatten();
        causes
            .filter(|(cause, _)| cause.starts_with("otlp"))
            .filter_map(|(_, count)| count.as_u64())
            .sum()
    };
    let once = agent.wait_for("a counted loss", Duration::from_secs(30), |line| {
        of_type("self")(line) && lost(line) > 0
    })?;
    let again = agent.wait_for("a second loss", Duration::from_secs(30), |line| {
        of_type("self")(line) && lost(line) > lost(&once)
    })?;
    agent.wait_for("a third loss", Duration::from_secs(30), |line| {
        of_type("self")(line) && lost(line) > lost(&again)
    })?;
    let cgroup = Cgroup::new("no-backend")?;
    let workload = Workload::start(&cgroup, &["pause"])?;
    agent.wait_for(
        "a cgroup line",
        Duration::from_secs(15),
        about("cgroup", cgroup.id()?),
    )?;
    workload.success()?;
    let stderr = agent.stderr();
    let warnings = stderr
        .lines()
        .filter(|line| line.contains("127.0.0.1:1"))
        .count();
    assert_eq!(warnings, 1, "{stderr}");
    agent.stop().map(drop)
}

#[test]
fn every_cause_of_a_loss_is_documented() -> Result<()> {
    const DOCUMENT: &str = include_str!("../../docs/json-lines.md");
    let agent = Agent::start(&["--otlp-endpoint", "http://127.0.0.1:1"])?;
    let line = agent.wait_for("a self line", Duration::from_secs(15), of_type("self"))?;
    let causes = line["lost"].as_object().context("no causes")?;
    ensure!(causes.contains_key("otlp_points_failed"), "{line}");
    let told = |cause: &&String| DOCUMENT.contains(&format!("`{cause}`"));
    let untold: Vec<_> = causes.keys().filter(|cause| !told(cause)).collect();
    ensure!(untold.is_empty(), "not in docs/json-lines.md: {untold:?}");
    agent.stop().map(drop)
}

fn output(command: &mut Command) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    Ok(child.wait_with_output()?)
}
