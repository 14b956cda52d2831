//! The ring against a plain map of steps.

use std::collections::BTreeMap;

use super::*;

/// A small generator of numbers, the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound.max(1)
    }
}

/// All readings of all steps, and which of them a ring of `most` still has.
#[derive(Default)]
struct Naive(BTreeMap<i64, Vec<(u64, Option<u64>)>>);

impl Naive {
    fn readings(&self, most: i64) -> Vec<(i64, Option<u64>, Option<u64>)> {
        let Some((&newest, _)) = self.0.last_key_value() else {
            return Vec::new();
        };
        self.0
            .range(newest - most + 1..)
            .map(|(step, readings)| {
                let usage = readings.iter().map(|(usage, _)| usage / 4096 * 4096).max();
                let anon = readings.iter().rev().find_map(|(_, anon)| *anon);
                (*step, usage, anon.map(|anon| anon / 4096 * 4096))
            })
            .collect()
    }
}

#[test]
fn a_ring_has_what_a_plain_map_of_its_last_steps_has() {
    for (seed, most) in [(1, 1), (2, 2), (3, 7), (4, 60), (5, 144), (6, 84)] {
        let mut dice = Dice(seed * 0x9e37_79b9);
        let mut naive = Naive::default();
        let mut ring = Ring::new(most);
        let mut step = dice.below(1000) as i64 - 500;
        for round in 0..3000 {
            // Mostly the same step or the next, at times a gap, seldom one longer than the ring.
            step += match dice.below(100) {
                0..40 => 0,
                40..90 => 1,
                90..99 => dice.below(u64::from(most)) as i64 + 1,
                _ => dice.below(3 * u64::from(most)) as i64,
            };
            let usage = dice.below(1 << 40);
            let anon = (dice.below(4) > 0).then(|| dice.below(1 << 38));
            ring.put(step, Cell::new(usage, anon));
            naive.0.entry(step).or_default().push((usage, anon));
            if round % 37 == 0 {
                let (newest, cells) = ring.kept();
                ring = Ring::restore(most, newest, &cells);
            }
            let has: Vec<_> = ring
                .readings()
                .map(|(step, cell)| (step, cell.usage_bytes(), cell.anon_bytes()))
                .collect();
            assert_eq!(
                has,
                naive.readings(most.into()),
                "ring of {most}, round {round}"
            );
            for back in 0..i64::from(most) + 3 {
                let expected = has.iter().find(|(at, ..)| *at == step - back);
                let got = ring.get(step - back).and_then(Cell::usage_bytes);
                assert_eq!(got, expected.and_then(|(_, usage, _)| *usage));
            }
        }
    }
}

#[test]
fn a_ring_takes_memory_as_it_fills_and_no_more_than_its_cells() {
    let mut ring = Ring::new(144);
    assert_eq!(ring.held_bytes(), 0);
    ring.put(0, Cell::new(1, None));
    assert_eq!(ring.held_bytes(), LEAST_ROOM * 8);
    (0..1000).for_each(|step| ring.put(step, Cell::new(1, None)));
    assert_eq!(ring.held_bytes(), 144 * 8);
}

#[test]
fn what_is_kept_too_long_is_cut_and_the_ends_of_time_break_nothing() {
    let cells = vec![Cell::new(4096, Some(0)); 100_000];
    let ring = Ring::restore(60, 10, &cells);
    assert_eq!(ring.readings().count(), 60);
    for newest in [i64::MIN, i64::MAX] {
        let mut ring = Ring::restore(60, newest, &cells);
        ring.put(0, Cell::new(1 << 60, None));
        ring.put(i64::MAX, Cell::new(1, None));
        ring.put(i64::MIN, Cell::new(1, None));
        assert!(ring.readings().count() <= 60);
        assert_eq!(ring.get(i64::MIN + 1), None);
    }
}

#[test]
fn what_is_larger_than_can_be_held_is_not_unknown() {
    let cell = Cell::new(u64::MAX, Some(u64::MAX));
    assert_eq!(cell.usage_bytes(), Some(bytes(u32::MAX - 1)));
    assert_eq!(cell.anon_bytes(), Some(bytes(u32::MAX - 1)));
}
