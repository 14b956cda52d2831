//! The history of each cgroup: readings at four resolutions, limits, and what happened.
//!
//! Takes the model and marks, gives timelines. Pure: must not read, write or know what time it is.
//! Times are kept on the sample clock, which never steps; wall times are derived when they are told.
//!
//! - `ring`: readings at one resolution, with gaps.
//! - `limits`, `marks`: the limits that a cgroup had, and what happened to it.
//! - `history`: all of one cgroup, and how it is told.
//! - `gone`: histories of cgroups that are gone, and who goes on with one.
//! - `kept`: what is kept across restarts.

mod gone;
mod history;
mod kept;
mod limits;
mod marks;
mod ring;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::SystemTime,
};

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    api::records::{MarkKind, Timeline},
    export::console::duration,
    growth::Moment,
    identity::names::Names,
    model::{cgroup::Cgroup, cgroups::Cgroups},
};

use gone::Gone;
use history::{FINE_STEPS, History};
use kept::Restoring;
use marks::Marks;

pub use kept::{Kept, Shared};
pub use marks::KeptMark;

/// Usage from which a cgroup has a history; once begun, it goes on below.
const LEAST_BYTES: u64 = 1 << 20;
/// What all histories may hold together: beyond, marks are forgotten.
const MOST_BYTES: usize = 20_000_000;
/// But marks may always hold this much.
const MOST_MARK_BYTES: usize = 1 << 20;
/// Marks of memtrace's own beginnings and ends.
const MOST_AGENT_MARKS: usize = 16;
/// Beyond is no number of an interval that ever was.
const LAST_TICK: i64 = 1 << 53;

fn unix(sample_ms: i64, to_unix_ms: i64) -> Timestamp {
    Timestamp::from_millisecond(sample_ms.saturating_add(to_unix_ms)).unwrap_or_default()
}

/// Ends of the last intervals by their number, on the sample clock. Numbers go on after a restart.
#[derive(Debug, Default)]
struct Ticks(BTreeMap<i64, i64>);

impl Ticks {
    fn put(&mut self, tick: i64, time_ms: i64) {
        self.0.insert(tick, time_ms);
        while self.0.len() > usize::from(FINE_STEPS) {
            self.0.pop_first();
        }
    }

    fn latest(&self) -> Option<i64> {
        self.0.last_key_value().map(|(tick, _)| *tick)
    }

    fn time_ms(&self, tick: i64) -> Option<i64> {
        self.0.get(&tick).copied()
    }
}

/// What was read of an earlier agent.
#[derive(Debug, Clone, Copy)]
struct Before {
    /// Since it wrote last; `None`: its clock was ahead.
    absent_ms: Option<i64>,
    same_boot: bool,
}

/// How much is held, and what was forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sizes {
    /// Histories of cgroups that live, and of those that are gone.
    pub cgroups: usize,
    pub gone: usize,
    pub state_bytes: usize,
    /// Histories for which there was no room.
    pub forgotten: u64,
    /// Marks of the histories that are held that gave way to newer ones.
    pub marks_forgotten: u64,
    /// Marks of cgroups that are not known any more.
    pub marks_without_cgroup: u64,
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
    /// Of the agent: what was made later was not there before.
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

    /// Tells the layout of what is kept from any other.
    pub fn layout() -> impl Serialize {
        kept::layout()
    }

    /// Takes in what an earlier agent kept. `same_boot`: ids of cgroups are those of this boot.
    pub fn restore(&mut self, shared: Shared, kept: Vec<Kept>, same_boot: bool, now: Moment) {
        // A clock that was set back: what it wrote ends now.
        let shift_ms = shared.written_ms.saturating_sub(now.sample_ms).max(0);
        let absent_ms = (shift_ms == 0).then(|| now.sample_ms.saturating_sub(shared.written_ms));
        if self
            .before
            .is_none_or(|before| same_boot && !before.same_boot || absent_ms < before.absent_ms)
        {
            self.before = Some(Before {
                absent_ms,
                same_boot,
            });
        }
        let agents = shared.agents.restored(shift_ms, now.sample_ms);
        let time_ms = |marks: &Marks| marks.last().map(|mark| mark.time_ms);
        if time_ms(&agents) > time_ms(&self.agents) {
            self.agents = agents;
            self.agents.shrink_to(MOST_AGENT_MARKS);
        }
        let same_interval = shared.interval_ms == self.interval_ms;
        for (tick, time_ms) in shared.ticks {
            let time_ms = time_ms.saturating_sub(shift_ms);
            if same_interval && (0..LAST_TICK).contains(&tick) && time_ms <= now.sample_ms {
                self.ticks.put(tick, time_ms);
            }
        }
        let how = Restoring {
            now,
            same_boot,
            shift_ms,
            latest_tick: self.ticks.latest().filter(|_| same_interval),
        };
        for kept in kept {
            if self.gone.len() < self.most {
                self.gone.put(Box::new(kept.restore(&how)));
            } else {
                self.gone.forgotten += 1;
            }
        }
        self.now = now;
    }

    /// This agent begins: says for how long nothing was seen, where there was one before.
    pub fn began(&mut self, now: Moment) {
        self.now = now;
        let Some(before) = self.before else {
            return;
        };
        let mut text = "memtrace started again".to_owned();
        if !before.same_boot {
            text += " after a start of the host";
        }
        if self.agents.last().map(|mark| mark.kind) != Some(MarkKind::AgentStopped) {
            text += ", without having ended in order";
        }
        if let Some(absent_ms) = before.absent_ms {
            let absent = duration::rough(absent_ms as f64 / 1000.0);
            text += &format!("; nothing was seen for {absent}");
        }
        self.mark_agent(MarkKind::AgentStarted, &text, now);
    }

    /// This agent ends in order.
    pub fn stopped(&mut self, now: Moment) {
        self.mark_agent(MarkKind::AgentStopped, "memtrace stopped", now);
    }

    fn mark_agent(&mut self, kind: MarkKind, text: &str, now: Moment) {
        self.agents.put(KeptMark::new(now.sample_ms, kind, text));
        self.agents.shrink_to(MOST_AGENT_MARKS);
    }

    /// What to keep of all together.
    pub fn shared(&self, now: Moment) -> Shared {
        Shared {
            written_ms: now.sample_ms,
            interval_ms: self.interval_ms,
            ticks: self.ticks.0.iter().map(|(k, v)| (*k, *v)).collect(),
            agents: self.agents.clone(),
        }
    }

    /// What to keep of those whose path `wanted` takes.
    pub fn kept(&self, wanted: impl Fn(&str) -> bool) -> impl Iterator<Item = Kept> {
        self.all()
            .filter(move |history| wanted(&history.cgroup))
            .map(Kept::of)
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
        let born_ms = (cgroup.since > self.started)
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
        let mut most = marks::MOST;
        let mut held = marks;
        // With room to spare, so that the next mark does not begin again.
        while held > room / 4 * 3 && most > 1 {
            most = most * 3 / 4;
            held = 0;
            let living = self.living.values_mut().map(|history| &mut **history);
            for history in living.chain(self.gone.iter_mut()) {
                history.marks.shrink_to(most);
                history.marks.shrink_to_fit();
                held += history.marks.held_bytes();
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

    /// Usage in the last `n` intervals, the oldest first, `None` where nothing was read; empty of a
    /// cgroup that has no history.
    pub fn recent_usage(&self, id: u64, n: usize) -> Vec<Option<u64>> {
        let Some(history) = self.living.get(&id) else {
            return Vec::new();
        };
        let known = self.ticks.0.len();
        let ticks = self.ticks.0.keys().skip(known.saturating_sub(n));
        let usage = |tick: &i64| history.fine.get(*tick)?.usage_bytes();
        ticks.map(usage).collect()
    }

    /// The history of a cgroup that lives, or that had this id and is gone.
    pub fn record(&self, id: u64) -> Option<Timeline> {
        let history = match self.place(id)? {
            Place::Living(id) => self.living.get(&id)?,
            Place::Gone(path, id) => self.gone.get(&path, id)?,
        };
        Some(self.told(history))
    }

    /// Histories of which `wanted` takes path and names, those that live first, at most `limit`; and how
    /// many more there are.
    pub fn matching(
        &self,
        wanted: impl Fn(&str, &Names) -> bool,
        limit: usize,
    ) -> (Vec<Timeline>, u64) {
        let mut found: Vec<&History> = self
            .all()
            .filter(|history| wanted(&history.cgroup, &history.names))
            .collect();
        found.sort_by(|a, b| {
            let order = |history: &History| history.gone_ms.map_or(i64::MIN, |ms| -ms);
            (order(a), &a.cgroup).cmp(&(order(b), &b.cgroup))
        });
        let left_out = found.len().saturating_sub(limit) as u64;
        let told = found.into_iter().take(limit);
        (told.map(|history| self.told(history)).collect(), left_out)
    }

    fn told(&self, history: &History) -> Timeline {
        history.record(&self.ticks, self.interval_ms, &self.agents, self.now)
    }

    /// Bytes that all histories hold.
    pub fn state_bytes(&self) -> usize {
        let histories: usize = self.all().map(History::held_bytes).sum();
        let tables = table_bytes::<(u64, Box<History>)>(self.living.capacity());
        size_of::<Self>() + histories + tables + self.gone.table_bytes() + self.agents.held_bytes()
    }

    pub fn sizes(&self) -> Sizes {
        Sizes {
            cgroups: self.living.len(),
            gone: self.gone.len(),
            state_bytes: self.state_bytes(),
            forgotten: self.gone.forgotten,
            marks_forgotten: self.all().map(|history| history.marks.forgotten).sum(),
            marks_without_cgroup: self.marks_without_cgroup,
        }
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
