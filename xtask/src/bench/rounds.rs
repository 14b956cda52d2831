//! Interleaves what is compared and reduces the samples pair by pair.
//! Must not know what is measured.

use anyhow::Result;

use super::interrupt;

/// What one contestant cost, against the first one in the same rounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    pub median: f64,
    pub added: f64,
    pub ratio: f64,
    pub lowest_ratio: f64,
    pub highest_ratio: f64,
    /// Where the true ratio is with 95% confidence.
    pub confidence: (f64, f64),
}

/// Measures every contestant once per round, in an order that rotates. Result: `[contestant][round]`.
pub fn interleave<C: Copy, S>(
    contestants: &[C],
    rounds: usize,
    mut measure: impl FnMut(usize, C) -> Result<S>,
) -> Result<Vec<Vec<S>>> {
    let count = contestants.len();
    let mut samples: Vec<Vec<S>> = (0..count).map(|_| Vec::with_capacity(rounds)).collect();
    for round in 0..rounds {
        for step in 0..count {
            let index = (round + step) % count;
            interrupt::check()?;
            samples[index].push(measure(round, contestants[index])?);
        }
    }
    Ok(samples)
}

/// Compares with the baseline of the same round, which had the same neighbours on the machine.
pub fn compare(baseline: &[f64], samples: &[f64]) -> Figure {
    let pairs = || baseline.iter().zip(samples);
    let ratios: Vec<f64> = pairs().map(|(base, sample)| sample / base).collect();
    Figure {
        median: median(samples),
        added: median(
            &pairs()
                .map(|(base, sample)| sample - base)
                .collect::<Vec<_>>(),
        ),
        ratio: median(&ratios),
        lowest_ratio: ratios.iter().copied().fold(f64::INFINITY, f64::min),
        highest_ratio: ratios.iter().copied().fold(0.0, f64::max),
        confidence: confidence(&ratios),
    }
}

/// Of the median, at least 95%, without an assumption on how the samples are distributed: it lies
/// outside the k lowest and highest of n with twice the probability of less than k heads in n
/// throws. All of the samples when they are fewer than six.
fn confidence(samples: &[f64]) -> (f64, f64) {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (Some(&first), Some(&last)) = (sorted.first(), sorted.last()) else {
        return (0.0, 0.0);
    };
    let count = sorted.len();
    let mut outside = 0.0;
    let mut ways = 1.0;
    let mut bounds = (first, last);
    for cut in 0..count / 2 {
        outside += 2.0 * ways / 2f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
        if outside > 0.05 {
            break;
        }
        bounds = (sorted[cut], sorted[count - 1 - cut]);
        ways *= (count - cut) as f64 / (cut + 1) as f64;
    }
    bounds
}

/// 0 for no samples.
pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        count if count % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_rotates_and_the_samples_stay_sorted_by_contestant() {
        let mut order = String::new();
        let samples = interleave(&['a', 'b', 'c'], 3, |round, contestant| {
            order.push(contestant);
            Ok((round, contestant))
        });
        assert_eq!(order, "abcbcacab");
        assert_eq!(samples.unwrap()[1], [(0, 'b'), (1, 'b'), (2, 'b')]);
    }

    #[test]
    fn a_slow_round_does_not_change_the_ratio() {
        let figure = compare(&[100.0, 1000.0, 100.0], &[110.0, 1100.0, 120.0]);
        assert_eq!(figure.median, 120.0);
        assert_eq!(figure.added, 20.0);
        assert!((figure.ratio - 1.1).abs() < 1e-9);
        assert!((figure.highest_ratio - 1.2).abs() < 1e-9);
    }

    #[test]
    fn the_median_is_within_the_ranks_of_the_tables() {
        let samples = |count: u32| -> Vec<f64> { (1..=count).map(f64::from).rev().collect() };
        // Dixon and Massey, Introduction to Statistical Analysis, table of the sign test.
        assert_eq!(confidence(&samples(5)), (1.0, 5.0));
        assert_eq!(confidence(&samples(6)), (1.0, 6.0));
        assert_eq!(confidence(&samples(9)), (2.0, 8.0));
        assert_eq!(confidence(&samples(15)), (4.0, 12.0));
        assert_eq!(confidence(&samples(25)), (8.0, 18.0));
        assert_eq!(confidence(&[]), (0.0, 0.0));
    }

    #[test]
    fn the_median_of_an_even_count_lies_between() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }
}
