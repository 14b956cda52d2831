//! The verdict on a cgroup as it is now, in the form of a change: nothing has changed.

use crate::model::{cgroups::Cgroups, processes::Processes};

use super::{
    Growth, GrowthChange, Moment,
    record::{self, What},
    share,
};

impl Growth {
    /// The verdict of the last interval with its evidence; `None` if the cgroup is not judged.
    pub fn current(
        &self,
        id: u64,
        cgroups: &Cgroups,
        processes: &Processes,
        now: Moment,
    ) -> Option<GrowthChange> {
        let judged = self.judged.get(&id)?;
        let cgroup = cgroups.get(id)?;
        let leak = cgroup.leak?;
        let shares = share::shares(processes, cgroup, cgroups, leak.since, now);
        let what = What {
            event: None,
            from: None,
            near_limit: None,
        };
        let verdict = judged.analyzer.verdict();
        Some(record::change(cgroup, &leak, verdict, shares, what, now))
    }
}
