//! Detects cgroups that are stuck at a limit without an OOM kill.
//!
//! Pure: is given one reading of a cgroup each interval and remembers one small state for each.
//! Must not read files or the clock.
//!
//! # The rule
//!
//! An interval is *stalled* when the cgroup was pinned at its limit (or at `memory.high`) and lost
//! time to it, without an OOM kill:
//!
//! - **Pinned**: usage within [`margin`] of the limit at both ends of the interval, or the kernel
//!   counted hits of the limit within it, which is better evidence than two samples of usage.
//! - **Lost time**: PSI `some` covered half of the interval; without PSI, reclaim by its tasks
//!   took as long; or usage is far above `memory.high`, where the kernel lets tasks sleep
//!   (`mem_cgroup_handle_over_high`); or tasks wait for an OOM killer that is switched off.
//!
//! A reader of files larger than the limit is pinned all the time, but reclaim of clean pages takes
//! it little time. Stalled intervals without a gap over the threshold make a stall. It is over
//! after [`QUIET_INTERVALS`] that miss the lower bars of [`Bars::STAY`], or with a kill.

use std::{collections::HashMap, time::Duration};

use super::record::Stall;
use crate::model::snapshot::{Limit, MemoryReading};

/// Most cgroups that are followed at a time.
const MOST_CGROUPS: usize = 65_536;
/// Intervals under the lower bars after which a stall is over.
const QUIET_INTERVALS: u32 = 2;
/// Two intervals of 5 s are a little more or less than 10 s: the threshold of 10 s must not wait for a third.
const EARLY: Duration = Duration::from_millis(100);
/// Usage above `memory.high` by this share makes tasks sleep about a second for each batch of
/// pages (`calculate_high_delay`, mm/memcontrol.c), which only PSI would show.
const THROTTLED_ABOVE_HIGH: u64 = 8;

/// What an interval must reach.
#[derive(Debug, Clone, Copy)]
struct Bars {
    /// Factor of [`margin`].
    margins: u64,
    /// Part of the interval that must be lost, percent.
    percent: u128,
}

impl Bars {
    /// To count towards a stall.
    const ENTER: Bars = Bars {
        margins: 1,
        percent: 50,
    };
    /// To go on being one.
    const STAY: Bars = Bars {
        margins: 2,
        percent: 25,
    };
}

/// How far below its limit a pinned cgroup may be seen, bytes.
///
/// Reclaim frees at least 32 pages at a time (`SWAP_CLUSTER_MAX`) and hands back charges that CPUs
/// hold in batches of 64 (`MEMCG_CHARGE_BATCH`); in a large cgroup several tasks and CPUs do so at
/// a time, which one percent allows for.
pub fn margin(limit_bytes: u64, page_bytes: u64) -> u64 {
    (limit_bytes / 100).max(page_bytes.saturating_mul(64))
}

/// One reading of a cgroup. `None` is unknown, and a limit of `None` also unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StallReading {
    pub usage_bytes: Option<u64>,
    /// The cgroup's own.
    pub limit_bytes: Option<u64>,
    /// `memory.high`.
    pub high_bytes: Option<u64>,
    /// Total of PSI `some`.
    pub pressure_some_ns: Option<u64>,
    /// Total of memory-cgroup reclaim by tasks of the cgroup and its descendants.
    pub reclaim_stall_ns: Option<u64>,
    /// Hits of its own limit: `max` of `memory.events.local`, `memory.failcnt`.
    pub limit_hits: Option<u64>,
    /// `high` of `memory.events.local`.
    pub high_hits: Option<u64>,
    /// `memory.oom_control` (v1).
    pub under_oom: Option<bool>,
    pub oom_kill_disable: Option<bool>,
    /// Kills in the cgroup and its descendants (v1 counts only its own: see [`StallDetector::killed`]).
    pub oom_kills: Option<u64>,
}

impl StallReading {
    /// From a full reading of the cgroup's files.
    pub fn of(memory: &MemoryReading, reclaim_stall_ns: Option<u64>) -> Self {
        let local = memory.events_local;
        StallReading {
            usage_bytes: memory.usage_bytes,
            limit_bytes: memory.limit.and_then(Limit::bytes),
            high_bytes: memory.high.and_then(Limit::bytes),
            pressure_some_ns: memory.pressure.some_ns,
            reclaim_stall_ns,
            limit_hits: local.max.or(memory.events.max),
            high_hits: local.high.or(memory.events.high),
            under_oom: memory.under_oom,
            oom_kill_disable: memory.oom_kill_disable,
            oom_kills: memory.events.oom_kill,
        }
    }

    fn waits_for_disabled_oom(&self) -> bool {
        self.under_oom == Some(true) && self.oom_kill_disable == Some(true)
    }
}

/// What the detector found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StallEvent {
    /// The threshold has passed.
    Began(Stall),
    /// It is over: with the numbers of the whole stall.
    Ended(Stall),
}

impl StallEvent {
    /// For the incident.
    pub fn stall(&self) -> Stall {
        match self {
            StallEvent::Began(stall) | StallEvent::Ended(stall) => *stall,
        }
    }
}

/// A row of stalled intervals.
#[derive(Debug, Clone, Copy)]
struct Row {
    since: Duration,
    /// End of the last stalled interval.
    until: Duration,
    stalled_ns: Option<u64>,
    oom_disabled: bool,
    at_high: bool,
    /// It has been told.
    began: bool,
    /// Intervals under the bars since.
    quiet: u32,
}

impl Row {
    fn stall(&self, ongoing: bool) -> Stall {
        let duration = self.until.saturating_sub(self.since);
        Stall {
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            stalled_ns: self.stalled_ns,
            oom_disabled: self.oom_disabled,
            at_high: self.at_high,
            ongoing,
            ended_by_kill: false,
        }
    }

    fn ended(self) -> Option<StallEvent> {
        self.began.then(|| StallEvent::Ended(self.stall(false)))
    }
}

#[derive(Debug)]
struct Followed {
    at: Duration,
    reading: StallReading,
    row: Option<Row>,
}

/// One stalled interval.
#[derive(Debug, Clone, Copy)]
struct Lost {
    /// `None`: not measured.
    stalled_ns: Option<u64>,
    oom_disabled: bool,
    at_high: bool,
}

/// Follows all cgroups that can stall.
#[derive(Debug)]
pub struct StallDetector {
    threshold: Duration,
    page_bytes: u64,
    followed: HashMap<u64, Followed>,
    /// Readings of cgroups beyond those that are followed.
    pub not_followed: u64,
}

impl StallDetector {
    /// Tells of stalls of at least `threshold`.
    pub fn new(threshold: Duration, page_bytes: u64) -> Self {
        Self {
            threshold,
            page_bytes,
            followed: HashMap::new(),
            not_followed: 0,
        }
    }

    /// Tells of stalls of at least this length from now on.
    pub fn set_threshold(&mut self, threshold: Duration) {
        self.threshold = threshold;
    }

    /// Whether the usage is so near to a limit that the cgroup deserves a full reading.
    pub fn is_near_limit(&self, reading: &StallReading) -> bool {
        self.is_near(reading, reading.limit_bytes, Bars::STAY)
            || self.is_near(reading, reading.high_bytes, Bars::STAY)
    }

    /// Takes a full reading of cgroup `id`, made `at` (of any monotonic clock).
    pub fn observe(&mut self, id: u64, at: Duration, reading: &StallReading) -> Option<StallEvent> {
        let Some(followed) = self.followed.get(&id) else {
            self.follow(id, at, reading);
            return None;
        };
        let elapsed = at.checked_sub(followed.at).filter(|time| !time.is_zero())?;
        let (before, row) = (followed.reading, followed.row);
        let bars = match row {
            Some(row) if row.began => Bars::STAY,
            _ => Bars::ENTER,
        };
        let killed = rose(before.oom_kills, reading.oom_kills).is_some();
        let lost = match killed {
            true => None,
            false => self.lost(&before, reading, elapsed, bars),
        };
        let (row, event) = match (row, lost) {
            (None, None) => (None, None),
            (row, Some(lost)) => self.go_on(row, lost, at, elapsed),
            (Some(row), None) if row.began && !killed && row.quiet + 1 < QUIET_INTERVALS => {
                let quiet = row.quiet + 1;
                (Some(Row { quiet, ..row }), None)
            }
            (Some(row), None) => (None, row.ended()),
        };
        if row.is_none() && !can_stall(reading) {
            self.followed.remove(&id);
        } else if let Some(followed) = self.followed.get_mut(&id) {
            let reading = *reading;
            *followed = Followed { at, reading, row };
        }
        event
    }

    /// The kernel killed because of this cgroup's limit: that is an OOM, not a stall.
    pub fn killed(&mut self, id: u64) -> Option<StallEvent> {
        self.followed.get_mut(&id)?.row.take()?.ended()
    }

    /// The cgroup is gone.
    pub fn forget(&mut self, id: u64) -> Option<StallEvent> {
        self.followed.remove(&id)?.row?.ended()
    }

    fn follow(&mut self, id: u64, at: Duration, reading: &StallReading) {
        if !can_stall(reading) {
            return;
        }
        if self.followed.len() >= MOST_CGROUPS {
            self.not_followed = self.not_followed.saturating_add(1);
            return;
        }
        let (reading, row) = (*reading, None);
        self.followed.insert(id, Followed { at, reading, row });
    }

    fn go_on(
        &self,
        row: Option<Row>,
        lost: Lost,
        at: Duration,
        elapsed: Duration,
    ) -> (Option<Row>, Option<StallEvent>) {
        let mut row = row.unwrap_or(Row {
            since: at.saturating_sub(elapsed),
            until: at,
            stalled_ns: None,
            oom_disabled: false,
            at_high: lost.at_high,
            began: false,
            quiet: 0,
        });
        row.until = at;
        row.quiet = 0;
        row.oom_disabled |= lost.oom_disabled;
        // The harder limit names the stall.
        row.at_high &= lost.at_high;
        if let Some(stalled_ns) = lost.stalled_ns {
            row.stalled_ns = Some(row.stalled_ns.unwrap_or(0).saturating_add(stalled_ns));
        }
        let is_news = !row.began && at.saturating_sub(row.since) + EARLY >= self.threshold;
        row.began |= is_news;
        (
            Some(row),
            is_news.then(|| StallEvent::Began(row.stall(true))),
        )
    }

    /// What the interval between two readings cost, if it was stalled.
    fn lost(
        &self,
        before: &StallReading,
        now: &StallReading,
        elapsed: Duration,
        bars: Bars,
    ) -> Option<Lost> {
        let pinned = |limit_before, limit_now, hits: Option<u64>| {
            let is_near = self.is_near(now, limit_now, bars);
            (is_near && self.is_near(before, limit_before, bars))
                || (limit_now.is_some() && hits.is_some())
        };
        let limit_hits = rose(before.limit_hits, now.limit_hits);
        let high_hits = rose(before.high_hits, now.high_hits);
        let at_limit = pinned(before.limit_bytes, now.limit_bytes, limit_hits);
        let at_high = pinned(before.high_bytes, now.high_bytes, high_hits);
        if !at_limit && !at_high {
            return None;
        }
        let measured = change(before.pressure_some_ns, now.pressure_some_ns)
            .or_else(|| change(before.reclaim_stall_ns, now.reclaim_stall_ns));
        // Several tasks may reclaim at a time.
        let elapsed_ns = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let stalled_ns = measured.map(|stalled_ns| stalled_ns.min(elapsed_ns));
        let is_measured = stalled_ns.is_some_and(|stalled_ns| {
            u128::from(stalled_ns) * 100 >= u128::from(elapsed_ns) * bars.percent
        });
        let is_throttled = now.pressure_some_ns.is_none()
            && at_high
            && high_hits.is_some()
            && far_above(now.usage_bytes, now.high_bytes);
        let oom_disabled = before.waits_for_disabled_oom() && now.waits_for_disabled_oom();
        (is_measured || is_throttled || oom_disabled).then_some(Lost {
            // Waiting for an OOM killer is in no counter.
            stalled_ns: stalled_ns.filter(|_| is_measured),
            oom_disabled,
            at_high: !at_limit,
        })
    }

    fn is_near(&self, reading: &StallReading, limit: Option<u64>, bars: Bars) -> bool {
        let (Some(usage), Some(limit)) = (reading.usage_bytes, limit) else {
            return false;
        };
        let margin = margin(limit, self.page_bytes).saturating_mul(bars.margins);
        // In a tiny cgroup the margin must not reach down to nothing.
        usage >= limit.saturating_sub(margin.min(limit / 4))
    }
}

fn can_stall(reading: &StallReading) -> bool {
    reading.limit_bytes.is_some() || reading.high_bytes.is_some()
}

fn far_above(usage: Option<u64>, high: Option<u64>) -> bool {
    let (Some(usage), Some(high)) = (usage, high) else {
        return false;
    };
    usage.saturating_sub(high) >= (high / THROTTLED_ABOVE_HIGH).max(1)
}

/// Increase of a counter; `None` when unknown or when it went back.
fn change(before: Option<u64>, now: Option<u64>) -> Option<u64> {
    now?.checked_sub(before?)
}

/// The same, `None` also when it stood still.
fn rose(before: Option<u64>, now: Option<u64>) -> Option<u64> {
    change(before, now).filter(|change| *change > 0)
}

#[cfg(test)]
#[path = "stall_tests.rs"]
mod tests;
