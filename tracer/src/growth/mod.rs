//! The growth analysis of the cgroups that live: which are judged, by what samples, and which change
//! of a verdict is told.
//!
//! Takes the model, gives verdicts and changes. Must not read, write or format; the judging itself is
//! [`crate::analysis`].
//!
//! - `judged`: the analysis of one cgroup, and what was told of it.
//! - `sample`: what of a cgroup is judged, against which limit.
//! - `lineage`: a cgroup that comes again under its name goes on with the analysis of the former.
//! - `share`: which processes account for the growth.
//! - `record`: what outputs get at a change; `current`: the same while nothing changes.

mod current;
mod judged;
mod lineage;
mod record;
mod sample;
mod share;
mod snapshot;
mod telling;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    ffi::OsString,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    analysis::{Analyzer, Change, Saved, State, Thresholds},
    model::{cgroup::Cgroup, cgroups::Cgroups, processes::Processes, snapshot::HostReading},
};

use judged::{Judged, Told};
use lineage::{Ancestor, Lineage};

pub use record::{GrowthChange, GrowthEvent, GrowthShare};
use sample::Limited;
use snapshot::{share_limits, snapshot};

/// Usage from which a cgroup is worth an analysis; once begun, it goes on below.
const LEAST_BYTES: u64 = 1 << 20;

/// Minutes of analysis without a leak after which it is told that there is none any more; at once if
/// the memory came back.
const CALM_MINUTES: f64 = 60.0;
/// Long enough for every part of an analysis to be in use.
const LAYOUT_MINUTES: i64 = 120;
const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);

/// The analyses of all cgroups.
#[derive(Debug)]
pub struct Growth {
    thresholds: Arc<Thresholds>,
    /// Time without a leak after which one that was told is cleared, milliseconds.
    calm_ms: i64,
    judged: HashMap<u64, Judged>,
    lineage: Lineage,
}

/// What is kept of an analysis across restarts of the agent.
#[derive(Debug, Serialize)]
pub struct Kept<'a> {
    /// Bytes: a name need not be text.
    #[serde(serialize_with = "as_bytes")]
    pub path: &'a Path,
    /// `None`: the cgroup is gone, another of its name may come.
    pub cgroup_id: Option<u64>,
    container: Option<String>,
    told: Told,
    /// How long the cgroup lived so far, or until it was gone.
    life_ms: i64,
    saved: &'a Saved,
}

/// The same, read back.
#[derive(Debug, Deserialize)]
pub struct Restored {
    #[serde(deserialize_with = "from_bytes")]
    pub path: PathBuf,
    pub cgroup_id: Option<u64>,
    container: Option<String>,
    told: Told,
    life_ms: i64,
    saved: Saved,
}

fn as_bytes<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    path.as_os_str().as_bytes().serialize(to)
}

fn from_bytes<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    Vec::deserialize(from).map(|bytes| PathBuf::from(OsString::from_vec(bytes)))
}

/// The moment of an interval, on two clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Milliseconds of the clock that samples are on.
    pub sample_ms: i64,
    /// What to add for Unix milliseconds.
    pub to_unix_ms: i64,
}

impl Growth {
    pub fn new(thresholds: Arc<Thresholds>) -> Self {
        Self {
            calm_ms: (CALM_MINUTES * thresholds.minute_ms()) as i64,
            thresholds,
            judged: HashMap::new(),
            lineage: Lineage::default(),
        }
    }

    /// Judges by these from now on, at the same time scale.
    pub fn set_thresholds(&mut self, thresholds: Thresholds) {
        let thresholds = Arc::new(Thresholds {
            time_scale: self.thresholds.time_scale,
            ..thresholds
        });
        let living = self.judged.values_mut().map(|judged| &mut judged.analyzer);
        for analyzer in living.chain(self.lineage.analyzers_mut()) {
            analyzer.set_thresholds(Arc::clone(&thresholds));
        }
        self.thresholds = thresholds;
    }

    /// Tells the layout of what is kept, and the analysis that filled it, from any other.
    pub fn layout() -> u32 {
        let mut analyzer = Analyzer::new(Arc::default());
        for minute in 0..LAYOUT_MINUTES {
            analyzer.push(&sample::of_layout(minute));
        }
        let kept = Kept {
            path: Path::new("/"),
            cgroup_id: Some(1),
            container: None,
            told: Told::default(),
            life_ms: 1,
            saved: analyzer.saved(),
        };
        // What cannot be encoded is never read back.
        postcard::to_stdvec(&kept).map_or(0, |bytes| CRC.checksum(&bytes))
    }

    /// Takes in what an earlier agent kept. `same_boot`: ids of cgroups are those of this boot.
    pub fn restore(&mut self, restored: Restored, same_boot: bool, now: Moment) {
        let analyzer = Analyzer::restore(Arc::clone(&self.thresholds), restored.saved);
        // What lived when the host went down may come again, however long that was.
        let gone_ms = match restored.cgroup_id {
            Some(_) if !same_boot => now.sample_ms,
            _ => analyzer.last_ms().min(now.sample_ms),
        };
        self.lineage.retire(
            restored.path,
            Ancestor {
                analyzer,
                told: restored.told,
                life_ms: restored.life_ms,
                cgroup_id: restored.cgroup_id.filter(|_| same_boot),
                container: restored.container,
            },
            gone_ms,
        );
    }

    /// What to keep, of those whose path `wanted` takes.
    pub fn kept(
        &self,
        now: Moment,
        wanted: impl Fn(&Path) -> bool,
    ) -> impl Iterator<Item = Kept<'_>> {
        let living = self.judged.iter().map(move |(id, judged)| Kept {
            path: &judged.path,
            cgroup_id: Some(*id),
            container: judged.container.clone(),
            told: judged.told,
            life_ms: judged.life_ms(now),
            saved: judged.analyzer.saved(),
        });
        let gone = self.lineage.iter().map(|(path, gone)| Kept {
            path,
            cgroup_id: gone.cgroup_id,
            container: gone.container.clone(),
            told: gone.told,
            life_ms: gone.life_ms,
            saved: gone.analyzer.saved(),
        });
        living.chain(gone).filter(move |kept| wanted(kept.path))
    }

    /// Cgroups that are judged.
    pub fn judged(&self) -> usize {
        self.judged.len()
    }

    /// Bytes that the analyses hold.
    pub fn state_bytes(&self) -> usize {
        let living = self.judged.values().map(|judged| &judged.analyzer);
        let gone = self.lineage.iter().map(|(_, gone)| &gone.analyzer);
        living.chain(gone).map(Analyzer::state_bytes).sum()
    }

    /// Judges all cgroups by the readings of an interval; gives what changed.
    pub fn interval(
        &mut self,
        cgroups: &mut Cgroups,
        processes: &Processes,
        host: &HostReading,
        now: Moment,
    ) -> Vec<GrowthChange> {
        self.retire_gone(cgroups, now);
        let mut pushed: Vec<(u64, Option<Change>)> = Vec::new();
        let mut verdicts = Vec::new();
        for cgroup in cgroups.live() {
            let limited = sample::limited(cgroup, cgroups);
            if !self.is_judged(cgroup, &limited, processes) {
                continue;
            }
            let judged = self.judged.entry(cgroup.id).or_insert_with(|| {
                let former = self.lineage.take(&cgroup.path);
                Judged::begin(former, &self.thresholds, cgroup, now)
            });
            if judged.container.is_none()
                && let Some(container) = cgroup.names.lineage()
            {
                // Its name came late: what it did before that is little against an earlier life.
                if let Some(former) = self.lineage.take_container(&container) {
                    *judged = Judged::begin(Some(former), &self.thresholds, cgroup, now);
                }
                judged.container = Some(container);
            }
            let sample = sample::of(cgroup, &limited, now.sample_ms);
            let change = judged.push(&sample, now);
            let verdict = judged.analyzer.verdict();
            verdicts.push((cgroup.id, snapshot(verdict, &limited, host, now)));
            if change.is_some() || judged.is_to_tell(&limited, self.calm_ms, now) {
                pushed.push((cgroup.id, change));
            }
        }
        for (id, leak) in verdicts {
            cgroups.judged(id, Some(leak));
        }
        share_limits(cgroups);
        self.lineage.trim(now.sample_ms);
        pushed
            .into_iter()
            .flat_map(|(id, change)| self.tell(id, change, cgroups, processes, now))
            .collect()
    }

    /// A cgroup without children, one with a limit of its own, or (v1) with processes of its own: others
    /// only sum up what is below. What was judged once is judged as long as it lives.
    fn is_judged(&self, cgroup: &Cgroup, limited: &Limited, processes: &Processes) -> bool {
        if self.judged.contains_key(&cgroup.id) {
            return true;
        }
        let is_root = cgroup.path.parent().is_none();
        if cgroup.has_children
            && !limited.is_own()
            && (is_root || !processes.are_active_in(cgroup.id))
        {
            return false;
        }
        self.lineage.knows(&cgroup.path)
            || cgroup
                .memory
                .usage_bytes
                .is_some_and(|bytes| bytes >= LEAST_BYTES)
    }

    fn retire_gone(&mut self, cgroups: &Cgroups, now: Moment) {
        let gone: Vec<u64> = self
            .judged
            .keys()
            .filter(|id| cgroups.get(**id).is_none_or(Cgroup::is_removed))
            .copied()
            .collect();
        for id in gone {
            if let Some(judged) = self.judged.remove(&id)
                && judged.analyzer.verdict().state != State::Unknown
            {
                let life_ms = judged.life_ms(now);
                let ancestor = Ancestor {
                    analyzer: judged.analyzer,
                    told: judged.told,
                    life_ms,
                    cgroup_id: None,
                    container: judged.container,
                };
                self.lineage.retire(judged.path, ancestor, now.sample_ms);
            }
        }
    }
}
