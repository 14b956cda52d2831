//! Attributes of an event: names and which field fills them.
//!
//! Owns the table of names; `docs/otlp.md` documents it. What semantic conventions have is named
//! as they do, the rest as in the JSON line. What is not known is left out.

use std::path::Path;

use opentelemetry_proto::tonic::common::v1::KeyValue;

use super::stack;
use crate::export::otlp::wire;
use crate::incident::record::{
    ChargedCgroup, Incident, Killer, Kind, KnownBy, Request, Stall, Trigger, Victim,
};

/// Everything about one victim of an incident, or about an incident without victims.
pub(super) fn of(incident: &Incident, victim: Option<&Victim>) -> Vec<KeyValue> {
    let mut list = List(Vec::with_capacity(56));
    list.text("memtrace.incident.id", Some(&incident.id));
    list.flag("memtrace.incident.complete", Some(incident.complete));
    list.text("memtrace.oom.kind", Some(incident.kind.name()));
    list.text("memtrace.oom.scope", scope(incident.kind));
    list.flag("memtrace.oom.group", incident.group_kill);
    let consequence = &incident.meaning.consequence;
    let consequence = (!consequence.is_empty()).then_some(consequence.as_str());
    list.text("memtrace.oom.consequence", consequence);
    if !incident.victims.is_empty() {
        let kept = incident.victims.len() as u64;
        let victims = kept.saturating_add(incident.victims_left_out);
        list.number("memtrace.oom.victims", Some(victims));
    }
    if let Some(charged) = &incident.charged {
        list.charged(charged);
    }
    if let Some(trigger) = &incident.trigger {
        list.trigger(trigger);
    }
    list.request(&incident.request);
    if let Some(killer) = &incident.killer {
        list.killer(killer);
    }
    if let Some(stall) = &incident.stall {
        list.stall(stall);
    }
    list.number("memtrace.oom.missed", incident.kernel_counts.missed);
    if let Some(victim) = victim {
        list.process(victim);
        list.victim(victim);
    }
    if let Some(stack) = stack::of(incident, victim) {
        list.0.extend(stack::attributes(stack));
    }
    list.0
}

/// Whose limit it was, as `memtrace.oom.kills` says it too.
fn scope(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::CgroupOom => Some("cgroup"),
        Kind::CpusetOom => Some("cpuset"),
        Kind::MempolicyOom => Some("mempolicy"),
        Kind::GlobalOom => Some("global"),
        Kind::KernelOom
        | Kind::MarkedExiting
        | Kind::UserSpaceKill
        | Kind::Stall
        | Kind::MissedKills => None,
    }
}

struct List(Vec<KeyValue>);

impl List {
    fn text(&mut self, key: &str, value: Option<&str>) {
        self.0.extend(value.map(|value| wire::string(key, value)));
    }

    fn number(&mut self, key: &str, value: Option<u64>) {
        self.0.extend(value.map(|value| wire::integer(key, value)));
    }

    fn signed(&mut self, key: &str, value: Option<i64>) {
        self.0.extend(value.map(|value| wire::signed(key, value)));
    }

    fn flag(&mut self, key: &str, value: Option<bool>) {
        self.0.extend(value.map(|value| wire::boolean(key, value)));
    }

    fn charged(&mut self, charged: &ChargedCgroup) {
        self.text(
            "memtrace.oom.charged.cgroup.path",
            charged.cgroup.as_deref(),
        );
        self.number("memtrace.oom.charged.cgroup.id", Some(charged.cgroup_id));
        let known_by = match charged.known_by {
            KnownBy::OomControl => "oom_control",
            KnownBy::FullCounter => "full_counter",
            KnownBy::OomEvents => "oom_events",
            KnownBy::CgroupFiles => "cgroup_files",
        };
        self.text("memtrace.oom.charged.known_by", Some(known_by));
        for (key, value) in [
            ("memtrace.oom.charged.usage_bytes", charged.usage_bytes),
            ("memtrace.oom.charged.limit_bytes", charged.limit_bytes),
            (
                "memtrace.oom.charged.swap_usage_bytes",
                charged.swap_usage_bytes,
            ),
            (
                "memtrace.oom.charged.swap_limit_bytes",
                charged.swap_limit_bytes,
            ),
            ("memtrace.oom.charged.failcnt", charged.failcnt),
            ("memtrace.oom.charged.oom_events", charged.oom_events),
        ] {
            self.number(key, value);
        }
    }

    fn trigger(&mut self, trigger: &Trigger) {
        self.number("memtrace.oom.trigger.pid", Some(trigger.pid.into()));
        self.number("memtrace.oom.trigger.tid", Some(trigger.tid.into()));
        self.text("memtrace.oom.trigger.comm", Some(&trigger.comm));
        self.text(
            "memtrace.oom.trigger.process_comm",
            trigger.process_comm.as_deref(),
        );
        self.text(
            "memtrace.oom.trigger.cgroup.path",
            trigger.cgroup.as_deref(),
        );
        self.number("memtrace.oom.trigger.cgroup.id", trigger.cgroup_id);
    }

    fn request(&mut self, request: &Request) {
        self.signed("memtrace.oom.order", request.order.map(Into::into));
        self.text("memtrace.oom.gfp_flags", request.gfp_flags.as_deref());
        self.number("memtrace.oom.gfp_mask", request.gfp_mask.map(Into::into));
    }

    fn killer(&mut self, killer: &Killer) {
        self.number("memtrace.oom.killer.pid", Some(killer.pid.into()));
        self.text("memtrace.oom.killer.comm", Some(&killer.comm));
        self.text("memtrace.oom.killer.cgroup.path", killer.cgroup.as_deref());
        self.number("memtrace.oom.killer.signal", killer.signal.map(Into::into));
    }

    fn stall(&mut self, stall: &Stall) {
        self.number("memtrace.oom.stall.duration_ms", Some(stall.duration_ms));
        self.number("memtrace.oom.stall.stalled_ns", stall.stalled_ns);
        self.flag("memtrace.oom.stall.oom_disabled", Some(stall.oom_disabled));
        self.flag("memtrace.oom.stall.at_high", Some(stall.at_high));
        self.flag("memtrace.oom.stall.ongoing", Some(stall.ongoing));
    }

    /// Source: semconv registry, `process.*`.
    fn process(&mut self, victim: &Victim) {
        self.number("process.pid", victim.pid.map(Into::into));
        let started = victim.started.map(|started| started.to_string());
        self.text("process.creation.time", started.as_deref());
        self.text("process.command_line", victim.command_line.as_deref());
        self.text("process.executable.path", victim.executable.as_deref());
        let name = victim.executable.as_deref().map(Path::new);
        let name = name
            .and_then(Path::file_name)
            .and_then(|name| name.to_str());
        self.text("process.executable.name", name);
        // The kernel's OOM record has the real one (`task_uid`).
        self.number("process.real_user.id", victim.uid.map(Into::into));
        self.number("process.vpid", victim.namespace_pid.map(Into::into));
    }

    fn victim(&mut self, victim: &Victim) {
        self.number("memtrace.oom.victim.tid", Some(victim.tid.into()));
        self.text("memtrace.oom.victim.comm", victim.comm.as_deref());
        self.text("memtrace.oom.victim.cgroup.path", victim.cgroup.as_deref());
        self.number("memtrace.oom.victim.cgroup.id", victim.cgroup_id);
        self.text(
            "memtrace.oom.victim.leaf_cgroup.path",
            victim.leaf_cgroup.as_deref(),
        );
        self.number("memtrace.oom.victim.leaf_cgroup.id", victim.leaf_cgroup_id);
        for (key, value) in [
            ("memtrace.oom.victim.total_vm_bytes", victim.total_vm_bytes),
            ("memtrace.oom.victim.anon_bytes", victim.anon_bytes),
            ("memtrace.oom.victim.file_bytes", victim.file_bytes),
            ("memtrace.oom.victim.shmem_bytes", victim.shmem_bytes),
            ("memtrace.oom.victim.swap_bytes", victim.swap_bytes),
            (
                "memtrace.oom.victim.page_table_bytes",
                victim.page_table_bytes,
            ),
            ("memtrace.oom.victim.died_after_ns", victim.died_after_ns),
        ] {
            self.number(key, value);
        }
        self.signed(
            "memtrace.oom.victim.oom_score_adj",
            victim.oom_score_adj.map(Into::into),
        );
        self.signed("memtrace.oom.victim.badness", victim.badness);
        self.flag("memtrace.oom.victim.container_init", victim.container_init);
        self.flag("memtrace.oom.victim.killed", victim.killed);
    }
}
