//! What no record of a kill tells: stalls, and kills that were missed.

use super::{
    super::record::{Incident, Stall},
    cgroup_name, duration,
    home::Home,
    limit_of,
};

pub fn stall(incident: &Incident) -> (String, Vec<String>) {
    let Some(stall) = incident.stall else {
        return ("A cgroup is stuck at its limit.".into(), Vec::new());
    };
    let charged = incident.charged.as_ref();
    let name = charged.map_or("A memory cgroup".into(), cgroup_name);
    let limit = match charged {
        _ if stall.at_high => "memory.high".into(),
        Some(charged) => limit_of(charged),
        None => "its limit".into(),
    };
    let verb = if stall.ongoing { "has been" } else { "was" };
    let summary = format!(
        "{name} {verb} stuck at {limit} for {}{} {}.",
        duration(stall.duration_ms),
        stalled_share(&stall),
        if stall.ended_by_kill {
            "until an OOM kill"
        } else {
            "without an OOM kill"
        }
    );
    let home = Home::of_path(charged.and_then(|charged| charged.cgroup.as_deref()));
    let reporters = match home {
        Home::Pod { .. } => "neither the kernel nor Kubernetes reports this",
        _ => "the kernel does not report this",
    };
    let state = if stall.ongoing {
        "Its processes are alive but make hardly any progress"
    } else if stall.ended_by_kill {
        "It is over: the kernel killed, which is an incident of its own"
    } else {
        "It is over; its processes lived but made hardly any progress"
    };
    let remedy = if stall.oom_disabled {
        "Its OOM killer is switched off (memory.oom_control): raise the limit, end a process, or \
         switch it on."
    } else if stall.at_high {
        "Raise or remove memory.high, or reduce its memory."
    } else {
        "Raise the limit, reduce its memory, or restart it."
    };
    let mut consequence = vec![format!("{state}; {reporters}.")];
    if !stall.ended_by_kill {
        consequence.push(remedy.into());
    }
    (summary, consequence)
}

fn stalled_share(stall: &Stall) -> String {
    match stall.stalled_ns {
        Some(stalled_ns) if stall.duration_ms > 0 => {
            let percent = stalled_ns / 10_000 / stall.duration_ms;
            format!(", stalled {}% of the time,", percent.min(100))
        }
        _ => String::new(),
    }
}

pub fn missed(incident: &Incident) -> (String, Vec<String>) {
    let kills = match incident.kernel_counts.missed {
        Some(1) => "1 OOM kill".into(),
        Some(kills) => format!("{kills} OOM kills"),
        None => "OOM kills".into(),
    };
    let (place, end) = match &incident.charged {
        Some(charged) => (format!("in {}", cgroup_name(charged)), ""),
        None => ("on this host".into(), "; in which cgroups is not known"),
    };
    let why = match incident.kernel_counts.not_running_since {
        Some(since) => format!("no memtrace ran to see (since {since:.0})"),
        None => "memtrace did not see".into(),
    };
    (
        format!("The kernel counted {kills} {place} that {why}{end}."),
        vec!["Who was killed is not known here; the kernel log may have it.".into()],
    )
}
