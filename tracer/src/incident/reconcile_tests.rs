use super::*;

const A: u64 = 1;
const B: u64 = 2;

/// A kernel with counters, and the reconciler that reads them.
#[derive(Default)]
struct Kernel {
    reconciler: Reconciler,
    now: u64,
    host: u64,
    cgroups: HashMap<u64, u64>,
    existing: Vec<u64>,
    told: Vec<Missed>,
}

impl Kernel {
    /// `existing` were there before, each with two kills of old.
    fn with(existing: &[u64]) -> Self {
        let mut kernel = Kernel {
            host: 100,
            existing: existing.to_vec(),
            cgroups: existing.iter().map(|id| (*id, 2)).collect(),
            ..Kernel::default()
        };
        kernel.read_host();
        kernel.read_all();
        kernel
    }

    fn at(&mut self) -> Duration {
        self.now += 1;
        Duration::from_millis(self.now)
    }

    /// A kill that the kernel counts; gives the time of its mark.
    fn kill(&mut self, id: u64) -> Duration {
        self.host += 1;
        *self.cgroups.entry(id).or_default() += 1;
        self.at()
    }

    fn kill_and_see(&mut self, id: u64) {
        let marked = self.kill(id);
        self.reconciler.seen(Some(id), marked);
    }

    fn read(&mut self, id: u64) {
        let at = self.at();
        let baseline = match self.existing.contains(&id) {
            true => Baseline::FirstReading,
            false => Baseline::Zero,
        };
        let told = self.reconciler.counted(id, self.cgroups[&id], at, baseline);
        self.told.extend(told);
    }

    fn read_all(&mut self) {
        let mut ids: Vec<u64> = self.cgroups.keys().copied().collect();
        ids.sort_unstable();
        ids.into_iter().for_each(|id| self.read(id));
    }

    fn read_host(&mut self) {
        let at = self.at();
        let told = self.reconciler.counted_host(Some(self.host), at);
        self.told.extend(told);
    }

    fn intervals(&mut self, many: u32) {
        for _ in 0..many {
            self.read_all();
            self.read_host();
        }
    }

    fn remove(&mut self, id: u64) {
        self.cgroups.remove(&id);
        self.reconciler.removed(id);
    }

    fn told(&mut self) -> Vec<(Option<u64>, u64)> {
        let told = std::mem::take(&mut self.told);
        told.iter()
            .map(|missed| (missed.cgroup_id, missed.kills))
            .collect()
    }
}

#[test]
fn kills_that_were_seen_are_not_missed() {
    let mut kernel = Kernel::with(&[A]);
    for _ in 0..20 {
        kernel.kill_and_see(A);
        kernel.kill_and_see(B);
        kernel.intervals(1);
    }
    assert_eq!(kernel.told(), []);
    assert_eq!(kernel.reconciler.excess(), 0);
}

#[test]
fn a_missed_kill_is_told_once_of_its_cgroup_by_the_second_reading() {
    for cgroup in [A, B] {
        let mut kernel = Kernel::with(&[A]);
        kernel.kill(cgroup);
        kernel.intervals(1);
        assert_eq!(kernel.told(), []);
        kernel.intervals(1);
        assert_eq!(kernel.told(), [(Some(cgroup), 1)]);
        kernel.intervals(20);
        assert_eq!(kernel.told(), []);
        assert_eq!(kernel.reconciler.excess(), 0);
    }
}

#[test]
fn a_kill_whose_record_comes_late_is_not_missed() {
    let mut kernel = Kernel::with(&[A, B]);
    let marked = kernel.kill(A);
    kernel.intervals(1);
    kernel.reconciler.seen(Some(A), marked);
    kernel.intervals(20);
    assert_eq!(kernel.told(), []);
    assert_eq!(kernel.reconciler.excess(), 0);
}

#[test]
fn a_late_record_does_not_hide_a_kill_that_was_missed() {
    let mut kernel = Kernel::with(&[A, B]);
    kernel.kill(A);
    let late = kernel.kill(A);
    kernel.intervals(1);
    kernel.reconciler.seen(Some(A), late);
    kernel.kill_and_see(A);
    kernel.kill_and_see(B);
    kernel.intervals(2);
    assert_eq!(kernel.told(), [(Some(A), 1)]);
}

#[test]
fn kills_between_reading_a_cgroup_and_the_host_are_not_missed() {
    let mut kernel = Kernel::with(&[A]);
    for _ in 0..20 {
        kernel.read_all();
        let marked = kernel.kill(A);
        kernel.read_host();
        kernel.reconciler.seen(Some(A), marked);
    }
    kernel.intervals(3);
    assert_eq!(kernel.told(), []);
    assert_eq!(kernel.reconciler.excess(), 0);
}

#[test]
fn kills_of_old_are_neither_missed_nor_seen_in_excess() {
    let mut kernel = Kernel {
        existing: vec![A],
        ..Kernel::default()
    };
    kernel.read_host();
    // Seen before the first reading, and its record read after it.
    kernel.kill_and_see(A);
    let marked = kernel.kill(A);
    kernel.read(A);
    kernel.reconciler.seen(Some(A), marked);
    kernel.intervals(5);
    assert_eq!(kernel.told(), []);
    assert_eq!(kernel.reconciler.excess(), 0);
}

#[test]
fn a_cgroup_removed_before_it_was_read_is_told_of_the_host() {
    let mut kernel = Kernel::with(&[A]);
    kernel.kill(B);
    kernel.kill(B);
    kernel.remove(B);
    kernel.intervals(1);
    assert!(kernel.reconciler.wants_every_cgroup());
    assert_eq!(kernel.told(), []);
    kernel.intervals(1);
    assert_eq!(kernel.told(), [(None, 2)]);
    assert!(!kernel.reconciler.wants_every_cgroup());
    kernel.intervals(10);
    assert_eq!(kernel.told(), []);
}

#[test]
fn a_cgroup_removed_after_one_reading_is_told_by_name() {
    let mut kernel = Kernel::with(&[A, B]);
    kernel.kill(B);
    let late = kernel.kill(B);
    kernel.intervals(1);
    kernel.remove(B);
    kernel.reconciler.seen(Some(B), late);
    kernel.intervals(5);
    assert_eq!(kernel.told(), [(Some(B), 1)]);
    assert_eq!(kernel.reconciler.excess(), 0);
    assert!(!kernel.reconciler.cgroups.contains_key(&B));
}

#[test]
fn a_kill_seen_in_a_cgroup_that_is_gone_is_not_missed() {
    let mut kernel = Kernel::with(&[A]);
    let marked = kernel.kill(B);
    kernel.remove(B);
    kernel.reconciler.seen(Some(B), marked);
    kernel.intervals(UNREAD_HOST_READINGS + 1);
    assert_eq!(kernel.told(), []);
    assert_eq!(kernel.reconciler.excess(), 0);
    assert!(!kernel.reconciler.cgroups.contains_key(&B));
}

#[test]
fn what_the_host_told_is_not_told_again_of_a_cgroup() {
    let mut kernel = Kernel::with(&[A, B]);
    kernel.kill(A);
    // A is not read in these intervals.
    for _ in 0..3 {
        kernel.read(B);
        kernel.read_host();
    }
    assert_eq!(kernel.told(), [(None, 1)]);
    kernel.intervals(10);
    assert_eq!(kernel.told(), []);
    assert_eq!(kernel.reconciler.excess(), 0);
    // Later ones are told as ever.
    kernel.kill(A);
    kernel.intervals(2);
    assert_eq!(kernel.told(), [(Some(A), 1)]);
}

#[test]
fn kills_in_the_root_cgroup_are_known_to_the_host_only() {
    let mut kernel = Kernel::with(&[A]);
    kernel.host += 1;
    let marked = kernel.at();
    kernel.reconciler.seen(None, marked);
    kernel.intervals(3);
    assert_eq!(kernel.told(), []);
    kernel.host += 1;
    kernel.intervals(3);
    assert_eq!(kernel.told(), [(None, 1)]);
}

#[test]
fn kills_seen_in_excess_are_counted_once_and_hide_nothing() {
    let mut kernel = Kernel::with(&[A, B]);
    let marked = kernel.at();
    kernel.reconciler.seen(Some(A), marked);
    kernel.intervals(5);
    assert_eq!(kernel.told(), []);
    assert_eq!(kernel.reconciler.excess(), 1);
    kernel.kill(A);
    kernel.intervals(5);
    assert_eq!(kernel.told(), [(Some(A), 1)]);
    assert_eq!(kernel.reconciler.excess(), 1);
    // Without a cgroup.
    let marked = kernel.at();
    kernel.reconciler.seen(None, marked);
    kernel.intervals(5);
    assert_eq!(kernel.reconciler.excess(), 2);
    assert_eq!(kernel.told(), []);
}

#[test]
fn an_excess_of_one_cgroup_does_not_hide_a_missed_kill_of_another() {
    let mut kernel = Kernel::with(&[A, B]);
    let marked = kernel.at();
    kernel.reconciler.seen(Some(A), marked);
    kernel.kill(B);
    kernel.intervals(10);
    assert_eq!(kernel.told(), [(Some(B), 1)]);
    assert_eq!(kernel.reconciler.excess(), 1);
}

#[test]
fn a_counter_that_goes_back_is_a_new_baseline() {
    let mut kernel = Kernel::with(&[A, B]);
    kernel.kill_and_see(A);
    kernel.intervals(1);
    kernel.cgroups.insert(A, 0);
    kernel.host = 7;
    kernel.intervals(5);
    assert_eq!(kernel.told(), []);
    kernel.kill(A);
    kernel.kill_and_see(B);
    kernel.intervals(5);
    assert_eq!(kernel.told(), [(Some(A), 1)]);
    assert_eq!(kernel.reconciler.excess(), 0);
}

#[test]
fn a_dip_of_one_reading_is_passed_over() {
    let mut kernel = Kernel::with(&[A]);
    let host = std::mem::replace(&mut kernel.host, 40);
    kernel.intervals(1);
    kernel.host = host;
    kernel.intervals(3);
    assert_eq!(kernel.told(), []);
    kernel.kill(A);
    kernel.intervals(3);
    assert_eq!(kernel.told(), [(Some(A), 1)]);
}

#[test]
fn without_a_count_of_the_host_cgroups_are_compared_alone() {
    let mut reconciler = Reconciler::new();
    let at = Duration::from_secs;
    assert_eq!(
        reconciler.counted(A, 5, at(1), Baseline::FirstReading),
        None
    );
    assert_eq!(
        reconciler.counted(A, 7, at(2), Baseline::FirstReading),
        None
    );
    assert_eq!(reconciler.counted_host(None, at(2)), []);
    let missed = Missed {
        cgroup_id: Some(A),
        kills: 2,
    };
    assert_eq!(
        reconciler.counted(A, 7, at(3), Baseline::FirstReading),
        Some(missed)
    );
    assert!(!reconciler.wants_every_cgroup());
    // One that goes after its first reading.
    assert_eq!(reconciler.counted(B, 1, at(4), Baseline::Zero), None);
    reconciler.removed(B);
    assert_eq!(reconciler.counted_host(None, at(4)), []);
    let missed = Missed {
        cgroup_id: Some(B),
        kills: 1,
    };
    assert_eq!(reconciler.counted_host(None, at(5)), [missed]);
    assert_eq!(reconciler.counted_host(None, at(6)), []);
}

#[test]
fn memory_is_bounded_and_the_host_covers_the_rest() {
    let mut kernel = Kernel::with(&[]);
    for id in 0..MOST_CGROUPS as u64 + 10 {
        let marked = kernel.kill(id + 10);
        kernel.reconciler.seen(Some(id + 10), marked);
    }
    assert_eq!(kernel.reconciler.cgroups.len(), MOST_CGROUPS);
    assert_eq!(kernel.reconciler.untracked(), 10);
    for _ in 0..=UNREAD_HOST_READINGS {
        kernel.read_host();
    }
    assert!(kernel.reconciler.cgroups.is_empty());
    assert_eq!(kernel.told(), []);
}

#[test]
fn extreme_numbers_are_survived() {
    let mut reconciler = Reconciler::new();
    let numbers = [0, u64::MAX, 0, 0, u64::MAX, 1, 1, u64::MAX, u64::MAX];
    for (step, number) in numbers.into_iter().enumerate() {
        let at = Duration::from_secs(step as u64);
        reconciler.counted(A, number, at, Baseline::Zero);
        reconciler.seen(Some(A), Duration::MAX);
        reconciler.seen(Some(B), Duration::ZERO);
        reconciler.counted_host(Some(number), at);
        reconciler.wants_every_cgroup();
    }
    reconciler.removed(A);
    reconciler.removed(A);
    reconciler.counted_host(Some(0), Duration::ZERO);
}

/// Random histories: what is told is what was missed, neither more nor less.
#[test]
fn every_missed_kill_is_told_exactly_once_in_random_histories() {
    for seed in 1..=300u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut next = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let mut kernel = Kernel::with(&[A, B, 3]);
        let mut missed = 0;
        let mut late = Vec::new();
        let mut fresh = 100;
        for _ in 0..200 {
            match next(12) {
                0..3 => kernel.kill_and_see(1 + next(5)),
                3 => {
                    let id = 1 + next(5);
                    let marked = kernel.kill(id);
                    late.push((id, marked));
                }
                4 => {
                    kernel.kill(1 + next(5));
                    missed += 1;
                }
                5 => {
                    fresh += 1;
                    kernel.kill(fresh);
                    missed += 1;
                    if next(2) == 0 {
                        kernel.read(fresh);
                    }
                    kernel.remove(fresh);
                }
                6 => {
                    let id = 1 + next(3);
                    kernel.read(id);
                }
                _ => {
                    // Some intervals read everything, some only a part. A record is late by at
                    // most one reading.
                    match next(2) {
                        0 => kernel.read_all(),
                        _ => kernel.read(1 + next(3)),
                    }
                    for (id, marked) in std::mem::take(&mut late) {
                        kernel.reconciler.seen(Some(id), marked);
                    }
                    kernel.read_host();
                }
            }
        }
        for (id, marked) in late {
            kernel.reconciler.seen(Some(id), marked);
        }
        kernel.intervals(6);
        let told: u64 = kernel.told().iter().map(|(_, kills)| kills).sum();
        assert_eq!(told, missed, "seed {seed}");
        assert_eq!(kernel.reconciler.excess(), 0, "seed {seed}");
    }
}

#[test]
fn a_storm_whose_kills_fall_into_the_readings_misses_nothing() {
    let ms = Duration::from_millis;
    let mut reconciler = Reconciler::new();
    reconciler.counted_host(Some(0), ms(0));
    for round in 1..100 {
        let from = ms(round * 100);
        let span = Span {
            from,
            until: from + ms(50),
        };
        // One kill before the reading; one after it began, in it or not, told before or after it.
        reconciler.seen(Some(A), from - ms(10));
        let counted = 2 * round - round % 2;
        if round % 3 == 0 {
            reconciler.seen(Some(A), from + ms(20));
        }
        assert_eq!(reconciler.counted(A, counted, span, Baseline::Zero), None);
        assert_eq!(reconciler.counted_host(Some(counted), span), []);
        if round % 3 != 0 {
            reconciler.seen(Some(A), from + ms(20));
        }
    }
    assert_eq!(reconciler.excess(), 0);
    // A kill that was really missed shows once it is over.
    let mut missed = Vec::new();
    for round in 100..104 {
        let at = ms(round * 100);
        missed.extend(reconciler.counted(A, 199, at, Baseline::Zero));
        missed.extend(reconciler.counted_host(Some(199), at));
    }
    let one = Missed {
        cgroup_id: Some(A),
        kills: 1,
    };
    assert_eq!(missed, [one]);
}

#[test]
fn a_count_is_settled_when_every_kill_in_it_was_seen_or_told() {
    let second = Duration::from_secs;
    let mut kills = Reconciler::new();
    assert!(!kills.is_settled(), "nothing was read");
    kills.counted_host(Some(5), second(1));
    assert!(kills.is_settled());
    kills.counted_host(Some(7), second(2));
    assert!(!kills.is_settled(), "two may still be on their way");
    kills.seen(None, Duration::from_millis(1500));
    assert!(!kills.is_settled());
    let missed = kills.counted_host(Some(7), second(3));
    assert_eq!(missed.iter().map(|missed| missed.kills).sum::<u64>(), 1);
    assert!(kills.is_settled(), "one was seen and one is told");
}
