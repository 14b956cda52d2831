//! Rules on a straight line fitted by least squares to a window of minutes.

use super::super::draw::trailing_mean;
use super::every_five_minutes;

/// A least-squares line over one point a minute.
struct Line {
    /// Bytes per minute.
    slope: f64,
    r_squared: f64,
    /// Fitted value at the last point.
    end: f64,
}

impl Line {
    fn fit(bytes: &[f64]) -> Self {
        let count = bytes.len() as f64;
        let (middle, mean) = ((count - 1.0) / 2.0, bytes.iter().sum::<f64>() / count);
        let (mut sxy, mut syy) = (0.0, 0.0);
        for (minute, bytes) in bytes.iter().enumerate() {
            sxy += (minute as f64 - middle) * (bytes - mean);
            syy += (bytes - mean) * (bytes - mean);
        }
        let sxx = count * (count * count - 1.0) / 12.0;
        let slope = sxy / sxx;
        Self {
            slope,
            r_squared: if syy > 0.0 { sxy * slope / syy } else { 0.0 },
            end: mean + slope * middle,
        }
    }
}

/// A rising line explains most of the variance.
pub fn straight(bytes: &[f64], window: usize, r_squared: f64) -> Vec<bool> {
    every_five_minutes(window, 0, |seen| {
        let line = Line::fit(&bytes[seen - window..seen]);
        line.slope > 0.0 && line.r_squared > r_squared
    })
}

/// Prometheus' `deriv` above a fixed number of bytes per hour.
pub fn steep(bytes: &[f64], window: usize, per_hour: f64, hold: usize) -> Vec<bool> {
    every_five_minutes(10, hold, |seen| {
        let line = Line::fit(&bytes[seen.saturating_sub(window)..seen]);
        line.slope * 60.0 > per_hour
    })
}

/// Prometheus' `predict_linear` above the limit.
pub fn reaching(bytes: &[f64], limit: f64, window: usize, ahead: usize, hold: usize) -> Vec<bool> {
    every_five_minutes(window / 2, hold, |seen| {
        let line = Line::fit(&bytes[seen.saturating_sub(window)..seen]);
        line.slope > 0.0 && line.end + line.slope * ahead as f64 > limit
    })
}

/// After Coroot's memory auditor: more than 10% growth per hour, of at least 5% of the limit, that has
/// not slowed down, since the last fall by half.
pub fn coroot(bytes: &[f64], limit: f64) -> Vec<bool> {
    every_five_minutes(60, 15, |seen| {
        let hour = &bytes[seen - 60..seen];
        let halved = hour.windows(2).rposition(|pair| pair[1] < 0.5 * pair[0]);
        let calm = &hour[halved.map_or(0, |before| before + 1)..];
        if calm.len() < 20 {
            return false;
        }
        let line = Line::fit(calm);
        let tail = Line::fit(&calm[calm.len() - (calm.len() / 4).max(15)..]);
        let growth = line.slope * 60.0;
        let start = line.end - growth;
        line.slope > 0.0
            && tail.slope > 0.3 * line.slope
            && start > 0.0
            && growth >= 0.05 * limit
            && growth / start > 0.10
    })
}

/// After Precog: hourly means on a straight line that reaches the limit within `critical` minutes,
/// already above a share of the limit.
pub fn precog(
    bytes: &[f64],
    limit: f64,
    window: usize,
    r_squared: f64,
    critical: usize,
    share: f64,
) -> Vec<bool> {
    let smooth = trailing_mean(bytes, 60);
    every_five_minutes(window, 0, |seen| {
        let line = Line::fit(&smooth[seen - window..seen]);
        line.slope > 0.0
            && line.r_squared >= r_squared
            && line.end > share * limit
            && line.end + line.slope * critical as f64 > limit
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_exactly() {
        let line = Line::fit(&[3.0, 5.0, 7.0, 9.0]);
        assert!((line.slope - 2.0).abs() < 1e-12);
        assert!((line.r_squared - 1.0).abs() < 1e-12);
        assert!((line.end - 9.0).abs() < 1e-12);
        assert_eq!(Line::fit(&[4.0; 5]).r_squared, 0.0);
    }
}
