//! Trend statistics of up to sixty points: Mann–Kendall, Theil–Sen, residuals. Pure arithmetic.

use super::ring::BLOCKS;

/// Values below which a rank is looked for among all of them.
const FEW: usize = 600;
/// Values that are looked at first, to narrow down where a rank is.
const TASTED: usize = 64;
/// Ranks of them either side of the one that is looked for.
const MARGIN: usize = 9;

/// Slopes of every pair of points.
#[derive(Debug)]
pub struct Slopes {
    values: Vec<f64>,
    near: Vec<f64>,
    tasted: [f64; TASTED],
}

impl Slopes {
    /// The pairwise slopes of `y` over `x`; points beyond sixty are left out.
    pub fn new(x: &[f64], y: &[f64]) -> Self {
        let count = x.len().min(y.len()).min(BLOCKS);
        let mut values = Vec::with_capacity(count * count.saturating_sub(1) / 2);
        for (later, (x1, y1)) in x.iter().zip(y).take(BLOCKS).enumerate() {
            let earlier = x.iter().zip(y).take(later);
            values.extend(earlier.map(|(x0, y0)| (y1 - y0) / (x1 - x0)));
        }
        let mut tasted = [0.0; TASTED];
        if values.len() > FEW {
            let every = values.iter().step_by(values.len() / TASTED);
            for (cell, value) in tasted.iter_mut().zip(every) {
                *cell = *value;
            }
            tasted.sort_unstable_by(f64::total_cmp);
        }
        Slopes {
            near: vec![0.0; values.len()],
            values,
            tasted,
        }
    }

    /// Whether the lower end of [`Slopes::interval`] is above 0.
    pub fn surely_rising(&self, distance: f64) -> bool {
        let rank = ((self.values.len() as f64 - distance) / 2.0).max(0.0) as usize;
        let falling = self.values.iter().filter(|slope| **slope <= 0.0).count();
        falling <= rank && !self.values.is_empty()
    }

    /// The slope of this rank, 0 the least; ranks outside are clamped.
    pub fn rank(&mut self, rank: f64) -> f64 {
        let Some(last) = self.values.len().checked_sub(1) else {
            return 0.0;
        };
        let at = (rank.max(0.0) as usize).min(last);
        if let Some(slope) = self.near(at) {
            return slope;
        }
        *self.values.select_nth_unstable_by(at, f64::total_cmp).1
    }

    /// The slope of rank `at` among those between two of the tasted ones; `None` when it is not there.
    fn near(&mut self, at: usize) -> Option<f64> {
        let count = self.values.len();
        if count <= FEW {
            return None;
        }
        let middle = at * TASTED / count;
        let bound =
            |at: Option<usize>, none| at.map_or(Some(none), |at| self.tasted.get(at).copied());
        let low = bound(middle.checked_sub(MARGIN), f64::NEG_INFINITY)?;
        let high = Some(middle + MARGIN).filter(|high| *high < TASTED);
        let high = bound(high, f64::INFINITY)?;
        let (mut below, mut held) = (0, 0);
        for value in &self.values {
            below += usize::from(*value < low);
            *self.near.get_mut(held)? = *value;
            held += usize::from((*value >= low) & (*value <= high));
            held = held.min(count - 1);
        }
        let near = self.near.get_mut(..held)?;
        let at = at.checked_sub(below).filter(|at| *at < near.len())?;
        Some(*near.select_nth_unstable_by(at, f64::total_cmp).1)
    }

    /// The median slope: Theil–Sen.
    pub fn median(&mut self) -> f64 {
        self.rank((self.values.len() / 2) as f64)
    }

    /// The interval of Kendall: ranks `distance / 2` either side of the middle.
    pub fn interval(&mut self, distance: f64) -> (f64, f64) {
        let count = self.values.len() as f64;
        (
            self.rank((count - distance) / 2.0),
            self.rank((count + distance) / 2.0),
        )
    }
}

/// Theil–Sen slope of `y` over `x`.
pub fn slope(x: &[f64], y: &[f64]) -> f64 {
    Slopes::new(x, y).median()
}

/// Mann–Kendall Z of `y`.
pub fn mann_kendall(y: &[f64]) -> f64 {
    let mut score = 0i32;
    for (later, y1) in y.iter().enumerate() {
        for y0 in y.iter().take(later) {
            score += i32::from(y1 > y0) - i32::from(y1 < y0);
        }
    }
    let score = f64::from(score - score.signum());
    let variance = kendall_variance(y.len());
    if variance > 0.0 {
        score / variance.sqrt()
    } else {
        0.0
    }
}

/// Variance of the Mann–Kendall score of `count` independent points.
pub fn kendall_variance(count: usize) -> f64 {
    let n = count as f64;
    n * (n - 1.0) * (2.0 * n + 5.0) / 18.0
}

/// The median; 0 of nothing. Reorders `values`.
pub fn median(values: &mut [f64]) -> f64 {
    let middle = values.len() / 2;
    if values.is_empty() {
        return 0.0;
    }
    let odd = values.len() % 2 == 1;
    let (low, upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    let upper = *upper;
    if odd {
        return upper;
    }
    let lower = low.iter().copied().max_by(f64::total_cmp).unwrap_or(upper);
    f64::midpoint(lower, upper)
}

/// What is left around a line of a given slope.
#[derive(Debug, Clone, Copy)]
pub struct Residuals {
    /// Robust standard deviation (median absolute deviation).
    pub sigma: f64,
    /// Lag-1 correlation, within 0 and the cap.
    pub correlation: f64,
}

/// Residuals of `y` around a line of `slope` over `x`, correlation capped at `cap`. Deviations of about
/// `negligible` or less count as uncorrelated.
pub fn residuals(x: &[f64], y: &[f64], slope: f64, cap: f64, negligible: f64) -> Residuals {
    let mut rest = [0.0; BLOCKS];
    let count = x.len().min(y.len()).min(BLOCKS);
    for (cell, (x, y)) in rest.iter_mut().zip(x.iter().zip(y)) {
        *cell = y - slope * x;
    }
    let rest = rest.get_mut(..count).unwrap_or_default();
    let mean = rest.iter().sum::<f64>() / (count.max(1) as f64);
    let (mut lag, mut square) = (0.0, 0.0);
    let mut before = None;
    for value in rest.iter() {
        let value = value - mean;
        square += value * value;
        lag += before.map_or(0.0, |before: f64| before * value);
        before = Some(value);
    }
    let square = square + negligible * negligible * count as f64 + 1e-9;
    // Not `clamp`: it panics on a cap that is no number.
    let correlation = (lag / square).max(0.0).min(cap.min(0.95)).max(0.0);
    let middle = median(rest);
    for value in rest.iter_mut() {
        *value = (*value - middle).abs();
    }
    Residuals {
        sigma: 1.4826 * median(rest),
        correlation,
    }
}

/// Coefficient of load in `y ~ 1 + x + load`, and the mean load; `None` where load and time cannot be
/// told apart or load does not push memory up.
pub fn load_effect(x: &[f64], y: &[f64], load: &[f64]) -> Option<(f64, f64)> {
    let n = x.len() as f64;
    let mean = |values: &[f64]| values.iter().sum::<f64>() / n;
    let (mx, my, ml) = (mean(x), mean(y), mean(load));
    let (mut tt, mut tl, mut ll, mut ty, mut ly) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for ((x, y), load) in x.iter().zip(y).zip(load) {
        let (a, b, c) = (x - mx, load - ml, y - my);
        tt += a * a;
        tl += a * b;
        ll += b * b;
        ty += a * c;
        ly += b * c;
    }
    let determinant = tt * ll - tl * tl;
    if determinant.is_nan() || determinant <= 0.1 * tt * ll {
        return None;
    }
    let effect = (ly * tt - ty * tl) / determinant;
    (effect > 0.0 && effect.is_finite()).then_some((effect, ml))
}

/// Share of the variance of `y` that a least-squares line over `x` explains.
pub fn r_squared(x: &[f64], y: &[f64]) -> f64 {
    let (sxx, sxy, syy) = sums(x, y);
    if sxx > 0.0 && syy > 0.0 {
        (sxy * sxy / (sxx * syy)).clamp(0.0, 1.0)
    } else {
        0.0
    }
}

/// Whether `y` rises with `x`.
pub fn slope_sign(x: &[f64], y: &[f64]) -> bool {
    sums(x, y).1 > 0.0
}

/// Centred sums of squares and products.
pub fn sums(x: &[f64], y: &[f64]) -> (f64, f64, f64) {
    let n = x.len().max(1) as f64;
    let mx = x.iter().sum::<f64>() / n;
    let my = y.iter().sum::<f64>() / n;
    x.iter()
        .zip(y)
        .fold((0.0, 0.0, 0.0), |(sxx, sxy, syy), (x, y)| {
            let (dx, dy) = (x - mx, y - my);
            (sxx + dx * dx, sxy + dx * dy, syy + dy * dy)
        })
}
