//! Rules on the order of block means.

use super::super::minutes::MINUTES;
use super::block_means;

/// A share of the steps between the last `points` block means goes up.
pub fn mostly_growing(bytes: &[f64], width: usize, points: usize, share: f64) -> Vec<bool> {
    let mut alarm = vec![false; MINUTES];
    for (index, last) in block_means(bytes, width).windows(points).enumerate() {
        let grown = last.windows(2).filter(|pair| pair[1] > pair[0]).count();
        let closed = (index + points) * width;
        if grown as f64 >= share * (points - 1) as f64 {
            alarm[closed - 1..(closed - 1 + width).min(MINUTES)].fill(true);
        }
    }
    alarm
}

/// The Mann–Kendall trend test on the last `points` block means, its variance inflated by the
/// autocorrelation of what the Theil–Sen slope leaves; `growth` bytes at least.
pub fn mann_kendall(
    bytes: &[f64],
    width: usize,
    points: usize,
    threshold: f64,
    growth: f64,
) -> Vec<bool> {
    let mut alarm = vec![false; MINUTES];
    for (index, last) in block_means(bytes, width).windows(points).enumerate() {
        let z = standard_score(last);
        if z <= threshold {
            continue;
        }
        let slope = theil_sen(last);
        let memory = lag_1(last, slope).clamp(0.0, 0.95);
        let corrected = z * ((1.0 - memory) / (1.0 + memory)).sqrt();
        if corrected > threshold && slope * points as f64 > growth {
            let closed = (index + points) * width;
            alarm[closed - 1..(closed - 1 + width).min(MINUTES)].fill(true);
        }
    }
    alarm
}

fn pairs(values: &[f64]) -> impl Iterator<Item = (f64, f64)> {
    values.iter().enumerate().flat_map(|(index, early)| {
        values[index + 1..]
            .iter()
            .zip(1_i32..)
            .map(move |(late, distance)| (late - early, f64::from(distance)))
    })
}

fn standard_score(values: &[f64]) -> f64 {
    let score: f64 = pairs(values)
        .map(|(rise, _)| f64::from(i8::from(rise > 0.0) - i8::from(rise < 0.0)))
        .sum();
    let count = values.len() as f64;
    let variance = count * (count - 1.0) * (2.0 * count + 5.0) / 18.0;
    if score == 0.0 {
        return 0.0;
    }
    (score - score.signum()) / variance.sqrt()
}

/// The median slope of all pairs, per block.
fn theil_sen(values: &[f64]) -> f64 {
    let mut slopes: Vec<f64> = pairs(values)
        .map(|(rise, distance)| rise / distance)
        .collect();
    let middle = slopes.len() / 2;
    *slopes.select_nth_unstable_by(middle, f64::total_cmp).1
}

/// Lag-1 autocorrelation of what the slope leaves.
fn lag_1(values: &[f64], slope: f64) -> f64 {
    let mut rest: Vec<f64> = values
        .iter()
        .enumerate()
        .map(|(index, value)| value - slope * index as f64)
        .collect();
    let mean = rest.iter().sum::<f64>() / rest.len() as f64;
    rest.iter_mut().for_each(|value| *value -= mean);
    let product: f64 = rest.windows(2).map(|pair| pair[0] * pair[1]).sum();
    product / (rest.iter().map(|value| value * value).sum::<f64>() + 1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_score_of_a_strict_rise_is_the_largest_there_is() {
        let rise: Vec<f64> = (0..10).map(f64::from).collect();
        // S = 45, Var S = 10 · 9 · 25 / 18 = 125.
        assert!((standard_score(&rise) - 44.0 / 125.0_f64.sqrt()).abs() < 1e-12);
        assert_eq!(standard_score(&[1.0; 10]), 0.0);
    }

    #[test]
    fn one_outlier_does_not_move_the_slope() {
        let mut values: Vec<f64> = (0..11).map(|at| 2.0 * f64::from(at)).collect();
        values[5] = 1e9;
        assert!((theil_sen(&values) - 2.0).abs() < 1e-9);
    }
}
