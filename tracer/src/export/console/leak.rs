//! A change of a verdict in one sentence. Owns the words.

use crate::{
    analysis::Signal,
    growth::{GrowthChange, GrowthEvent},
    stacks::told::StackRecord,
};

use super::{duration, size, verdict};

/// The sentence; `None` for a change on the way to a verdict.
pub fn line(change: &GrowthChange) -> Option<String> {
    let cgroup = &place(change);
    Some(match change.event? {
        GrowthEvent::Suspected => format!("leak suspected in {cgroup}: {}", growth(change)),
        GrowthEvent::Confirmed => format!("leak confirmed in {cgroup}: {}", growth(change)),
        GrowthEvent::Cleared => format!("no leak any more in {cgroup}: {}", change.state.name()),
        GrowthEvent::LimitNear => near(change),
    })
}

/// What grows, how fast, since when, by whom, and where it leads; no verdict.
pub fn growth(change: &GrowthChange) -> String {
    let mut text = change
        .signal
        .map_or("memory", |signal| signal.name())
        .to_owned();
    if let Some(rate) = change.rate_bytes_per_hour {
        text += &format!(" grows {}", verdict::per_hour(rate.mid));
    }
    if let Some(since) = change.since {
        text += &format!(" since {}", since.strftime("%Y-%m-%d %H:%M:%SZ"));
    }
    if let Some(process) = change.processes.first() {
        let comm = process.comm.as_deref().unwrap_or("?");
        let share = process.share * 100.0;
        text += &format!(", {share:.0}% of it by {comm} (pid {})", process.pid);
    }
    if let Some(code) = code(change) {
        text += &code;
    }
    if let (Some(time), Some(limit)) = (change.time_to_limit_s, change.limit_bytes) {
        let whose = match &change.limit_cgroup {
            Some(owner) if *owner == change.cgroup => "its limit".to_owned(),
            Some(owner) => format!("the limit of {owner}"),
            None => "the memory of the machine".to_owned(),
        };
        let left = duration::rough(time.mid);
        text += &format!("; reaches {whose} ({}) in about {left}", size::bytes(limit));
    }
    text
}

/// `, most of it by leak < serve < main (61.0M ±6.0M resident)`. `None` where nothing was sampled, or
/// what grows is no anonymous memory.
fn code(change: &GrowthChange) -> Option<String> {
    let sampled = match change.signal {
        None | Some(Signal::Anon | Signal::WorkingSet | Signal::Usage) => true,
        Some(Signal::Shmem | Signal::Kernel | Signal::File) => false,
    };
    let first = change.stacks.first().filter(|_| sampled)?;
    let grown = |stack: &StackRecord| u64::try_from(stack.growth_bytes).unwrap_or(0);
    let all = change.stacks.iter().map(grown);
    let all = all.fold(0, u64::saturating_add);
    let begin = if first.surely_grew() && grown(first) > all / 2 {
        "most of it by"
    } else {
        "first suspect"
    };
    let whose = match change.processes.first() {
        Some(process) if process.pid == first.process.pid => String::new(),
        _ => format!(" in {} (pid {})", first.process.comm, first.process.pid),
    };
    Some(format!(
        ", {begin} {}{whose} ({} ±{} resident)",
        first.line(),
        size::bytes(first.resident_bytes),
        size::bytes(first.error_bytes)
    ))
}

fn near(change: &GrowthChange) -> String {
    let cgroup = &place(change);
    let Some(near) = change.near_limit else {
        return format!("{cgroup} is near its limit");
    };
    format!("{cgroup} is near its limit: {}", verdict::nearness(&near))
}

/// Namespace, pod and container where they are known, else the cgroup's path.
fn place(change: &GrowthChange) -> String {
    let short = change.names.as_ref().and_then(|names| names.short());
    short.unwrap_or_else(|| change.cgroup.clone())
}

#[cfg(test)]
#[path = "leak_tests.rs"]
mod tests;
