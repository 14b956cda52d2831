//! Verdicts for people: each change with what it rests on, then a table of the final verdicts.

use std::io::{self, Write};

use super::{
    clock::{Clock, length, seconds},
    history::Series,
    judge::{Judged, Told},
};
use crate::{
    analysis::{Considered, Estimate, Evidence, NearLimit, State, Verdict},
    size,
};

const RESET: &str = "\x1b[0m";
const BOLD: &str = "\x1b[1m";
/// Characters of a series in the table.
const MOST_NAME: usize = 60;

/// How to write it.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    pub colour: bool,
    pub clock: Clock,
}

/// Writes a change, several lines where it tells of growth.
///
/// # Errors
/// Of `out`.
pub fn change(out: &mut impl Write, style: Style, series: &Series, told: &Told) -> io::Result<()> {
    let Style { clock, .. } = style;
    let verdict = &told.verdict;
    let mut what = Vec::new();
    if let Some(change) = told.change.state {
        what.push(format!(
            "{} → {}",
            change.from.name(),
            painted(style, change.to)
        ));
    }
    match told.change.near_limit {
        Some(true) => what.push("limit near".into()),
        Some(false) => what.push("limit no longer near".into()),
        None => {}
    }
    let time = clock.show(told.change.time_ms);
    writeln!(out, "{time}  {}  {}", series.name(), what.join(", "))?;
    if told.change.near_limit == Some(true)
        && let Some(near) = &verdict.near_limit
    {
        writeln!(out, "    {}", nearness(near))?;
    }
    if told.change.state.is_some() && verdict.state > State::Warming {
        growth(out, clock, verdict)?;
    }
    Ok(())
}

/// Rate, since, time to limit, evidence and what was weighed.
fn growth(out: &mut impl Write, clock: Clock, verdict: &Verdict) -> io::Result<()> {
    if let Some(rate) = verdict.rate_bytes_per_hour {
        let signal = verdict.signal.map_or("memory", |signal| signal.name());
        let since = verdict.since.map(|since| {
            let about = length(seconds(since.uncertainty_ms));
            format!(" since {} ± {about}", clock.show(since.time_ms))
        });
        let (rate, range) = (per_hour(rate.mid), interval(rate, per_hour));
        writeln!(
            out,
            "    {signal} {rate} ({range}){}",
            since.unwrap_or_default()
        )?;
    }
    if let Some(limit) = &verdict.time_to_limit {
        let (about, range) = (length(limit.seconds.mid), interval(limit.seconds, length));
        let limit = size::bytes(limit.limit_bytes);
        writeln!(out, "    reaches the limit of {limit} in {about} ({range})")?;
    }
    if let Some(evidence) = &verdict.evidence {
        writeln!(out, "    evidence: {}", statistics(evidence))?;
    }
    for (holds, label) in [(true, "holds"), (false, "rejected")] {
        let weighed: Vec<String> = verdict
            .considered
            .iter()
            .filter(|considered| considered.holds == holds)
            .map(weighed)
            .collect();
        if !weighed.is_empty() {
            writeln!(out, "    {label}: {}", weighed.join(", "))?;
        }
    }
    Ok(())
}

pub(crate) fn statistics(evidence: &Evidence) -> String {
    let mut parts = vec![
        format!(
            "floor {} grew {} in {} ({} blocks)",
            signed(evidence.floor_bytes),
            signed(evidence.floor_growth_bytes),
            length(evidence.window_seconds),
            evidence.blocks
        ),
        format!("Mann–Kendall Z {}", figure(evidence.mann_kendall_z)),
        format!("R² {}", figure(evidence.r_squared)),
        format!("autocorrelation {}", figure(evidence.autocorrelation)),
        format!("residuals {}", signed(evidence.residual_bytes)),
        format!("swing {}", signed(evidence.swing_bytes)),
    ];
    if let Some(headroom) = evidence.headroom_bytes {
        parts.push(format!("headroom {}", signed(headroom)));
    }
    if evidence.epochs_growing > 0 {
        parts.push(format!(
            "{} earlier epochs ended growing",
            evidence.epochs_growing
        ));
    }
    parts.join(", ")
}

pub(crate) fn weighed(considered: &Considered) -> String {
    let name = considered.explanation.name();
    let (value, threshold) = (figure(considered.value), figure(considered.threshold));
    format!("{name} ({value}, threshold {threshold})")
}

pub(crate) fn nearness(near: &NearLimit) -> String {
    let pressure = match near.pressure {
        Some(true) => ", stalls or reclaim bear it out",
        Some(false) => ", without stalls or reclaim",
        None => "",
    };
    let (used, limit) = (
        size::bytes(near.unreclaimable_bytes),
        size::bytes(near.limit_bytes),
    );
    format!(
        "{used} of {limit} cannot be reclaimed ({:.0}%){pressure}",
        near.ratio * 100.0
    )
}

/// Writes the table of final verdicts.
///
/// # Errors
/// Of `out`.
pub fn table(out: &mut impl Write, style: Style, rows: &[(&Series, &Judged)]) -> io::Result<()> {
    let head = [
        "SERIES",
        "VERDICT",
        "WORST",
        "SIGNAL",
        "RATE",
        "SINCE",
        "TO LIMIT",
        "NEAR LIMIT",
    ];
    let cells: Vec<[String; 8]> = rows
        .iter()
        .map(|(series, judged)| row(style, series, judged))
        .collect();
    let mut widths = head.map(|title| title.chars().count());
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let (on, off) = if style.colour {
        (BOLD, RESET)
    } else {
        ("", "")
    };
    writeln!(
        out,
        "{on}{}{off}",
        padded(&head.map(str::to_owned), &widths, |_| "")
    )?;
    for (row, (_, judged)) in cells.iter().zip(rows) {
        let colour = |at| match at {
            1 if style.colour => colour(judged.verdict.state),
            2 if style.colour => colour(judged.worst()),
            _ => "",
        };
        writeln!(out, "{}", padded(row, &widths, colour))?;
    }
    Ok(())
}

fn row(style: Style, series: &Series, judged: &Judged) -> [String; 8] {
    let verdict = &judged.verdict;
    let unknown = || "-".to_owned();
    let estimate = |estimate: Option<Estimate>, show: fn(f64) -> String| {
        estimate.map_or_else(unknown, |it| {
            format!("{} ({})", show(it.mid), interval(it, show))
        })
    };
    [
        shortened(series.name()),
        verdict.state.name().into(),
        judged.worst().name().into(),
        verdict
            .signal
            .map_or_else(unknown, |signal| signal.name().into()),
        estimate(verdict.rate_bytes_per_hour, per_hour),
        verdict
            .since
            .map_or_else(unknown, |since| style.clock.show(since.time_ms)),
        estimate(verdict.time_to_limit.map(|limit| limit.seconds), length),
        match &verdict.near_limit {
            Some(near) if near.near => format!("{:.0}%", near.ratio * 100.0),
            _ => unknown(),
        },
    ]
}

fn padded<'a>(cells: &[String], widths: &[usize], colour: impl Fn(usize) -> &'a str) -> String {
    let mut line = String::new();
    for (at, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let fill = " ".repeat(width.saturating_sub(cell.chars().count()) + 2);
        match colour(at) {
            "" => line.push_str(&format!("{cell}{fill}")),
            colour => line.push_str(&format!("{colour}{cell}{RESET}{fill}")),
        }
    }
    line.trim_end().to_owned()
}

/// The beginning and the end tell more than the middle.
fn shortened(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    if chars.len() <= MOST_NAME {
        return name.into();
    }
    let half = MOST_NAME / 2;
    let (start, end) = (
        chars.iter().take(half),
        chars.iter().skip(chars.len() - half + 1),
    );
    start.chain(&['…']).chain(end).collect()
}

fn painted(style: Style, state: State) -> String {
    match colour(state) {
        colour if style.colour && !colour.is_empty() => format!("{colour}{}{RESET}", state.name()),
        _ => state.name().into(),
    }
}

fn colour(state: State) -> &'static str {
    match state {
        State::Confirmed => "\x1b[1;31m",
        State::Suspected => "\x1b[31m",
        State::Growing => "\x1b[33m",
        _ => "",
    }
}

fn interval(estimate: Estimate, show: fn(f64) -> String) -> String {
    match estimate.high {
        Some(high) => format!("{} to {}", show(estimate.low), show(high)),
        None => format!("{} or more", show(estimate.low)),
    }
}

/// `+12.0M/h`.
pub fn per_hour(bytes: f64) -> String {
    let sign = if bytes > 0.0 { "+" } else { "" };
    format!("{sign}{}/h", signed(bytes))
}

/// Bytes that may be below 0.
fn signed(bytes: f64) -> String {
    let sign = if bytes < 0.0 { "-" } else { "" };
    // A float turns into an integer by saturation, NaN into 0.
    format!("{sign}{}", size::bytes(bytes.abs().round() as u64))
}

/// Three digits.
fn figure(value: f64) -> String {
    match value.abs() {
        small if small < 10.0 => format!("{value:.2}"),
        middle if middle < 1000.0 => format!("{value:.1}"),
        large if large < 1e6 => format!("{value:.0}"),
        _ => format!("{value:.1e}"),
    }
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
