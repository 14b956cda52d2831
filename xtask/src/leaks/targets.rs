//! What the analysis is to reach, and what the algorithm that it started from reached.
//! Must not measure: see `score`.

use super::score::{STAGES, Score};

/// The scores that targets are held against.
#[derive(Debug)]
pub struct Measured<'a> {
    pub confirmed: &'a Score,
    pub suspected: &'a Score,
    /// Share of the series of class `cache_linear` that were confirmed.
    pub cache_linear: Option<f64>,
    /// Recall of class `leak_step`.
    pub leak_step: Option<f64>,
}

/// One figure with its goal.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    pub name: String,
    pub goal: Goal,
    /// What the algorithm reached that ours is to be no worse than, where it was measured.
    pub floor: f64,
    pub measured: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

/// How a figure compares with its goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Met,
    /// Missed, yet no worse than the floor.
    Missed,
    /// Worse than the floor.
    BelowFloor,
    /// Not measured in this run.
    Unknown,
}

impl Goal {
    fn allows(self, value: f64) -> bool {
        match self {
            Self::AtLeast(goal) => value >= goal,
            Self::AtMost(goal) => value <= goal,
        }
    }

    fn with_bound(self, bound: f64) -> Self {
        match self {
            Self::AtLeast(_) => Self::AtLeast(bound),
            Self::AtMost(_) => Self::AtMost(bound),
        }
    }
}

impl Target {
    pub fn standing(&self) -> Standing {
        match self.measured {
            None => Standing::Unknown,
            Some(value) if self.goal.allows(value) => Standing::Met,
            Some(value) if self.goal.with_bound(self.floor).allows(value) => Standing::Missed,
            Some(_) => Standing::BelowFloor,
        }
    }
}

/// Errors and coverage of the time to limit that the floor reached, one per stage.
const FLOOR_ERROR: [f64; STAGES.len()] = [0.170, 0.206, 0.271, 0.415];
const FLOOR_COVERAGE: [f64; STAGES.len()] = [0.89, 0.93, 0.89, 0.78];

/// How far from detection to OOM, in words.
pub fn way(stage: f64) -> String {
    if stage > 0.0 {
        format!("{:.0}% of the way to the OOM", 100.0 * stage)
    } else {
        "when confirmed".to_owned()
    }
}

/// Every target; the floors were measured with the algorithm's Python prototype on 1,080 series of
/// the same classes.
pub fn targets(measured: &Measured) -> Vec<Target> {
    use Goal::{AtLeast, AtMost};
    let target = |name: &str, goal, floor, measured| Target {
        name: name.to_owned(),
        goal,
        floor,
        measured,
    };
    let (confirmed, suspected) = (measured.confirmed, measured.suspected);
    let (found, slow) = confirmed.slow;
    let slow_found = (slow > 0).then(|| found as f64 / slow as f64);
    let told = &confirmed.estimates;
    let mut targets = vec![
        target("precision", AtLeast(0.97), 0.939, confirmed.precision),
        target("recall", AtLeast(0.98), 0.970, confirmed.recall),
        target(
            "healthy series confirmed",
            AtMost(0.02),
            0.039,
            confirmed.healthy_alarmed,
        ),
        target(
            "false confirmations per container-week",
            AtMost(0.02),
            0.037,
            confirmed.false_alarms_per_week,
        ),
        target("lead", AtLeast(0.50), 0.44, confirmed.lead),
        target("slow leaks found", AtLeast(1.0), 1.0, slow_found),
        target(
            "`cache_linear` confirmed",
            AtMost(0.10),
            0.30,
            measured.cache_linear,
        ),
        target(
            "recall of `leak_step`",
            AtLeast(0.95),
            0.80,
            measured.leak_step,
        ),
        target(
            "healthy series suspected",
            AtMost(0.10),
            0.177,
            suspected.healthy_alarmed,
        ),
        target(
            "onset error, median hours",
            AtMost(1.0),
            1.23,
            told.onset_error_h,
        ),
        target(
            "rate interval coverage",
            AtLeast(0.90),
            0.81,
            told.rate_coverage,
        ),
    ];
    for (index, stage) in STAGES.iter().enumerate() {
        targets.push(target(
            &format!("time to limit, median error {}", way(*stage)),
            AtMost(0.15),
            FLOOR_ERROR[index],
            told.to_limit[index].error,
        ));
    }
    for (index, stage) in STAGES.iter().enumerate() {
        targets.push(target(
            &format!("time to limit, coverage {}", way(*stage)),
            AtLeast(0.90),
            FLOOR_COVERAGE[index],
            told.to_limit[index].coverage,
        ));
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_met_missed_or_below_the_floor() {
        let standing = |goal, floor, measured| {
            let name = String::new();
            Target {
                name,
                goal,
                floor,
                measured,
            }
            .standing()
        };
        let at_least = Goal::AtLeast(0.97);
        assert_eq!(standing(at_least, 0.94, Some(0.97)), Standing::Met);
        assert_eq!(standing(at_least, 0.94, Some(0.95)), Standing::Missed);
        assert_eq!(standing(at_least, 0.94, Some(0.93)), Standing::BelowFloor);
        assert_eq!(standing(at_least, 0.94, None), Standing::Unknown);
        let at_most = Goal::AtMost(0.02);
        assert_eq!(standing(at_most, 0.04, Some(0.02)), Standing::Met);
        assert_eq!(standing(at_most, 0.04, Some(0.03)), Standing::Missed);
        assert_eq!(standing(at_most, 0.04, Some(0.05)), Standing::BelowFloor);
    }
}
