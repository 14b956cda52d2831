//! The analysis of one cgroup, and what was told of it.

use std::{path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    analysis::{Analyzer, Change, Sample, State, Thresholds},
    model::cgroup::Cgroup,
};

use super::{Moment, lineage::Ancestor, sample::Limited};

#[derive(Debug)]
pub struct Judged {
    pub path: PathBuf,
    /// Pod and container, where it is known to be one.
    pub container: Option<String>,
    pub analyzer: Analyzer,
    pub told: Told,
    /// When this life of the cgroup began, on the sample clock.
    born_ms: i64,
    /// A leak of an earlier life is not cleared before this one has lasted as long.
    held_until_ms: i64,
    /// Since when there is no leak.
    calm_since_ms: Option<i64>,
}

/// What was told of a cgroup, so that nothing is told twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Suspected or confirmed; `None` when it was cleared, or never told.
    pub leak: Option<State>,
    pub near_limit: bool,
}

impl Judged {
    /// The analysis of a cgroup that is seen for the first time, or of which `former` is known.
    pub fn begin(
        former: Option<Ancestor>,
        thresholds: &Arc<Thresholds>,
        cgroup: &Cgroup,
        now: Moment,
    ) -> Self {
        let mut begun = Self {
            path: cgroup.path.clone(),
            container: None,
            analyzer: Analyzer::new(Arc::clone(thresholds)),
            told: Told::default(),
            born_ms: now.sample_ms,
            held_until_ms: i64::MIN,
            calm_since_ms: None,
        };
        if let Some(former) = former {
            begun.analyzer = former.analyzer;
            begun.told = former.told;
            // The very same cgroup, seen before by an earlier agent, has no new life.
            if former.cgroup_id == Some(cgroup.id) {
                begun.born_ms = now.sample_ms.saturating_sub(former.life_ms);
            } else {
                begun.analyzer.restarted();
                begun.held_until_ms = now.sample_ms.saturating_add(former.life_ms);
            }
        }
        begun
    }

    /// Takes a reading in.
    pub fn push(&mut self, sample: &Sample, now: Moment) -> Option<Change> {
        let change = self.analyzer.push(sample);
        if self.analyzer.verdict().state.is_leak() {
            self.calm_since_ms = None;
        } else {
            self.calm_since_ms.get_or_insert(now.sample_ms);
        }
        change
    }

    /// How long it lives, or the life before it lasted if that was longer and is still waited for.
    pub fn life_ms(&self, now: Moment) -> i64 {
        let end = now.sample_ms.max(self.held_until_ms);
        end.saturating_sub(self.born_ms)
    }

    /// Whether a leak that was told is no more: its memory came back, or nothing leaked for `calm_ms`;
    /// that of an earlier life only when this one has lasted as long.
    pub fn is_over(&self, calm_ms: i64, now: Moment) -> bool {
        let calm = self
            .calm_since_ms
            .is_some_and(|since| now.sample_ms.saturating_sub(since) >= calm_ms);
        let reclaimed = self.analyzer.verdict().state == State::Reclaimed;
        now.sample_ms >= self.held_until_ms && (calm || reclaimed)
    }

    /// Whether something is to be told although the verdict did not just change.
    pub fn is_to_tell(&self, limited: &Limited, calm_ms: i64, now: Moment) -> bool {
        let verdict = self.analyzer.verdict();
        let near = limited.is_own() && verdict.near_limit.is_some_and(|near| near.near);
        let leak = verdict.state.is_leak().then_some(verdict.state);
        let cleared = leak.is_none() && self.told.leak.is_some() && self.is_over(calm_ms, now);
        leak > self.told.leak || cleared || near != self.told.near_limit
    }
}
