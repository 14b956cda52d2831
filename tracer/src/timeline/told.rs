//! What is told of histories: timelines, sparklines, and how much is held.

use serde::Serialize;

use crate::{api::records::Timeline, identity::names::Names};

use super::{Place, Timelines, history::History, table_bytes};

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

impl Timelines {
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
            let order = |history: &History| history.gone_ms.map_or(i64::MIN, i64::saturating_neg);
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
