//! One leak in a block of lines: the verdict first, then what it rests on and who it is.

use std::fmt::Write as _;

use crate::{
    api::records::LeakRecord,
    export::console::{
        incident::{shown, wrapped},
        verdict,
    },
    moment::Zone,
    size,
    stacks::told::by_code,
};

const RESET: &str = "\x1b[0m";
/// Characters before a value.
const INDENT: usize = 16;
/// Narrower values read badly whatever is done.
const NARROWEST: usize = 30;
/// Processes and call paths told.
const MOST_SUSPECTS: usize = 3;

/// The block, each line ended. `width`: of the terminal; `None`: no line is wrapped.
pub fn block(leak: &LeakRecord, zone: &Zone, colour: bool, width: Option<usize>) -> String {
    let state = leak.state.name();
    let since = leak.state_since;
    let since = since.map_or(String::new(), |since| {
        format!(" since {}", zone.seconds(since))
    });
    let (on, off) = match verdict::colour(leak.state) {
        on if colour && !on.is_empty() => (on, RESET),
        _ => ("", ""),
    };
    let what = if leak.state.is_leak() { "leak " } else { "" };
    let mut text = format!("{on}{}: {what}{state}{off}{since}\n", verdict::place(leak));
    let mut row = |label: &str, value: Option<String>| {
        let Some(value) = value else {
            return;
        };
        let room = width.map_or(usize::MAX, |width| {
            width.saturating_sub(INDENT).max(NARROWEST)
        });
        for (at, line) in wrapped(&value, room).iter().enumerate() {
            let label = if at == 0 { label } else { "" };
            let _ = writeln!(text, "  {label:<13} {line}");
        }
    };
    let named = leak.names.as_ref().and_then(|names| names.short());
    row("cgroup", named.map(|_| shown(&leak.cgroup)));
    row(
        "signal",
        leak.signal.map(|signal| {
            let usage = leak.usage_bytes.map_or("unknown".into(), size::bytes);
            format!(
                "{} ({}); usage {usage}",
                signal.name(),
                verdict::signal(signal)
            )
        }),
    );
    row("rate", leak.rate_bytes_per_hour.map(verdict::rate));
    row("grows since", verdict::since(leak, zone));
    row(
        "to the limit",
        match (leak.time_to_limit_s, verdict::limit(leak)) {
            (Some(time), Some(limit)) => Some(format!("{}, {limit}", verdict::time_left(time))),
            (None, Some(limit)) => Some(format!("not known; {limit}")),
            (_, None) => Some("no limit is known".into()),
        },
    );
    row(
        "near limit",
        leak.near_limit
            .filter(|near| near.near)
            .map(|near| verdict::nearness(&near)),
    );
    row("evidence", leak.evidence.as_ref().map(verdict::evidence));
    for (label, weighed) in verdict::weighed_by_outcome(&leak.considered) {
        for (at, one) in weighed.into_iter().enumerate() {
            row(if at == 0 { label } else { "" }, Some(one));
        }
    }
    for (at, process) in leak.processes.iter().take(MOST_SUSPECTS).enumerate() {
        row(
            if at == 0 { "who" } else { "" },
            Some(verdict::process(process)),
        );
    }
    let stacks = by_code(leak.stacks.iter().cloned());
    for (at, stack) in stacks.iter().take(MOST_SUSPECTS).enumerate() {
        let mut value = format!(
            "{}: {} ±{} resident",
            shown(&stack.line()),
            size::bytes(stack.resident_bytes),
            size::bytes(stack.error_bytes)
        );
        if stack.surely_grew() {
            let grown = size::bytes(stack.growth_bytes.unsigned_abs());
            value += &format!(", grew {grown} ±{}", size::bytes(stack.growth_error_bytes));
        }
        row(if at == 0 { "code" } else { "" }, Some(value));
    }
    text
}
