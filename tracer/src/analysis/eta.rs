//! Rate since the onset and time to the limit, with intervals. Pure arithmetic.

use super::ring::{BLOCK_MINUTES, BLOCKS, RINGS, Ring, ring_minutes};
use super::shape;
use super::trend::{Slopes, kendall_variance, median, residuals, slope};

/// How far beyond the slopes of the halves the interval of the rate reaches, in their distances.
const HALVES: f64 = 2.5;
/// Error of a line over that of a parabola from which growth gets faster.
const BENDS: f64 = 3.0;
/// Half width of that interval at least, as a share of the rate.
const LEAST_SPREAD: f64 = 0.1;
/// Where between the highest and the usual peak the limit is expected to be met.
const MIDDLE: f64 = 0.3;

/// Minutes of a day.
const DAY: i64 = 1440;
/// Minutes of peaks that are looked at, however near the limit.
const LEAST_REACH: f64 = 18.0;
/// Minutes of peaks that are looked at, however far the limit.
const LONGEST_REACH: f64 = 2160.0;

/// Rate and headroom of a growth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Track {
    /// Bytes a minute.
    pub rate: f64,
    /// Lower end of its interval.
    pub rate_low: f64,
    /// Upper end.
    pub rate_high: f64,
    /// Peak above which the limit counts, extrapolated to now: the highest peak of late.
    pub top: f64,
    /// The usual peak.
    pub level: f64,
}

impl Track {
    /// Minutes until `room` is reached: low, mid and high (`None`: unbounded).
    pub fn minutes(&self, room: f64) -> (f64, f64, Option<f64>) {
        let near = (room - self.top).max(0.0);
        let far = (room - self.level).max(0.0);
        let nearest = (near - 0.5 * (far - near)).max(0.0);
        let high = (self.rate_low > 0.0).then(|| 1.3 * far / self.rate_low);
        (
            0.8 * nearest / self.rate_high,
            (near + MIDDLE * (far - near)) / self.rate,
            high,
        )
    }
}

/// A rate, and what it was made of: as long as that is the same, so is the rate.
#[derive(Debug, Clone, Copy)]
pub struct Rated {
    ring: usize,
    closed: u32,
    blocks: usize,
    /// Slope in bytes a minute with its interval.
    rate: Option<(f64, f64, f64)>,
}

/// The growth since `onset`, with peaks over about the last time to the limit; `None` of too little
/// data or no growth. `known` is the rate as of the last time.
pub fn track(
    rings: &[Ring; RINGS],
    minute: i64,
    onset: i64,
    room: Option<f64>,
    known: &mut Option<Rated>,
) -> Option<Track> {
    let age = minute - onset;
    let (rate, rate_low, rate_high) = since(rings, age, known)?;
    let level = level(rings, rate)?;
    let top = highest(rings, rate, level, room, age as f64);
    let left = room.map_or(0.0, |room| (room - top) / rate);
    let rise = daily_rise(rings.get(2)?, *BLOCK_MINUTES.get(2)?, rate, left, age);
    let (top, level) = (top + rise, level + rise);
    Some(Track {
        rate,
        rate_low,
        rate_high,
        top,
        level,
    })
}

/// The rate of the last `age` minutes in bytes a minute with its interval: the middle first.
pub fn since(
    rings: &[Ring; RINGS],
    age: i64,
    known: &mut Option<Rated>,
) -> Option<(f64, f64, f64)> {
    let mut index = (0..RINGS)
        .find(|ring| ring_minutes(*ring) >= age)
        .unwrap_or(RINGS - 1);
    while index > 0 && rings.get(index)?.held() < 10 {
        index -= 1;
    }
    let (ring, block) = (rings.get(index)?, *BLOCK_MINUTES.get(index)?);
    let since = usize::try_from(age / block).unwrap_or(0).max(10);
    let (closed, blocks) = (ring.closed(), ring.held().min(since));
    let same = |known: &Rated| (known.ring, known.closed, known.blocks) == (index, closed, blocks);
    let rated = known.filter(same).unwrap_or_else(|| Rated {
        ring: index,
        closed,
        blocks,
        rate: rate(ring, block, blocks),
    });
    *known = Some(rated);
    rated.rate
}

/// Slope of the last `want` blocks in bytes a minute with its interval.
fn rate(ring: &Ring, block: i64, want: usize) -> Option<(f64, f64, f64)> {
    let (mut x, mut y) = (Vec::with_capacity(BLOCKS), Vec::with_capacity(BLOCKS));
    for back in (0..want).rev() {
        if let Some(floor) = ring.floor(back) {
            x.push((want - back) as f64);
            y.push(floor);
        }
    }
    let count = y.len();
    if count < 8 {
        return None;
    }
    let mut slopes = Slopes::new(&x, &y);
    let middle = slopes.median();
    if middle <= 0.0 {
        return None;
    }
    let correlation = residuals(&x, &y, middle, 0.9, 0.0).correlation;
    let variance = kendall_variance(count) * (1.0 + correlation) / (1.0 - correlation);
    let (low, high) = slopes.interval(1.96 * variance.sqrt());
    let half = count / 2;
    let head = slope(x.get(..half)?, y.get(..half)?);
    let tail = slope(x.get(count - half..)?, y.get(count - half..)?);
    let (low, middle, high) = if bends_up(&x, &y) && tail > head {
        // The halves are as far apart as their middles; now is another half of that on.
        let now = tail + 0.5 * (tail - head);
        (tail, now, now + (now - tail))
    } else {
        (low, middle, high)
    };
    let low = low
        .min(middle - HALVES * (middle - head.min(tail)).max(0.0))
        .min((1.0 - LEAST_SPREAD) * middle);
    let high = high
        .max(middle + HALVES * (head.max(tail) - middle).max(0.0))
        .max((1.0 + LEAST_SPREAD) * middle);
    let block = block as f64;
    Some((middle / block, low / block, high / block))
}

/// Whether growth gets faster from third to third, and a parabola fits far better than a line.
fn bends_up(x: &[f64], y: &[f64]) -> bool {
    let third = x.len() / 3;
    let thirds = x.chunks(third.max(1)).zip(y.chunks(third.max(1)));
    let mut before = 0.0;
    for (x, y) in thirds.filter(|(x, _)| x.len() > 3).take(3) {
        let slope = slope(x, y);
        if slope <= before {
            return false;
        }
        before = slope;
    }
    shape::bend(x, y) >= BENDS
}

/// Median of the six-minute maxima of the last hour, carried forward to now.
fn level(rings: &[Ring; RINGS], rate: f64) -> Option<f64> {
    let ring = rings.get(1)?;
    let mut tops: Vec<f64> = (0..10.min(ring.held()))
        .filter_map(|back| {
            Some(ring.top(back)? + rate * (ring.open_minutes() + back as i64 * 6) as f64)
        })
        .collect();
    if tops.is_empty() {
        return rings.first()?.top(0);
    }
    Some(median(&mut tops))
}

/// By how much the floors rose yesterday, beside the trend, in as many minutes as are left: with a daily
/// load they will again. Where more than some hours are left the peaks of late tell.
fn daily_rise(ring: &Ring, block: i64, rate: f64, left: f64, age: i64) -> f64 {
    let now = usize::try_from((DAY - ring.open_minutes()) / block).unwrap_or(0);
    let ahead = (left.max(0.0) / block as f64) as usize;
    if left > DAY as f64 / 4.0 || age < DAY + 2 * block {
        return 0.0;
    }
    let level = |back: usize| Some(ring.floor(back)? + rate * (back as i64 * block) as f64);
    let ahead = (now.saturating_sub(ahead)..now).filter_map(level);
    let highest = ahead.fold(f64::NEG_INFINITY, f64::max);
    match (level(now), level(now + 1)) {
        (Some(now), Some(before)) => (highest - now.max(before) - (now - before).abs()).max(0.0),
        _ => 0.0,
    }
}

/// The highest peak, carried forward to now, of a time back as long as the time to the limit above it:
/// what came up once in so long is to be expected in the time that is left.
fn highest(rings: &[Ring; RINGS], rate: f64, level: f64, room: Option<f64>, age: f64) -> f64 {
    let mut top = level;
    let mut seen: f64 = 0.0;
    for (ring, block) in rings.iter().zip(BLOCK_MINUTES).take(3) {
        for back in 0..ring.held() {
            let ago = (ring.open_minutes() + back as i64 * block) as f64;
            let left = room.map_or(LONGEST_REACH, |room| (room - top) / rate);
            if ago >= left.clamp(LEAST_REACH, LONGEST_REACH) || ago >= age {
                return top;
            }
            if ago < seen {
                continue;
            }
            seen = ago;
            top = ring
                .top(back)
                .map_or(top, |peak| top.max(peak + rate * ago));
        }
    }
    top
}
