//! Cgroups in short: chosen, ordered, cut, made into rows one at a time.
//!
//! The agent hands over [`RowSource`]s, which share what is long with its model; all else is done on the
//! thread that answers.

use std::{cmp::Ordering, sync::Arc, time::SystemTime};

use jiff::Timestamp;

use crate::{
    identity::names::Names,
    model::{
        history::History,
        snapshot::{EffectiveLimit, LeakSnapshot, Rates},
    },
};

use super::{
    query::{CgroupQuery, Sort},
    records::{CgroupRow, LeakRow},
};

/// What a row is made of.
#[derive(Debug, Clone)]
pub struct RowSource {
    pub cgroup_id: u64,
    pub cgroup: Arc<str>,
    pub has_children: bool,
    pub names: Arc<Names>,
    pub removed: bool,
    pub usage_bytes: Option<u64>,
    pub anon_bytes: Option<u64>,
    pub working_set_bytes: Option<u64>,
    pub limit_bytes: Option<u64>,
    pub effective_limit: Option<EffectiveLimit>,
    pub rates: Rates,
    pub oom_kills: Option<u64>,
    pub leak: Option<LeakSnapshot>,
    /// `None`: was not asked for.
    pub usage_history: Option<History>,
}

impl RowSource {
    /// The row, with the last `recent` values of its history.
    pub fn row(&self, recent: usize) -> CgroupRow {
        let names = &*self.names;
        let limit = self.effective_limit.as_ref();
        let mut recent: Vec<Option<u64>> = match &self.usage_history {
            Some(history) => history.newest_first().take(recent).collect(),
            None => Vec::new(),
        };
        recent.reverse();
        CgroupRow {
            cgroup_id: self.cgroup_id,
            cgroup: self.cgroup.to_string(),
            has_children: self.has_children,
            namespace: names.namespace.clone(),
            pod: names.pod.clone(),
            container: names.container.clone(),
            workload_kind: names.workload_kind.clone(),
            workload: names.workload.clone(),
            systemd_unit: names.systemd_unit.clone(),
            removed: self.removed,
            usage_bytes: self.usage_bytes,
            anon_bytes: self.anon_bytes,
            working_set_bytes: self.working_set_bytes,
            limit_bytes: self.limit_bytes,
            effective_limit_bytes: limit.map(|limit| limit.bytes),
            effective_limit_cgroup: limit.and_then(|limit| limit.cgroup.clone()),
            growth_bytes_per_second: self.rates.growth_bytes_per_second,
            faults_per_second: self.rates.faults_per_second,
            major_faults_per_second: self.rates.major_faults_per_second,
            reclaim_stall_ratio: self.rates.reclaim_stall_ratio,
            pressure_some_ratio: self.rates.pressure_some_ratio,
            pressure_full_ratio: self.rates.pressure_full_ratio,
            oom_kills: self.oom_kills,
            leak: self.leak.as_ref().map(leak),
            recent_usage_bytes: recent,
        }
    }

    fn is_leak(&self) -> bool {
        self.leak.is_some_and(|leak| leak.state.is_leak())
    }

    fn seconds_to_limit(&self) -> Option<f64> {
        Some(self.leak?.time_to_limit?.seconds.mid)
    }
}

fn leak(leak: &LeakSnapshot) -> LeakRow {
    let since = leak.since.map(|since| since.time_ms);
    LeakRow {
        state: leak.state,
        signal: leak.signal,
        rate_bytes_per_hour: leak.rate_bytes_per_hour,
        since: since.and_then(|ms| Timestamp::from_millisecond(ms).ok()),
        time_to_limit_s: leak.time_to_limit.map(|time| time.seconds),
        near_limit: leak.near_limit.map(|near| near.near),
    }
}

/// Cgroups of one interval, as the agent hands them over.
#[derive(Debug)]
pub struct Sources {
    pub time: SystemTime,
    pub sources: Vec<RowSource>,
}

impl Sources {
    /// Those that `query` asks for, in its order; gives how many were left out by its limit.
    pub fn select(&mut self, query: &CgroupQuery) -> u64 {
        self.sources.retain(|source| {
            (query.removed || !source.removed)
                && (!query.leaks || source.is_leak())
                && query.selection.has(&source.cgroup, &source.names)
        });
        self.sources.sort_by(|a, b| {
            let by_path = || (&a.cgroup, a.cgroup_id).cmp(&(&b.cgroup, b.cgroup_id));
            order(query.sort, a, b).then_with(by_path)
        });
        let left_out = self.sources.len().saturating_sub(query.limit);
        self.sources.truncate(query.limit);
        left_out as u64
    }
}

/// What is not known comes last.
fn order(sort: Sort, a: &RowSource, b: &RowSource) -> Ordering {
    let growth = |source: &RowSource| source.rates.growth_bytes_per_second;
    match sort {
        Sort::Usage => b.usage_bytes.cmp(&a.usage_bytes),
        Sort::Growth => match (growth(a), growth(b)) {
            (Some(a), Some(b)) => b.total_cmp(&a),
            (a, b) => b.is_some().cmp(&a.is_some()),
        },
        Sort::Path => Ordering::Equal,
        Sort::TimeToLimit => match (a.seconds_to_limit(), b.seconds_to_limit()) {
            (Some(a), Some(b)) => a.total_cmp(&b),
            (a, b) => b.is_some().cmp(&a.is_some()),
        },
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::analysis::{Estimate, State, TimeToLimit};

    pub(crate) fn source(cgroup_id: u64, cgroup: &str, usage_bytes: Option<u64>) -> RowSource {
        RowSource {
            cgroup_id,
            cgroup: cgroup.into(),
            has_children: false,
            names: Arc::default(),
            removed: false,
            usage_bytes,
            anon_bytes: None,
            working_set_bytes: None,
            limit_bytes: None,
            effective_limit: None,
            rates: Rates::default(),
            oom_kills: None,
            leak: None,
            usage_history: None,
        }
    }

    fn grows(mut source: RowSource, rate: f64) -> RowSource {
        source.rates.growth_bytes_per_second = Some(rate);
        source
    }

    fn leaks(mut source: RowSource, seconds: Option<f64>) -> RowSource {
        source.leak = Some(LeakSnapshot {
            state: State::Confirmed,
            signal: None,
            rate_bytes_per_hour: None,
            since: None,
            time_to_limit: seconds.map(|mid| TimeToLimit {
                seconds: Estimate {
                    low: mid,
                    mid,
                    high: None,
                },
                limit_bytes: 1,
            }),
            near_limit: None,
        });
        source
    }

    fn selected(sources: Vec<RowSource>, query: &str) -> (Vec<u64>, u64) {
        let time = SystemTime::UNIX_EPOCH;
        let mut sources = Sources { time, sources };
        let left_out = sources.select(&CgroupQuery::parse(query).unwrap());
        let ids = sources.sources.iter().map(|source| source.cgroup_id);
        (ids.collect(), left_out)
    }

    #[test]
    fn most_memory_comes_first_and_the_unknown_last() {
        let sources = vec![
            source(1, "/b", None),
            source(2, "/a", Some(5)),
            source(3, "/c", Some(9)),
            source(4, "/A", Some(5)),
        ];
        assert_eq!(selected(sources.clone(), ""), (vec![3, 4, 2, 1], 0));
        assert_eq!(selected(sources.clone(), "limit=1"), (vec![3], 3));
        assert_eq!(selected(sources.clone(), "sort=path").0, [4, 2, 1, 3]);
        assert_eq!(selected(sources, "glob=/[ab]"), (vec![2, 1], 0));
    }

    #[test]
    fn growth_and_time_to_the_limit_put_the_most_urgent_first() {
        let sources = vec![
            source(1, "/a", Some(1)),
            grows(leaks(source(2, "/b", Some(1)), None), -5.0),
            grows(leaks(source(3, "/c", Some(1)), Some(60.0)), 5.0),
            grows(leaks(source(4, "/d", Some(1)), Some(30.0)), f64::NAN),
        ];
        assert_eq!(
            selected(sources.clone(), "sort=time_to_limit").0,
            [4, 3, 1, 2]
        );
        assert_eq!(selected(sources.clone(), "sort=growth").0.last(), Some(&1));
        assert_eq!(selected(sources, "leaks=true&sort=path").0, [2, 3, 4]);
    }

    #[test]
    fn what_is_gone_is_told_only_if_asked_for() {
        let mut gone = source(1, "/a", Some(1));
        gone.removed = true;
        assert!(selected(vec![gone.clone()], "").0.is_empty());
        assert_eq!(selected(vec![gone], "removed=true").0, [1]);
    }

    #[test]
    fn the_last_values_are_told_oldest_first_with_gaps() {
        let mut history = History::default();
        for value in [Some(1024), None, Some(3072)] {
            history.push(value);
        }
        let mut with = source(1, "/a", None);
        with.usage_history = Some(history);
        assert_eq!(with.row(2).recent_usage_bytes, [None, Some(3072)]);
        assert_eq!(with.row(60).recent_usage_bytes.len(), 3);
    }
}
