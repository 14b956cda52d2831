//! Verdicts for people: each change with what it rests on, then a table of the final verdicts.

use std::io::{self, Write};

use super::{
    clock::{Clock, length, seconds},
    history::Series,
    judge::{Judged, Told},
};
use crate::{
    analysis::{Estimate, State, Verdict},
    export::console::verdict,
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
    let now = &told.verdict;
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
        && let Some(near) = &now.near_limit
    {
        writeln!(out, "    {}", verdict::nearness(near))?;
    }
    if told.change.state.is_some() && now.state > State::Warming {
        growth(out, clock, now)?;
    }
    Ok(())
}

/// Rate, since, time to limit, evidence and what was weighed.
fn growth(out: &mut impl Write, clock: Clock, of: &Verdict) -> io::Result<()> {
    if let Some(rate) = of.rate_bytes_per_hour {
        let signal = of.signal.map_or("memory", |signal| signal.name());
        let since = of.since.map(|since| {
            let about = length(seconds(since.uncertainty_ms));
            format!(" since {} ± {about}", clock.show(since.time_ms))
        });
        let rate = verdict::rate(rate);
        writeln!(out, "    {signal} {rate}{}", since.unwrap_or_default())?;
    }
    if let Some(limit) = &of.time_to_limit {
        let (about, range) = (
            length(limit.seconds.mid),
            verdict::interval(limit.seconds, length),
        );
        let limit = size::bytes(limit.limit_bytes);
        writeln!(out, "    reaches the limit of {limit} in {about} ({range})")?;
    }
    if let Some(evidence) = &of.evidence {
        writeln!(out, "    evidence: {}", verdict::evidence(evidence))?;
    }
    for (label, weighed) in verdict::weighed_by_outcome(&of.considered) {
        if !weighed.is_empty() {
            writeln!(out, "    {label}: {}", weighed.join(", "))?;
        }
    }
    Ok(())
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
            1 if style.colour => verdict::colour(judged.verdict.state),
            2 if style.colour => verdict::colour(judged.worst()),
            _ => "",
        };
        writeln!(out, "{}", padded(row, &widths, colour))?;
    }
    Ok(())
}

fn row(style: Style, series: &Series, judged: &Judged) -> [String; 8] {
    let told = &judged.verdict;
    let unknown = || "-".to_owned();
    let time_left = |seconds: Estimate| {
        let range = verdict::interval(seconds, length);
        format!("{} ({range})", length(seconds.mid))
    };
    [
        shortened(series.name()),
        told.state.name().into(),
        judged.worst().name().into(),
        told.signal
            .map_or_else(unknown, |signal| signal.name().into()),
        told.rate_bytes_per_hour.map_or_else(unknown, verdict::rate),
        told.since
            .map_or_else(unknown, |since| style.clock.show(since.time_ms)),
        told.time_to_limit
            .map_or_else(unknown, |limit| time_left(limit.seconds)),
        match &told.near_limit {
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
    match verdict::colour(state) {
        colour if style.colour && !colour.is_empty() => format!("{colour}{}{RESET}", state.name()),
        _ => state.name().into(),
    }
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
