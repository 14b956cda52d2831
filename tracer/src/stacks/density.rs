//! How densely the pages of each cgroup are sampled, so that all samples together cost what they may.
//!
//! Pure. A cgroup that touches little is sampled densely; what it leaves of its share goes to
//! others. A cgroup becomes sparser at once, and denser only after a while, because what a sparser
//! sampling leaves out has to be forgotten.

use std::collections::HashMap;

/// Seconds for which a cgroup must have stayed below a half of its share to be sampled denser.
const CALM_SECONDS: f64 = 30.0;
/// More than its share for a moment is no reason to forget anything.
const TOLERANCE: f64 = 2.0;

/// Bounds of the sampling.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DensityLimits {
    /// Samples a second of all cgroups together.
    pub samples_per_second: f64,
    /// One page in `2^shift`: of cgroups that are new, of those that touch least, and of the busiest.
    pub usual_shift: u32,
    pub densest_shift: u32,
    pub sparsest_shift: u32,
}

impl Default for DensityLimits {
    fn default() -> Self {
        Self {
            samples_per_second: 400.0,
            usual_shift: 6,
            densest_shift: 4,
            sparsest_shift: 16,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Cgroup {
    shift: u32,
    /// Smoothed, samples a second at `shift`.
    rate: f64,
    calm_seconds: f64,
    idle_seconds: f64,
}

/// A cgroup is sampled differently from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Set {
        cgroup_id: u64,
        shift: u32,
    },
    /// As all others again.
    Forget {
        cgroup_id: u64,
    },
}

/// Densities of the cgroups that are sampled.
#[derive(Debug)]
pub struct Densities {
    limits: DensityLimits,
    cgroups: HashMap<u64, Cgroup>,
    most: usize,
}

/// Forgotten after this long without a sample.
const IDLE_SECONDS: f64 = 600.0;

impl Densities {
    pub fn new(limits: DensityLimits, most: usize) -> Self {
        Self {
            limits,
            cgroups: HashMap::new(),
            most,
        }
    }

    pub fn shift(&self, cgroup_id: u64) -> u32 {
        self.cgroups
            .get(&cgroup_id)
            .map_or(self.limits.usual_shift, |cgroup| cgroup.shift)
    }

    /// The densest sampling of any cgroup.
    pub fn floor(&self) -> u32 {
        self.cgroups
            .values()
            .map(|cgroup| cgroup.shift)
            .min()
            .unwrap_or(self.limits.usual_shift)
            .min(self.limits.usual_shift)
    }

    /// What `seconds` of sampling gave, by cgroup, and what to change.
    pub fn adjust(&mut self, samples: &HashMap<u64, u64>, seconds: f64) -> Vec<Change> {
        for cgroup_id in samples.keys() {
            if self.cgroups.len() < self.most {
                self.cgroups.entry(*cgroup_id).or_insert(Cgroup {
                    shift: self.limits.usual_shift,
                    rate: 0.0,
                    calm_seconds: 0.0,
                    idle_seconds: 0.0,
                });
            }
        }
        for (cgroup_id, cgroup) in &mut self.cgroups {
            let seen = samples.get(cgroup_id).copied().unwrap_or(0) as f64 / seconds;
            // A burst counts at once, calm only by and by.
            cgroup.rate = seen.max(cgroup.rate + (seen - cgroup.rate) * (seconds / 10.0).min(1.0));
            cgroup.idle_seconds = if seen > 0.0 {
                0.0
            } else {
                cgroup.idle_seconds + seconds
            };
        }
        let share = self.share();
        let mut changes = Vec::new();
        let limits = self.limits;
        self.cgroups.retain(|&cgroup_id, cgroup| {
            if cgroup.idle_seconds > IDLE_SECONDS {
                changes.push(Change::Forget { cgroup_id });
                return false;
            }
            let before = cgroup.shift;
            if cgroup.rate > TOLERANCE * share {
                let sparser = (cgroup.rate / share).log2().ceil() as u32;
                cgroup.shift = (cgroup.shift + sparser).min(limits.sparsest_shift);
            } else if cgroup.rate < share / 4.0 {
                cgroup.calm_seconds += seconds;
            } else {
                cgroup.calm_seconds = 0.0;
            }
            if cgroup.calm_seconds >= CALM_SECONDS && cgroup.shift > limits.densest_shift {
                cgroup.shift -= 1;
            }
            if cgroup.shift != before {
                cgroup.calm_seconds = 0.0;
                cgroup.rate *= 2f64.powi(before as i32 - cgroup.shift as i32);
                let shift = cgroup.shift;
                changes.push(Change::Set { cgroup_id, shift });
            }
            true
        });
        changes
    }

    /// Samples a second that each cgroup may have, where those who need less leave the rest.
    fn share(&self) -> f64 {
        let mut rates: Vec<f64> = self.cgroups.values().map(|cgroup| cgroup.rate).collect();
        rates.sort_unstable_by(f64::total_cmp);
        let mut left = self.limits.samples_per_second;
        let mut sharers = rates.len() as f64;
        for rate in rates {
            if rate > left / sharers {
                return left / sharers;
            }
            left -= rate;
            sharers -= 1.0;
        }
        self.limits.samples_per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs cgroups that touch so many pages a second, and gives samples of the last second.
    fn run(pages: &[(u64, f64)], seconds: u32) -> (Densities, f64) {
        let mut densities = Densities::new(DensityLimits::default(), 1000);
        let mut last = 0.0;
        for _ in 0..seconds {
            let samples: HashMap<u64, u64> = pages
                .iter()
                .map(|(id, pages)| {
                    let samples = pages / 2f64.powi(densities.shift(*id) as i32);
                    (*id, samples as u64)
                })
                .collect();
            last = samples.values().sum::<u64>() as f64;
            densities.adjust(&samples, 1.0);
        }
        (densities, last)
    }

    #[test]
    fn a_busy_cgroup_is_sampled_within_the_budget() {
        let (densities, samples) = run(&[(1, 300_000.0)], 20);
        assert!(samples <= 800.0 && samples > 100.0, "{samples}");
        assert!(densities.shift(1) > 6);
    }

    #[test]
    fn a_busy_cgroup_takes_nothing_from_a_quiet_one() {
        let (densities, samples) = run(&[(1, 500_000.0), (2, 300.0)], 200);
        assert!(densities.shift(2) <= 6, "{}", densities.shift(2));
        assert!(samples <= 800.0, "{samples}");
    }

    #[test]
    fn many_busy_cgroups_share() {
        let cgroups: Vec<(u64, f64)> = (0..100).map(|id| (id, 50_000.0)).collect();
        let (_, samples) = run(&cgroups, 30);
        assert!(samples <= 800.0, "{samples}");
    }

    #[test]
    fn a_quiet_cgroup_is_sampled_denser_after_a_while_and_not_beyond_the_bound() {
        let (densities, _) = run(&[(1, 100.0)], 20);
        assert_eq!(densities.shift(1), 6);
        let (densities, _) = run(&[(1, 100.0)], 500);
        assert_eq!(densities.shift(1), 4);
        assert_eq!(densities.floor(), 4);
    }

    #[test]
    fn cgroups_that_are_gone_are_forgotten() {
        let (mut densities, _) = run(&[(1, 100.0)], 10);
        let mut forgotten = false;
        for _ in 0..700 {
            let changes = densities.adjust(&HashMap::new(), 1.0);
            forgotten |= changes.contains(&Change::Forget { cgroup_id: 1 });
        }
        assert!(forgotten);
        assert_eq!(densities.floor(), 6);
    }
}
