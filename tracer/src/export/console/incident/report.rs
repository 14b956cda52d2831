//! The report: what happened and what it means first, then the evidence, section by section.

mod evidence;

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::{
    incident::record::{ChargedCgroup, Incident, KernelCounts, KnownBy, Victim},
    moment::Zone,
    size,
    stacks::told::StackRecord,
};

use super::{cgroup, code, nanoseconds, process, resident, shown, stalled, victims};

const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[1;31m";
const RESET: &str = "\x1b[0m";
/// Rows of victims, growers and events.
const MOST_ROWS: usize = 10;
/// Victims told of at length.
const MOST_DETAILS: usize = 3;
/// Call paths.
const MOST_STACKS: usize = 3;
const COUNTED_ONCE: &str = "A victim maps more than the limit: files and shared memory count once, \
                            in the cgroup that touched them first.";
/// Narrower than this reads badly whatever is done.
const NARROWEST: usize = 40;

/// An incident for a person, many lines; times are in `zone`, which the first one names. `width`: of the terminal, characters; only prose is
/// wrapped, paths and numbers are never cut.
pub fn report(incident: &Incident, zone: &Zone, colour: bool, width: usize) -> String {
    let mut page = Page {
        text: String::new(),
        zone: zone.clone(),
        colour,
        width: width.max(NARROWEST),
    };
    page.head(incident);
    if let Some(charged) = &incident.charged {
        page.limit(charged, &incident.kernel_counts);
    }
    page.trigger(incident);
    page.victims(incident);
    page.timeline(incident);
    page.evidence(&incident.evidence);
    page.code(&incident.evidence.stacks, &incident.victims);
    page.kernel(&incident.kernel_counts);
    page.text
}

struct Page {
    text: String,
    zone: Zone,
    colour: bool,
    width: usize,
}

impl Page {
    fn painted(&mut self, colour: &str, text: &str) {
        let (on, off) = if self.colour {
            (colour, RESET)
        } else {
            ("", "")
        };
        let _ = writeln!(self.text, "{on}{text}{off}");
    }

    fn section(&mut self, name: &str) {
        self.text.push('\n');
        self.painted(BOLD, name);
    }

    fn row(&mut self, label: &str, value: &str) {
        let _ = writeln!(self.text, "  {label:<15} {value}");
    }

    fn head(&mut self, incident: &Incident) {
        let summary = shown(&incident.meaning.summary);
        let headline = if summary.is_empty() {
            format!(
                "{} in {}",
                incident.kind.name(),
                cgroup(incident).map_or("an unknown cgroup".into(), shown)
            )
        } else {
            summary
        };
        for line in wrapped(&headline, self.width) {
            self.painted(RED, &line);
        }
        for line in wrapped(&shown(&incident.meaning.consequence), self.width) {
            let _ = writeln!(self.text, "{line}");
        }
        self.text.push('\n');
        self.row("incident", &shown(&incident.id));
        self.row("kind", incident.kind.name());
        let time = self.zone.microseconds(incident.time);
        self.row("time", &time);
        if let Some(group) = incident.group_kill {
            self.row(
                "group kill",
                if group {
                    "yes (memory.oom.group)"
                } else {
                    "no"
                },
            );
        }
        if let Some(killer) = &incident.killer {
            let from = killer
                .cgroup
                .as_deref()
                .map_or("an unknown cgroup".into(), shown);
            let value = format!("{}({}) in {from}", shown(&killer.comm), killer.pid);
            self.row("killed by", &value);
        }
        if let Some(stall) = &incident.stall {
            self.row("stall", &stalled(stall));
            if let Some(ns) = stall.stalled_ns {
                self.row(
                    "waited",
                    &format!("tasks waited for memory for {}", nanoseconds(ns)),
                );
            }
            if stall.oom_disabled {
                self.row("OOM killer", "switched off here (memory.oom_control)");
            }
        }
        if !incident.complete {
            let why = match incident.stall {
                Some(_) => "the stall goes on: its end is not recorded yet",
                None => "recorded while victims were still dying",
            };
            self.row("incomplete", why);
        }
    }

    fn limit(&mut self, charged: &ChargedCgroup, counts: &KernelCounts) {
        self.section("Whose limit");
        let path = charged.cgroup.as_deref().map_or("unknown".into(), shown);
        self.row("cgroup", &format!("{path} (id {})", charged.cgroup_id));
        self.row("usage", &of_limit(charged.usage_bytes, charged.limit_bytes));
        if charged.swap_usage_bytes.is_some() || charged.swap_limit_bytes.is_some() {
            self.row("swap", &swap(charged, counts));
        }
        if let Some(failcnt) = charged.failcnt {
            self.row("failed charges", &failcnt.to_string());
        }
        if let Some(events) = charged.oom_events {
            self.row("OOMs so far", &events.to_string());
        }
        self.row(
            "known by",
            match charged.known_by {
                KnownBy::OomControl => "the kernel's own record of this OOM",
                KnownBy::FullCounter => "its counter: the lowest above the trigger that was full",
                KnownBy::OomEvents => "its count of OOMs, which alone had risen",
                KnownBy::CgroupFiles => "the cgroup's files",
            },
        );
    }

    fn trigger(&mut self, incident: &Incident) {
        let request = &incident.request;
        let asked = request.order.is_some() || request.gfp_mask.is_some();
        if incident.trigger.is_none() && !asked {
            return;
        }
        self.section("Trigger");
        if let Some(trigger) = &incident.trigger {
            let comm = trigger.process_comm.as_deref().unwrap_or(&trigger.comm);
            self.row("process", &format!("{}({})", shown(comm), trigger.pid));
            if trigger.tid != trigger.pid {
                self.row(
                    "thread",
                    &format!("{}({})", shown(&trigger.comm), trigger.tid),
                );
            }
            let path = trigger.cgroup.as_deref().map_or("unknown".into(), shown);
            self.row("cgroup", &path);
        }
        match request.order {
            Some(-1) => self.row("asked for", "a kill, by a person (SysRq f)"),
            Some(order) => match 1u64.checked_shl(u32::try_from(order).unwrap_or(u32::MAX)) {
                Some(1) => self.row("asked for", "1 page (order 0)"),
                Some(pages) => self.row("asked for", &format!("{pages} pages (order {order})")),
                None => self.row("asked for", &format!("order {order}")),
            },
            None => {}
        }
        match (&request.gfp_flags, request.gfp_mask) {
            (Some(flags), _) => self.row("gfp flags", &shown(flags)),
            (None, Some(mask)) => self.row("gfp flags", &format!("{mask:#x}")),
            (None, None) => {}
        }
    }

    fn victims(&mut self, incident: &Incident) {
        let count = victims(incident);
        if count == 0 {
            return;
        }
        self.section(&format!("Victims ({count})"));
        let mut largest: Vec<&Victim> = incident.victims.iter().collect();
        largest.sort_by_key(|victim| std::cmp::Reverse(resident(victim)));
        largest.truncate(MOST_ROWS);
        let _ = writeln!(
            self.text,
            "  {:>8}  {:<16} {:>7} {:>7} {:>7} {:>7} {:>7} {:>6}  KILLED",
            "PID", "NAME", "ANON", "FILE", "SHMEM", "SWAP", "TABLES", "ADJ"
        );
        for victim in &largest {
            let bytes = |value: Option<u64>| value.map_or("?".into(), size::bytes);
            let _ = writeln!(
                self.text,
                "  {:>8}  {:<16} {:>7} {:>7} {:>7} {:>7} {:>7} {:>6}  {}",
                victim.pid.unwrap_or(victim.tid),
                victim.comm.as_deref().map_or("?".into(), shown),
                bytes(victim.anon_bytes),
                bytes(victim.file_bytes),
                bytes(victim.shmem_bytes),
                bytes(victim.swap_bytes),
                bytes(victim.page_table_bytes),
                victim
                    .oom_score_adj
                    .map_or("?".into(), |adj| adj.to_string()),
                match victim.killed {
                    Some(true) => "yes",
                    Some(false) => "no, only marked",
                    None => "unknown",
                },
            );
        }
        self.more(count, largest.len());
        let limit = incident
            .charged
            .as_ref()
            .and_then(|charged| charged.limit_bytes);
        if limit.is_some_and(|limit| largest.iter().any(|victim| shares(victim, limit))) {
            let room = self.width.saturating_sub(2);
            for line in wrapped(COUNTED_ONCE, room) {
                let _ = writeln!(self.text, "  {line}");
            }
        }
        for victim in largest.iter().take(MOST_DETAILS) {
            self.victim(victim);
        }
    }

    fn victim(&mut self, victim: &Victim) {
        let _ = writeln!(self.text, "  {}", process(victim));
        let text = |value: &Option<String>| value.as_deref().map(shown);
        let rows = [
            ("  command", text(&victim.command_line)),
            ("  executable", text(&victim.executable)),
            ("  cgroup", text(&victim.cgroup)),
            ("  leaf cgroup", text(&victim.leaf_cgroup)),
            ("  uid", victim.uid.map(|uid| uid.to_string())),
            ("  started", victim.started.map(|time| self.zone.bare(time))),
            (
                "  badness",
                victim.badness.map(|points| format!("{points} pages")),
            ),
            (
                "  PID inside",
                victim.namespace_pid.map(|pid| match victim.container_init {
                    Some(true) => format!("{pid}, the init of its container"),
                    _ => pid.to_string(),
                }),
            ),
        ];
        for (label, value) in rows {
            if let Some(value) = value {
                self.row(label, &value);
            }
        }
    }

    fn timeline(&mut self, incident: &Incident) {
        let mut events: Vec<(Timestamp, String)> = Vec::new();
        for victim in &incident.victims {
            let name = process(victim);
            events.push((victim.marked, format!("{name} marked")));
            if let Some(died) = victim.died {
                let after = victim.died_after_ns.map_or(String::new(), |ns| {
                    format!(" {} after its mark", nanoseconds(ns))
                });
                events.push((died, format!("{name} dead{after}")));
            }
            if let Some(reaped) = victim.reaped {
                events.push((reaped, format!("{name} reaped: its memory was free")));
            }
        }
        if events.is_empty() {
            return;
        }
        self.section("Timeline");
        events.sort_by_key(|(time, _)| *time);
        for (time, what) in events.iter().take(2 * MOST_ROWS) {
            let micros = time.duration_since(incident.time).as_micros();
            let _ = writeln!(self.text, "  {:>+12.3} ms  {what}", micros as f64 / 1e3);
        }
        self.more(events.len() as u64, 2 * MOST_ROWS);
        let alive = incident
            .victims
            .iter()
            .filter(|victim| victim.died.is_none())
            .count();
        if alive > 0 {
            let _ = writeln!(self.text, "  {alive} not seen dying");
        }
    }

    fn code(&mut self, stacks: &[StackRecord], victims: &[Victim]) {
        if stacks.is_empty() {
            return;
        }
        self.section("Which code held it");
        if let Some(part) = code::part_sampled(stacks, victims) {
            for line in wrapped(&part, self.width.saturating_sub(2)) {
                let _ = writeln!(self.text, "  {line}");
            }
        }
        for line in stacks.iter().take(MOST_STACKS).flat_map(code::lines) {
            let _ = writeln!(self.text, "  {line}");
        }
        self.more(stacks.len() as u64, MOST_STACKS);
    }

    fn kernel(&mut self, counts: &KernelCounts) {
        if *counts == KernelCounts::default() {
            return;
        }
        self.section("What the kernel counted");
        for (label, count) in [
            ("oom_kill local", counts.oom_kill_local),
            ("oom", counts.oom_hierarchical),
            ("oom_kill", counts.oom_kill_hierarchical),
            ("oom_group_kill", counts.oom_group_kill_hierarchical),
            ("not seen", counts.missed),
        ] {
            if let Some(count) = count {
                self.row(label, &count.to_string());
            }
        }
    }

    fn more(&mut self, all: u64, told: usize) {
        let more = all.saturating_sub(told as u64);
        if more > 0 {
            let _ = writeln!(self.text, "  … and {more} more");
        }
    }
}

/// Swap; where the kernel may have counted memory with it, as cgroup v1 does, that is said.
fn swap(charged: &ChargedCgroup, counts: &KernelCounts) -> String {
    let used = match charged.swap_limit_bytes {
        Some(_) => of_limit(charged.swap_usage_bytes, charged.swap_limit_bytes),
        None => charged
            .swap_usage_bytes
            .map_or("unknown".into(), size::bytes),
    };
    let is_v2 = counts.oom_hierarchical.is_some() || counts.oom_kill_hierarchical.is_some();
    // Both together are never less than memory alone; files tell of swap alone.
    let has_room_for_memory = matches!(
        (charged.swap_usage_bytes, charged.usage_bytes),
        (Some(swap), Some(memory)) if swap > 0 && swap >= memory
    );
    if has_room_for_memory && !is_v2 && charged.known_by != KnownBy::CgroupFiles {
        used + "; on cgroup v1 that is memory and swap together"
    } else {
        used
    }
}

/// Whether its resident memory exceeds the limit only by what may be counted elsewhere.
fn shares(victim: &Victim, limit: u64) -> bool {
    let has_more = resident(victim).is_some_and(|bytes| bytes > limit);
    has_more && victim.anon_bytes.is_some_and(|anon| anon <= limit)
}

fn of_limit(usage: Option<u64>, limit: Option<u64>) -> String {
    format!(
        "{} of {}",
        usage.map_or("unknown".into(), size::bytes),
        limit.map_or("unlimited or unknown".into(), size::bytes)
    )
}

/// At spaces; a longer word gets a line of its own.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut chars = 0;
    for word in text.split_whitespace() {
        let more = word.chars().count();
        match lines.last_mut() {
            Some(line) if chars + 1 + more <= width => {
                line.push(' ');
                line.push_str(word);
                chars += 1 + more;
            }
            _ => {
                lines.push(word.to_owned());
                chars = more;
            }
        }
    }
    lines
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
