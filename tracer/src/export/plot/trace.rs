//! Many samples as few strokes: what is seen of a series at the width of a panel.

use super::axis::Scale;
use std::fmt::Write as _;

/// Times the usual step from which on there is a gap.
const GAP_STEPS: i64 = 5;

/// The series as a path: the minimum and maximum of each pixel, broken at gaps: where there is no finite
/// value, or none for `longest_step_ms`.
pub fn series(points: &[(i64, f64)], longest_step_ms: Option<i64>, x: Scale, y: Scale) -> String {
    let gap = longest_step_ms.unwrap_or_else(|| usual_step(points).saturating_mul(GAP_STEPS));
    let mut path = String::new();
    let mut column: Option<Column> = None;
    let mut before: Option<i64> = None;
    let mut is_gap = false;
    for (time, value) in points {
        if !value.is_finite() {
            is_gap = true;
            continue;
        }
        let place = x.at(*time as f64).round();
        let broken = is_gap || before.is_some_and(|before| time.saturating_sub(before) > gap);
        is_gap = false;
        match &mut column {
            Some(open) if open.place == place && !broken => open.take(*value),
            _ => {
                let begins = column.as_ref().is_none_or(|_| broken);
                if let Some(done) = column.take() {
                    done.draw(&mut path, y);
                }
                column = Some(Column::new(place, *value, begins));
            }
        }
        before = Some(*time);
    }
    if let Some(done) = column {
        done.draw(&mut path, y);
    }
    path
}

/// The samples in one pixel.
struct Column {
    place: f64,
    first: f64,
    low: f64,
    high: f64,
    begins: bool,
}

impl Column {
    fn new(place: f64, value: f64, begins: bool) -> Self {
        Column {
            place,
            first: value,
            low: value,
            high: value,
            begins,
        }
    }

    fn take(&mut self, value: f64) {
        self.low = self.low.min(value);
        self.high = self.high.max(value);
    }

    fn draw(&self, path: &mut String, y: Scale) {
        let (low, high) = (y.at(self.low), y.at(self.high));
        let step = if self.begins { 'M' } else { 'L' };
        let _ = write!(path, "{step}{:.0} {:.1}", self.place, y.at(self.first));
        if low - high >= 0.1 {
            let _ = write!(path, "V{high:.1}V{low:.1}");
        } else if self.begins {
            // A single sample between gaps is a dot.
            path.push_str("h1");
        }
    }
}

/// The minimum of each block, as steps, broken where a block is empty. Blocks are never narrower than
/// two pixels.
pub fn floor(points: &[(i64, f64)], block_ms: i64, x: Scale, y: Scale) -> String {
    let pixel = (x.high - x.low) / (x.end - x.start).max(1.0);
    let block = (block_ms as f64).max(2.0 * pixel).max(1.0);
    let block_of = |time: i64| ((time as f64 - x.low) / block).floor();
    let mut path = String::new();
    let mut open: Option<(f64, f64)> = None;
    let mut drawn: Option<f64> = None;
    let mut draw = |(at, low): (f64, f64)| {
        let step = if drawn.is_some_and(|drawn| drawn + 1.0 == at) {
            'L'
        } else {
            'M'
        };
        let (from, to) = (x.at(x.low + at * block), x.at(x.low + (at + 1.0) * block));
        let _ = write!(path, "{step}{from:.1} {0:.1}L{to:.1} {0:.1}", y.at(low));
        drawn = Some(at);
    };
    for (time, value) in points.iter().filter(|(_, value)| value.is_finite()) {
        let at = block_of(*time);
        open = match open {
            Some((before, low)) if before == at => Some((at, low.min(*value))),
            Some(done) => {
                draw(done);
                Some((at, *value))
            }
            None => Some((at, *value)),
        };
    }
    if let Some(done) = open {
        draw(done);
    }
    path
}

/// The median time between samples.
fn usual_step(points: &[(i64, f64)]) -> i64 {
    let steps = points.iter().zip(points.iter().skip(1));
    let mut steps: Vec<i64> = steps.map(|((a, _), (b, _))| b.saturating_sub(*a)).collect();
    if steps.is_empty() {
        return i64::MAX;
    }
    let middle = steps.len() / 2;
    *steps.select_nth_unstable(middle).1
}
