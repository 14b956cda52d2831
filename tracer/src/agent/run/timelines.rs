//! The history of each cgroup: fed at each interval and by what happens, kept across restarts.

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use crate::{
    agent::clock::SampleClock,
    api::records::{MarkKind, Timeline},
    export::console::{duration, leak, limit},
    growth::{GrowthChange, GrowthEvent},
    identity::names::Names,
    incident::{Incident, Kind, meaning},
    model::{cgroups::Cgroups, snapshot::LimitChange},
    store::{
        shards::{SHARDS, Turns},
        timelines::{self as timeline_store, Boot, TimelineStore, shard_of},
    },
    timeline::{KeptMark, Timelines},
};

use super::Agent;

/// Every history is written this often; a crash costs so much of it.
const KEPT_EVERY: Duration = Duration::from_secs(600);
/// Time that the last writing has when memtrace ends.
const LAST_WRITING: Duration = Duration::from_secs(2);

/// The histories, their clock, and where they are kept.
pub struct Chronicle {
    timelines: Timelines,
    clock: SampleClock,
    store: Option<TimelineStore>,
    turns: Turns,
    /// The store could not be opened.
    unusable: u64,
}

impl Chronicle {
    /// Takes in what earlier agents kept. Nothing here is fatal: without it histories start over.
    pub fn new(
        interval: Duration,
        started: SystemTime,
        most_cgroups: usize,
        state_dir: Option<&Path>,
    ) -> Self {
        let interval_ms = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX);
        let mut chronicle = Self {
            timelines: Timelines::new(interval_ms, started, most_cgroups),
            clock: SampleClock::begin(),
            store: None,
            turns: Turns::new(Instant::now(), KEPT_EVERY),
            unusable: 0,
        };
        if let Some(directory) = state_dir {
            let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
            let boot_id = boot_id.unwrap_or_default().trim().to_owned();
            chronicle.open(directory, boot_id);
        }
        let now = chronicle.clock.now();
        chronicle.timelines.began(now);
        chronicle
    }

    fn open(&mut self, directory: &Path, boot_id: String) {
        let damaged = timeline_store::read(directory, |boot, shared, kept| {
            let same_boot = boot.boot_id == boot_id;
            if same_boot {
                self.clock = SampleClock::of_boot(boot.offset_ms);
            }
            let now = self.clock.now();
            self.timelines.restore(shared, kept, same_boot, now);
        });
        let boot = Boot {
            boot_id,
            offset_ms: self.clock.offset_ms(),
        };
        match TimelineStore::open(directory, boot, damaged) {
            Ok(store) => self.store = Some(store),
            Err(error) => {
                self.unusable = 1;
                log::warn!(
                    "the history of cgroups is not kept across restarts: {error}\n  {}",
                    error.remedy()
                );
            }
        }
    }

    /// For `/status`.
    pub fn status(&self) -> serde_json::Value {
        serde_json::json!(self.timelines.sizes())
    }

    /// What was lost, by cause.
    pub fn losses(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let unusable = [("timeline_store_unusable", self.unusable)];
        let unusable = unusable.into_iter().filter(|(_, count)| *count > 0);
        self.store
            .iter()
            .flat_map(TimelineStore::losses)
            .chain(unusable)
    }

    /// Takes in an interval, and writes the shards whose turn it is. Never waits.
    pub fn interval(&mut self, cgroups: &Cgroups) {
        let now = self.clock.now();
        self.timelines.interval(cgroups, now);
        let Some(store) = &self.store else {
            return;
        };
        // A long interval writes several, a short one none.
        while let Some(shard) = self.turns.due(Instant::now()) {
            let kept = self.timelines.kept(|cgroup| shard_of(cgroup) == shard);
            store.write(shard, &self.timelines.shared(now), kept);
        }
    }

    /// Marks the end and writes everything, for a bounded time.
    pub fn stop(&mut self) {
        let now = self.clock.now();
        self.timelines.stopped(now);
        if let Some(store) = self.store.take() {
            let deadline = Instant::now() + LAST_WRITING;
            for shard in 0..SHARDS {
                let kept = self.timelines.kept(|cgroup| shard_of(cgroup) == shard);
                store.write_until(deadline, shard, &self.timelines.shared(now), kept);
            }
            store.close(deadline);
        }
    }

    fn mark(&mut self, cgroups: &Cgroups, id: u64, mark: KeptMark) -> bool {
        self.timelines.mark(id, cgroups.get(id), mark)
    }

    /// A limit that changed.
    pub fn limit_changed(&mut self, cgroups: &Cgroups, change: &LimitChange) {
        let now_ms = self.clock.now().sample_ms;
        let mark = KeptMark::new(now_ms, MarkKind::LimitChanged, &limit::line(change));
        self.mark(cgroups, change.cgroup_id, mark);
    }

    /// A change of a verdict, with when the growth began.
    pub fn growth(&mut self, cgroups: &Cgroups, change: &GrowthChange) {
        let now = self.clock.now();
        let id = change.cgroup_id;
        match change.event {
            Some(GrowthEvent::Suspected | GrowthEvent::Confirmed) => {
                if let Some(since) = change.since {
                    let since_ms = since.as_millisecond().saturating_sub(now.to_unix_ms);
                    let text = began(change);
                    let mark =
                        KeptMark::new(since_ms.min(now.sample_ms), MarkKind::GrowthBegan, &text);
                    self.timelines.growth_began(id, cgroups.get(id), mark);
                }
            }
            Some(GrowthEvent::Cleared) => self.timelines.growth_ended(id),
            Some(GrowthEvent::LimitNear) | None => {}
        }
        if let Some(line) = leak::line(change) {
            let mark = KeptMark::new(now.sample_ms, MarkKind::Verdict, &line);
            self.mark(cgroups, id, mark);
        }
    }

    /// An incident, in each cgroup that has to do with it.
    pub fn incident(&mut self, cgroups: &Cgroups, incident: &Incident) {
        let kind = match incident.kind {
            Kind::Stall => MarkKind::Stall,
            _ => MarkKind::Oom,
        };
        let boot_ms = i64::try_from(incident.boot_time_ns / 1_000_000).unwrap_or(i64::MAX);
        let time_ms = self.clock.at_boot_ms(boot_ms);
        let mark = KeptMark::new(time_ms, kind, &incident.meaning.summary);
        self.mark_involved(cgroups, incident, mark);
    }

    /// What Kubernetes says of an incident.
    pub fn report(&mut self, cgroups: &Cgroups, incident: &Incident) {
        if let Some(report) = &incident.kubernetes {
            let now_ms = self.clock.now().sample_ms;
            let mark = KeptMark::new(now_ms, MarkKind::Report, &meaning::reported(report));
            self.mark_involved(cgroups, incident, mark);
        }
    }

    fn mark_involved(&mut self, cgroups: &Cgroups, incident: &Incident, mark: KeptMark) {
        let mark = mark.of_incident(&incident.id);
        for id in involved(incident) {
            self.mark(cgroups, id, mark.clone());
        }
    }
}

/// The cgroup whose limit it was, and those of the victims.
fn involved(incident: &Incident) -> BTreeSet<u64> {
    let charged = incident.charged.iter().map(|charged| charged.cgroup_id);
    let victims = incident
        .victims
        .iter()
        .filter_map(|victim| victim.cgroup_id);
    charged.chain(victims).collect()
}

/// `anon began to grow, give or take 12m`.
fn began(change: &GrowthChange) -> String {
    let what = change.signal.map_or("memory", |signal| signal.name());
    match change.since_uncertainty_s {
        Some(seconds) => {
            let uncertainty = duration::rough(seconds);
            format!("{what} began to grow, give or take {uncertainty}")
        }
        None => format!("{what} began to grow"),
    }
}

impl Agent {
    /// The history of a cgroup, of one that is gone too; `None` if it has none.
    #[expect(dead_code, reason = "asked by the server of the API")]
    pub fn timeline(&self, id: u64) -> Option<Timeline> {
        self.chronicle.timelines.record(id)
    }

    /// Histories of which `matcher` takes path (for display) and names, those that live first, at most
    /// `limit`; and how many more there are.
    #[expect(dead_code, reason = "asked by the server of the API")]
    pub fn timelines(
        &self,
        matcher: impl Fn(&str, &Names) -> bool,
        limit: usize,
    ) -> (Vec<Timeline>, u64) {
        self.chronicle.timelines.matching(matcher, limit)
    }

    /// Usage in the last `n` intervals, the oldest first, at most 60; empty of a cgroup without history.
    #[expect(dead_code, reason = "asked by the server of the API")]
    pub fn recent_usage(&self, id: u64, n: usize) -> Vec<Option<u64>> {
        self.chronicle.timelines.recent_usage(id, n)
    }

    /// Puts a mark into the history of a cgroup. `text` is escaped and cut here. `false` if the cgroup is
    /// not known.
    #[expect(dead_code, reason = "told by the actions of `[[on_event]]`")]
    pub fn mark(&mut self, cgroup_id: u64, kind: MarkKind, text: &str) -> bool {
        let now_ms = self.chronicle.clock.now().sample_ms;
        let mark = KeptMark::new(now_ms, kind, text);
        self.chronicle.mark(&self.cgroups, cgroup_id, mark)
    }
}

#[cfg(test)]
#[path = "timelines_tests.rs"]
mod tests;
