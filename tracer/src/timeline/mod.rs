//! The history of each cgroup: readings at four resolutions, limits, and what happened.
//!
//! Takes the model and marks, gives timelines. Pure: must not read, write or know what time it is.
//! Times are kept on the sample clock, which never steps; wall times are derived when they are told.
//!
//! - `ring`: readings at one resolution, with gaps.
//! - `limits`, `marks`: the limits that a cgroup had, and what happened to it.
//! - `history`: all of one cgroup, and how it is told.
//! - `gone`: histories of cgroups that are gone, and who goes on with one.
//! - `ticks`: when the last intervals ended.
//! - `told`: timelines, sparklines, sizes.
//! - `kept`, `restart`: what is kept across restarts, and how it is read back.

mod gone;
mod history;
mod kept;
mod limits;
mod marks;
mod restart;
#[cfg(test)]
mod restart_tests;
mod ring;
#[cfg(test)]
mod size_tests;
#[cfg(test)]
mod tests;
mod ticks;
mod told;

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use jiff::Timestamp;

use crate::{
    api::records::MarkKind,
    growth::Moment,
    identity::names::Names,
    model::{cgroup::Cgroup, cgroups::Cgroups},
};

use gone::Gone;
use history::History;
use marks::Marks;
use restart::Before;
use ticks::Ticks;

pub use kept::{Kept, Shared};
pub use marks::KeptMark;
pub use told::Sizes;

/// Usage from which a cgroup has a history; once begun, it goes on below.
const LEAST_BYTES: u64 = 1 << 20;
/// What all histories may hold together: beyond, marks are forgotten.
const MOST_BYTES: usize = 20_000_000;
/// But marks may always hold this much.
const MOST_MARK_BYTES: usize = 1 << 20;

fn unix(sample_ms: i64, to_unix_ms: i64) -> Timestamp {
    Timestamp::from_millisecond(sample_ms.saturating_add(to_unix_ms)).unwrap_or_default()
}

/// Where a history is.
enum Place {
    Living(u64),
    Gone(Arc<str>, u64),
}

/// The histories of all cgroups.
#[derive(Debug)]
pub struct Timelines {
    interval_ms: i64,
    /// Of the agent: a cgroup that was there before counts since this very moment.
    started: SystemTime,
    /// Histories that are taken in of an earlier agent.
    most: usize,
    now: Moment,
    ticks: Ticks,
    living: HashMap<u64, Box<History>>,
    gone: Gone,
    agents: Marks,
    before: Option<Before>,
    /// No interval yet: what an earlier agent recorded may still live.
    is_first: bool,
    marks_without_cgroup: u64,
}

impl Timelines {
    /// Of an agent that began at `started` and reads every `interval_ms` at most `most_cgroups`.
    pub fn new(interval_ms: i64, started: SystemTime, most_cgroups: usize) -> Self {
        Self {
            interval_ms: interval_ms.max(1),
            started,
            most: most_cgroups.saturating_add(gone::MOST),
            now: Moment {
                sample_ms: 0,
                to_unix_ms: 0,
            },
            ticks: Ticks::default(),
            living: HashMap::new(),
            gone: Gone::default(),
            agents: Marks::default(),
            before: None,
            is_first: true,
            marks_without_cgroup: 0,
        }
    }

    fn all(&self) -> impl Iterator<Item = &History> {
        let living = self.living.values().map(|history| &**history);
        living.chain(self.gone.iter())
    }

    /// Takes in the readings of an interval.
    pub fn interval(&mut self, cgroups: &Cgroups, now: Moment) {
        self.now = now;
        let tick = self.ticks.latest().map_or(0, |latest| latest + 1);
        self.ticks.put(tick, now.sample_ms);
        self.retire_gone(cgroups, now);
        for cgroup in cgroups.live() {
            if !self.living.contains_key(&cgroup.id) {
                if !self.is_worth(cgroup) {
                    continue;
                }
                let history = self.begin(cgroup, now);
                self.living.insert(cgroup.id, history);
            }
            let Some(history) = self.living.get_mut(&cgroup.id) else {
                continue;
            };
            // In the first interval the former may be one that lives and was not come to yet.
            if !self.is_first {
                follow_container(&mut self.gone, history, cgroup);
            }
            history.read(cgroup, tick, now.sample_ms);
        }
        if std::mem::take(&mut self.is_first) {
            let unclaimed = self.gone.iter_mut();
            for history in unclaimed.filter(|history| history.gone_ms.is_none()) {
                history.ends(now.sample_ms, "not seen since memtrace started again");
            }
        }
        self.gone.trim(now.sample_ms);
        self.trim_marks();
    }

    /// Judged, or not small, or one that is known.
    fn is_worth(&self, cgroup: &Cgroup) -> bool {
        let usage_bytes = cgroup.memory.usage_bytes;
        usage_bytes.is_some_and(|bytes| bytes >= LEAST_BYTES)
            || cgroup.leak.is_some()
            || self.gone.knows(&cgroup.display, cgroup.id)
    }

    /// The history of a cgroup that has none, or that of its former life.
    fn begin(&mut self, cgroup: &Cgroup, now: Moment) -> Box<History> {
        // Not by which is later: the wall clock may have been set back in between.
        let born_ms = (cgroup.since != self.started)
            .then(|| sample_ms(cgroup.since, now))
            .flatten();
        let since_ms = born_ms.unwrap_or(now.sample_ms).min(now.sample_ms);
        if let Some(mut former) = self.gone.take(&cgroup.display, cgroup.id) {
            let is_same = former.id_is_known && former.cgroup_id == cgroup.id;
            if !is_same || former.gone_ms.is_some() {
                former.goes_on_as(cgroup, "the same path", since_ms);
            }
            former.cgroup = Arc::clone(&cgroup.display);
            return former;
        }
        let mut history = Box::new(History::new(cgroup, since_ms));
        let text = match born_ms {
            Some(_) => "made",
            None => "first seen; it was there before memtrace looked",
        };
        history.mark(since_ms, MarkKind::Started, text);
        history
    }

    fn retire_gone(&mut self, cgroups: &Cgroups, now: Moment) {
        let is_gone = |id: u64| cgroups.get(id).is_none_or(Cgroup::is_removed);
        let gone = self.living.extract_if(|id, _| is_gone(*id));
        for (_, mut history) in gone {
            history.ends(now.sample_ms, "removed");
            self.gone.put(history);
        }
    }

    /// Where marks take more than there is room for, the cgroups that have most lose their oldest.
    fn trim_marks(&mut self) {
        let marks: usize = self.all().map(|history| history.marks.held_bytes()).sum();
        if marks <= MOST_MARK_BYTES {
            return;
        }
        let others = self.state_bytes().saturating_sub(marks);
        let room = MOST_BYTES.saturating_sub(others).max(MOST_MARK_BYTES);
        if marks <= room {
            return;
        }
        // With room to spare, so that the next mark does not begin again.
        let mut surplus = marks.saturating_sub(room / 4 * 3);
        let mut most = marks::MOST;
        while most > 0 {
            most = most * 3 / 4;
            let living = self.living.values_mut().map(|history| &mut **history);
            for history in living.chain(self.gone.iter_mut()) {
                surplus = surplus.saturating_sub(history.marks.shrink_to(most));
                if surplus == 0 {
                    return;
                }
            }
        }
    }

    /// Puts a mark into the history of a cgroup, beginning one if `cgroup` is given and has none.
    /// `false` if the cgroup is not known; that is counted.
    pub fn mark(&mut self, id: u64, cgroup: Option<&Cgroup>, mark: KeptMark) -> bool {
        let found = self.find(id, cgroup);
        let is_known = found.is_some();
        if let Some(history) = found {
            history.marks.put(mark);
        }
        self.marks_without_cgroup += u64::from(!is_known);
        is_known
    }

    /// The growth of a leak began: a mark once for each leak.
    pub fn growth_began(&mut self, id: u64, cgroup: Option<&Cgroup>, mark: KeptMark) {
        if let Some(history) = self.find(id, cgroup)
            && !std::mem::replace(&mut history.growth_told, true)
        {
            history.marks.put(mark);
        }
    }

    /// The leak is over: the next one has a mark of its own.
    pub fn growth_ended(&mut self, id: u64) {
        if let Some(history) = self.find(id, None) {
            history.growth_told = false;
        }
    }

    fn find(&mut self, id: u64, cgroup: Option<&Cgroup>) -> Option<&mut History> {
        let place = match (self.place(id), cgroup) {
            (Some(place), _) => place,
            (None, Some(cgroup)) => {
                let mut history = self.begin(cgroup, self.now);
                if !self.is_first {
                    follow_container(&mut self.gone, &mut history, cgroup);
                }
                if cgroup.is_removed() {
                    history.ends(self.now.sample_ms, "removed");
                    let place = Place::Gone(Arc::clone(&history.cgroup), id);
                    self.gone.put(history);
                    place
                } else {
                    self.living.insert(id, history);
                    Place::Living(id)
                }
            }
            (None, None) => return None,
        };
        match place {
            Place::Living(id) => self.living.get_mut(&id).map(|history| &mut **history),
            Place::Gone(path, id) => self.gone.get_mut(&path, id),
        }
    }

    /// The history of a cgroup, or the one that goes on with it.
    fn place(&self, id: u64) -> Option<Place> {
        if self.living.contains_key(&id) {
            return Some(Place::Living(id));
        }
        let gone = self.gone.iter().find(|history| history.had_id(id));
        if let Some(history) = gone {
            let path = Arc::clone(&history.cgroup);
            return Some(Place::Gone(path, history.cgroup_id));
        }
        let goes_on = self.living.iter().find(|(_, history)| history.had_id(id));
        goes_on.map(|(id, _)| Place::Living(*id))
    }
}

/// Bytes of a hash table with room for `capacity` entries: seven of eight places may be taken, and each
/// has a byte beside it.
fn table_bytes<T>(capacity: usize) -> usize {
    match capacity {
        0 => 0,
        _ => (capacity * 8 / 7).next_power_of_two() * (size_of::<T>() + 1),
    }
}

/// Joins the history of an earlier life of the same container, once its name is known.
fn follow_container(gone: &mut Gone, history: &mut Box<History>, cgroup: &Cgroup) {
    if history.container.is_some() || cgroup.names.container.is_none() {
        return;
    }
    let Some(container) = container_of(&cgroup.names) else {
        return;
    };
    if let Some(mut former) = gone.take_container(&container) {
        former.goes_on_as(cgroup, "the same container", history.first_seen_ms);
        let young = std::mem::replace(history, former);
        history.join(*young);
    }
    history.container = Some(container);
}

/// What stays the same when a container starts again, also in another pod of the same name.
fn container_of(names: &Names) -> Option<Arc<str>> {
    let (namespace, pod) = (names.namespace.as_ref()?, names.pod.as_ref()?);
    Some(format!("{namespace}/{pod}/{}", names.container.as_ref()?).into())
}

fn sample_ms(time: SystemTime, now: Moment) -> Option<i64> {
    let unix = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let unix_ms = i64::try_from(unix.as_millis()).ok()?;
    Some(unix_ms.saturating_sub(now.to_unix_ms))
}
