//! By what the list is sorted.

use clap::ValueEnum;

use super::columns::Column;
use crate::{analysis::State, api::records::CgroupRow};

/// The worst is first, unless reversed; what is unknown is last in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// The largest usage first
    #[default]
    Usage,
    /// The nearest to its limit first
    Share,
    /// The fastest growing first
    Growth,
    /// Confirmed leaks, then suspected ones, the fastest first
    Leak,
    /// The soonest at its limit first
    TimeToLimit,
    /// The most page faults first
    Faults,
    /// The most time stalled in reclaim first
    Stall,
    /// The most time waiting for memory first
    Pressure,
    /// By name, A first
    Name,
}

const ORDER: [Sort; 9] = [
    Sort::Usage,
    Sort::Share,
    Sort::Growth,
    Sort::Leak,
    Sort::TimeToLimit,
    Sort::Pressure,
    Sort::Stall,
    Sort::Faults,
    Sort::Name,
];

/// More than any rate of growth in bytes an hour.
const NEXT_STATE: f64 = 1e18;

impl Sort {
    pub fn name(self) -> &'static str {
        match self {
            Sort::Usage => "usage",
            Sort::Share => "share of limit",
            Sort::Growth => "growth",
            Sort::Leak => "leak",
            Sort::TimeToLimit => "time to limit",
            Sort::Faults => "faults",
            Sort::Stall => "reclaim stall",
            Sort::Pressure => "pressure",
            Sort::Name => "name",
        }
    }

    /// The column that shows it.
    pub fn column(self) -> Column {
        match self {
            Sort::Usage => Column::Usage,
            Sort::Share => Column::Share,
            Sort::Growth => Column::Growth,
            Sort::Leak => Column::Leak,
            Sort::TimeToLimit => Column::TimeToLimit,
            Sort::Faults => Column::Faults,
            Sort::Stall => Column::Stall,
            Sort::Pressure => Column::Pressure,
            Sort::Name => Column::Name,
        }
    }

    /// The one that is `steps` further, around.
    pub fn step(self, forwards: bool) -> Self {
        let at = ORDER.iter().position(|sort| *sort == self).unwrap_or(0);
        let by = if forwards { 1 } else { ORDER.len() - 1 };
        ORDER
            .get((at + by) % ORDER.len())
            .copied()
            .unwrap_or_default()
    }

    /// The larger, the further up; `None`: unknown, or sorted by name.
    pub fn key(self, row: &CgroupRow) -> Option<f64> {
        let key = match self {
            Sort::Usage => row.usage_bytes? as f64,
            Sort::Share => share(row)?,
            Sort::Growth => row.growth_bytes_per_second?,
            Sort::Leak => {
                let leak = row.leak.as_ref()?;
                let rate = leak.rate_bytes_per_hour.map_or(0.0, |rate| rate.mid);
                rank(leak.state) * NEXT_STATE + rate.clamp(0.0, NEXT_STATE / 2.0)
            }
            Sort::TimeToLimit => -row.leak.as_ref()?.time_to_limit_s?.mid,
            Sort::Faults => row.faults_per_second?,
            Sort::Stall => row.reclaim_stall_ratio?,
            Sort::Pressure => row.pressure_some_ratio?,
            Sort::Name => return None,
        };
        Some(key).filter(|key| !key.is_nan())
    }
}

fn rank(state: State) -> f64 {
    match state {
        State::Unknown => 0.0,
        State::Healthy => 1.0,
        State::Warming => 2.0,
        State::Reclaimed => 3.0,
        State::Growing => 4.0,
        State::Suspected => 5.0,
        State::Confirmed => 6.0,
    }
}

/// Usage over the smallest limit that binds it; `None` where either is not known.
pub fn share(row: &CgroupRow) -> Option<f64> {
    let limit = row.effective_limit_bytes.filter(|limit| *limit > 0)?;
    Some(row.usage_bytes? as f64 / limit as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stepping_forwards_reaches_every_order_and_backwards_undoes_it() {
        let mut seen = Vec::new();
        let mut sort = Sort::default();
        for _ in Sort::value_variants() {
            assert_eq!(sort.step(true).step(false), sort);
            assert!(!seen.contains(&sort));
            seen.push(sort);
            sort = sort.step(true);
        }
        assert_eq!(sort, Sort::default());
        assert_eq!(seen.len(), Sort::value_variants().len());
    }
}
