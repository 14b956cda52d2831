//! Judging growth at each interval, and keeping what the analyses know across restarts.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    agent::{clock::SampleClock, config::RunError},
    analysis::Thresholds,
    export::otlp::Event,
    growth::{Growth, GrowthChange},
    model::{cgroups::Cgroups, processes::Processes, snapshot::HostReading},
    store::{
        growth::{self as growth_store, Boot, GrowthStore, shard_of},
        shards::{SHARDS, Turns},
    },
};

use super::Agent;

/// Every analysis is written this often; a crash costs so much of it.
const KEPT_EVERY: Duration = Duration::from_secs(600);
/// Time that the last writing has when memtrace ends.
const LAST_WRITING: Duration = Duration::from_secs(2);

/// The analyses, their clock, and where they are kept.
pub struct Judging {
    growth: Growth,
    store: Option<GrowthStore>,
    clock: SampleClock,
    minute_ms: i64,
    turns: Turns,
    /// The store could not be opened.
    unusable: u64,
}

impl Judging {
    pub fn new(thresholds: Thresholds, state_dir: Option<&Path>) -> Self {
        let mut judging = Self {
            minute_ms: thresholds.minute_ms() as i64,
            growth: Growth::new(Arc::new(thresholds)),
            store: None,
            clock: SampleClock::begin(),
            turns: Turns::new(Instant::now(), KEPT_EVERY),
            unusable: 0,
        };
        if let Some(directory) = state_dir {
            judging.open(directory);
        }
        judging
    }

    /// Takes in what earlier agents kept. Without it memtrace starts over, so nothing here is fatal.
    fn open(&mut self, directory: &Path) {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        let boot_id = boot_id.unwrap_or_default().trim().to_owned();
        let read = growth_store::read(directory);
        let mut boots = read.shards.iter().map(|(boot, _)| boot);
        if let Some(former) = boots.find(|boot| boot.boot_id == boot_id) {
            self.clock = SampleClock::of_boot(former.offset_ms);
        }
        let now = self.clock.now();
        let mut other_scale = 0;
        for (boot, analyses) in read.shards {
            if boot.minute_ms != self.minute_ms {
                other_scale += analyses.len();
                continue;
            }
            let same_boot = boot.boot_id == boot_id;
            for restored in analyses {
                self.growth.restore(restored, same_boot, now);
            }
        }
        if other_scale > 0 {
            log::warn!(
                "what was known of the growth of {other_scale} cgroups is given up: it was kept with another --time-scale"
            );
        }
        let boot = Boot {
            boot_id,
            offset_ms: self.clock.offset_ms(),
            minute_ms: self.minute_ms,
        };
        match GrowthStore::open(directory, boot, read.damaged) {
            Ok(store) => self.store = Some(store),
            Err(error) => {
                self.unusable = 1;
                log::warn!(
                    "what the growth analysis knows is not kept across restarts: {error}\n  {}",
                    error.remedy()
                );
            }
        }
    }

    /// Judges by these from now on; the scale of time stays.
    pub fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.growth.set_thresholds(thresholds);
    }

    /// The verdict on a cgroup as it is now; `None` if it is not judged.
    pub fn current(
        &self,
        id: u64,
        cgroups: &Cgroups,
        processes: &Processes,
    ) -> Option<GrowthChange> {
        self.growth
            .current(id, cgroups, processes, self.clock.now())
    }

    /// Whether its growth is told of a cgroup below.
    pub fn is_explained_below(&self, id: u64, cgroups: &Cgroups) -> bool {
        self.growth.is_explained_below(id, cgroups)
    }

    /// For `/status`.
    pub fn status(&self) -> serde_json::Value {
        serde_json::json!({
            "state_bytes": self.growth.state_bytes(),
            "judged": self.growth.judged(),
        })
    }

    /// What was lost, by cause.
    pub fn losses(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let unusable = [("growth_store_unusable", self.unusable)];
        let unusable = unusable.into_iter().filter(|(_, count)| *count > 0);
        self.store
            .iter()
            .flat_map(GrowthStore::losses)
            .chain(unusable)
    }

    /// Writes the shards whose turn it is. Never waits.
    fn keep(&mut self) {
        let now = self.clock.now();
        let Some(store) = &self.store else {
            return;
        };
        // A long interval writes several, a short one none.
        while let Some(shard) = self.turns.due(Instant::now()) {
            store.write(shard, self.growth.kept(now, |path| shard_of(path) == shard));
        }
    }

    /// Writes everything, for a bounded time.
    pub fn keep_all(&mut self) {
        let now = self.clock.now();
        if let Some(store) = self.store.take() {
            let deadline = Instant::now() + LAST_WRITING;
            for shard in 0..SHARDS {
                let kept = self.growth.kept(now, |path| shard_of(path) == shard);
                store.write_until(deadline, shard, kept);
            }
            store.close(deadline);
        }
    }
}

impl Agent {
    /// Judges what was read in this interval and tells what changed.
    pub(super) fn judge(&mut self, host: &HostReading) -> Result<(), RunError> {
        let Some(judging) = &mut self.judging else {
            return Ok(());
        };
        let now = judging.clock.now();
        let changes = judging
            .growth
            .interval(&mut self.cgroups, &self.processes, host, now);
        judging.keep();
        // An output that fails keeps no change from the backend and from commands.
        let mut result = Ok(());
        for change in changes {
            let change = self.with_stacks(change);
            self.chronicle.growth(&self.cgroups, &change);
            let told = self
                .cgroups
                .get(change.cgroup_id)
                .is_none_or(|cgroup| self.outputs.wants(cgroup));
            if !told {
                continue;
            }
            result = result.and(self.outputs.leak(&change).map_err(RunError::Output));
            self.act_on_growth(&change);
            if let Some(otlp) = self.otlp.as_ref().filter(|_| change.event.is_some()) {
                otlp.event(Event::Growth(Arc::new(change)));
            }
        }
        result
    }
}
