//! The history of one cgroup: its rings, the limits it had and what happened to it.

use std::sync::Arc;

use crate::{
    api::records::{MarkKind, Point, Series, Timeline},
    export::console::duration,
    growth::Moment,
    identity::names::Names,
    model::cgroup::Cgroup,
};

use super::{
    limits::Limits,
    marks::{KeptMark, Marks},
    ring::{Cell, Ring},
    ticks::Ticks,
    unix,
};

/// Steps of the ring that has one an interval.
pub const FINE_STEPS: u16 = 60;
/// Length of a step and number of steps of the others: 2 h, 1 d, 7 d.
pub const COARSE: [(i64, u16); 3] = [(60_000, 120), (600_000, 144), (7_200_000, 84)];
/// Ids that a history had before, for what is told late.
const MOST_FORMER_IDS: usize = 4;

#[derive(Debug)]
pub struct History {
    pub cgroup_id: u64,
    /// The id is of this boot.
    pub id_is_known: bool,
    /// `growth_began` was told of the leak that goes on.
    pub growth_told: bool,
    /// Path for display.
    pub cgroup: Arc<str>,
    pub names: Arc<Names>,
    /// Namespace, pod and container, where it is known to be one.
    pub container: Option<Arc<str>>,
    /// Times are on the sample clock.
    pub first_seen_ms: i64,
    pub gone_ms: Option<i64>,
    /// By interval: the step is its number.
    pub fine: Ring,
    pub coarse: [Ring; 3],
    pub limits: Limits,
    pub marks: Marks,
    pub(super) former_ids: Vec<u64>,
}

impl History {
    pub fn new(cgroup: &Cgroup, first_seen_ms: i64) -> Self {
        Self {
            cgroup_id: cgroup.id,
            id_is_known: true,
            growth_told: false,
            cgroup: Arc::clone(&cgroup.display),
            names: Arc::clone(&cgroup.names),
            container: None,
            first_seen_ms,
            gone_ms: None,
            fine: Ring::new(FINE_STEPS),
            coarse: COARSE.map(|(_, steps)| Ring::new(steps)),
            limits: Limits::default(),
            marks: Marks::default(),
            former_ids: Vec::new(),
        }
    }

    /// Takes in the reading of an interval.
    pub fn read(&mut self, cgroup: &Cgroup, tick: i64, now_ms: i64) {
        // The names that an earlier agent knew stay until this one knows more than the path.
        let knows_more = cgroup.names.container.is_some() || self.names.container.is_none();
        if knows_more && !Arc::ptr_eq(&self.names, &cgroup.names) {
            self.names = Arc::clone(&cgroup.names);
        }
        let limit = cgroup.effective_limit.as_ref().map(|limit| limit.bytes);
        self.limits.read(limit, now_ms);
        let Some(usage_bytes) = cgroup.memory.usage_bytes else {
            return;
        };
        let cell = Cell::new(usage_bytes, cgroup.memory.anon_bytes);
        self.fine.put(tick, cell);
        for (ring, (step_ms, _)) in self.coarse.iter_mut().zip(COARSE) {
            ring.put(now_ms.div_euclid(step_ms), cell);
        }
    }

    pub fn mark(&mut self, time_ms: i64, kind: MarkKind, text: &str) {
        self.marks.put(KeptMark::new(time_ms, kind, text));
    }

    /// Another cgroup goes on with it, as `what` again, born at `since_ms`.
    pub fn goes_on_as(&mut self, cgroup: &Cgroup, what: &str, since_ms: i64) {
        if !self.id_is_known {
            self.former_ids.clear();
        } else if self.former_ids.len() >= MOST_FORMER_IDS {
            self.former_ids.remove(0);
        }
        if self.id_is_known {
            self.former_ids.push(self.cgroup_id);
        }
        self.id_is_known = true;
        self.cgroup_id = cgroup.id;
        self.cgroup = Arc::clone(&cgroup.display);
        let (time_ms, text) = match self.gone_ms.take() {
            Some(gone_ms) => {
                let time_ms = since_ms.max(gone_ms);
                let seconds = time_ms.saturating_sub(gone_ms) as f64 / 1000.0;
                let after = duration::rough(seconds);
                (
                    time_ms,
                    format!("{what} again, {after} after the former was gone"),
                )
            }
            None => (since_ms, format!("{what} again")),
        };
        self.mark(time_ms, MarkKind::Restarted, &text);
    }

    /// Takes in what was recorded under the id that now goes on with it.
    pub fn join(&mut self, young: History) {
        for (step, cell) in young.fine.readings() {
            self.fine.put(step, cell);
        }
        for (ring, young) in self.coarse.iter_mut().zip(&young.coarse) {
            for (step, cell) in young.readings() {
                ring.put(step, cell);
            }
        }
        self.limits.join(&young.limits);
        self.marks.join(young.marks);
        self.names = young.names;
        self.first_seen_ms = self.first_seen_ms.min(young.first_seen_ms);
        self.growth_told |= young.growth_told;
    }

    /// It is gone: what is left is kept as small as it is.
    pub fn ends(&mut self, gone_ms: i64, text: &str) {
        self.gone_ms = Some(gone_ms);
        self.mark(gone_ms, MarkKind::Gone, text);
        self.marks.shrink_to_fit();
    }

    pub fn had_id(&self, id: u64) -> bool {
        (self.id_is_known && self.cgroup_id == id) || self.former_ids.contains(&id)
    }

    /// The last reading of anything, on the sample clock, to a minute.
    pub fn newest_ms(&self) -> i64 {
        let minutes = self.coarse.iter().zip(COARSE);
        minutes
            .filter_map(|(ring, (step_ms, _))| Some(ring.newest()?.saturating_mul(step_ms)))
            .fold(self.first_seen_ms, i64::max)
    }

    /// The history as it is told, with `agents`: the marks of memtrace itself.
    pub fn record(&self, ticks: &Ticks, interval_ms: i64, agents: &Marks, now: Moment) -> Timeline {
        let (now_ms, to_unix_ms) = (now.sample_ms, now.to_unix_ms);
        let end_ms = self.gone_ms.unwrap_or(now_ms);
        let point = |time_ms: i64, cell: Cell| {
            let time_ms = time_ms.min(end_ms.max(self.first_seen_ms));
            Some(Point {
                time: unix(time_ms, to_unix_ms),
                usage_bytes: cell.usage_bytes()?,
                anon_bytes: cell.anon_bytes(),
                effective_limit_bytes: self.limits.at(time_ms),
            })
        };
        let series = |step_ms: i64, points| Series {
            step_seconds: step_ms as f64 / 1000.0,
            points,
        };
        let fine = self.fine.readings();
        let fine = fine.filter_map(|(tick, cell)| point(ticks.time_ms(tick)?, cell));
        let mut all = vec![series(interval_ms, fine.collect())];
        for (ring, (step_ms, _)) in self.coarse.iter().zip(COARSE) {
            let end = |step: i64| step.saturating_add(1).saturating_mul(step_ms);
            let points = ring
                .readings()
                .filter_map(|(step, cell)| point(end(step), cell));
            all.push(series(step_ms, points.collect()));
        }
        let lived = self.first_seen_ms..=end_ms;
        let agents = agents.iter().filter(|mark| lived.contains(&mark.time_ms));
        let mut marks: Vec<&KeptMark> = self.marks.iter().chain(agents).collect();
        // Of the same moment: a restart of memtrace explains what follows it.
        marks.sort_by_key(|mark| {
            let rank = match mark.kind {
                MarkKind::Started => 0,
                MarkKind::AgentStarted | MarkKind::AgentStopped => 1,
                _ => 2,
            };
            (mark.time_ms, rank)
        });
        Timeline {
            cgroup_id: self.cgroup_id,
            cgroup: self.cgroup.to_string(),
            names: (!self.names.is_empty()).then(|| Names::clone(&self.names)),
            first_seen: unix(self.first_seen_ms, to_unix_ms),
            gone: self.gone_ms.map(|gone_ms| unix(gone_ms, to_unix_ms)),
            series: all,
            marks: marks.iter().map(|mark| mark.told(to_unix_ms)).collect(),
            marks_left_out: self.marks.forgotten,
        }
    }

    /// Bytes that it holds, itself and on the heap; what others hold too is theirs.
    pub fn held_bytes(&self) -> usize {
        let rings = self.coarse.iter().map(Ring::held_bytes).sum::<usize>();
        let text = |text: &Arc<str>| match Arc::strong_count(text) {
            1 => text.len() + 2 * size_of::<usize>(),
            _ => 0,
        };
        let names = match Arc::strong_count(&self.names) {
            1 => self.names.held_bytes(),
            _ => 0,
        };
        size_of::<Self>()
            + self.fine.held_bytes()
            + rings
            + self.limits.held_bytes()
            + self.marks.held_bytes()
            + self.former_ids.capacity() * size_of::<u64>()
            + text(&self.cgroup)
            + self.container.as_ref().map_or(0, text)
            + names
    }
}
