//! What an incident means, in words for a person.
//!
//! Pure: from the facts in the record, which are escaped already. Must not guess: what the record
//! leaves open is said to be open. Kubernetes is spoken of only where a cgroup is a pod's.
//!
//! What Kubernetes reports: the container runtime watches `oom_kill` of the container's cgroup, and
//! the kubelet shows a container that ended with exit code 137. So a kill of PID 1, or of a whole
//! group (`memory.oom.group`, set by the kubelet since 1.28 on v2), ends the container; a kill of a
//! child does not, and a kill by a user-space killer counts no `oom_kill`.

mod home;
mod unkilled;
mod user_space;

use super::record::{ChargedCgroup, Incident, Kind, KubernetesReport, Meaning, Trigger, Victim};
use crate::{identity::names::Names, size};
use home::Home;
use unkilled::{missed, stall};

/// The sentences for `incident`; its own `meaning` is not looked at.
pub fn meaning(incident: &Incident) -> Meaning {
    let (summary, consequence) = match incident.kind {
        Kind::Stall => stall(incident),
        Kind::MissedKills => missed(incident),
        Kind::MarkedExiting => marked_exiting(incident),
        Kind::UserSpaceKill => user_space::kill(incident),
        Kind::CgroupOom
        | Kind::CpusetOom
        | Kind::MempolicyOom
        | Kind::GlobalOom
        | Kind::KernelOom => kernel_kill(incident),
    };
    let mut consequence = consequence;
    consequence.extend(incident.kubernetes.as_ref().map(reported));
    Meaning {
        summary,
        consequence: consequence.join(" "),
    }
}

/// What Kubernetes said.
pub fn reported(report: &KubernetesReport) -> String {
    if !report.reported {
        return match &report.reason {
            Some(reason) => format!(
                "Kubernetes did not report it; the container ended later by itself ({reason})."
            ),
            None => "Kubernetes did not report it: the container is not shown as ended.".into(),
        };
    }
    let mut text = match &report.reason {
        Some(reason) => format!("Kubernetes reported {reason}"),
        None => "Kubernetes reported the end of the container".into(),
    };
    if let Some(code) = report.exit_code {
        text += &format!(", exit code {code}");
    }
    if let Some(count) = report.restart_count {
        text += &format!(", restart count {count}");
    }
    text + "."
}

fn kernel_kill(incident: &Incident) -> (String, Vec<String>) {
    let mut summary = format!("{}: {}", cause(incident), killed(incident));
    if let Some(trigger) = other_trigger(incident) {
        summary += &format!("; {} asked for the memory", trigger_name(trigger));
    }
    summary.push('.');
    let mut consequence = Vec::new();
    if incident.request.order == Some(-1) {
        consequence.push("A person asked for this kill (SysRq f); no limit was at fault.".into());
    } else {
        consequence.extend(fault(incident));
    }
    if incident.victims.is_empty() {
        consequence.push("The victim is not known.".into());
    } else {
        consequence.push(outcome(incident, Home::of_incident(incident)));
    }
    (summary, consequence)
}

/// Why the kernel killed.
fn cause(incident: &Incident) -> String {
    if incident.request.order == Some(-1) {
        return "SysRq f".into();
    }
    match incident.kind {
        Kind::CgroupOom => match &incident.charged {
            Some(charged) => format!("{} reached {}", cgroup_name(charged), limit_of(charged)),
            None => "A memory cgroup reached its limit; which one is not known".into(),
        },
        Kind::CpusetOom => "The memory nodes of a cpuset ran out".into(),
        Kind::MempolicyOom => "The memory nodes of a memory policy ran out".into(),
        Kind::GlobalOom => "The machine ran out of memory".into(),
        _ => "The kernel ran out of memory; for whose limit is not known".into(),
    }
}

/// Whose fault it was, where that is not the victim's own limit.
fn fault(incident: &Incident) -> Option<String> {
    match incident.kind {
        Kind::GlobalOom => {
            Some("No cgroup limit was at fault: the node is short of memory.".into())
        }
        Kind::CpusetOom | Kind::MempolicyOom => Some(
            "No cgroup limit was at fault: other memory nodes may still have free memory.".into(),
        ),
        Kind::CgroupOom => {
            let charged = incident.charged.as_ref()?;
            let victim = incident.victims.first()?;
            let trigger = incident.trigger.as_ref()?;
            if charged.cgroup_id == victim.cgroup_id? {
                return None;
            }
            let limit = cgroup_name(charged);
            Some(if trigger.cgroup_id? == victim.cgroup_id? {
                format!("The limit is not the victim's own but that of {limit} above it.")
            } else {
                format!(
                    "A neighbour paid: {} reached the limit of {limit}, which it shares with the \
                     victim in {}.",
                    place(trigger.names.as_deref(), trigger.cgroup.as_deref()),
                    place(victim.names.as_deref(), victim.cgroup.as_deref())
                )
            })
        }
        _ => None,
    }
}

/// What becomes of the container or service.
fn outcome(incident: &Incident, home: Home) -> String {
    let is_group = incident.group_kill == Some(true);
    let inits = || incident.victims.iter().map(init_of);
    let init = if inits().any(|init| init == Some(true)) {
        Some(true)
    } else if incident.victims_left_out == 0 && inits().all(|init| init == Some(false)) {
        Some(false)
    } else {
        None
    };
    match home {
        Home::Pod { host_pids } if is_group => format!(
            "The whole container was killed as a group; expect OOMKilled, exit 137, and a restart \
             by the pod's restartPolicy.{}",
            if host_pids {
                ""
            } else {
                group_without_init(init)
            }
        ),
        Home::Pod { host_pids: true } => "The pod uses the host's PIDs, so whether this was the \
            container's main process is not known: if it was, the container ends and Kubernetes \
            reports OOMKilled, exit 137; if not, the container goes on and Kubernetes reports \
            nothing."
            .into(),
        Home::Pod { .. } => match init {
            Some(true) => "PID 1 of the container was killed, so the container ends: Kubernetes \
                will report OOMKilled, exit 137, and restart it by the pod's restartPolicy."
                .into(),
            Some(false) => {
                "A child of PID 1 was killed and the container goes on; Kubernetes will \
                not report OOMKilled now. The application may see a dead worker. (With \
                shareProcessNamespace, PID 1 is the pod's and this may have been the main process.)"
                    .into()
            }
            None => "Whether this was PID 1 of the container is not known: if it was, the \
                container ends and Kubernetes reports OOMKilled, exit 137; if not, the container \
                goes on and Kubernetes reports nothing."
                .into(),
        },
        Home::Container if is_group => format!(
            "The whole container was killed as a group; expect exit 137.{}",
            group_without_init(init)
        ),
        Home::Container => match init {
            Some(true) => "PID 1 of the container was killed, so the container ends; expect exit \
                137, shown as an OOM kill by its runtime."
                .into(),
            Some(false) => {
                "A child of PID 1 was killed and the container goes on; its runtime may \
                not show it as an OOM kill. The application may see a dead worker."
                    .into()
            }
            None => "Whether this was PID 1 of the container is not known: if it was, the \
                container ends with exit 137; if not, it goes on."
                .into(),
        },
        Home::Service(unit) if is_group => format!(
            "All processes of {unit} were killed as a group; systemd will show the result oom-kill."
        ),
        Home::Service(unit) => format!(
            "Not a container: by OOMPolicy (stop unless set) systemd ends {unit} with the result \
             oom-kill, or lets it go on."
        ),
        Home::Host if is_group => "Not a container: the processes of the cgroup were killed as a \
            group and nothing restarts them unless a supervisor does."
            .into(),
        Home::Host => "Not a container: only this process ends, and nothing restarts it unless a \
            supervisor does."
            .into(),
        Home::Unknown => match init {
            Some(true) => {
                "PID 1 of its container was killed, so the container ends with exit 137.".into()
            }
            _ => "Whether this was in a container, and its PID 1, is not known.".into(),
        },
    }
}

/// Whether the victim was PID 1 of its container. Where a container has the host's PIDs, no process
/// of it is, and nothing tells which is the main one.
fn init_of(victim: &Victim) -> Option<bool> {
    let has_host_pids = victim.namespace_pid.is_some() && victim.namespace_pid == victim.pid;
    victim.container_init.filter(|init| *init || !has_host_pids)
}

/// A group that did not contain PID 1 is of a cgroup below the container's.
fn group_without_init(init: Option<bool>) -> &'static str {
    match init {
        Some(false) => {
            " (PID 1 was not among the victims: if the group is a part of the container, the rest \
             goes on.)"
        }
        _ => "",
    }
}

fn marked_exiting(incident: &Incident) -> (String, Vec<String>) {
    let at = match &incident.charged {
        Some(charged) => format!("{} reached {}", cgroup_name(charged), limit_of(charged)),
        None => "The kernel ran out of memory".into(),
    };
    let who = match incident.victims.first() {
        Some(victim) => format!("{} was already exiting", victim_name(victim)),
        None => "a task was already exiting".into(),
    };
    (
        format!("{at}, but {who}: nobody was killed."),
        vec![
            "Its memory comes free without a kill; nothing is reported or restarted for this."
                .into(),
        ],
    )
}

/// `worker (PID 7, 480M anonymous) was killed`, or how many were.
fn killed(incident: &Incident) -> String {
    let mut victims = incident
        .victims
        .iter()
        .filter(|victim| victim.killed != Some(false));
    let count = u64::try_from(victims.clone().count())
        .unwrap_or(u64::MAX)
        .saturating_add(incident.victims_left_out);
    let as_group = match incident.group_kill {
        Some(true) => " as a group",
        _ => "",
    };
    match victims.next() {
        None => "a process was killed".into(),
        Some(victim) if count == 1 => format!("{} was killed{as_group}", victim_name(victim)),
        Some(victim) => format!(
            "{count} processes were killed{as_group}, {} first",
            victim_name(victim)
        ),
    }
}

/// The trigger, if it is another process than the victims.
fn other_trigger(incident: &Incident) -> Option<&Trigger> {
    let trigger = incident.trigger.as_ref()?;
    let is_victim = |victim: &Victim| {
        victim.pid == Some(trigger.pid) || victim.tid == trigger.pid || victim.tid == trigger.tid
    };
    (!incident.victims.iter().any(is_victim)).then_some(trigger)
}

fn trigger_name(trigger: &Trigger) -> String {
    let name = trigger.process_comm.as_ref().unwrap_or(&trigger.comm);
    format!("{name} (PID {})", trigger.pid)
}

fn victim_name(victim: &Victim) -> String {
    let name = victim.comm.as_deref().unwrap_or("a process");
    let id = match victim.pid {
        Some(pid) => format!("PID {pid}"),
        None => format!("thread {}", victim.tid),
    };
    // Shared memory may outlive who is killed: where it is the most, the kill may not have helped.
    let (anon, shared) = (victim.anon_bytes, victim.shmem_bytes);
    let held = [
        (anon, "anonymous"),
        (shared.filter(|_| shared > anon), "shared"),
    ];
    let held = held
        .iter()
        .filter_map(|(bytes, what)| Some((size::bytes((*bytes)?), what)));
    let held: String = held
        .map(|(size, what)| format!(", {size} {what}"))
        .collect();
    format!("{name} ({id}{held})")
}

fn cgroup_name(charged: &ChargedCgroup) -> String {
    match named(charged.names.as_deref(), charged.cgroup.as_deref()) {
        Some(name) => name,
        None => format!("cgroup {}", charged.cgroup_id),
    }
}

fn limit_of(charged: &ChargedCgroup) -> String {
    match charged.limit_bytes {
        Some(limit) => format!("its limit of {}", size::bytes(limit)),
        None => "its limit".into(),
    }
}

fn place(names: Option<&Names>, cgroup: Option<&str>) -> String {
    named(names, cgroup).unwrap_or_else(|| "a cgroup that is not known".into())
}

/// Namespace, pod and container where they are known, else the cgroup's path.
fn named(names: Option<&Names>, cgroup: Option<&str>) -> Option<String> {
    let short = names.and_then(Names::short);
    short.or_else(|| cgroup.map(str::to_owned))
}

fn duration(milliseconds: u64) -> String {
    match milliseconds.saturating_add(500) / 1000 {
        0 => format!("{milliseconds} ms"),
        seconds @ 1..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

fn first_upper(text: String) -> String {
    // Names come first only where a comm does; those stay as they are.
    match text.strip_prefix("a process") {
        Some(rest) => format!("A process{rest}"),
        None => text,
    }
}

#[cfg(test)]
#[path = "meaning_tests.rs"]
mod tests;
