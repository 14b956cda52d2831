//! The first sentence where nothing leaks and no incident is told: never more calm than what was seen.

use super::super::{facts::Facts, trend::trend};
use crate::{analysis::State, moment::Zone, size};

pub(super) fn calm(facts: &Facts, zone: &Zone) -> String {
    let before = left_out(facts, zone);
    let Some(details) = &facts.details else {
        return format!("Nothing is known of it{before}.");
    };
    let usage = details
        .row
        .usage_bytes
        .map_or("unknown".into(), size::bytes);
    let limit = details.row.effective_limit_bytes.map_or_else(
        || "no known limit".into(),
        |bytes| format!("a limit of {}", size::bytes(bytes)),
    );
    let trend = trend(facts);
    let verdict = match facts.leak().map(|leak| leak.state) {
        Some(State::Healthy) if trend.is_some() => "No leak is told so far",
        Some(State::Healthy) => "No leak: nothing grows that matters",
        Some(State::Warming) => "No leak so far: it is young, or its growth flattens",
        Some(State::Reclaimed) if facts.freed_by_kill() => "What grew was freed by a kill",
        Some(State::Reclaimed) => "No leak any more: what grew was given back",
        Some(State::Growing) => "It grows, but not (yet) like a leak",
        Some(State::Suspected | State::Confirmed) => "It leaks",
        Some(State::Unknown) => "Too little was seen to judge whether it leaks",
        None => "Whether it leaks is not judged",
    };
    let grew = match trend {
        Some(trend) => format!(" and grew by {}", trend.told()),
        None => String::new(),
    };
    format!("{verdict}; its usage is {usage} at {limit}{grew}, and no incident is known{before}.")
}

/// Since when nothing is known, where there were incidents before; else empty.
fn left_out(facts: &Facts, zone: &Zone) -> String {
    let untold = match facts.untold() {
        0 => return String::new(),
        1 => "1 incident before that is".to_owned(),
        count => format!("{count} incidents before that are"),
    };
    facts.since.map_or(String::new(), |since| {
        format!(" since {}: {untold} not told", zone.seconds(since))
    })
}
