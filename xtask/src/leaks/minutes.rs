//! A series as most monitoring sees it: one point a minute, which the baselines work on.

use super::series::{SAMPLES, STEP_S, Series};

/// Minutes of a series.
pub const MINUTES: usize = SAMPLES / PER_MINUTE;
/// Samples in a minute.
pub const PER_MINUTE: usize = (60.0 / STEP_S) as usize;

/// The last sample of each minute.
#[derive(Debug, Clone)]
pub struct Minutes {
    pub anon: Vec<f64>,
    /// What cannot be reclaimed: anonymous and kernel memory.
    pub unreclaimable: Vec<f64>,
    pub working_set: Vec<f64>,
    pub limit: f64,
}

impl Minutes {
    pub fn of(series: &Series) -> Self {
        let last: Vec<usize> = (1..=MINUTES)
            .map(|minute| minute * PER_MINUTE - 1)
            .collect();
        let pick = |bytes: &dyn Fn(usize) -> f64| last.iter().map(|at| bytes(*at)).collect();
        Self {
            anon: pick(&|at| series.anon[at]),
            unreclaimable: pick(&|at| series.anon[at] + series.kernel[at]),
            working_set: pick(&|at| series.working_set(at)),
            limit: series.limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::class::Class;
    use super::super::series::Conditions;
    use super::*;

    #[test]
    fn a_minute_is_its_last_sample() {
        let series = Series::generate(Class::FlatNoisy, 1, Conditions::Usual);
        let minutes = Minutes::of(&series);
        assert_eq!(minutes.anon.len(), MINUTES);
        assert_eq!(minutes.anon[1], series.anon[11]);
        assert_eq!(minutes.anon.last(), series.anon.last());
    }
}
