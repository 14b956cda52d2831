//! Runs every detector on every series, on all CPUs, and keeps the outcomes.
//! Must not print: see `report`.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::class::Class;
use super::detector::Detector;
use super::minutes::Minutes;
use super::score::{Outcome, Score, Truth};
use super::series::{Conditions, Series};
use crate::beside;

/// Which series are generated.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub classes: Vec<Class>,
    pub seeds: Range<u64>,
    pub conditions: Conditions,
}

/// What came out.
#[derive(Debug)]
pub struct Evaluation {
    pub plan: Plan,
    /// One name per judgement.
    pub names: Vec<&'static str>,
    /// Per judgement, one outcome per series.
    outcomes: Vec<Vec<Outcome>>,
    pub elapsed: Duration,
}

impl Evaluation {
    pub fn run(plan: Plan, detectors: &[Box<dyn Detector>]) -> Self {
        let started = Instant::now();
        let jobs: Vec<(Class, u64)> = plan
            .classes
            .iter()
            .flat_map(|class| plan.seeds.clone().map(|seed| (*class, seed)))
            .collect();
        let done = beside::each(&jobs, beside::cpus(), |(class, seed)| {
            evaluate(*class, *seed, plan.conditions, detectors)
        });
        let names: Vec<&'static str> = detectors.iter().flat_map(|one| one.names()).collect();
        let mut outcomes = vec![Vec::with_capacity(done.len()); names.len()];
        for of_series in done {
            for (column, outcome) in outcomes.iter_mut().zip(of_series) {
                column.push(outcome);
            }
        }
        Self {
            plan,
            names,
            outcomes,
            elapsed: started.elapsed(),
        }
    }

    /// Series that were evaluated.
    pub fn series(&self) -> usize {
        self.outcomes.first().map_or(0, Vec::len)
    }

    /// The score of one judgement on all series.
    pub fn score(&self, judgement: usize) -> Score {
        Score::of(&self.outcomes[judgement])
    }

    /// The score of one judgement on the series of a class.
    pub fn class_score(&self, judgement: usize, class: Class) -> Score {
        let of_class = self.outcomes[judgement].iter();
        Score::of(of_class.filter(|outcome| outcome.truth.class == class))
    }

    pub fn position(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|other| *other == name)
    }
}

fn evaluate(
    class: Class,
    seed: u64,
    conditions: Conditions,
    detectors: &[Box<dyn Detector>],
) -> Vec<Outcome> {
    let series = Series::generate(class, seed, conditions);
    let minutes = Minutes::of(&series);
    let truth = Truth::of(&series);
    let judgements = detectors
        .iter()
        .flat_map(|detector| detector.judge(&series, &minutes));
    judgements
        .map(|judgement| Outcome::of(truth, &judgement))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::baselines;
    use super::*;

    #[test]
    fn the_result_does_not_depend_on_the_threads() {
        let plan = Plan {
            classes: vec![Class::LeakLinear, Class::FlatNoisy],
            seeds: 5..7,
            conditions: Conditions::Usual,
        };
        let run = || Evaluation::run(plan.clone(), &baselines::all());
        let (first, second) = (run(), run());
        assert_eq!(first.series(), 4);
        assert_eq!(first.outcomes, second.outcomes);
        let by_class = first.class_score(0, Class::LeakLinear);
        assert_eq!((by_class.healthy, by_class.leaks), (0, 2));
    }
}
