//! What a tool told, held against what the load did. Must not run anything.

use std::collections::BTreeMap;

use super::seen::{Kills, Processes, Seen};
use super::truth::{Kill, Manner, Truth};

/// Between the memory that a victim had written and what a tool may tell of it.
const ANON_SLACK: f64 = 0.15;

/// `None` where the tool does not tell it by design.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Score {
    /// Of the load's kills. Of a tool that only counts the machine's, `machine_kills` beside the kernel's.
    pub kills: Option<usize>,
    /// Among them those of many at once.
    pub storm_kills: Option<usize>,
    pub machine_kills: Option<(u64, u64)>,
    pub right_pid: Option<usize>,
    pub right_cgroup: Option<usize>,
    pub right_limit: Option<usize>,
    pub right_trigger: Option<usize>,
    pub right_memory: Option<usize>,
    /// Short-lived processes of which it told the end.
    pub shorts: Option<usize>,
    /// Share of their page faults that it told, and that it told of the right cgroup.
    pub faults: Option<f64>,
    pub faults_by_cgroup: Option<f64>,
}

impl Score {
    pub fn of(truth: &Truth, seen: &Seen) -> Self {
        let mut score = Self::default();
        score.add_kills(truth, &seen.kills);
        score.add_processes(truth, &seen.processes);
        score
    }

    fn add_kills(&mut self, truth: &Truth, kills: &Kills) {
        match kills {
            Kills::NotTold => {}
            Kills::OfMachine { told, kernel } => self.machine_kills = Some((*told, *kernel)),
            Kills::OfCgroups(counts) => {
                let found = |manner: Option<Manner>| {
                    let mut killed: BTreeMap<&str, u64> = BTreeMap::new();
                    for kill in &truth.kills {
                        if manner.is_none_or(|manner| manner == kill.manner) {
                            *killed.entry(&kill.cgroup).or_default() += 1;
                        }
                    }
                    let told = |(cgroup, killed): (&&str, &u64)| {
                        (*killed).min(counts.get(*cgroup).copied().unwrap_or(0)) as usize
                    };
                    killed.iter().map(told).sum()
                };
                self.kills = Some(found(None));
                self.storm_kills = Some(found(Some(Manner::Storm)));
                self.right_cgroup = self.kills;
            }
            Kills::Each(told) => {
                let pairs: Vec<_> = truth
                    .kills
                    .iter()
                    .filter_map(|kill| Some((kill, told.iter().find(|told| told.pid == kill.pid)?)))
                    .collect();
                let is_storm = |kill: &Kill| kill.manner == Manner::Storm;
                self.kills = Some(pairs.len());
                self.storm_kills = Some(pairs.iter().filter(|(kill, _)| is_storm(kill)).count());
                self.right_pid = Some(pairs.len());
                self.right_cgroup = equal(
                    &pairs,
                    |told| told.cgroup.clone(),
                    |kill| kill.cgroup.clone(),
                );
                self.right_limit = equal(
                    &pairs,
                    |told| told.limit_cgroup.clone(),
                    |kill| kill.limit_cgroup.clone(),
                );
                self.right_trigger =
                    equal(&pairs, |told| told.trigger_pid, |kill| kill.trigger_pid);
                let is_near = |kill: &Kill, told: u64| {
                    (told as f64 - kill.anon_bytes as f64).abs()
                        <= ANON_SLACK * kill.anon_bytes as f64
                };
                self.right_memory = count(
                    &pairs,
                    |told| told.anon_bytes,
                    |kill, told| is_near(kill, *told),
                );
            }
        }
    }

    fn add_processes(&mut self, truth: &Truth, processes: &Processes) {
        let all: u64 = truth.shorts.iter().map(|short| short.faults).sum();
        let share = |faults: u64| faults as f64 / all.max(1) as f64;
        match processes {
            Processes::NotTold => {}
            Processes::Each(told) => {
                let found: Vec<_> = truth
                    .shorts
                    .iter()
                    .filter_map(|short| Some((short, told.get(&short.pid)?)))
                    .collect();
                self.shorts = Some(found.len());
                if told.values().any(|process| process.faults.is_some()) {
                    let faults = found
                        .iter()
                        .map(|(short, told)| short.faults.min(told.faults.unwrap_or(0)));
                    self.faults = Some(share(faults.sum()));
                    if told.values().any(|process| process.cgroup.is_some()) {
                        let right = found
                            .iter()
                            .filter(|(short, told)| told.cgroup.as_ref() == Some(&short.cgroup))
                            .map(|(short, told)| short.faults.min(told.faults.unwrap_or(0)));
                        self.faults_by_cgroup = Some(share(right.sum()));
                    }
                }
            }
            Processes::OfCgroups(told) => {
                let mut ended: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
                for short in &truth.shorts {
                    let cgroup = ended.entry(&short.cgroup).or_default();
                    cgroup.0 += 1;
                    cgroup.1 += short.faults;
                }
                let pairs = || {
                    ended
                        .iter()
                        .filter_map(|(cgroup, ended)| Some((ended, told.get(*cgroup)?)))
                };
                let seen: u64 = pairs()
                    .map(|(ended, told)| ended.0.min(told.processes))
                    .sum();
                let faults = pairs().map(|(ended, told)| ended.1.min(told.faults)).sum();
                self.shorts = Some(seen as usize);
                self.faults = Some(share(faults));
                self.faults_by_cgroup = self.faults;
            }
        }
    }
}

type Pair<'a> = (&'a Kill, &'a super::seen::Kill);

/// How many are told right; `None` where the tool tells it of no kill.
fn count<T>(
    pairs: &[Pair<'_>],
    told: impl Fn(&super::seen::Kill) -> Option<T>,
    is_right: impl Fn(&Kill, &T) -> bool,
) -> Option<usize> {
    let known: Vec<_> = pairs
        .iter()
        .filter_map(|(kill, seen)| Some((kill, told(seen)?)))
        .collect();
    let right = known.iter().filter(|(kill, told)| is_right(kill, told));
    (!known.is_empty()).then(|| right.count())
}

fn equal<T: PartialEq>(
    pairs: &[Pair<'_>],
    told: impl Fn(&super::seen::Kill) -> Option<T>,
    expected: impl Fn(&Kill) -> T,
) -> Option<usize> {
    count(pairs, told, |kill, told| *told == expected(kill))
}

#[cfg(test)]
#[path = "score_tests.rs"]
mod tests;
