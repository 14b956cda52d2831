//! The points of a ring as a regression takes them. Judges nothing.

use super::ring::{BLOCKS, LoadRing, Ring};
use super::trend;

/// The points of a ring, holes left out.
#[derive(Debug)]
pub struct Window {
    /// Blocks since the oldest point.
    pub x: [f64; BLOCKS],
    /// Floors in bytes.
    pub y: [f64; BLOCKS],
    /// Mean load; 0 in a hole.
    pub load: [f64; BLOCKS],
    /// Points.
    pub count: usize,
    /// The load is known at every point.
    pub loaded: bool,
}

impl Window {
    /// The points of `ring`, and the load of the same blocks.
    pub fn of(ring: &Ring, load: &LoadRing) -> Window {
        let mut window = Window {
            x: [0.0; BLOCKS],
            y: [0.0; BLOCKS],
            load: [0.0; BLOCKS],
            count: 0,
            loaded: true,
        };
        // The newest of both are of the same time.
        let (held, means) = (ring.held(), load.held());
        let unknown = std::iter::repeat_n(None, held.saturating_sub(means));
        let means = unknown.chain(load.means().skip(means.saturating_sub(held)));
        let cells = window.x.iter_mut().zip(&mut window.y);
        let mut cells = cells.zip(&mut window.load);
        let mut first = None;
        for (at, (floor, mean)) in ring.floors().zip(means).enumerate() {
            let Some(floor) = floor else {
                continue;
            };
            let Some(((x, y), load)) = cells.next() else {
                break;
            };
            let first = *first.get_or_insert(at);
            (*x, *y, *load) = ((at - first) as f64, floor, mean.unwrap_or(0.0));
            window.loaded &= mean.is_some();
            window.count += 1;
        }
        window
    }

    /// Blocks since the oldest point, of each point.
    pub fn x(&self) -> &[f64] {
        self.x.get(..self.count).unwrap_or_default()
    }

    /// Floors in bytes.
    pub fn y(&self) -> &[f64] {
        self.y.get(..self.count).unwrap_or_default()
    }

    /// Mean loads; 0 in a hole.
    pub fn load(&self) -> &[f64] {
        self.load.get(..self.count).unwrap_or_default()
    }

    /// Squared error of a line in time over that of a line in load: above 1 load fits better.
    pub fn load_fit(&self) -> f64 {
        let load = trend::slope_sign(self.load(), self.y());
        if !self.loaded || !load {
            return 0.0;
        }
        let rest = |r_squared: f64| 1.0 - r_squared + 1e-9;
        rest(trend::r_squared(self.x(), self.y())) / rest(trend::r_squared(self.load(), self.y()))
    }

    /// Relative growth of load from the first quarter to the last.
    pub fn load_growth(&self) -> f64 {
        let quarter = (self.count / 4).max(3).min(self.count);
        let first: f64 = self.load().iter().take(quarter).sum();
        let last: f64 = self.load().iter().rev().take(quarter).sum();
        if self.loaded {
            (last - first) / (first + 1e-9)
        } else {
            0.0
        }
    }
}
