//! One look at one window of one signal: every figure and every test, no memory of earlier looks.

use super::ring::{BLOCK_MINUTES, LoadRing, RINGS, Ring};
use super::thresholds::Thresholds;
use super::window::Window;
use super::{shape, trend};
use serde::{Deserialize, Serialize};

const MIB: f64 = 1_048_576.0;
/// Share of the limit that counts as headroom however full it is.
const LEAST_HEADROOM: f64 = 0.02;
/// Blocks over which the swing between floor and maximum is taken.
const SWING_BLOCKS: usize = 24;

/// What surrounds a signal at the end of a minute.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// The thresholds.
    pub thresholds: &'a Thresholds,
    /// Load at each resolution.
    pub load: &'a [LoadRing; RINGS],
    /// Minutes of analysis since the epoch began, this one not counted.
    pub minute: i64,
    /// The limit.
    pub limit: Option<f64>,
    /// What of the limit this signal may take: less other unreclaimable memory.
    pub room: Option<f64>,
}

/// What an assessment rests on beside the window itself.
#[derive(Debug, Clone, Copy)]
pub struct Past {
    /// First floor of the epoch; `None` before five minutes.
    pub first_floor: Option<f64>,
    /// Highest calm floor of earlier epochs.
    pub plateau: f64,
    /// Earlier epochs in a row that ended growing.
    pub epochs_growing: u8,
    /// A leak is suspected, so that its rate is taken since its onset and not from the window.
    pub leaking: bool,
    /// What a leak under suspicion rose from: it is no smaller for having grown.
    pub base: Option<f64>,
}

/// A window with a trend: figures and tests.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Minute of the assessment.
    pub minute: i64,
    /// Minutes that the window spans.
    pub span: f32,
    /// Points in the window.
    pub points: u8,
    /// Corrected Mann–Kendall Z.
    pub z: f32,
    /// Lag-1 correlation.
    pub correlation: f32,
    /// R² of a line.
    pub r_squared: f32,
    /// Growth along the line.
    pub growth: f32,
    /// Floor at the end.
    pub floor: f32,
    /// Floor at the start.
    pub start: f32,
    /// Residual deviation.
    pub sigma: f32,
    /// Swing of maxima over floors.
    pub swing: f32,
    /// Headroom for the floor.
    pub headroom: f32,
    /// Slope in bytes a minute, with interval.
    pub slope: f32,
    /// Lower end.
    pub slope_low: f32,
    /// Upper end.
    pub slope_high: f32,
    /// Growth × κ over headroom.
    pub weight: f32,
    /// Factor on κ for never having been calm, or for hot epochs.
    pub horizon_factor: f32,
    /// Slope of the last half over the first.
    pub slowing: f32,
    /// Line over curve.
    pub saturation: f32,
    /// Excess over the earlier peak, as a share of what is asked.
    pub record: f32,
    /// Load growth over memory growth; 0 where load did not grow.
    pub load: f32,
    /// Error of a line in time over that of a line in load.
    pub load_fit: f32,
    /// Growth exceeds noise and the least growth.
    pub significant: bool,
    /// No calm time before the window.
    pub young: bool,
    /// It slows down or saturates.
    pub flattens: bool,
    /// The shape of a leak: does not slow, does not saturate, is a record.
    pub shaped: bool,
    /// Shaped, heavy enough, and not load: what is asked of a suspect.
    pub passed: bool,
}

impl Figures {
    /// Minutes to the limit at this slope.
    pub fn minutes_left(&self) -> f32 {
        if self.slope > 0.0 {
            self.headroom / self.slope
        } else {
            f32::INFINITY
        }
    }

    /// The weight from which it is suspected; never more than what confirms.
    pub fn suspect_weight(&self, thresholds: &Thresholds) -> f64 {
        let least = if self.young {
            thresholds.young_suspected.max(1.0)
        } else {
            1.0
        };
        least.min(f64::from(self.horizon_factor))
    }

    /// Growth × κ over headroom, κ reduced by `horizon_factor`: 1 is enough to confirm.
    pub fn reduced_weight(&self, growth: f32) -> f32 {
        if self.growth > 0.0 {
            self.weight / self.horizon_factor * (growth / self.growth)
        } else {
            0.0
        }
    }
}

/// Share of the growth up to which deviations are not noise that could pass for a trend: an allocator that
/// takes 64 KiB at once makes one small step of a line, after which every deviation has the same sign.
const NEGLIGIBLE: f64 = 0.005;

/// Windows that the growth of a window of `minutes` may take to reach the limit.
fn horizon(thresholds: &Thresholds, minutes: f64) -> f64 {
    let log = |value: f64| value.max(1e-6).ln();
    let (hour, day, week) = (
        log(thresholds.horizon_1h),
        log(thresholds.horizon_24h),
        log(thresholds.horizon_7d),
    );
    let at = (minutes / 60.0).ln() / 24f64.ln();
    if at <= 1.0 {
        (hour + at.max(-0.5) * (day - hour)).exp()
    } else {
        (day + (minutes / 1440.0).ln() / 7f64.ln() * (week - day)).exp()
    }
}

/// Assesses the window of ring `index`; `None` where there is no trend, or too little data.
pub fn assess(rings: &[Ring; RINGS], index: usize, scene: &Scene, past: &Past) -> Option<Figures> {
    let thresholds = scene.thresholds;
    let ring = rings.get(index)?;
    let block = *BLOCK_MINUTES.get(index)? as f64;
    if !holds_enough(ring, index, thresholds) {
        return None;
    }
    let (start, floor) = ring.ends();
    let raw = floor - start;
    let size = past.base.map_or(floor, |base| base.min(floor));
    let least = (thresholds.growth_mib * MIB).max(thresholds.growth_share * size);
    if raw < 0.7 * least {
        return None;
    }
    let swing = ring.swing(SWING_BLOCKS);
    let headroom = match (scene.limit, scene.room) {
        (Some(limit), Some(room)) => (room - floor - swing).max(LEAST_HEADROOM * limit),
        _ => (size * thresholds.assumed_headroom).max(1.0),
    };
    let span = ring.span() as f64;
    let minutes = span * block;
    let kappa = horizon(thresholds, minutes);
    let gate = if is_full_test(ring, index) { 0.1 } else { 0.8 };
    if raw < gate * headroom / kappa {
        return None;
    }
    let mut window = Window::of(ring, scene.load.get(index)?);
    let load_growth = window.load_growth();
    let load_fit = window.load_fit();
    if index >= 2 && window.loaded {
        let effect = trend::load_effect(window.x(), window.y(), window.load());
        if let Some((effect, mean)) = effect {
            for (y, load) in window.y.iter_mut().zip(&window.load).take(window.count) {
                *y -= effect * (load - mean);
            }
        }
    }
    let (x, y) = (window.x(), window.y());
    let z = trend::mann_kendall(y);
    if z < thresholds.trend_z {
        return None;
    }
    let mut slopes = trend::Slopes::new(x, y);
    let slope = slopes.median();
    let growth = slope * (span - 1.0);
    let negligible = NEGLIGIBLE * growth;
    let rest = trend::residuals(x, y, slope, thresholds.autocorrelation_cap, negligible);
    let inflation = ((1.0 + rest.correlation) / (1.0 - rest.correlation)).sqrt();
    let distance = 1.96 * trend::kendall_variance(y.len()).sqrt() * inflation;
    let corrected = z / inflation;
    if corrected < thresholds.trend_z || !slopes.surely_rising(distance) {
        return None;
    }
    let (head, tail) = shape::halves(x, y);
    // Selecting ranks is what costs most here.
    let (low, high) = if past.leaking {
        (head.min(tail).min(slope), head.max(tail).max(slope))
    } else {
        slopes.interval(distance)
    };
    let significant = growth >= thresholds.growth_sigma * rest.sigma && growth >= least;
    let mut figures = Figures {
        minute: scene.minute,
        span: minutes as f32,
        points: y.len() as u8,
        z: corrected as f32,
        correlation: rest.correlation as f32,
        r_squared: trend::r_squared(x, y) as f32,
        growth: growth as f32,
        floor: floor as f32,
        start: start as f32,
        sigma: rest.sigma as f32,
        swing: swing as f32,
        headroom: headroom as f32,
        slope: (slope / block) as f32,
        slope_low: (low / block) as f32,
        slope_high: (high / block) as f32,
        weight: (growth * kappa / headroom) as f32,
        horizon_factor: 1.0,
        significant,
        ..Figures::default()
    };
    if !significant {
        return Some(figures);
    }
    let earlier_slope = earlier_slope(&figures, scene.minute as f64, past.first_floor);
    figures.young = earlier_slope.is_none_or(|earlier| earlier >= 0.3 * slope / block);
    figures.horizon_factor = horizon_factor(thresholds, figures.young, past.epochs_growing) as f32;
    let fading = earlier_slope.map_or(f64::INFINITY, |earlier| slope / block / earlier.max(1e-9));
    let fades = fading < thresholds.fading;
    let slowing = |(head, tail): (f64, f64)| {
        tail < thresholds.slowing * head || tail < 0.8 * thresholds.slowing * slope
    };
    let (mean_head, mean_tail) = shape::mean_halves(x, y);
    let slows = slowing((head, tail)) && slowing((mean_head, mean_tail));
    let ratio = |head: f64, tail: f64| if head > 0.0 { tail / head } else { 100.0 };
    let halves = ratio(head, tail).max(ratio(mean_head, mean_tail));
    figures.slowing = if fades { fading } else { halves }.clamp(-100.0, 100.0) as f32;
    let age = (scene.minute as f64 / block - span).max(0.0);
    figures.saturation = shape::saturation(x, y, span, age).min(1e6) as f32;
    let earlier = earlier_peak(rings, index, minutes).max(past.plateau);
    let margin = thresholds.record_sigma * rest.sigma + thresholds.record_share * growth;
    figures.record = ((floor - earlier) / margin.max(1.0)).clamp(-1e6, 1e6) as f32;
    let relative = growth / start.max(1.0);
    figures.load_fit = load_fit.min(1e6) as f32;
    figures.load = if load_growth > 0.05 {
        (load_growth / relative).min(1e6) as f32
    } else {
        0.0
    };
    let saturates = f64::from(figures.saturation) > thresholds.saturating;
    figures.flattens = fades || slows || saturates;
    figures.shaped = !figures.flattens && floor >= earlier + margin;
    let heavy = f64::from(figures.weight) >= figures.suspect_weight(thresholds);
    let urgent = f64::from(figures.minutes_left()) <= thresholds.urgent_minutes;
    let load = f64::from(figures.load) >= thresholds.load_share
        && (index <= 1 || f64::from(figures.load_fit) >= thresholds.load_fit)
        && !urgent;
    figures.passed = figures.shaped && heavy && !load;
    Some(figures)
}

/// Slow leaks, and those that a passing dip cancels, show only in the full test, which is dear: every
/// fourth block.
pub fn is_full_test(ring: &Ring, index: usize) -> bool {
    index > 0 && ring.closed().is_multiple_of(4)
}

/// Whether the window of ring `index` has blocks enough to be assessed.
pub fn holds_enough(ring: &Ring, index: usize, thresholds: &Thresholds) -> bool {
    let need = if index == 2 {
        thresholds.blocks_36m
    } else {
        thresholds.blocks
    };
    ring.filled() as f64 >= need.max(8.0)
}

/// Slope in bytes a minute of the epoch before the window; `None` when that is too short to tell.
fn earlier_slope(figures: &Figures, age: f64, first_floor: Option<f64>) -> Option<f64> {
    let before = age - f64::from(figures.span);
    let first = first_floor.filter(|_| before > 0.3 * f64::from(figures.span))?;
    Some((f64::from(figures.start) - first) / before.max(1.0))
}

/// By what κ is divided: more than 1 asks for more growth.
fn horizon_factor(thresholds: &Thresholds, young: bool, epochs_growing: u8) -> f64 {
    if epochs_growing >= 2 {
        let factor = thresholds.epochs_growing.max(1.0);
        return 1.0 / factor.powi(i32::from(epochs_growing) - 1).min(4.0);
    }
    if young {
        thresholds.young.max(1e-3)
    } else {
        1.0
    }
}

/// The highest floor known from before the window.
fn earlier_peak(rings: &[Ring; RINGS], index: usize, minutes: f64) -> f64 {
    let mut peak: f64 = 0.0;
    for (coarser, block) in rings.iter().zip(BLOCK_MINUTES).skip(index + 1) {
        for back in 0..coarser.held() {
            let age = coarser.open_minutes() + back as i64 * block;
            if age as f64 >= minutes {
                peak = peak.max(coarser.floor(back).unwrap_or(0.0));
            }
        }
    }
    // What left the two coarsest rings is days old: a level of last week forbids nothing today.
    if index < 2 {
        rings.get(index).map_or(peak, |ring| peak.max(ring.left()))
    } else {
        peak
    }
}
