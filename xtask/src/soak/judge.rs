//! Whether something grew, and whether memtrace's counts are the kernel's. Must not measure.

use super::containers;
use super::resources::Sample;
use super::told;

/// Growth of memory that is no leak: the allocator's and the page cache's doing.
pub const MEMORY_SLACK: f64 = 1.10;
/// Descriptors of one process or cgroup that is looked at in the moment.
pub const COUNT_SLACK: u64 = 8;
/// Faults of a process between its exec and its cgroup, and rounding of both counters.
const FAULTS_SLACK: f64 = 0.01;

/// Something that should have stayed what it was: its median over the second and the last quarter.
#[derive(Debug)]
pub struct Level {
    pub what: &'static str,
    pub before: u64,
    pub after: u64,
    pub is_flat: bool,
}

/// Something that was counted twice.
#[derive(Debug)]
pub struct Pair {
    pub what: &'static str,
    /// By the parent of the processes or by the kernel.
    pub expected: u64,
    pub told: u64,
    pub is_equal: bool,
}

/// All of it.
#[derive(Debug)]
pub struct Judgement {
    pub levels: Vec<Level>,
    pub pairs: Vec<Pair>,
    /// Losses that memtrace itself counted.
    pub lost: Vec<(String, u64)>,
    /// OOM kills on the whole machine meanwhile: others may have been killed too.
    pub kernel_kills: u64,
}

impl Judgement {
    pub fn of(
        samples: &[Sample],
        made: &containers::Counts,
        told: &told::Counts,
        kernel_kills: u64,
    ) -> Self {
        let memory = |before: u64, after: u64| after as f64 <= before as f64 * MEMORY_SLACK;
        let count = |before: u64, after: u64| after <= before + COUNT_SLACK;
        let levels = vec![
            level(
                "anonymous memory, bytes",
                samples,
                |sample| sample.anon_bytes,
                memory,
            ),
            level("descriptors", samples, |sample| sample.descriptors, count),
            level("threads", samples, |sample| sample.threads, count),
            level("maps, bytes", samples, |sample| sample.map_bytes, memory),
            level(
                "cgroups followed",
                samples,
                |sample| sample.cgroups,
                |before, after| memory(before, after) || count(before, after),
            ),
        ];
        let equal = |what, expected, told| Pair {
            what,
            expected,
            told,
            is_equal: expected == told,
        };
        let near = told.faults.abs_diff(made.faults) as f64 <= made.faults as f64 * FAULTS_SLACK;
        let pairs = vec![
            equal("cgroups made and removed", made.made, told.removed),
            equal("processes that ended in them", made.ended, told.exits),
            equal("OOM kills, told at once", made.killed, told.kill_lines),
            equal(
                "OOM kills, as victims of incidents",
                made.killed,
                told.incident_victims,
            ),
            Pair {
                what: "page faults of those processes (within 1 %)",
                expected: made.faults,
                told: told.faults,
                is_equal: near,
            },
        ];
        let lost = told
            .lost
            .iter()
            .map(|(cause, count)| (cause.clone(), *count));
        Self {
            levels,
            pairs,
            lost: lost.collect(),
            kernel_kills,
        }
    }

    pub fn is_well(&self) -> bool {
        self.levels.iter().all(|level| level.is_flat) && self.pairs.iter().all(|pair| pair.is_equal)
    }
}

fn level(
    what: &'static str,
    samples: &[Sample],
    value: impl Fn(&Sample) -> u64,
    is_flat: impl Fn(u64, u64) -> bool,
) -> Level {
    let quarter = samples.len() / 4;
    let median = |samples: &[Sample]| {
        let mut values: Vec<u64> = samples.iter().map(&value).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or(0)
    };
    let before = median(&samples[quarter..2 * quarter]);
    let after = median(&samples[samples.len() - quarter..]);
    Level {
        what,
        before,
        after,
        is_flat: is_flat(before, after),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn samples(rss: impl Fn(u64) -> u64) -> Vec<Sample> {
        let sample = |index| Sample {
            elapsed: Duration::from_secs(10 * index),
            made: index,
            live: 60,
            cgroups: 70,
            anon_bytes: rss(index),
            file_bytes: 20 << 20,
            descriptors: 100,
            threads: 6,
            map_bytes: 8 << 20,
            cpu: Duration::from_secs(index),
        };
        (0..40).map(sample).collect()
    }

    fn counts(killed: u64) -> (containers::Counts, told::Counts) {
        let made = containers::Counts {
            made: 100,
            destroyed: 100,
            ended: 120,
            killed: 5,
            faults: 10_000,
        };
        let told = told::Counts {
            removed: 100,
            exits: 120,
            faults: 10_050,
            kill_lines: killed,
            incident_victims: killed,
            ..told::Counts::default()
        };
        (made, told)
    }

    #[test]
    fn a_level_that_swings_is_flat_and_one_that_climbs_is_not() {
        let (made, told) = counts(5);
        let swings = samples(|index| (30 << 20) + (index % 3) * 100_000);
        assert!(Judgement::of(&swings, &made, &told, 5).is_well());
        let climbs = samples(|index| (30 << 20) + index * 500_000);
        let judged = Judgement::of(&climbs, &made, &told, 5);
        assert!(!judged.is_well());
        assert!(!judged.levels[0].is_flat && judged.levels[1..].iter().all(|level| level.is_flat));
    }

    #[test]
    fn one_kill_that_was_not_told_is_one_too_many() {
        let (made, told) = counts(4);
        let judged = Judgement::of(&samples(|_| 30 << 20), &made, &told, 5);
        assert!(!judged.is_well());
        assert_eq!(judged.pairs.iter().filter(|pair| !pair.is_equal).count(), 2);
    }
}
