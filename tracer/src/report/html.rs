//! The report as a page: one file that loads nothing and runs no script. Owns the layout; well-formed XML, and
//! whatever comes from outside is escaped.

use std::fmt::Write as _;

use crate::{
    api::records::MarkKind,
    export::{
        console::incident::{self, shown},
        plot::{self, markup::escaped},
    },
    moment::Zone,
    size,
};

use super::{
    events,
    story::{Report, grown},
};

const STYLE: &str = include_str!("style.css");
/// Nothing is loaded but what is in the file.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";
/// Characters of the whole story of an incident.
const REPORT_WIDTH: usize = 100;
/// Larger flame graphs are left out.
const MOST_FLAMEGRAPH_BYTES: usize = 8 << 20;

/// The whole page.
pub fn page(report: &Report, zone: &Zone) -> String {
    let name = text(&report.name);
    let state = report.state.map_or("", |state| state.name());
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n\
         <title>Memory report: {name}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <header>\n<p class=\"kicker\">Memory report</p>\n<h1>{name}</h1>\n"
    );
    if !state.is_empty() {
        // Green is for what the program gave back.
        let (class, by) = match report.freed_by_kill {
            true => ("killed", " by a kill"),
            false => (state, ""),
        };
        let _ = writeln!(
            page,
            "<p><span class=\"state {class}\">verdict now: {state}{by}</span></p>"
        );
    }
    let _ = write!(
        page,
        "<p class=\"conclusion\">{}</p>\n</header>\n",
        text(&report.conclusion)
    );
    advice(&mut page, report);
    graphs(&mut page, report, zone);
    timeline(&mut page, report, zone);
    who_grew(&mut page, report);
    figures(&mut page, report);
    incidents(&mut page, report, zone);
    page.push_str("<footer>\n");
    for missing in &report.missing {
        let _ = writeln!(page, "<p>{}</p>", text(missing));
    }
    let _ = write!(
        page,
        "<p>Made by memtrace {} at {}.</p>\n</footer>\n</main>\n</body>\n</html>\n",
        report.memtrace,
        zone.seconds(report.made)
    );
    page
}

fn section(page: &mut String, id: &str, title: &str) {
    let _ = write!(page, "<section id=\"{id}\">\n<h2>{title}</h2>\n");
}

fn advice(page: &mut String, report: &Report) {
    section(page, "next", "What to do next");
    page.push_str("<ol>\n");
    for advice in &report.advice {
        let _ = write!(page, "<li>{}", text(&advice.text));
        if let Some(command) = &advice.command {
            let _ = write!(page, "<pre><code>{}</code></pre>", escaped(command));
        }
        page.push_str("</li>\n");
    }
    page.push_str("</ol>\n</section>\n");
}

fn graphs(page: &mut String, report: &Report, zone: &Zone) {
    for (at, graph) in report.graphs.iter().enumerate() {
        section(page, &format!("graph-{}", at + 1), &text(&graph.title));
        let (panel, times) = graph.panel();
        let picture = plot::figure(&panel, times, &graph.label());
        let _ = write!(
            page,
            "<figure><div class=\"wide\">{picture}</div>\n<figcaption><span class=\"key usage\"></span>usage \
             <span class=\"key limit\"></span>limit"
        );
        if panel.onset.is_some() {
            page.push_str(" <span class=\"key onset\"></span>growth began");
        }
        if !graph.events.is_empty() {
            page.push_str(
                " <span class=\"key event\"></span>events, with their number in the timeline",
            );
        }
        let until = graph.points.last().map(|last| zone.seconds(last.time));
        let until = until.map_or(String::new(), |until| format!("; until {until}"));
        let _ = write!(page, "{until}</figcaption></figure>\n</section>\n");
    }
}

fn timeline(page: &mut String, report: &Report, zone: &Zone) {
    if report.events.is_empty() {
        return;
    }
    section(page, "timeline", "Timeline");
    if report.events_left_out > 0 {
        let _ = writeln!(
            page,
            "<p>{} older events are not told.</p>",
            report.events_left_out
        );
    }
    page.push_str(
        "<table class=\"events\">\n<thead><tr><th>#</th><th>Time</th><th>What</th><th>Evidence</th></tr></thead>\n<tbody>\n",
    );
    for (at, event) in report.events.iter().enumerate() {
        let kind = events::name(event.kind);
        let class = match event.kind {
            MarkKind::Oom => "bad",
            MarkKind::Verdict | MarkKind::GrowthBegan | MarkKind::Stall => "warn",
            _ => "calm",
        };
        let _ = write!(
            page,
            "<tr id=\"event-{number}\" class=\"{class}\"><td class=\"number\">{number}</td><td class=\"time\">{time}</td>\
             <td class=\"what\">{kind}</td><td>{told}",
            number = at + 1,
            time = zone.seconds(event.time),
            told = text(&event.text),
        );
        for line in &event.evidence {
            let _ = write!(page, "<br/><small>{}</small>", text(line));
        }
        let place = event.incident.as_ref().and_then(|id| {
            let told = &report.incidents;
            told.iter().position(|incident| incident.id == *id)
        });
        if let Some(place) = place.filter(|_| event.kind != MarkKind::Report) {
            let _ = write!(
                page,
                "<br/><a href=\"#incident-{}\">all about it</a>",
                place + 1
            );
        }
        page.push_str("</td></tr>\n");
    }
    page.push_str("</tbody>\n</table>\n</section>\n");
}

fn who_grew(page: &mut String, report: &Report) {
    if !report.processes.is_empty() {
        section(page, "processes", "Who grew");
        page.push_str(
            "<table>\n<thead><tr><th>Process</th><th>PID</th><th>Grew</th><th>Share</th><th>Holds now</th></tr></thead>\n<tbody>\n",
        );
        for process in &report.processes {
            let _ = writeln!(
                page,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                text(process.comm.as_deref().unwrap_or("?")),
                process.pid,
                grown(process),
                process
                    .share
                    .map_or("?".into(), |share| format!("{:.0} %", share * 100.0)),
                process.rss_anon_bytes.map_or("?".into(), size::bytes),
            );
        }
        page.push_str("</tbody>\n</table>\n</section>\n");
    }
    if report.stacks.is_empty() && report.flamegraph.is_none() {
        return;
    }
    section(page, "code", "Which code holds the memory");
    let picture = report.flamegraph.as_ref();
    if let Some(svg) = picture.filter(|svg| svg.len() <= MOST_FLAMEGRAPH_BYTES) {
        // As an image its style and its script stay to themselves: none runs.
        let _ = writeln!(
            page,
            "<figure class=\"wide\"><img class=\"flames\" alt=\"Flame graph of the resident memory by call path; \
             the table below has its heaviest paths\" src=\"data:image/svg+xml;base64,{}\"/></figure>",
            base64(svg.as_bytes())
        );
    }
    if !report.stacks.is_empty() {
        page.push_str(
            "<table>\n<thead><tr><th>Resident</th><th>Grew</th><th>Process</th><th>Call path, innermost first</th></tr></thead>\n<tbody>\n",
        );
    }
    for stack in &report.stacks {
        let sign = if stack.growth_bytes < 0 { "-" } else { "" };
        let _ = write!(
            page,
            "<tr><td>{} ±{}</td><td>{sign}{} ±{}</td><td>{} ({})</td><td><code>",
            size::bytes(stack.resident_bytes),
            size::bytes(stack.error_bytes),
            size::bytes(stack.growth_bytes.unsigned_abs()),
            size::bytes(stack.growth_error_bytes),
            text(&stack.process.comm),
            stack.process.pid
        );
        let frames: Vec<String> = stack.code().iter().map(|frame| text(frame)).collect();
        let _ = writeln!(page, "{}</code></td></tr>", frames.join("<br/>"));
    }
    if !report.stacks.is_empty() {
        page.push_str("</tbody>\n</table>\n");
    }
    page.push_str("</section>\n");
}

fn figures(page: &mut String, report: &Report) {
    if report.figures.is_empty() {
        return;
    }
    section(page, "facts", "Facts");
    page.push_str("<table class=\"facts\">\n<tbody>\n");
    for (label, value) in &report.figures {
        let _ = writeln!(
            page,
            "<tr><th scope=\"row\">{label}</th><td>{}</td></tr>",
            text(value)
        );
    }
    page.push_str("</tbody>\n</table>\n</section>\n");
}

fn incidents(page: &mut String, report: &Report, zone: &Zone) {
    if report.incidents.is_empty() {
        return;
    }
    section(page, "incidents", "Incidents");
    if report.incidents_left_out > 0 {
        let _ = writeln!(
            page,
            "<p>{} older ones are not told.</p>",
            report.incidents_left_out
        );
    }
    let last = report.incidents.len().saturating_sub(1);
    for (at, one) in report.incidents.iter().enumerate() {
        let open = if at == last { " open=\"open\"" } else { "" };
        let _ = write!(
            page,
            "<details id=\"incident-{}\"{open}><summary>{} {} <small>{}</small></summary>\n<pre>{}</pre>\n</details>\n",
            at + 1,
            zone.seconds(one.time),
            one.kind.name(),
            text(&one.id),
            escaped_lines(&incident::report(one, zone, false, REPORT_WIDTH)),
        );
    }
    page.push_str("</section>\n");
}

/// What a person, a program or a pod has named: safe in a terminal, then in markup.
fn text(untrusted: &str) -> String {
    escaped(&shown(untrusted))
}

/// Of many lines, which stay.
fn escaped_lines(lines: &str) -> String {
    let lines: Vec<String> = lines.lines().map(escaped).collect();
    lines.join("\n")
}

/// RFC 4648.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut three = [0; 3];
        for (to, from) in three.iter_mut().zip(chunk) {
            *to = *from;
        }
        let [a, b, c] = three.map(u32::from);
        let bits = a << 16 | b << 8 | c;
        for at in 0..4 {
            let digit = DIGITS.get((bits >> (18 - 6 * at) & 63) as usize);
            let digit = digit.filter(|_| at <= chunk.len());
            text.push(digit.map_or('=', |digit| char::from(*digit)));
        }
    }
    text
}
