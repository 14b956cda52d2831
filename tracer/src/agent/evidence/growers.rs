//! Who grew before an incident: the last looks of the model, the processes of the charged cgroup as
//! they are now, and the victims as the kernel marked them.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use memtrace_ebpf::counts::ProcessKey;

use crate::{
    agent::active_processes::COMM_CHARS,
    host::{escape, process::ticks},
    incident::record::{Grower, Incident, UsageSample, Victim},
    model::{
        looks::Look,
        processes::{Change, Processes},
    },
};

use super::{Sources, millis, signed};

/// Processes told.
const MOST: usize = 10;
/// Cgroups whose processes are listed, processes that are considered, and those that are read.
const MOST_LISTED: usize = 64;
const MOST_CONSIDERED: usize = 256;
const MOST_READ: usize = 32;

/// The processes of the cgroup `id` and `below` it that grew most in the time of `usage`, which ends at
/// the incident `at`.
pub(super) fn growers(
    incident: &Incident,
    sources: &mut Sources<'_>,
    id: u64,
    below: &HashSet<u64>,
    at: Duration,
    usage: &[UsageSample],
) -> Vec<Grower> {
    let first_ms = usage.first().map_or(0, |sample| sample.before_ms);
    let from = at.saturating_sub(Duration::from_millis(first_ms));
    let mut changes = last_looks(sources.processes, below, from);
    let most_left = left_by_victims(incident);
    let begun = Instant::now();
    for key in alive(incident, sources, id, below) {
        let read_at = sources.now.saturating_add(begun.elapsed());
        read(sources, &key, from, read_at, most_left, &mut changes);
    }
    for victim in &incident.victims {
        at_the_mark(victim, incident, sources.processes, from, at, &mut changes);
    }
    told(changes.into_values(), usage)
}

/// By process id, which one process may have in several cgroups.
fn last_looks(processes: &Processes, below: &HashSet<u64>, from: Duration) -> HashMap<u32, Change> {
    let mut changes: HashMap<u32, Change> = HashMap::new();
    for change in processes.changes(|cgroup| below.contains(&cgroup), from) {
        let known = changes.get(&change.tgid);
        if known.is_none_or(|known| known.last.at <= change.last.at) {
            changes.insert(change.tgid, change);
        }
    }
    changes
}

/// What all other processes together held at most when a cgroup was at its limit.
fn left_by_victims(incident: &Incident) -> Option<u64> {
    if !incident.kind.is_kernel_kill() {
        return None;
    }
    let usage = incident.charged.as_ref()?.usage_bytes?;
    let victims = incident.victims.iter();
    let held: u64 = victims.filter_map(|victim| victim.anon_bytes).sum();
    Some(usage.saturating_sub(held))
}

/// Processes that live on, the trigger first, then those that did most since they were last looked at.
fn alive(
    incident: &Incident,
    sources: &mut Sources<'_>,
    id: u64,
    below: &HashSet<u64>,
) -> Vec<ProcessKey> {
    let trigger = incident.trigger.as_ref();
    let trigger = trigger.and_then(|trigger| Some((trigger.cgroup_id?, trigger.pid)));
    let trigger = trigger.filter(|(cgroup, _)| below.contains(cgroup));
    let near = trigger.map(|(cgroup, _)| cgroup);
    let mut listed: HashSet<u64> = near.into_iter().chain([id]).collect();
    listed.extend(incident.victims.iter().filter_map(|victim| {
        let cgroup = victim.cgroup_id?;
        below.contains(&cgroup).then_some(cgroup)
    }));
    let room = MOST_LISTED.saturating_sub(listed.len());
    let others: Vec<u64> = below.difference(&listed).copied().take(room).collect();
    listed.extend(others);

    let dead: HashSet<u32> = incident.victims.iter().filter_map(|v| v.pid).collect();
    let mut found: HashSet<u32> = HashSet::new();
    let mut keys: Vec<(bool, u64, ProcessKey)> = Vec::new();
    let consider = |cgroup_id: u64, tgid: u32| {
        let key = ProcessKey {
            cgroup_id,
            tgid,
            padding: 0,
        };
        let counts = sources.counts.process(&key);
        let activity = counts.map(|counts| sources.processes.activity_since(&key, &counts));
        (
            trigger == Some((cgroup_id, tgid)),
            activity.unwrap_or(0),
            key,
        )
    };
    if let Some((cgroup, tgid)) = trigger
        && !dead.contains(&tgid)
    {
        found.insert(tgid);
        keys.push(consider(cgroup, tgid));
    }
    for cgroup in listed {
        let room = MOST_CONSIDERED.saturating_sub(keys.len());
        for tgid in sources.readings.pids_now(cgroup, room) {
            if !dead.contains(&tgid) && found.insert(tgid) {
                keys.push(consider(cgroup, tgid));
            }
        }
    }
    keys.sort_unstable_by_key(|(is_trigger, activity, key)| {
        std::cmp::Reverse((*is_trigger, *activity, key.tgid))
    });
    keys.truncate(MOST_READ);
    keys.into_iter().map(|(_, _, key)| key).collect()
}

/// One process as it is now.
fn read(
    sources: &Sources<'_>,
    key: &ProcessKey,
    from: Duration,
    at: Duration,
    most_left: Option<u64>,
    changes: &mut HashMap<u32, Change>,
) {
    let Ok(reading) = sources.proc.process(key.tgid, &mut Vec::new()) else {
        return;
    };
    // One that is exiting has given its memory back: the last look is nearer to the truth.
    let (Some(anon_bytes), Some(1..)) = (reading.rss_anon_bytes, reading.rss_bytes) else {
        return;
    };
    let processes = sources.processes;
    let Some(first) = processes.measured_from(key, reading.start_ticks, from) else {
        // Now seen for the first time.
        changes.remove(&key.tgid);
        return;
    };
    let looked = changes
        .get(&key.tgid)
        .map_or(0, |change| change.last.anon_bytes);
    let change = Change {
        tgid: key.tgid,
        comm: reading.comm.map(|comm| escape::display(&comm, COMM_CHARS)),
        first,
        last: Look { at, anon_bytes },
    };
    changes.insert(key.tgid, until_the_kill(change, looked, most_left));
}

/// The trigger goes on as soon as somebody is killed: what it has now may be more than it had then.
fn until_the_kill(mut change: Change, looked: u64, most_left: Option<u64>) -> Change {
    if let Some(most_left) = most_left {
        let most = change.first.anon_bytes.saturating_add(most_left);
        let last = &mut change.last.anon_bytes;
        *last = (*last).min(most.max(looked));
    }
    change
}

/// A victim, with what it had when it was marked.
fn at_the_mark(
    victim: &Victim,
    incident: &Incident,
    processes: &Processes,
    from: Duration,
    at: Duration,
    changes: &mut HashMap<u32, Change>,
) {
    let (Some(tgid), Some(anon_bytes)) = (victim.pid, victim.anon_bytes) else {
        return;
    };
    let key = ProcessKey {
        cgroup_id: victim.cgroup_id.unwrap_or_default(),
        tgid,
        padding: 0,
    };
    let start_ticks = start_ticks(victim, incident);
    match processes.measured_from(&key, start_ticks, from) {
        Some(first) => {
            let change = Change {
                tgid,
                comm: victim.comm.clone(),
                first,
                last: Look { at, anon_bytes },
            };
            changes.insert(tgid, change);
        }
        None => {
            changes.remove(&tgid);
        }
    }
}

/// When a victim started, as its `/proc/PID/stat` had it.
fn start_ticks(victim: &Victim, incident: &Incident) -> Option<u64> {
    let lived = Duration::try_from(incident.time.duration_since(victim.started?)).ok()?;
    let started = Duration::from_nanos(incident.boot_time_ns).checked_sub(lived)?;
    Some(ticks(started))
}

/// Those that grew, most first, with their shares if these explain the growth of `usage`.
fn told(changes: impl Iterator<Item = Change>, usage: &[UsageSample]) -> Vec<Grower> {
    let mut growers: Vec<Grower> = changes
        .map(|change| Grower {
            pid: change.tgid,
            comm: change.comm,
            grown_bytes: signed(change.last.anon_bytes) - signed(change.first.anon_bytes),
            over_ms: millis(change.last.at.saturating_sub(change.first.at)),
            share: None,
        })
        .filter(|grower| grower.grown_bytes > 0)
        .collect();
    growers.sort_by_key(|grower| (std::cmp::Reverse(grower.grown_bytes), grower.pid));
    let all: f64 = growers.iter().map(|grower| grower.grown_bytes as f64).sum();
    if all > 0.0 && explains(all, usage) {
        for grower in &mut growers {
            grower.share = Some(grower.grown_bytes as f64 / all);
        }
    }
    growers.truncate(MOST);
    growers
}

/// Whether usage grew by as much, give or take a third.
fn explains(grown_bytes: f64, usage: &[UsageSample]) -> bool {
    let [first, .., last] = usage else {
        return false;
    };
    let usage = last.usage_bytes as f64 - first.usage_bytes as f64;
    (grown_bytes - usage).abs() <= usage / 3.0
}

#[cfg(test)]
#[path = "growers_tests.rs"]
mod tests;
