//! What to do next, by what is known. Owns the rules and their words; says nothing that the facts leave open.
//!
//! Commands hold only what is safe in a shell: a name with any other character leaves the command out.

mod calm;
mod restarts;

use serde::Serialize;

use crate::{
    analysis::{Signal, State},
    api::records::LeakRecord,
    export::console::{incident::shown, verdict},
    incident::{Incident, Kind},
    size,
};

use super::{
    facts::Facts,
    story::{call_path, stacks},
};

/// A step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Advice {
    pub text: String,
    /// To run on the host, or where kubectl is.
    pub command: Option<String>,
}

/// Share of the limit that stays free with the limit that is named.
const ROOM: f64 = 0.2;
/// Share of the limit that could not be reclaimed, from which on the limit itself was too low.
const FULL: f64 = 0.8;
/// Share of usage in page cache from which on it is the cache that fills the limit.
const MOSTLY_FILE: f64 = 0.5;
/// In the container's own file system.
const SHM: &str = "/dev/shm";

/// Most useful first; never empty.
pub fn advice(facts: &Facts) -> Vec<Advice> {
    let mut list = List(Vec::new());
    if let Some(leak) = facts.leak().filter(|leak| leak.state.is_leak()) {
        list.leak(facts, leak);
    }
    if let Some(incident) = facts.incident().filter(|one| facts.tells(one)) {
        list.incident(facts, incident);
    }
    list.restart_loop(facts);
    list.no_leak(facts);
    list.kubernetes(facts);
    if list.0.is_empty() {
        list.calm(facts);
    }
    list.0
}

struct List(Vec<Advice>);

impl List {
    fn say(&mut self, text: impl Into<String>) {
        self.with(text, None);
    }

    fn with(&mut self, text: impl Into<String>, command: Option<String>) {
        self.0.push(Advice {
            text: text.into(),
            command,
        });
    }

    fn leak(&mut self, facts: &Facts, leak: &LeakRecord) {
        let process = leak.processes.first();
        let pid = process.map(|process| process.pid);
        match leak.signal {
            Some(Signal::Shmem) => self.with(
                "What grows is shared memory or files on tmpfs: look in /dev/shm, memory-backed volumes and \
                 SysV shared memory for what is never removed.",
                pid.map(|pid| format!("sudo du -xh --max-depth=2 /proc/{pid}/root{SHM}")),
            ),
            Some(Signal::Kernel) => self.with(
                "What grows is kernel memory on behalf of this container: files, sockets or directory \
                 entries that it keeps open or makes. Count its open files first.",
                pid.map(|pid| format!("sudo ls /proc/{pid}/fd | wc -l")),
            ),
            // Never a leak.
            Some(Signal::File) => {}
            None | Some(Signal::Anon | Signal::WorkingSet | Signal::Usage) => {
                let stacks = stacks(facts);
                match stacks.first().filter(|stack| stack.surely_grew()) {
                    Some(stack) => self.with(
                        format!(
                            "Look at this code first: {} in {} (pid {}). What it allocated and is still \
                             resident grew by {} ±{}. Record it again to see it in full:",
                            call_path(stack),
                            shown(&stack.process.comm),
                            stack.process.pid,
                            size::bytes(stack.growth_bytes.unsigned_abs()),
                            size::bytes(stack.growth_error_bytes),
                        ),
                        Some(record(stack.process.pid)),
                    ),
                    None => self.with(
                        "Which code grows was not sampled, or not surely told: record the process that \
                         grew most while it grows.",
                        pid.map(record),
                    ),
                }
            }
        }
        if let (Some(time), Some(limit)) = (leak.time_to_limit_s, verdict::limit(leak)) {
            let mut text = format!(
                "It reaches {limit} in {}: until the cause is fixed, restart it before that at a time that \
                 suits you.",
                verdict::time_left(time)
            );
            if let Some(rate) = leak.rate_bytes_per_hour.filter(|rate| rate.mid > 0.0) {
                let day = size::bytes((rate.mid * 24.0) as u64);
                text += &format!(" A larger limit only defers it: each day takes {day} more.");
            }
            self.say(text);
        }
        if leak.state == State::Suspected {
            self.say(
                "It is only suspected: `memtrace leaks` says what is left to verify; a confirmation \
                 follows if the growth goes on as predicted.",
            );
        }
    }

    fn incident(&mut self, facts: &Facts, incident: &Incident) {
        let has_leak = facts.leak().is_some_and(|leak| leak.state.is_leak());
        match incident.kind {
            Kind::CgroupOom => self.limit(facts, incident, has_leak),
            Kind::GlobalOom => self.with(
                "The node ran out, no limit was at fault: find what takes most of it, and set limits and \
                 requests so that all of them together fit the node.",
                Some("sudo memtrace leaks --all".into()),
            ),
            Kind::CpusetOom | Kind::MempolicyOom => self.with(
                "Only the memory nodes that it is bound to ran out: widen the cpuset or the policy.",
                Some("numactl --hardware".into()),
            ),
            Kind::UserSpaceKill => self.say(
                "A user-space OOM killer chose it, not the kernel: look at its thresholds before you \
                 change a limit.",
            ),
            Kind::Stall => self.say(stall(incident)),
            Kind::MissedKills => self.with(
                "memtrace saw not all of the kills: run it as a service, so that the next is recorded.",
                Some("sudo systemctl enable --now memtrace".into()),
            ),
            Kind::MarkedExiting => self.say("Nobody was killed: the process was exiting already."),
            Kind::KernelOom => self.with(
                "For whose limit the kernel killed is not known here: a hook is missing.",
                Some("sudo memtrace doctor".into()),
            ),
        }
        let report = incident.kubernetes.as_ref();
        if report.is_some_and(|report| !report.reported) {
            self.say(
                "Kubernetes does not show this kill: a child of the container died and its init went on. \
                 Alert on memtrace's incidents, not on OOMKilled alone, and let the init notice a child \
                 that ends.",
            );
        }
    }

    /// At the limit of a cgroup.
    fn limit(&mut self, facts: &Facts, incident: &Incident, has_leak: bool) {
        let Some(charged) = &incident.charged else {
            self.say(
                "Which limit was reached is not known here: look at that of its cgroup, and of those above.",
            );
            return;
        };
        let own = incident.victims.first().and_then(|victim| victim.cgroup_id);
        if own.is_some_and(|own| own != charged.cgroup_id) {
            let path = charged
                .cgroup
                .as_deref()
                .map_or("a cgroup above".into(), shown);
            self.say(format!(
                "The limit is that of {path}, not the victim's own: raising the victim's limit does not \
                 help. Look at all that shares it."
            ));
        }
        if has_leak {
            return;
        }
        let leaked = facts.leaked_since(incident).is_some();
        let live = facts.details.as_ref().filter(|known| !known.row.removed);
        let live = live.and_then(|known| known.processes.first());
        let stack = stacks(facts).into_iter().find(|stack| stack.surely_grew());
        if let Some(stack) = &stack {
            self.with(
                format!(
                    "Look at the code that held the memory: {} in {}, {} ±{} resident.",
                    call_path(stack),
                    shown(&stack.process.comm),
                    size::bytes(stack.resident_bytes),
                    size::bytes(stack.error_bytes),
                ),
                live.map(|process| record(process.pid)),
            );
        }
        if leaked {
            let text = "A leak was told before the kill: a larger limit, like the restart, only defers \
                        the next kill.";
            let command = live.filter(|_| stack.is_none());
            self.with(text, command.map(|process| record(process.pid)));
            return;
        }
        let stat = incident.evidence.memory_stat.as_ref();
        let hard = stat.and_then(|stat| {
            Some(
                stat.anon_bytes?
                    .saturating_add(stat.shmem_bytes?)
                    .saturating_add(stat.kernel_bytes?),
            )
        });
        let limit = charged.limit_bytes.filter(|limit| *limit > 0);
        if let (Some(hard), Some(limit)) = (hard, limit) {
            // Read before the kill or after it: what was freed by then is not in it.
            let at_kill = stat.is_some_and(|stat| stat.read_after_ms <= 0);
            let share = hard as f64 / limit as f64 * 100.0;
            if at_kill && share >= 100.0 * FULL {
                self.say(format!(
                    "Of the limit of {}, {} ({share:.0} %) could not be reclaimed at the last reading \
                     before: if that is what it needs, the limit is too low, and the peak it would have \
                     reached is not known. Try a limit above {} and look again.",
                    size::bytes(limit),
                    size::bytes(hard),
                    size::bytes((limit as f64 * (1.0 + ROOM)) as u64),
                ));
                return;
            }
        }
        self.say(
            "Whether it is a leak is not known here: if this memory is what it needs, raise the limit; if it \
             came in a burst, bound what it does at once (batch, concurrency, request size); if it grows \
             again after the restart, record which code holds it while it does: memtrace record --help",
        );
    }

    /// What looks like growth and is none, and what is merely full.
    fn no_leak(&mut self, facts: &Facts) {
        let leak = facts.leak().filter(|leak| !leak.state.is_leak());
        if let Some(leak) = leak {
            if leak.state == State::Unknown {
                self.look_again(facts);
            }
            if leak.signal == Some(Signal::File) && leak.state >= State::Growing {
                self.say(
                    "What grows is page cache: no leak. The kernel takes it back when memory is needed; \
                     judge the container by its working set or anonymous memory, not by usage.",
                );
            }
            if leak.signal != Some(Signal::File) && leak.state == State::Growing {
                let pid = leak.processes.first().map(|process| process.pid);
                self.with(
                    "It grows, and is not called a leak yet: that takes longer, or growth that weighs more. Look \
                     again in some minutes, and see which code grows meanwhile.",
                    pid.map(|pid| {
                        format!("sudo memtrace record --pid {pid} -d 60s --view growth -o growth.svg")
                    }),
                );
            }
            if let Some(near) = leak.near_limit.filter(|near| near.near) {
                let wanted = near.unreclaimable_bytes as f64 / (1.0 - ROOM);
                let no_leak = match leak.state {
                    State::Unknown => ", and whether it leaks is not known yet",
                    _ => " and no leak",
                };
                self.say(format!(
                    "It is near its limit{no_leak}: {} of {} ({:.0} %) cannot be reclaimed. A limit \
                     of {} would leave {:.0} % free.",
                    size::bytes(near.unreclaimable_bytes),
                    size::bytes(near.limit_bytes),
                    near.ratio * 100.0,
                    size::bytes(wanted as u64),
                    ROOM * 100.0
                ));
            }
        }
        let Some(details) = facts
            .details
            .as_ref()
            .filter(|_| facts.incidents.is_empty())
        else {
            return;
        };
        if let (Some(usage), Some(file), Some(limit)) = (
            details.row.usage_bytes.filter(|usage| *usage > 0),
            details.file_bytes,
            details.row.effective_limit_bytes,
        ) && file as f64 >= MOSTLY_FILE * usage as f64
            && usage as f64 >= (1.0 - ROOM) * limit as f64
        {
            self.say(format!(
                "Usage is near the limit, but {} of {} is page cache, which the kernel takes back.",
                size::bytes(file),
                size::bytes(usage)
            ));
        }
    }

    fn kubernetes(&mut self, facts: &Facts) {
        let Some(names) = facts.names() else {
            return;
        };
        let safe = |name: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
            (name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(plain))
                .then(|| name.to_owned())
        };
        let namespace = names.namespace.as_deref().and_then(safe);
        let pod = names.pod.as_deref().and_then(safe);
        let Some((namespace, pod)) = namespace.zip(pod) else {
            return;
        };
        let limits = format!(
            "kubectl -n {namespace} get pod {pod} -o jsonpath='{{.spec.containers[*].resources}}'"
        );
        let kill = facts
            .incident()
            .is_some_and(|one| one.kind.is_kernel_kill());
        let leak = facts.leak().is_some_and(|leak| leak.state.is_leak());
        match names.pod_qos_class.as_deref() {
            Some(class) if kill && !class.eq_ignore_ascii_case("guaranteed") => self.with(
                format!(
                    "Its QoS class is {}: a request below the limit lets the scheduler put it on a node \
                     that lacks the rest, and makes it a victim earlier. Compare request and limit with \
                     the graph.",
                    shown(class)
                ),
                Some(limits),
            ),
            _ if kill || leak => self.with("Compare request and limit with the graph.", Some(limits)),
            _ => {}
        }
    }
}

/// As the meaning of the incident has it. Only cgroup v2 has `memory.high`.
fn stall(incident: &Incident) -> &'static str {
    match &incident.stall {
        Some(stall) if stall.ended_by_kill => {
            "It was pinned in reclaim until the kernel killed, which is an incident of its own: raise the \
             limit, or make it need less."
        }
        Some(stall) if stall.oom_disabled => {
            "Its OOM killer is switched off (memory.oom_control): raise the limit, end a process, or \
             switch it on."
        }
        Some(stall) if stall.at_high => {
            "It was pinned at memory.high in reclaim, which is slow and not killed: raise or remove \
             memory.high, or make it need less."
        }
        _ => {
            "It was pinned at its limit in reclaim, which is slow and not killed: raise the limit, or make \
             it need less."
        }
    }
}

/// Which code holds the memory of a process that lives.
fn record(pid: u32) -> String {
    format!("sudo memtrace record --pid {pid} -d 60s --view growth -o growth.svg")
}

#[cfg(test)]
#[path = "advice_tests.rs"]
mod tests;
