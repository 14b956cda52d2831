//! `memtrace analyze`: the real binary on recorded history. Needs no kernel.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use memtrace_tests::machine;
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;
/// 2026-01-01T00:00:00Z.
const START_S: u64 = 1_767_225_600;
const STEP_S: u64 = 60;
/// Twelve hours.
const SAMPLES: u64 = 720;

/// A service that is calm for four hours and then leaks 30 MiB an hour, with garbage collection.
fn leaking(at: u64) -> u64 {
    let leaked = at.saturating_sub(240) * MIB / 2;
    150 * MIB + collected(at) + leaked
}

/// The same without the leak.
fn healthy(at: u64) -> u64 {
    150 * MIB + collected(at)
}

fn collected(at: u64) -> u64 {
    let noise = at.wrapping_mul(2_654_435_761) % 997;
    (at % 9) * 3 * MIB + noise * 1024
}

fn csv() -> String {
    let mut text = String::from("series,time_s,limit_bytes,anon_bytes,cpu\n");
    for at in 0..SAMPLES {
        let time = START_S + at * STEP_S;
        for (name, bytes) in [("web", leaking(at)), ("db", healthy(at))] {
            text.push_str(&format!("{name},{time},{},{bytes},0.5\n", 512 * MIB));
        }
    }
    text
}

fn prometheus() -> String {
    let metric = |name: &str, pod: &str, value: fn(u64) -> u64| {
        let values: Vec<Value> = (0..SAMPLES)
            .map(|at| json!([START_S + at * STEP_S, value(at).to_string()]))
            .collect();
        json!({"metric": {"__name__": name, "pod": pod}, "values": values})
    };
    let limit = |_: u64| 512 * MIB;
    json!({"status": "success", "data": {"resultType": "matrix", "result": [
        metric("container_memory_rss", "web", leaking),
        metric("container_memory_rss", "db", healthy),
        metric("container_spec_memory_limit_bytes", "web", limit),
        metric("container_spec_memory_limit_bytes", "db", limit),
    ]}})
    .to_string()
}

struct Recording {
    directory: tempfile::TempDir,
    path: PathBuf,
}

impl Recording {
    fn new(text: &str) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        // Not the extension but the content tells the format.
        let path = directory.path().join("history.dat");
        fs::write(&path, text)?;
        Ok(Recording { directory, path })
    }
}

fn analyze(path: &Path, options: &[&str]) -> Result<Output> {
    let mut command = Command::new(machine::memtrace()?);
    command.arg("analyze").args(options).arg(path);
    Ok(command.stdin(Stdio::null()).output()?)
}

fn lines(output: &Output) -> Result<Vec<Value>> {
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().map(|line| Ok(serde_json::from_str(line)?));
    lines
        .collect::<Result<_>>()
        .with_context(|| format!("{output:?}"))
}

fn last<'a>(lines: &'a [Value], series: &str) -> Result<&'a Value> {
    let found = lines
        .iter()
        .find(|line| line["type"] == "leak_verdict" && line["series"] == series);
    found.with_context(|| format!("no verdict on {series}: {lines:?}"))
}

/// The leak is confirmed with rate, onset and time to limit; the healthy series stays below suspicion.
fn assert_judged(lines: &[Value], leak: &str, calm: &str) -> Result<()> {
    let web = last(lines, leak)?;
    assert_eq!(web["state"], "confirmed", "{web}");
    let rate = web["rate_bytes_per_hour"]["mid"]
        .as_f64()
        .context("no rate")?
        / MIB as f64;
    ensure!((25.0..35.0).contains(&rate), "{web}");
    let onset = web["since_s"].as_f64().context("no onset")? - START_S as f64;
    ensure!((3.0..5.5).contains(&(onset / 3600.0)), "{web}");
    ensure!(web["time_to_limit_s"]["mid"].is_number(), "{web}");
    assert_eq!(web["limit_bytes"], 512 * MIB, "{web}");
    let db = last(lines, calm)?;
    ensure!(
        !["suspected", "confirmed"].contains(&db["worst_state"].as_str().unwrap_or("")),
        "{db}"
    );
    let suspected = lines.iter().find(|line| {
        line["type"] == "leak" && line["series"] == leak && line["state"] == "suspected"
    });
    let suspected = suspected.with_context(|| format!("never suspected: {lines:?}"))?;
    ensure!(
        suspected["time"].is_string() && suspected["evidence"].is_object(),
        "{suspected}"
    );
    ensure!(suspected["considered"].is_array(), "{suspected}");
    Ok(())
}

#[test]
fn a_leak_in_csv_is_confirmed_and_a_healthy_service_is_not() -> Result<()> {
    let recording = Recording::new(&csv())?;
    let output = analyze(&recording.path, &["--json"])?;
    ensure!(output.status.success(), "{output:?}");
    assert_judged(&lines(&output)?, "web", "db")?;
    let text = analyze(&recording.path, &[])?;
    let text = String::from_utf8(text.stdout)?;
    for told in [
        "→ confirmed",
        "evidence: ",
        "reaches the limit of 512M",
        "SERIES",
    ] {
        ensure!(text.contains(told), "{told}: {text}");
    }
    Ok(())
}

#[test]
fn an_answer_of_prometheus_on_standard_input_is_judged_alike() -> Result<()> {
    let mut command = Command::new(machine::memtrace()?);
    command.args(["analyze", "--json", "-"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child
        .stdin
        .take()
        .context("no stdin")?
        .write_all(prometheus().as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{output:?}");
    assert_judged(&lines(&output)?, r#"{pod="web"}"#, r#"{pod="db"}"#)
}

#[test]
fn a_leak_fails_a_build_only_where_asked_for() -> Result<()> {
    let recording = Recording::new(&csv())?;
    for (options, code) in [
        (&[][..], 0),
        (&["--fail-on", "suspected"], 3),
        (&["--fail-on", "confirmed"], 3),
        (&["--fail-on", "suspected", "--series", "d*"], 0),
        // A trend that nothing can have.
        (
            &["--fail-on", "suspected", "--threshold", "trend_z=1000"],
            0,
        ),
    ] {
        let output = analyze(&recording.path, options)?;
        assert_eq!(output.status.code(), Some(code), "{options:?}: {output:?}");
    }
    Ok(())
}

#[test]
fn a_picture_is_drawn() -> Result<()> {
    let recording = Recording::new(&csv())?;
    let svg = recording.directory.path().join("out.svg");
    let output = analyze(&recording.path, &["--plot", &svg.to_string_lossy()])?;
    ensure!(output.status.success(), "{output:?}");
    let svg = fs::read_to_string(svg)?;
    for drawn in [
        "<svg ",
        ">web<",
        ">db<",
        "class=\"fit\"",
        "class=\"limit\"",
        "class=\"confirmed\"",
        "</svg>",
    ] {
        ensure!(svg.contains(drawn), "{drawn} is missing");
    }
    ensure!(svg.len() < 200_000, "{} bytes", svg.len());
    Ok(())
}

#[test]
fn bad_input_exits_1_and_names_file_line_column_and_text() -> Result<()> {
    for (text, told) in [
        (
            "time_s,anon_bytes\n1,2\n2,many\n",
            "history.dat:3: anon_bytes: \"many\" is not a number",
        ),
        (
            "time_s,rss\n1,2\n",
            "history.dat:1: the column \"rss\" is not known",
        ),
        ("{\"status\":\n\"success\"", "history.dat:2: EOF"),
        ("\0\0\0", "history.dat: is binary"),
        ("", "history.dat: is empty"),
    ] {
        let recording = Recording::new(text)?;
        let output = analyze(&recording.path, &["--json"])?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        ensure!(
            stderr.contains(told) && output.stdout.is_empty(),
            "{told}: {stderr}"
        );
        ensure!(!stderr.contains("panicked"), "{stderr}");
    }
    Ok(())
}

#[test]
fn wrong_options_exit_2_and_name_the_option() -> Result<()> {
    let path = Path::new("history.csv");
    for options in [
        ["--threshold", "no_such=1"],
        ["--threshold", "trend_z"],
        ["--fail-on", "healthy"],
        ["--series", "[a"],
        ["--signal", "heap"],
        ["--time-scale", "0"],
    ] {
        let output = analyze(path, &options)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{options:?}: {stderr}");
    }
    let output = Command::new(machine::memtrace()?).arg("analyze").output()?;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    Ok(())
}

#[test]
fn every_threshold_is_listed() -> Result<()> {
    let output = Command::new(machine::memtrace()?)
        .args(["analyze", "--list-thresholds", "--json"])
        .output()?;
    ensure!(output.status.success(), "{output:?}");
    let lines = lines(&output)?;
    ensure!(lines.len() > 10, "{lines:?}");
    for line in lines {
        ensure!(
            line["name"].is_string() && line["default"].is_number(),
            "{line}"
        );
        // Each can be given as it is listed.
        let given = format!(
            "{}={}",
            line["name"].as_str().unwrap_or(""),
            line["default"]
        );
        let output = analyze(Path::new("/dev/null"), &["--threshold", &given])?;
        assert_eq!(output.status.code(), Some(1), "{given}: {output:?}");
    }
    Ok(())
}
