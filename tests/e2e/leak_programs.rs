//! Leaks and healthy programs of real runtimes side by side, minutes for hours: every leak is told in
//! time with process, onset, rate and time to limit, and no healthy program is accused.
//!
//! One run of some minutes serves all tests here; each test is about one program.

mod run;

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use memtrace_tests::leak::{Estimate, is_accused, seconds, state};
use serde_json::Value;

use run::{Outcome, Reading, outcome};

/// How far the told rate and time to limit may be off.
const TOLERANCE: f64 = 0.3;
/// How far the told onset may be off beyond its own uncertainty. Of a new program the analysis leaves out
/// three minutes and a block of six: they are its start.
const ONSET_S: f64 = 10.0;

fn assert_leak_is_told(name: &str) -> Result<()> {
    let Some(outcome) = outcome(name)? else {
        return Ok(());
    };
    let line = outcome.leaks.iter().find(|line| is_accused(line));
    let line = line.with_context(|| format!("never suspected: {:?}", outcome.leaks))?;
    let told_s = seconds(line, "time")?;
    ensure!(told_s > outcome.begun_s, "told before it leaked: {line}");
    let reading = outcome.reading_at(told_s)?;
    println!(
        "{name}: {} at {:.0} % of its limit, {:.0} s after it began",
        state(line),
        100.0 * reading.held() as f64 / outcome.limit as f64,
        told_s - outcome.begun_s
    );
    ensure!(
        reading.held() < outcome.limit / 2,
        "suspected at {} of {}: {line}",
        reading.held(),
        outcome.limit
    );
    assert_eq!(line["cgroup"], outcome.path, "{line}");
    assert_eq!(line["signal"], "anon", "{line}");
    assert_process_is_named(outcome, line)?;
    assert_onset(outcome, line)?;
    assert_rate(outcome, line, told_s)?;
    assert_time_to_limit(outcome, line, reading)?;
    for field in ["evidence", "near_limit"] {
        ensure!(line[field].is_object(), "{field} in {line}");
    }
    let considered = line["considered"]
        .as_array()
        .context("nothing considered")?;
    ensure!(considered.len() > 3, "{line}");
    Ok(())
}

fn assert_process_is_named(outcome: &Outcome, line: &Value) -> Result<()> {
    let processes = line["processes"].as_array().context("no processes")?;
    let first = processes.first().with_context(|| format!("none: {line}"))?;
    assert_eq!(first["pid"], outcome.pid, "{line}");
    let share = first["share"].as_f64().context("no share")?;
    ensure!((0.9..=1.0).contains(&share), "{line}");
    ensure!(first["growth_bytes"].as_u64() > Some(0), "{line}");
    Ok(())
}

fn assert_onset(outcome: &Outcome, line: &Value) -> Result<()> {
    let uncertainty = line["since_uncertainty_s"].as_f64();
    let uncertainty = uncertainty.context("no uncertainty")?;
    let off = seconds(line, "since")? - outcome.begun_s;
    println!("  onset off by {off:.1} s, told as ±{uncertainty:.1} s");
    ensure!(off.abs() <= ONSET_S + uncertainty, "off by {off} s: {line}");
    Ok(())
}

/// Against what the kernel counted between the onset and the line.
fn assert_rate(outcome: &Outcome, line: &Value, told_s: f64) -> Result<()> {
    let rate = Estimate::of(&line["rate_bytes_per_hour"]).context("no rate")?;
    let (first, last) = (
        outcome.reading_at(outcome.begun_s)?,
        outcome.reading_at(told_s)?,
    );
    let grown = last.anon as f64 - first.anon as f64;
    let true_rate = 3600.0 * grown / (last.time_s - first.time_s);
    println!("  rate {:.2} of the true one", rate.mid / true_rate);
    ensure!(
        (rate.mid / true_rate - 1.0).abs() <= TOLERANCE,
        "{true_rate} bytes an hour: {line}"
    );
    Ok(())
}

/// Against what is left now, page cache taken back, and the told rate.
fn assert_time_to_limit(outcome: &Outcome, line: &Value, reading: Reading) -> Result<()> {
    assert_eq!(line["limit_bytes"], outcome.limit, "{line}");
    assert_eq!(line["limit_cgroup"], outcome.path, "{line}");
    let rate = Estimate::of(&line["rate_bytes_per_hour"]).context("no rate")?;
    let time = Estimate::of(&line["time_to_limit_s"]).context("no time to limit")?;
    let expected = 3600.0 * (outcome.limit - reading.held()) as f64 / rate.mid;
    println!(
        "  time to limit {:.2} of (limit - held) / rate",
        time.mid / expected
    );
    ensure!(
        (time.mid / expected - 1.0).abs() <= TOLERANCE && time.covers(expected),
        "{expected} s: {line}"
    );
    Ok(())
}

/// It was confirmed, and the kernel killed it at a time within the interval that was told.
fn assert_end_was_foretold(name: &str) -> Result<()> {
    let Some(outcome) = outcome(name)? else {
        return Ok(());
    };
    let confirmed = outcome.leaks.iter().find(|line| state(line) == "confirmed");
    let line = confirmed.with_context(|| format!("never confirmed: {:?}", outcome.leaks))?;
    let told_s = seconds(line, "time")?;
    let time = Estimate::of(&line["time_to_limit_s"]).context("no time to limit")?;
    let ended_s = outcome.ended_s.context("it never reached its limit")?;
    let left = ended_s - told_s;
    println!(
        "  confirmed {left:.0} s before its end, told as {:.0} s ({:.0} to {:?})",
        time.mid, time.low, time.high
    );
    ensure!(left > 0.0 && time.covers(left), "{left} s: {line}");
    Ok(())
}

fn assert_never_accused(name: &str) -> Result<()> {
    let Some(outcome) = outcome(name)? else {
        return Ok(());
    };
    ensure!(outcome.ended_s.is_none(), "it ended: {outcome:?}");
    let last = outcome.readings.last().context("the kernel was not read")?;
    let watched = last.time_s - outcome.begun_s;
    ensure!(watched > 120.0, "watched for {watched} s only");
    let accused = outcome.leaks.iter().find(|line| is_accused(line));
    ensure!(accused.is_none(), "{accused:?}");
    let accused = outcome.judged.iter().find(|(_, leak)| is_accused(leak));
    ensure!(accused.is_none(), "{accused:?}");
    let states = outcome.judged.iter().map(|(_, leak)| state(leak));
    let states: BTreeSet<&str> = states.collect();
    println!("{name}: {states:?} in {watched:.0} s");
    ensure!(
        states.iter().any(|state| *state != "unknown"),
        "never judged: {:?}",
        outcome.judged.last()
    );
    Ok(())
}

#[test]
fn a_c_server_that_leaks_is_told() -> Result<()> {
    assert_leak_is_told("c")?;
    assert_end_was_foretold("c")
}

#[test]
fn a_leak_whose_memory_came_back_with_the_end_of_its_program_is_told_no_longer() -> Result<()> {
    let Some(outcome) = outcome("c")? else {
        return Ok(());
    };
    let ended_s = outcome.ended_s.context("it never reached its limit")?;
    let cleared = outcome.leaks.iter().find(|line| {
        let later = seconds(line, "time").is_ok_and(|time_s| time_s > ended_s);
        later && line["near_limit_changed_to"].is_null() && !is_accused(line)
    });
    let line = cleared.with_context(|| format!("still accused: {:?}", outcome.leaks.last()))?;
    assert_eq!(state(line), "reclaimed", "{line}");
    Ok(())
}

#[test]
fn a_c_server_that_leaks_from_its_first_request_on_is_told() -> Result<()> {
    assert_leak_is_told("c-from-the-start")
}

#[test]
fn a_python_service_with_a_growing_dict_is_told() -> Result<()> {
    assert_leak_is_told("python")?;
    assert_end_was_foretold("python")
}

#[test]
fn a_node_service_that_keeps_its_cache_is_told() -> Result<()> {
    assert_leak_is_told("node")?;
    assert_end_was_foretold("node")
}

#[test]
fn a_java_service_that_keeps_its_cache_is_told() -> Result<()> {
    assert_leak_is_told("java")?;
    assert_end_was_foretold("java")
}

#[test]
fn a_node_service_under_steady_load_is_never_accused() -> Result<()> {
    assert_never_accused("node-steady")
}

#[test]
fn a_java_service_under_steady_load_is_never_accused() -> Result<()> {
    assert_never_accused("java-steady")
}

#[test]
fn a_service_that_warms_up_to_a_plateau_is_never_accused() -> Result<()> {
    assert_never_accused("warm-up")
}

#[test]
fn a_reader_of_a_file_larger_than_its_limit_is_never_accused() -> Result<()> {
    assert_never_accused("reader")?;
    let Some(outcome) = outcome("reader")? else {
        return Ok(());
    };
    let last = outcome.readings.last().context("the kernel was not read")?;
    ensure!(
        last.usage > outcome.limit / 10 * 9 && last.anon < outcome.limit / 10,
        "its limit is not full of page cache: {last:?}"
    );
    Ok(())
}

#[test]
fn a_batch_job_with_bursts_is_never_accused() -> Result<()> {
    assert_never_accused("batch")
}
