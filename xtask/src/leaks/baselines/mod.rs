//! The rules that people use today, with the thresholds that they use.
//! Must not be tuned: they are what the analysis is compared with.

mod level;
mod rank;
mod trend;

use super::detector::{Detector, Judgement};
use super::minutes::{MINUTES, Minutes};
use super::series::{MIB, Series};

/// A rule that alarms or does not.
struct Rule {
    name: &'static str,
    alarm: fn(&Minutes) -> Vec<bool>,
}

impl Detector for Rule {
    fn names(&self) -> Vec<&'static str> {
        vec![self.name]
    }

    fn judge(&self, _: &Series, minutes: &Minutes) -> Vec<Judgement> {
        vec![Judgement {
            alarm: (self.alarm)(minutes),
            estimates: Vec::new(),
        }]
    }
}

const DAY: usize = 1440;

const RULES: &[Rule] = &[
    Rule {
        name: "R² > 0.7, 1 h",
        alarm: |minutes| trend::straight(&minutes.anon, 60, 0.7),
    },
    Rule {
        name: "R² > 0.7, 6 h",
        alarm: |minutes| trend::straight(&minutes.anon, 360, 0.7),
    },
    Rule {
        name: "R² > 0.7, 24 h",
        alarm: |minutes| trend::straight(&minutes.anon, DAY, 0.7),
    },
    Rule {
        name: "deriv(2h) > 10 MiB/h for 30 m",
        alarm: |minutes| trend::steep(&minutes.anon, 120, 10.0 * MIB, 30),
    },
    Rule {
        name: "deriv(6h) > 1 MiB/h for 2 h",
        alarm: |minutes| trend::steep(&minutes.anon, 360, MIB, 120),
    },
    Rule {
        name: "80% of 12 five-minute steps grow",
        alarm: |minutes| rank::mostly_growing(&minutes.anon, 5, 12, 0.8),
    },
    Rule {
        name: "last 5 post-GC minima rise",
        alarm: |minutes| level::rising_minima(&minutes.anon, 0.05, 5),
    },
    Rule {
        name: "working set / limit > 0.80 for 5 m",
        alarm: |minutes| level::above(&minutes.working_set, 0.80 * minutes.limit, 5),
    },
    Rule {
        name: "working set / limit > 0.85 for 5 m",
        alarm: |minutes| level::above(&minutes.working_set, 0.85 * minutes.limit, 5),
    },
    Rule {
        name: "(anon + kernel) / limit > 0.85 for 5 m",
        alarm: |minutes| level::above(&minutes.unreclaimable, 0.85 * minutes.limit, 5),
    },
    Rule {
        name: "predict_linear(6h, 24h) for 30 m",
        alarm: |minutes| trend::reaching(&minutes.unreclaimable, minutes.limit, 360, DAY, 30),
    },
    Rule {
        name: "Coroot-like, 10%/h for 15 m",
        alarm: |minutes| trend::coroot(&minutes.anon, minutes.limit),
    },
    Rule {
        name: "Precog-like, 6 h, R² > 0.8",
        alarm: precog,
    },
    Rule {
        name: "Precog-like with maximum filter",
        alarm: |minutes| {
            let record = level::record(&minutes.anon, 360);
            both(precog(minutes), &record)
        },
    },
    Rule {
        name: "Mann–Kendall, 24 h, AR(1)-corrected",
        alarm: |minutes| rank::mann_kendall(&minutes.anon, 30, 48, 3.0, 2.0 * MIB),
    },
    Rule {
        name: "Page–Hinkley",
        alarm: |minutes| level::page_hinkley(&minutes.anon, 5, 1.0, 20.0),
    },
];

/// Every baseline of the evaluation.
pub fn all() -> Vec<Box<dyn Detector>> {
    RULES
        .iter()
        .map(|rule| {
            let Rule { name, alarm } = *rule;
            Box::new(Rule { name, alarm }) as Box<dyn Detector>
        })
        .collect()
}

fn precog(minutes: &Minutes) -> Vec<bool> {
    trend::precog(&minutes.anon, minutes.limit, 360, 0.8, 7 * DAY, 0.4)
}

fn both(mut first: Vec<bool>, second: &[bool]) -> Vec<bool> {
    for (first, second) in first.iter_mut().zip(second) {
        *first &= second;
    }
    first
}

/// Asks every five minutes, from the minute `first` on, and keeps the answer until the next time; an
/// alarm needs the condition for `hold` minutes. `condition` gets the number of minutes seen.
fn every_five_minutes(
    first: usize,
    hold: usize,
    mut condition: impl FnMut(usize) -> bool,
) -> Vec<bool> {
    const STEP: usize = 5;
    let mut alarm = vec![false; MINUTES];
    let mut since = None;
    for seen in (first..=MINUTES).step_by(STEP) {
        if !condition(seen) {
            since = None;
            continue;
        }
        if seen - *since.get_or_insert(seen) >= hold {
            alarm[seen - 1..(seen - 1 + STEP).min(MINUTES)].fill(true);
        }
    }
    alarm
}

/// Means of consecutive blocks of `width` minutes.
fn block_means(bytes: &[f64], width: usize) -> Vec<f64> {
    bytes
        .chunks_exact(width)
        .map(|block| block.iter().sum::<f64>() / width as f64)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes(bytes: impl Fn(f64) -> f64) -> Minutes {
        let anon: Vec<f64> = (0..MINUTES).map(|minute| bytes(minute as f64)).collect();
        Minutes {
            unreclaimable: anon.clone(),
            working_set: anon.clone(),
            anon,
            limit: 20_000.0 * MIB,
        }
    }

    fn ripple(minute: f64) -> f64 {
        1000.0 * MIB + 3.0 * MIB * (minute * 2.399).sin()
    }

    #[test]
    fn every_trend_rule_finds_a_steady_leak_and_none_a_flat_level() {
        let flat = minutes(ripple);
        // One part in ten falls, so that the rule of growing intervals has something to count.
        let leak = minutes(|minute| ripple(minute) + 1.8 * MIB * minute);
        for rule in RULES {
            assert!(
                !(rule.alarm)(&flat).contains(&true),
                "{} on a level",
                rule.name
            );
            let needs_collections = rule.name.contains("post-GC");
            let needs_speed = rule.name.contains("Coroot");
            if !needs_collections && !needs_speed {
                assert!(
                    (rule.alarm)(&leak).contains(&true),
                    "{} on a leak",
                    rule.name
                );
            }
        }
    }

    #[test]
    fn a_condition_must_hold() {
        let alarm = every_five_minutes(10, 30, |seen| (100..=140).contains(&seen));
        let first = alarm.iter().position(|alarm| *alarm);
        assert_eq!(first, Some(129));
        assert_eq!(alarm.iter().filter(|alarm| **alarm).count(), 15);
    }
}
