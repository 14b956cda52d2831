//! Compares the kills that memtrace saw with those that the kernel counted.
//!
//! Pure: is given kills and counter readings. Must not read files or the clock.
//!
//! The kernel counts a kill twice: for the victim's own memory cgroup (`memory.events.local`; v1:
//! `memory.oom_control`) and for the host (`/proc/vmstat`), both before it marks the victim
//! (`__oom_kill_process`, mm/oom_kill.c). So a kill marked before a reading began is in that reading,
//! one marked after it ended may be, if it was counted just before: [`Span`] leaves room for that. A difference is told when two readings in a row have
//! it, since the record of a kill may still be on its way. What no cgroup accounts for is told of
//! the host: kills in the root cgroup, and in cgroups removed before they were read. What the host
//! has told is not told again of a cgroup.

use std::{collections::HashMap, time::Duration};

/// Marks remembered between two readings of a counter.
const MOST_RECENT: usize = 65_536;
/// Most cgroups with a count of their own; kills in others are compared for the host only.
const MOST_CGROUPS: usize = 65_536;
/// Readings of the host for which a cgroup that has only been seen in kills is kept.
const UNREAD_HOST_READINGS: u32 = 64;
/// Readings of the host after which a removed cgroup's difference is told.
const REMOVED_HOST_READINGS: u32 = 2;

/// What a counter held when memtrace began to see kills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Baseline {
    /// The cgroup was there before: whatever its first reading says.
    FirstReading,
    /// The cgroup was made since: 0.
    Zero,
}

/// Kills that the kernel counted and memtrace did not see; each is told once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missed {
    /// The victims' memory cgroup; `None` if only the host's count has them.
    pub cgroup_id: Option<u64>,
    pub kills: u64,
}

/// When a counter was read: between these two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    pub from: Duration,
    /// Later than every kill that the reading can hold was marked.
    pub until: Duration,
}

impl From<Duration> for Span {
    fn from(at: Duration) -> Self {
        Span {
            from: at,
            until: at,
        }
    }
}

/// A kernel counter beside what explains it.
#[derive(Debug, Clone, Default)]
struct Count {
    base: u64,
    /// The last reading that was taken, and when.
    total: u64,
    at: Span,
    /// Kills seen since `base` was read.
    seen: i64,
    /// Marks of those that were seen since the last reading.
    recent: Vec<Duration>,
    /// Differences told: positive for missed kills, negative for kills seen in excess.
    settled: i64,
    /// What the last reading has beyond what was settled and kills seen that it must hold…
    beyond_certain: i64,
    /// … and those that it can hold. Never more than the former.
    beyond_possible: i64,
    /// Kills marked before this are in `base`.
    base_at: Duration,
    /// The last reading was below `total` and was not taken.
    went_back: bool,
}

impl Count {
    fn starting(base: u64, at: Span) -> Self {
        Count {
            base,
            total: base,
            at,
            base_at: at.from,
            ..Count::default()
        }
    }

    fn seen(&mut self, marked: Duration) {
        if marked < self.base_at {
            return;
        }
        self.seen = self.seen.saturating_add(1);
        if self.recent.len() < MOST_RECENT {
            self.recent.push(marked);
        }
        if marked <= self.at.from {
            self.beyond_certain = self.beyond_certain.saturating_sub(1);
        }
        if marked <= self.at.until {
            self.beyond_possible = self.beyond_possible.saturating_sub(1);
        }
    }

    /// Kills that the last reading has and nobody saw; below 0: seen, and not in it.
    fn gap(&self) -> i64 {
        if self.beyond_possible > 0 {
            self.beyond_possible
        } else {
            self.beyond_certain.min(0)
        }
    }

    /// Takes a reading; `false` if it was below the last one. The second such in a row says that the
    /// counter began anew. (`/proc/vmstat` dips for a moment when a CPU goes offline.)
    fn read(&mut self, total: u64, at: Span) -> Reading {
        if total < self.total {
            if !self.went_back {
                self.went_back = true;
                return Reading::Ignored;
            }
            *self = Count::starting(total, at);
            return Reading::Restarted;
        }
        self.went_back = false;
        self.total = total;
        self.at = at;
        let counted = i64::try_from(total.saturating_sub(self.base)).unwrap_or(i64::MAX);
        let seen_after = |time: Duration| {
            let after = self.recent.iter().filter(|marked| **marked > time);
            i64::try_from(after.count()).unwrap_or(i64::MAX)
        };
        let beyond_all = counted
            .saturating_sub(self.seen)
            .saturating_sub(self.settled);
        self.beyond_certain = beyond_all.saturating_add(seen_after(at.from));
        self.beyond_possible = beyond_all.saturating_add(seen_after(at.until));
        self.recent.clear();
        Reading::Taken
    }

    fn settle(&mut self, kills: i64) {
        self.settled = self.settled.saturating_add(kills);
        self.beyond_certain = self.beyond_certain.saturating_sub(kills);
        self.beyond_possible = self.beyond_possible.saturating_sub(kills);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    Taken,
    Ignored,
    Restarted,
}

#[derive(Debug, Clone, Default)]
struct Cgroup {
    count: Count,
    /// It has been read; until then there is no base to compare with.
    is_read: bool,
    is_removed: bool,
    /// Readings of the host while unread or removed.
    host_readings: u32,
}

/// Compares, cgroup by cgroup and for the host.
#[derive(Debug, Default)]
pub struct Reconciler {
    cgroups: HashMap<u64, Cgroup>,
    host: Option<Count>,
    excess: u64,
    untracked: u64,
}

impl Reconciler {
    pub fn new() -> Self {
        Self::default()
    }

    /// A kill was seen (not a mere mark of an exiting task): its victim's memory cgroup, and when
    /// the kernel marked it, of the clock of the readings.
    pub fn seen(&mut self, cgroup_id: Option<u64>, marked: Duration) {
        if let Some(host) = &mut self.host {
            host.seen(marked);
        }
        let Some(id) = cgroup_id else { return };
        if let Some(cgroup) = self.room_for(id) {
            cgroup.count.seen(marked);
        }
    }

    /// Takes the `oom_kill` count of a cgroup itself, read within `at`. `baseline` says how to
    /// take the first one.
    pub fn counted(
        &mut self,
        cgroup_id: u64,
        oom_kills: u64,
        at: impl Into<Span>,
        baseline: Baseline,
    ) -> Option<Missed> {
        let at = at.into();
        let cgroup = self.room_for(cgroup_id)?;
        if cgroup.is_removed {
            return None;
        }
        let before = (cgroup.is_read && !cgroup.count.went_back)
            .then_some((cgroup.count.gap(), cgroup.count.at.from));
        if !cgroup.is_read {
            cgroup.is_read = true;
            if baseline == Baseline::FirstReading {
                // Kills already told of were marked before, and are in it.
                cgroup.count = Count::starting(oom_kills, at);
                return None;
            }
        }
        if cgroup.count.read(oom_kills, at) != Reading::Taken {
            return None;
        }
        let (gap_before, read_before) = before?;
        let lasting = lasting(gap_before, cgroup.count.gap());
        // The host's count must have had its chance to tell of the same kills.
        let host_is_behind = self.host_read().is_some_and(|host| host < read_before);
        if lasting == 0 || host_is_behind {
            return None;
        }
        self.settle_cgroup(cgroup_id, lasting)
    }

    /// Takes the host's `oom_kill` count (`None` where the kernel has none, before 4.13), read
    /// within `at` and after the cgroups of the interval. The first one is the baseline: it should come
    /// when the hooks are attached, before any cgroup is read.
    pub fn counted_host(&mut self, oom_kills: Option<u64>, at: impl Into<Span>) -> Vec<Missed> {
        let at = at.into();
        let mut missed = self.settle_removed();
        if let Some(kills) = oom_kills.and_then(|total| self.read_host(total, at)) {
            missed.push(kills);
        }
        missed
    }

    /// The cgroup is gone. What it counted and nobody saw is told with one of the next readings of
    /// the host.
    pub fn removed(&mut self, cgroup_id: u64) {
        let Some(cgroup) = self.cgroups.get_mut(&cgroup_id) else {
            return;
        };
        if cgroup.is_read && cgroup.count.gap() != 0 {
            cgroup.is_removed = true;
            cgroup.host_readings = 0;
        } else {
            self.cgroups.remove(&cgroup_id);
        }
    }

    /// The host has counted kills that are not explained yet: the counts of all cgroups should be
    /// read in the next interval, so that they are told of the right one.
    pub fn wants_every_cgroup(&self) -> bool {
        let (positive, _) = self.pending();
        self.host.as_ref().is_some_and(|host| host.gap() > positive)
    }

    /// Whether the host's last count is explained to the last kill, by kills seen and by what was told.
    pub fn is_settled(&self) -> bool {
        let explained =
            |host: &Count| !host.went_back && host.beyond_certain == 0 && host.beyond_possible == 0;
        self.host.as_ref().is_some_and(explained)
    }

    /// Kills seen that the kernel did not count: a fault of memtrace.
    pub fn excess(&self) -> u64 {
        self.excess
    }

    /// Kills and readings of cgroups for which there was no room.
    pub fn untracked(&self) -> u64 {
        self.untracked
    }

    fn room_for(&mut self, id: u64) -> Option<&mut Cgroup> {
        if self.cgroups.len() >= MOST_CGROUPS && !self.cgroups.contains_key(&id) {
            self.untracked = self.untracked.saturating_add(1);
            return None;
        }
        Some(self.cgroups.entry(id).or_default())
    }

    fn host_read(&self) -> Option<Duration> {
        self.host.as_ref().map(|host| host.at.from)
    }

    /// Differences of cgroups that the last readings had: sums of the positive and the negative.
    fn pending(&self) -> (i64, i64) {
        let gaps = self.cgroups.values().filter(|cgroup| cgroup.is_read);
        gaps.fold((0, 0), |(positive, negative): (i64, i64), cgroup| {
            let gap = cgroup.count.gap();
            (
                positive.saturating_add(gap.max(0)),
                negative.saturating_add(gap.min(0)),
            )
        })
    }

    fn read_host(&mut self, total: u64, at: Span) -> Option<Missed> {
        let (positive, negative) = self.pending();
        let Some(host) = &mut self.host else {
            self.start_host(total, at);
            return None;
        };
        let before = host.gap();
        match host.read(total, at) {
            Reading::Taken => {}
            Reading::Ignored => return None,
            Reading::Restarted => {
                self.start_host(total, at);
                return None;
            }
        }
        // What a cgroup may still account for is left to it.
        let now = host.gap();
        let beyond = |gap: i64| match gap > 0 {
            true => gap.saturating_sub(positive).max(0),
            false => gap.saturating_sub(negative).min(0),
        };
        let lasting = lasting(beyond(before), beyond(now));
        host.settle(lasting);
        self.tell(None, lasting)
    }

    /// Begins to count for the host, and anew for the cgroups: what they lacked before is not in the
    /// host's count.
    fn start_host(&mut self, total: u64, at: Span) {
        self.host = Some(Count::starting(total, at));
        for cgroup in self.cgroups.values_mut().filter(|cgroup| cgroup.is_read) {
            cgroup.count = Count::starting(cgroup.count.total, cgroup.count.at);
        }
    }

    /// Settles `kills` of a cgroup, and tells of those that the host has not told already.
    fn settle_cgroup(&mut self, id: u64, kills: i64) -> Option<Missed> {
        let (positive, negative) = self.pending();
        let unexplained = self.host.as_ref().map_or(0, |host| {
            host.gap().saturating_sub(positive).saturating_sub(negative)
        });
        if let Some(cgroup) = self.cgroups.get_mut(&id) {
            cgroup.count.settle(kills);
        }
        // Of the other sign: the host has settled that much without knowing the cgroup.
        let news = match kills > 0 {
            true => kills.saturating_add(unexplained.min(0)).max(0),
            false => kills.saturating_add(unexplained.max(0)).min(0),
        };
        if let Some(host) = &mut self.host {
            host.settle(news);
        }
        self.tell(Some(id), news)
    }

    fn tell(&mut self, cgroup_id: Option<u64>, kills: i64) -> Option<Missed> {
        if kills < 0 {
            self.excess = self.excess.saturating_add(kills.unsigned_abs());
        }
        let kills = u64::try_from(kills).ok().filter(|kills| *kills > 0)?;
        Some(Missed { cgroup_id, kills })
    }

    /// Tells of removed cgroups that waited long enough, and forgets what is no longer needed.
    fn settle_removed(&mut self) -> Vec<Missed> {
        let mut due = Vec::new();
        self.cgroups.retain(|id, cgroup| {
            if cgroup.is_read && !cgroup.is_removed {
                return true;
            }
            cgroup.host_readings += 1;
            if !cgroup.is_removed {
                return cgroup.host_readings <= UNREAD_HOST_READINGS;
            }
            if cgroup.count.gap() != 0 && cgroup.host_readings >= REMOVED_HOST_READINGS {
                due.push((*id, cgroup.count.gap()));
            }
            cgroup.count.gap() != 0
        });
        due.sort_unstable();
        let missed = due.into_iter().filter_map(|(id, kills)| {
            let missed = self.settle_cgroup(id, kills);
            self.cgroups.remove(&id);
            missed
        });
        missed.collect()
    }
}

/// The part of a difference that two readings in a row have.
fn lasting(before: i64, now: i64) -> i64 {
    if before > 0 && now > 0 {
        before.min(now)
    } else if before < 0 && now < 0 {
        before.max(now)
    } else {
        0
    }
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
