//! Whose limit it was: pure, from the counters that the kernel side read at that moment.
//!
//! Where `oom_control` is not to be had, the rule is the kernel's own. `try_charge_memcg` charges
//! from the trigger's cgroup upwards and fails at the first counter that is full; right before
//! the kill `mem_cgroup_out_of_memory` checks that this counter still has no page left
//! (mm/memcontrol.c). Victims are chosen below the charged cgroup (`mem_cgroup_scan_tasks`).

use std::collections::HashMap;

use crate::probes::oom::{Charge, Level};

use super::record::{ChargedCgroup, KnownBy};

/// Cgroups whose count of OOMs is remembered.
const MOST_REMEMBERED: usize = 16_384;

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charged {
    /// Index into the levels.
    Level(usize, KnownBy),
    /// No memory cgroup was at its limit: the machine, a cpuset or a policy ran out.
    NoCgroup,
    /// It cannot be told.
    Unknown,
}

/// How many OOMs each cgroup had when memtrace last looked.
#[derive(Debug, Default)]
pub struct OomEvents {
    seen: HashMap<u64, u64>,
}

impl OomEvents {
    /// The counts of a charge, for the next one.
    pub fn remember(&mut self, levels: &[Level]) {
        for level in levels {
            if let Some(events) = level.oom_events
                && (self.seen.len() < MOST_REMEMBERED || self.seen.contains_key(&level.cgroup_id))
            {
                self.seen.insert(level.cgroup_id, events);
            }
        }
    }

    /// The cgroup was made just now, and had none.
    pub fn born(&mut self, cgroup_id: u64) {
        if self.seen.len() < MOST_REMEMBERED {
            self.seen.entry(cgroup_id).or_insert(0);
        }
    }

    /// The cgroup is gone.
    pub fn forget(&mut self, cgroup_id: u64) {
        self.seen.remove(&cgroup_id);
    }

    /// Whether the count has risen; `None` if it is not known what it was.
    fn risen(&self, level: &Level) -> Option<bool> {
        match (level.oom_events?, self.seen.get(&level.cgroup_id)) {
            (0, _) => Some(false),
            (now, Some(&before)) => Some(now > before),
            (_, None) => None,
        }
    }
}

/// Larger charges fail without an OOM (`PAGE_ALLOC_COSTLY_ORDER`, `mem_cgroup_oom`).
const COSTLY_ORDER: u32 = 3;

/// Finds the charged cgroup. `above_victim`: whether a cgroup is the victim's or above it.
/// `swap_counts_memory`: the second counter is memory and swap together (v1).
pub fn find(
    charge: &Charge,
    events: &OomEvents,
    swap_counts_memory: bool,
    page_bytes: u64,
    above_victim: impl Fn(u64) -> bool,
) -> Charged {
    if charge.from_oom_control {
        return match charge.levels.first() {
            Some(_) => Charged::Level(0, KnownBy::OomControl),
            None => Charged::NoCgroup,
        };
    }
    let candidates = || {
        charge
            .levels
            .iter()
            .enumerate()
            .filter(|(_, level)| above_victim(level.cgroup_id))
    };
    let full = |usage: Option<u64>, limit: Option<u64>| matches!((usage, limit), (Some(usage), Some(limit)) if usage >= limit);
    let lowest_full = candidates().find(|(_, level)| {
        full(level.usage_bytes, level.limit_bytes)
            || (swap_counts_memory && full(level.swap_usage_bytes, level.swap_limit_bytes))
    });
    if let Some((index, _)) = lowest_full {
        return Charged::Level(index, KnownBy::FullCounter);
    }
    // A charge of several pages fails before the last one is gone.
    let mut nearly_full = candidates().filter(|(_, level)| {
        level.oom_events != Some(0)
            && events.risen(level) != Some(false)
            && matches!((level.usage_bytes, level.limit_bytes), (Some(usage), Some(limit))
                if limit.saturating_sub(usage) < page_bytes << COSTLY_ORDER)
    });
    if let (Some((index, _)), None) = (nearly_full.next(), nearly_full.next()) {
        return Charged::Level(index, KnownBy::FullCounter);
    }
    // Somebody else's memory was freed in between: the count of OOMs stays.
    let mut risen = candidates().filter(|(_, level)| events.risen(level) == Some(true));
    if let (Some((index, _)), None) = (risen.next(), risen.next()) {
        return Charged::Level(index, KnownBy::OomEvents);
    }
    if !charge.levels.is_empty()
        && !charge.truncated
        && candidates().all(|(_, level)| events.risen(level) == Some(false))
    {
        return Charged::NoCgroup;
    }
    Charged::Unknown
}

/// A level as incidents tell it.
pub fn describe(level: &Level, cgroup: Option<String>, known_by: KnownBy) -> ChargedCgroup {
    ChargedCgroup {
        cgroup_id: level.cgroup_id,
        cgroup,
        names: None,
        usage_bytes: level.usage_bytes,
        limit_bytes: level.limit_bytes,
        swap_usage_bytes: level.swap_usage_bytes,
        swap_limit_bytes: level.swap_limit_bytes,
        failcnt: level.failcnt,
        oom_events: level.oom_events,
        known_by,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 2;

    fn level(cgroup_id: u64, usage: u64, limit: u64, oom_events: u64) -> Level {
        Level {
            cgroup_id,
            usage_bytes: Some(usage),
            limit_bytes: Some(limit),
            oom_events: Some(oom_events),
            ..Level::default()
        }
    }

    fn charge(from_oom_control: bool, levels: &[Level]) -> Charge {
        Charge {
            boot_ns: 0,
            from_oom_control,
            constraint: None,
            order: None,
            gfp_mask: None,
            total_bytes: None,
            chosen_points: None,
            trigger_tid: 1,
            levels: levels.to_vec(),
            truncated: false,
        }
    }

    fn found(levels: &[Level], events: &OomEvents) -> Charged {
        find(&charge(false, levels), events, false, PAGE, |_| true)
    }

    #[test]
    fn oom_control_names_it_and_says_when_there_is_none() {
        let events = OomEvents::default();
        let named = charge(true, &[level(1, 5, 9, 0)]);
        assert_eq!(
            find(&named, &events, false, PAGE, |_| true),
            Charged::Level(0, KnownBy::OomControl)
        );
        assert_eq!(
            find(&charge(true, &[]), &events, false, PAGE, |_| true),
            Charged::NoCgroup
        );
    }

    #[test]
    fn with_equal_limits_the_pod_is_charged_while_its_container_has_a_page_left() {
        let events = OomEvents::default();
        // The sandbox of the pod holds what the container lacks.
        let levels = [level(1, 96, 100, 0), level(2, 100, 100, 1)];
        assert_eq!(
            found(&levels, &events),
            Charged::Level(1, KnownBy::FullCounter)
        );
        let levels = [level(1, 100, 100, 1), level(2, 100, 100, 0)];
        assert_eq!(
            found(&levels, &events),
            Charged::Level(0, KnownBy::FullCounter)
        );
    }

    #[test]
    fn a_full_cgroup_that_is_not_above_the_victim_was_not_charged() {
        let levels = [level(1, 100, 100, 1), level(2, 300, 300, 1)];
        let charge = charge(false, &levels);
        assert_eq!(
            find(&charge, &OomEvents::default(), false, PAGE, |id| id == 2),
            Charged::Level(1, KnownBy::FullCounter)
        );
    }

    #[test]
    fn memory_and_swap_together_may_be_the_limit_on_v1_only() {
        let full = Level {
            swap_usage_bytes: Some(200),
            swap_limit_bytes: Some(200),
            ..level(1, 50, 100, 0)
        };
        let charge = charge(false, &[full]);
        let events = OomEvents::default();
        assert_eq!(
            find(&charge, &events, true, PAGE, |_| true),
            Charged::Level(0, KnownBy::FullCounter)
        );
        assert_eq!(
            find(&charge, &events, false, PAGE, |_| true),
            Charged::NoCgroup
        );
    }

    #[test]
    fn a_charge_of_several_pages_fails_while_one_is_left() {
        let events = OomEvents::default();
        let levels = [
            level(1, 50, 100, 0),
            level(2, 94, 100, 1),
            level(3, 94, 300, 1),
        ];
        assert_eq!(
            found(&levels, &events),
            Charged::Level(1, KnownBy::FullCounter)
        );
        // Two that might have been: neither is claimed.
        let levels = [level(2, 94, 100, 1), level(3, 294, 300, 1)];
        assert_eq!(found(&levels, &events), Charged::Unknown);
    }

    #[test]
    fn when_memory_was_freed_meanwhile_the_count_of_ooms_tells() {
        let mut events = OomEvents::default();
        events.remember(&[level(1, 0, 0, 3), level(2, 0, 0, 7)]);
        let levels = [level(1, 70, 100, 3), level(2, 270, 300, 8)];
        assert_eq!(
            found(&levels, &events),
            Charged::Level(1, KnownBy::OomEvents)
        );
        // Two have risen: one of them for somebody else.
        let levels = [level(1, 70, 100, 4), level(2, 270, 300, 8)];
        assert_eq!(found(&levels, &events), Charged::Unknown);
        // A count from before memtrace's time says nothing.
        events.forget(2);
        let levels = [level(1, 70, 100, 3), level(2, 270, 300, 8)];
        assert_eq!(found(&levels, &events), Charged::Unknown);
    }

    #[test]
    fn the_first_oom_of_a_cgroup_whose_birth_was_seen_is_told_by_its_count() {
        let mut events = OomEvents::default();
        let levels = [level(1, 70, 100, 1), level(2, 90, 300, 0)];
        assert_eq!(found(&levels, &events), Charged::Unknown);
        events.born(1);
        assert_eq!(
            found(&levels, &events),
            Charged::Level(0, KnownBy::OomEvents)
        );
        // A birth that is heard of late changes nothing.
        events.remember(&levels);
        events.born(1);
        assert_eq!(found(&levels, &events), Charged::NoCgroup);
    }

    #[test]
    fn without_any_oom_of_a_cgroup_the_machine_ran_out() {
        let events = OomEvents::default();
        let levels = [level(1, 90, 100, 0), level(2, 90, 300, 0)];
        assert_eq!(found(&levels, &events), Charged::NoCgroup);
        assert_eq!(found(&[], &events), Charged::Unknown);
        let deeper = Charge {
            truncated: true,
            ..charge(false, &levels)
        };
        assert_eq!(
            find(&deeper, &events, false, PAGE, |_| true),
            Charged::Unknown
        );
    }
}
