//! The model in short, for who asks: cheap to hand over, whatever the number of cgroups.

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::{
    agent::otlp,
    analysis::State,
    api::{
        query::LeakQuery,
        records::{AgentRecord, LeakRecord, Listed},
        rows::{RowSource, Sources},
    },
    model::{
        cgroup::{Cgroup, Serving},
        snapshot::{LeakSnapshot, Limit},
    },
};

use super::Agent;

impl Agent {
    /// Of the last interval.
    pub(super) fn interval_time(&self) -> Timestamp {
        Timestamp::try_from(self.read_at).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    pub(super) fn agent_record(&mut self) -> AgentRecord {
        let own = self.own();
        let verdicts = self.loader.verdicts.iter();
        let probes = verdicts.map(|verdict| {
            let hook = verdict.attached.as_ref().map(|(_, hook)| hook.to_string());
            (verdict.probe.to_owned(), hook)
        });
        // One cause may be counted at several places.
        let mut losses = BTreeMap::new();
        for loss in &own.losses {
            *losses.entry(loss.cause.to_owned()).or_default() += loss.count;
        }
        AgentRecord {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: self.loader.support.release.clone(),
            cgroup_mode: self.readings.mode().name().to_owned(),
            hostname: otlp::host(self.naming.node()).name,
            time: self.interval_time(),
            started: Timestamp::try_from(self.started).unwrap_or(Timestamp::UNIX_EPOCH),
            interval_seconds: self.config.interval.as_secs_f64(),
            pid: std::process::id(),
            rss_bytes: own.rss_bytes,
            cpu_ns: own.cpu_ns,
            cgroups: own.cgroups_tracked,
            leaks: self.judging.is_some(),
            stacks: self.stacks.is_some(),
            state_dir: self
                .config
                .state_dir
                .as_ref()
                .map(|dir| dir.display().to_string()),
            mem_total_bytes: self.host.mem_total_bytes,
            mem_available_bytes: self.host.mem_available_bytes,
            swap_total_bytes: self.host.swap_total_bytes,
            swap_free_bytes: self.host.swap_free_bytes,
            oom_kills: self.host.oom_kills,
            probes: probes.collect(),
            losses,
        }
    }

    /// All cgroups that are held, those lately removed too.
    pub(super) fn rows(&self, histories: bool) -> Sources {
        let cgroups = self.cgroups.live_since(Duration::ZERO);
        let cgroups = cgroups.filter(|cgroup| self.outputs.wants(cgroup));
        Sources {
            time: self.read_at,
            sources: cgroups
                .map(|cgroup| source(cgroup, self.serving, histories))
                .collect(),
        }
    }

    /// Verdicts with evidence: the most certain first, of those the soonest at its limit.
    pub(super) fn leaks(&self, query: &LeakQuery) -> Listed<LeakRecord> {
        let least = if query.all {
            State::Growing
        } else {
            State::Suspected
        };
        let mut found: Vec<(&Cgroup, LeakSnapshot)> = self
            .cgroups
            .live()
            .filter(|cgroup| self.outputs.wants(cgroup))
            .filter_map(|cgroup| Some((cgroup, cgroup.leak.filter(|leak| leak.state >= least)?)))
            .filter(|(cgroup, _)| query.all || !self.is_explained_below(cgroup.id))
            .collect();
        found.sort_by(|a, b| urgency(&a.1, &b.1).then_with(|| a.0.path.cmp(&b.0.path)));
        let left_out = found.len().saturating_sub(query.limit) as u64;
        found.truncate(query.limit);
        let items = found
            .into_iter()
            .filter_map(|(cgroup, _)| self.verdict(cgroup.id));
        Listed {
            time: self.interval_time(),
            items: items.collect(),
            left_out,
        }
    }

    fn is_explained_below(&self, id: u64) -> bool {
        let judging = self.judging.as_ref();
        judging.is_some_and(|judging| judging.is_explained_below(id, &self.cgroups))
    }

    /// The verdict on a cgroup with evidence, processes and stacks; `None` if it is not judged.
    pub(super) fn verdict(&self, id: u64) -> Option<LeakRecord> {
        let judging = self.judging.as_ref()?;
        let current = judging.current(id, &self.cgroups, &self.processes)?;
        Some(self.with_stacks(current))
    }
}

fn urgency(a: &LeakSnapshot, b: &LeakSnapshot) -> Ordering {
    let seconds = |leak: &LeakSnapshot| {
        leak.time_to_limit
            .map_or(f64::INFINITY, |time| time.seconds.mid)
    };
    let rate = |leak: &LeakSnapshot| {
        leak.rate_bytes_per_hour
            .map_or(f64::NEG_INFINITY, |rate| rate.mid)
    };
    b.state
        .cmp(&a.state)
        .then(seconds(a).total_cmp(&seconds(b)))
        .then(rate(b).total_cmp(&rate(a)))
}

/// What a row is made of. Shares what is long with the model.
pub(super) fn source(cgroup: &Cgroup, serving: Serving, history: bool) -> RowSource {
    let memory = &cgroup.memory;
    let mut rates = cgroup.rates;
    rates.reclaim_stall_ratio = rates.reclaim_stall_ratio.filter(|_| serving.reclaim);
    RowSource {
        cgroup_id: cgroup.id,
        cgroup: Arc::clone(&cgroup.display),
        has_children: cgroup.has_children,
        names: Arc::clone(&cgroup.names),
        removed: cgroup.is_removed(),
        usage_bytes: memory.usage_bytes,
        anon_bytes: memory.anon_bytes,
        working_set_bytes: memory.working_set_bytes(),
        limit_bytes: memory.limit.and_then(Limit::bytes),
        effective_limit: cgroup.effective_limit.clone(),
        rates,
        oom_kills: serving.oom_kills.then(|| cgroup.oom_kills()),
        leak: cgroup.leak,
        usage_history: history.then(|| cgroup.usage_history.clone()),
    }
}
