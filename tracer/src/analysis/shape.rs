//! The shape of a growth: a line, or a curve that flattens. Pure arithmetic.

use super::trend::{slope, sums};

/// Time constants of logarithmic curves, as shares of the window.
const LOG: [f64; 5] = [0.02, 0.06, 0.2, 0.5, 1.0];
/// Time constants of exponential saturation, as shares of the window.
const EXPONENTIAL: [f64; 5] = [0.15, 0.3, 0.5, 0.8, 1.2];

/// Least-squares slopes of the first and of the last half of the points: where it rises by steps most
/// pairs tie, and the median of their slopes tells nothing.
pub fn mean_halves(x: &[f64], y: &[f64]) -> (f64, f64) {
    let half = x.len() / 2;
    let from = x.len() - half;
    let slope = |x: Option<&[f64]>, y: Option<&[f64]>| {
        let (sxx, sxy, _) = sums(x.unwrap_or_default(), y.unwrap_or_default());
        if sxx > 0.0 { sxy / sxx } else { 0.0 }
    };
    (
        slope(x.get(..half), y.get(..half)),
        slope(x.get(from..), y.get(from..)),
    )
}

/// Slopes of the first and of the last half of the points.
pub fn halves(x: &[f64], y: &[f64]) -> (f64, f64) {
    let half = x.len() / 2;
    let head = slope(x.get(..half).unwrap_or(x), y.get(..half).unwrap_or(y));
    let from = x.len() - half;
    let tail = slope(x.get(from..).unwrap_or(x), y.get(from..).unwrap_or(y));
    (head, tail)
}

/// Squared error of a line over that of the best flattening curve: above 1 the curve fits better; 0
/// when no curve rises. `span` is the length of the window and `age` what the process had lived before
/// it, both in blocks.
pub fn saturation(x: &[f64], y: &[f64], span: f64, age: f64) -> f64 {
    let (sxx, sxy, syy) = sums(x, y);
    if sxx <= 0.0 || span <= 0.0 {
        return 0.0;
    }
    let line = syy - sxy * sxy / sxx;
    let n = x.len() as f64;
    let mean = y.iter().sum::<f64>() / n;
    let first = x.first().copied().unwrap_or(0.0);
    let best = (LOG.map(|share| {
        error(x, y, mean, syy, |x| {
            // Shifted and scaled, ln(1 + (x + age) / c) is ln(c + x + age).
            ((span * share + age + x) / (span * share + age + first)).ln()
        })
    }))
    .into_iter()
    .chain(
        EXPONENTIAL.map(|share| error(x, y, mean, syy, |x| -(-(x - first) / (span * share)).exp())),
    )
    .flatten()
    .min_by(f64::total_cmp);
    best.map_or(0.0, |best| line / (best + 1e-9 * syy + 1.0))
}

/// Squared error of a line over that of the best parabola that bends up; 0 where none does.
pub fn bend(x: &[f64], y: &[f64]) -> f64 {
    let (sxx, sxy, syy) = sums(x, y);
    if sxx <= 0.0 {
        return 0.0;
    }
    let n = x.len() as f64;
    let mean = |values: &[f64]| values.iter().sum::<f64>() / n;
    let (mx, my) = (mean(x), mean(y));
    // The square less its own line: what it adds is at right angles to the line.
    let square: Vec<f64> = x.iter().map(|x| (x - mx) * (x - mx)).collect();
    let (_, sxq, _) = sums(x, &square);
    let mq = mean(&square);
    let (mut qq, mut qy) = (0.0, 0.0);
    for ((x, y), square) in x.iter().zip(y).zip(square) {
        let rest = square - mq - sxq / sxx * (x - mx);
        qq += rest * rest;
        qy += rest * (y - my);
    }
    let line = syy - sxy * sxy / sxx;
    if qy <= 0.0 || qq <= 0.0 {
        return 0.0;
    }
    line / ((line - qy * qy / qq).max(0.0) + 1e-9 * syy + 1.0)
}

/// Squared error of the best `a + c·curve(x)` with c > 0; `mean` and `syy` are of `y`.
fn error(x: &[f64], y: &[f64], mean: f64, syy: f64, curve: impl Fn(f64) -> f64) -> Option<f64> {
    let (mut sum, mut square, mut product) = (0.0, 0.0, 0.0);
    for (x, y) in x.iter().zip(y) {
        let value = curve(*x);
        sum += value;
        square += value * value;
        product += value * (y - mean);
    }
    let spread = square - sum * sum / x.len() as f64;
    (product > 0.0 && spread > 0.0).then(|| (syy - product * product / spread).max(0.0))
}
