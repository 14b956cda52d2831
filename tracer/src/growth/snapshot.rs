//! The verdict on a cgroup as outputs see it, with the time until the memory it shares runs out.

use crate::{
    analysis::{Estimate, TimeToLimit, Verdict},
    model::{
        cgroups::Cgroups,
        snapshot::{HostReading, LeakSnapshot},
    },
};

use super::{Moment, sample::Limited};

/// Longest time to a limit that is told: beyond a year it says nothing.
const LONGEST_SECONDS: f64 = 366.0 * 86_400.0;

/// The verdict as outputs see it.
pub fn snapshot(
    verdict: &Verdict,
    limited: &Limited,
    host: &HostReading,
    now: Moment,
) -> LeakSnapshot {
    let since = verdict.since.map(|mut since| {
        since.time_ms = since.time_ms.saturating_add(now.to_unix_ms);
        since
    });
    let near_limit = verdict
        .near_limit
        .filter(|_| limited.is_own())
        .map(|mut near| {
            near.since_ms = near.since_ms.map(|ms| ms.saturating_add(now.to_unix_ms));
            near
        });
    LeakSnapshot {
        state: verdict.state,
        signal: verdict.signal,
        rate_bytes_per_hour: verdict.rate_bytes_per_hour,
        since,
        time_to_limit: time_to_limit(verdict, limited, host),
        near_limit,
    }
}

/// A limit that several share is reached when their growth together reaches it: those below it are told
/// the time of its owner where that is shorter.
pub fn share_limits(cgroups: &mut Cgroups) {
    let shared: Vec<(u64, LeakSnapshot)> = cgroups
        .live()
        .filter_map(|cgroup| {
            let mut leak = cgroup.leak.filter(|leak| leak.state.is_leak())?;
            let owner = cgroup.effective_limit.as_ref()?.cgroup.as_ref()?;
            let mut above = cgroups.above(cgroup);
            let owner = above.find(|above| *above.display == **owner)?;
            let of_all = owner.leak?.time_to_limit?;
            let sooner = |own: TimeToLimit| of_all.seconds.mid < own.seconds.mid;
            leak.time_to_limit
                .is_none_or(sooner)
                .then(|| leak.time_to_limit = Some(of_all))?;
            Some((cgroup.id, leak))
        })
        .collect();
    for (id, leak) in shared {
        cgroups.judged(id, Some(leak));
    }
}

/// To a cgroup's limit as the analysis has it; without one, until the machine has nothing available.
fn time_to_limit(verdict: &Verdict, limited: &Limited, host: &HostReading) -> Option<TimeToLimit> {
    match limited {
        Limited::ByCgroup { limit_bytes, .. } => verdict.time_to_limit.map(|time| TimeToLimit {
            limit_bytes: *limit_bytes,
            ..time
        }),
        Limited::ByMachine { bytes } => {
            let rate = verdict
                .rate_bytes_per_hour
                .filter(|_| verdict.state.is_leak())?;
            let available = host.mem_available_bytes? as f64;
            let seconds = |rate: f64| available / rate * 3600.0;
            let told = |seconds: &f64| (0.0..=LONGEST_SECONDS).contains(seconds);
            Some(TimeToLimit {
                seconds: Estimate {
                    low: rate.high.map_or(0.0, seconds),
                    mid: Some(seconds(rate.mid)).filter(told)?,
                    high: Some(seconds(rate.low)).filter(told),
                },
                limit_bytes: *bytes,
            })
        }
        Limited::Unknown => None,
    }
}
