//! The report for a ticket: Markdown as GitHub and Jira read it. Owns the layout; whatever comes from
//! outside is escaped.

use std::fmt::Write as _;

use crate::{
    export::console::incident::{self, shown},
    moment::Zone,
    size,
};

use super::{
    events::{self, Event},
    story::{Report, grown},
};

/// Characters of the whole story of an incident.
const REPORT_WIDTH: usize = 90;
/// Whole stories told, the newest.
const MOST_STORIES: usize = 3;
/// Functions of a call path.
const MOST_FRAMES: usize = 12;

/// The whole text.
pub fn text(report: &Report, zone: &Zone) -> String {
    let mut text = format!("# Memory report: {}\n\n", cell(&report.name));
    let _ = write!(text, "**{}**\n\n", cell(&report.conclusion));
    if !report.figures.is_empty() {
        let rows = report.figures.iter();
        let rows = rows.map(|(label, value)| [(*label).to_owned(), value.clone()]);
        table(&mut text, ["", ""], rows);
    }
    let _ = write!(text, "## What to do next\n\n");
    for (at, advice) in report.advice.iter().enumerate() {
        let _ = writeln!(text, "{}. {}", at + 1, cell(&advice.text));
        if let Some(command) = &advice.command {
            let _ = write!(text, "\n   ```sh\n   {}\n   ```\n", plain(command));
        }
    }
    text.push('\n');
    if !report.events.is_empty() {
        let _ = write!(text, "## Timeline\n\n");
        more(
            &mut text,
            report.events_left_out,
            "older events are not told",
        );
        let rows = report.events.iter().enumerate().map(|(at, event)| {
            [
                (at + 1).to_string(),
                zone.seconds(event.time),
                events::name(event.kind).to_owned(),
                told(event),
            ]
        });
        table(&mut text, ["#", "time", "what", "evidence"], rows);
    }
    for graph in &report.graphs {
        let chart = graph.characters(zone);
        let _ = write!(text, "## {}\n\n", cell(&graph.title));
        fenced(&mut text, &chart);
    }
    who_grew(&mut text, report);
    if !report.incidents.is_empty() {
        let _ = write!(text, "## Incidents\n\n");
        more(
            &mut text,
            report.incidents_left_out,
            "older ones are not told",
        );
        let rows = report.incidents.iter().map(|one| {
            let limit = one.charged.as_ref().and_then(|charged| charged.limit_bytes);
            [
                zone.seconds(one.time),
                one.kind.name().to_owned(),
                one.victims.first().map_or("-".into(), incident::process),
                limit.map_or("-".into(), size::bytes),
                one.id.clone(),
            ]
        });
        table(&mut text, ["time", "kind", "victim", "limit", "id"], rows);
        for one in report.incidents.iter().rev().take(MOST_STORIES) {
            let _ = write!(
                text,
                "<details><summary>{}</summary>\n\n",
                cell(&format!("All about {}", one.id))
            );
            fenced(&mut text, &incident::report(one, zone, false, REPORT_WIDTH));
            text.push_str("</details>\n\n");
        }
    }
    for missing in &report.missing {
        let _ = writeln!(text, "> {}\n", cell(missing));
    }
    let _ = writeln!(
        text,
        "Made by memtrace {} at {}.",
        report.memtrace,
        zone.seconds(report.made)
    );
    text
}

/// What happened, and what it rests on.
fn told(event: &Event) -> String {
    let mut text = event.text.clone();
    for one in &event.evidence {
        let gap = match text.ends_with(['.', '…']) {
            true => " ",
            false => "; ",
        };
        text += gap;
        text += one;
    }
    text
}

fn who_grew(text: &mut String, report: &Report) {
    if !report.processes.is_empty() {
        let _ = write!(text, "## Who grew\n\n");
        let rows = report.processes.iter().map(|process| {
            [
                process.comm.clone().unwrap_or_else(|| "?".into()),
                process.pid.to_string(),
                grown(process),
                process
                    .share
                    .map_or("?".into(), |share| format!("{:.0} %", share * 100.0)),
                process.rss_anon_bytes.map_or("?".into(), size::bytes),
            ]
        });
        table(text, ["process", "pid", "grew", "share", "holds now"], rows);
    }
    if !report.stacks.is_empty() {
        let _ = write!(text, "## Which code holds the memory\n\n");
        let mut lines = String::new();
        for stack in &report.stacks {
            let _ = writeln!(
                lines,
                "{} ±{} resident, grew {}{} ±{}  {}({})",
                size::bytes(stack.resident_bytes),
                size::bytes(stack.error_bytes),
                if stack.growth_bytes < 0 { "-" } else { "" },
                size::bytes(stack.growth_bytes.unsigned_abs()),
                size::bytes(stack.growth_error_bytes),
                shown(&stack.process.comm),
                stack.process.pid,
            );
            for frame in stack.code().iter().take(MOST_FRAMES) {
                let _ = writeln!(lines, "    {}", shown(frame));
            }
        }
        fenced(text, &lines);
    }
}

fn more(text: &mut String, count: u64, what: &str) {
    if count > 0 {
        let _ = write!(text, "{count} {what}.\n\n");
    }
}

fn table<const N: usize>(
    text: &mut String,
    head: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) {
    let _ = writeln!(text, "| {} |", head.join(" | "));
    let _ = writeln!(text, "|{}", " --- |".repeat(N));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.map(|text| cell(&text)).join(" | "));
    }
    text.push('\n');
}

/// A block that nothing in it can end.
fn fenced(text: &mut String, inside: &str) {
    let mut longest = 2;
    let mut run = 0;
    for char in inside.chars() {
        run = if char == '`' { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    let fence = "`".repeat(longest + 1);
    let end = if inside.ends_with('\n') { "" } else { "\n" };
    let _ = write!(text, "{fence}\n{inside}{end}{fence}\n\n");
}

/// Text that is only text, in a table too: no markup, no mention, no link, one line.
fn cell(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for char in shown(text).chars() {
        match char {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '@' => safe.push_str("&#64;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' | '!' | '{' | '}' => {
                safe.push('\\');
                safe.push(char);
            }
            _ => safe.push(char),
        }
    }
    // A bare address would become a link.
    safe.replace("://", ":&#47;&#47;")
}

/// Of a command: ours, but one line in any case.
fn plain(text: &str) -> String {
    text.replace(['\n', '\r', '`'], " ")
}
