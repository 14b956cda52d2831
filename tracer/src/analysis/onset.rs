//! Since when: the knee of the best "flat, then a line" through a series. Pure arithmetic.

use super::ring::{BLOCK_MINUTES, RINGS, Ring};
use serde::{Deserialize, Serialize};

/// Since when the signal grows, in minutes of the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Onset {
    /// The minute.
    pub minute: i64,
    /// Half width of its interval in minutes.
    pub uncertainty: f64,
}

/// Since when what ring `index` shows grows: the knee on the finest ring from it on that has one.
pub fn find(rings: &[Ring; RINGS], index: usize, now: i64) -> Option<Onset> {
    let mut found = None;
    for (ring, block) in rings.iter().zip(BLOCK_MINUTES).skip(index) {
        let held = ring.held();
        let (mut x, mut y) = (Vec::with_capacity(held), Vec::with_capacity(held));
        for back in (0..held).rev() {
            if let Some(floor) = ring.floor(back) {
                x.push((held - back) as f64);
                y.push(floor);
            }
        }
        let Some(knee) = knee(&x, &y) else {
            break;
        };
        let back = held as f64 - x.get(knee.at).copied().unwrap_or(1.0) + 1.0;
        let minute = now - ring.open_minutes() - (back * block as f64) as i64;
        // Nothing calm was seen, and nothing was forgotten: it grew from the start on.
        let from_start = knee.from_start && ring.closed() as usize <= held;
        found = Some(Onset {
            minute: if from_start { 0 } else { minute.max(0) },
            uncertainty: (knee.uncertainty + 0.5) * block as f64,
        });
        if knee.at > (y.len() / 10).max(2) {
            break;
        }
    }
    found
}

/// Where the growth starts, as an index into the points, and how far off it may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Knee {
    /// Index of the last point before the growth.
    pub at: usize,
    /// Half width of the interval of knees that fit about as well, in points.
    pub uncertainty: f64,
    /// Growth from the first point on fits about as well.
    pub from_start: bool,
}

/// The knee of `y` over `x` by least squares; `None` of fewer than eight points.
pub fn knee(x: &[f64], y: &[f64]) -> Option<Knee> {
    let count = x.len().min(y.len());
    if count < 8 {
        return None;
    }
    let candidates = count - 5;
    let errors = errors(x.get(..count)?, y.get(..count)?, candidates);
    let (at, best) = errors
        .iter()
        .enumerate()
        .filter_map(|(at, error)| error.map(|error| (at, error)))
        .min_by(|a, b| a.1.total_cmp(&b.1))?;
    // An F test at 5 %: knees whose error is not significantly larger.
    let bound = best * (1.0 + 4.0 / (count - 3) as f64) + 1.0;
    let near = |at: &usize| {
        errors
            .get(*at)
            .copied()
            .flatten()
            .is_some_and(|error| error <= bound)
    };
    let first = (0..=at).rev().take_while(near).last().unwrap_or(at);
    let last = (at..candidates).take_while(near).last().unwrap_or(at);
    Some(Knee {
        at,
        uncertainty: ((last - first) as f64 / 2.0).max(0.5),
        from_start: first == 0,
    })
}

/// For each point `at` the squared error of `a` before it and `a + b(x − x[at])` after it, b > 0.
fn errors(x: &[f64], y: &[f64], candidates: usize) -> Vec<Option<f64>> {
    let n = x.len() as f64;
    let mean = y.iter().sum::<f64>() / n;
    let yy: f64 = y.iter().map(|y| (y - mean) * (y - mean)).sum();
    // Sums over the points from one on: of x − x[at], its square, y − mean, and their product.
    let (mut h, mut hh, mut sy, mut hy, mut after) = (0.0, 0.0, 0.0, 0.0, 0.0);
    let mut later = f64::NAN;
    let mut errors: Vec<Option<f64>> = (x.iter().zip(y).rev())
        .map(|(x, y)| {
            if after > 0.0 {
                let step = later - x;
                hh += step * (2.0 * h + after * step);
                h += after * step;
                hy += step * sy;
            }
            (later, after, sy) = (*x, after + 1.0, sy + y - mean);
            let spread = hh - h * h / n;
            (hy > 0.0 && spread > 0.0).then(|| (yy - hy * hy / spread).max(0.0))
        })
        .collect();
    errors.reverse();
    errors.truncate(candidates);
    errors
}
