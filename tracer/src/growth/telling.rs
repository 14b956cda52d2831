//! Which change of a verdict is told, and of which cgroup.

use crate::{
    analysis::{Change, State, Verdict},
    model::{cgroups::Cgroups, processes::Processes},
};

use super::{
    Growth, GrowthChange, GrowthEvent, Moment,
    judged::Told,
    record::{self, What},
    share,
};

/// Part of a parent's growth from which a child that grows explains it.
const EXPLAINING_SHARE: f64 = 0.5;

impl Growth {
    /// The changes to tell of one cgroup, at most one of its state and one of nearness to the limit.
    pub(super) fn tell(
        &mut self,
        id: u64,
        change: Option<Change>,
        cgroups: &Cgroups,
        processes: &Processes,
        now: Moment,
    ) -> Vec<GrowthChange> {
        let explained = self.is_explained_below(id, cgroups);
        let calm_ms = self.calm_ms;
        let (Some(judged), Some(cgroup)) = (self.judged.get_mut(&id), cgroups.get(id)) else {
            return Vec::new();
        };
        let Some(leak) = cgroup.leak else {
            return Vec::new();
        };
        let mut told = Vec::new();
        let mut record = |event, from, near_limit| {
            let shares = share::shares(processes, cgroup, cgroups, leak.since, now);
            let verdict = judged.analyzer.verdict();
            let what = What {
                event,
                from,
                near_limit,
            };
            told.push(record::change(cgroup, &leak, verdict, shares, what, now));
        };
        let before = judged.told;
        let from = change
            .and_then(|change| change.state)
            .map(|state| state.from);
        let wanted = match leak.state.is_leak() {
            true if explained => before.leak,
            true => before.leak.max(Some(leak.state)),
            false if judged.is_over(calm_ms, now) => None,
            false => before.leak,
        };
        if wanted != before.leak {
            let event = match wanted {
                Some(State::Confirmed) => GrowthEvent::Confirmed,
                Some(_) => GrowthEvent::Suspected,
                None => GrowthEvent::Cleared,
            };
            record(Some(event), from.or(before.leak), None);
        } else if let Some(from) = from
            && from.max(leak.state) >= State::Reclaimed
        {
            record(None, Some(from), None);
        }
        let near = leak.near_limit.is_some_and(|near| near.near);
        if near != before.near_limit {
            let event = near.then_some(GrowthEvent::LimitNear);
            record(event, None, Some(near));
        }
        judged.told = Told {
            leak: wanted,
            near_limit: near,
        };
        told
    }

    /// Whether what grows is told of a cgroup below: one that leaks the same kind of memory, or grows by
    /// so much of it that it is about to be told. Many small growers explain nothing by themselves.
    pub fn is_explained_below(&self, id: u64, cgroups: &Cgroups) -> bool {
        let upper = self.judged.get(&id).map(|judged| judged.analyzer.verdict());
        let cgroup = cgroups.get(id).filter(|cgroup| cgroup.has_children);
        let (Some(upper), Some(cgroup)) = (upper, cgroup) else {
            return false;
        };
        let rate = |verdict: &Verdict| verdict.rate_bytes_per_hour.map(|rate| rate.mid);
        let enough = rate(upper).map(|rate| rate * EXPLAINING_SHARE);
        self.judged.iter().any(|(&lower, judged)| {
            let verdict = judged.analyzer.verdict();
            lower != id
                && verdict.signal.is_some()
                && verdict.signal == upper.signal
                && judged.path.starts_with(&cgroup.path)
                && (verdict.state.is_leak()
                    || (verdict.state == State::Growing && rate(verdict) >= enough))
        })
    }
}
