//! What a container needs without a leak: load, and memory as a function of time and of age.
//! Must not know limits and restarts' effects: see `life`.

use super::class::Class;
use super::draw::{Draw, trailing_mean};
use super::series::{Conditions, DAY_S, DAYS, HOUR_S, MIB, SAMPLES, STEP_S};

/// How memory comes with the age of the process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Curve {
    /// Ever slower, up to `bytes`.
    Saturating,
    /// In a straight line up to `bytes`.
    Straight,
    /// As the logarithm, without end.
    Logarithmic,
}

/// Memory that comes with the age of the process, and comes again after a restart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ramp {
    curve: Curve,
    bytes: f64,
    time_s: f64,
}

impl Ramp {
    fn at(self, age_s: f64) -> f64 {
        let age = age_s / self.time_s;
        self.bytes
            * match self.curve {
                Curve::Saturating => -(-age).exp_m1(),
                Curve::Straight => age.min(1.0),
                Curve::Logarithmic => age.ln_1p(),
            }
    }
}

/// The memory of a container that does not leak, above its base, and what drives it.
#[derive(Debug, Clone)]
pub struct Background {
    pub base: f64,
    /// Around 1; drives memory in flight, allocation and CPU.
    pub load: Vec<f64>,
    /// By absolute time.
    pub above: Vec<f64>,
    /// By age.
    pub ramps: Vec<Ramp>,
    /// Deploys that have nothing to do with memory.
    pub restarts_s: Vec<f64>,
    /// Mean page cache.
    pub file: f64,
    /// How long page cache takes to fill the limit, where it does.
    pub file_fill_s: Option<f64>,
    /// More than 1 under shifted conditions.
    pub harshness: f64,
    shifted: bool,
    /// Memory of requests in flight, a part of `above`.
    in_flight: Vec<f64>,
}

impl Background {
    pub fn draw(class: Class, conditions: Conditions, draw: &mut Draw) -> Self {
        let shifted = conditions.shifted();
        let harshness = if shifted { 1.7 } else { 1.0 };
        let base = draw.log_between(48.0, 4096.0) * MIB;
        let load = load(class, harshness, draw);

        let per_load = match class {
            Class::Diurnal => draw.between(0.15, 0.6),
            Class::LoadRamp => draw.between(0.2, 0.6),
            Class::LoadSteps => draw.between(0.1, 0.6),
            Class::LeakDiurnalBg => draw.between(0.15, 0.5),
            Class::Composite | Class::LeakComposite => draw.between(0.05, 0.3),
            _ => draw.log_between(0.005, 0.08),
        } * base
            * if shifted { 1.3 } else { 1.0 };
        let width = draw.log_between(1.0, 1800.0 / STEP_S) as usize;
        let in_flight: Vec<f64> = trailing_mean(&load, width)
            .into_iter()
            .map(|load| per_load * load)
            .collect();

        let mut background = Self {
            base,
            load,
            above: in_flight.clone(),
            ramps: Vec::new(),
            restarts_s: Vec::new(),
            file: base * draw.between(0.02, 0.4),
            file_fill_s: None,
            harshness,
            shifted,
            in_flight,
        };
        let (noise, time_s) = (
            draw.log_between(0.001, 0.012),
            draw.log_between(10.0, 1800.0),
        );
        background.wander(time_s, noise * harshness, draw);
        // Every process warms up a little.
        background.warm_up((0.02, 0.3), (20.0, 900.0), draw);
        background.shape(class, draw);
        background
    }

    /// Bytes of a process of the given age, without its leak.
    pub fn at(&self, sample: usize, age_s: f64) -> f64 {
        let ramps: f64 = self.ramps.iter().map(|ramp| ramp.at(age_s)).sum();
        self.base + self.above[sample] + ramps
    }

    /// The most that it ever takes, if it is never restarted.
    pub fn peak(&self) -> f64 {
        let above = self.above.iter().copied().fold(f64::MIN, f64::max);
        let ramps: f64 = self.ramps.iter().map(|ramp| ramp.at(DAYS * DAY_S)).sum();
        self.base + above + ramps
    }

    /// Makes everything of it as large as if the base had been `base`.
    pub fn rebase(&mut self, base: f64) {
        let factor = base / self.base;
        self.base = base;
        self.file *= factor;
        self.above.iter_mut().for_each(|bytes| *bytes *= factor);
        for ramp in &mut self.ramps {
            ramp.bytes *= factor;
        }
    }

    pub fn add(&mut self, factor: f64, values: &[f64]) {
        for (sum, value) in self.above.iter_mut().zip(values) {
            *sum += factor * value;
        }
    }

    /// A level that wanders around its mean; the deviation is relative to the base.
    pub fn wander(&mut self, time_s: f64, deviation: f64, draw: &mut Draw) {
        self.add(self.base, &draw.correlated(time_s, deviation));
    }

    pub fn warm_up(&mut self, share: (f64, f64), time_s: (f64, f64), draw: &mut Draw) {
        self.ramps.push(Ramp {
            curve: Curve::Saturating,
            bytes: self.base * draw.between(share.0, share.1),
            time_s: draw.log_between(time_s.0, time_s.1),
        });
    }

    /// Garbage collection with an amplitude relative to the base.
    pub fn collect(&mut self, share: (f64, f64), period_s: (f64, f64), draw: &mut Draw) {
        let longer = if self.shifted { 2.0 } else { 1.0 };
        let period_s = draw.log_between(period_s.0, period_s.1) * longer;
        let amplitude = self.base * draw.log_between(share.0, share.1);
        let heap = draw.sawtooth(period_s, amplitude, &self.load);
        self.add(1.0, &heap);
    }

    pub fn burst(
        &mut self,
        per_hour: (f64, f64),
        share: (f64, f64),
        rise_s: (f64, f64),
        draw: &mut Draw,
    ) {
        let per_hour = draw.log_between(per_hour.0, per_hour.1);
        let amplitude = self.base * draw.between(share.0, share.1);
        let rise_s = draw.log_between(rise_s.0, rise_s.1);
        let bursts = draw.bursts(per_hour, amplitude, rise_s);
        self.add(1.0, &bursts);
    }

    fn deploys(&mut self, count: usize, draw: &mut Draw) {
        self.restarts_s
            .extend((0..count).map(|_| draw.between(0.1, DAYS) * DAY_S));
    }

    fn shape(&mut self, class: Class, draw: &mut Draw) {
        let (base, harshness) = (self.base, self.harshness);
        match class {
            Class::GcSawtooth => self.collect((0.05, 0.6), (30.0, 1800.0), draw),
            Class::GcTwolevel => {
                self.collect((0.03, 0.2), (20.0, 300.0), draw);
                let period_s = draw.log_between(0.5, 12.0) * HOUR_S * harshness;
                let amplitude = base * draw.between(0.1, 0.5);
                let old_generation = draw.sawtooth(period_s, amplitude, &self.load);
                self.add(1.0, &old_generation);
            }
            Class::WarmupPlateau => self.warm_up((0.3, 1.5), (120.0, 7200.0), draw),
            Class::CacheExp => {
                let hours = (HOUR_S * harshness, 12.0 * HOUR_S * harshness);
                self.warm_up((0.2, 1.2), hours, draw);
            }
            Class::CacheLinear => self.ramps.push(Ramp {
                curve: Curve::Straight,
                time_s: draw.log_between(1.0, 24.0) * HOUR_S,
                bytes: base * draw.between(0.2, 0.8),
            }),
            Class::Bursts => self.burst((0.1, 6.0), (0.1, 0.8), (60.0, 3600.0), draw),
            Class::FragLog => self.ramps.push(Ramp {
                curve: Curve::Logarithmic,
                bytes: base * draw.between(0.01, 0.06),
                time_s: draw.log_between(60.0, 3600.0),
            }),
            Class::PageCache => self.file_fill_s = Some(draw.log_between(0.5, 72.0) * HOUR_S),
            Class::OuDrift => {
                let time_s = draw.log_between(1.0, 12.0) * HOUR_S;
                self.wander(time_s, draw.between(0.01, 0.06) * harshness, draw);
            }
            Class::Highwater => self.keep_the_most(draw),
            Class::Deploys => {
                let count = 1 + draw.below(9);
                self.deploys(count, draw);
                self.warm_up((0.2, 0.8), (300.0, 4.0 * HOUR_S), draw);
            }
            Class::Composite => {
                self.collect((0.03, 0.3), (30.0, 1800.0), draw);
                self.burst((0.1, 3.0), (0.1, 0.4), (60.0, 1800.0), draw);
                let time_s = draw.log_between(1.0, 8.0) * HOUR_S;
                self.wander(time_s, draw.between(0.005, 0.03) * harshness, draw);
                self.warm_up((0.1, 0.5), (0.3 * HOUR_S, 6.0 * HOUR_S), draw);
                if draw.chance(0.5) {
                    let count = 1 + draw.below(3);
                    self.deploys(count, draw);
                }
            }
            // A level, or shaped by its load alone; what leaks is shaped by its plan.
            _ => {}
        }
    }

    /// The running maximum of a noisy demand: an allocator that returns nothing.
    fn keep_the_most(&mut self, draw: &mut Draw) {
        let (time_s, deviation) = (
            draw.log_between(0.1, 2.0) * HOUR_S,
            draw.between(0.03, 0.15),
        );
        let demand = draw.correlated(time_s, deviation);
        let mut most = 0.0_f64;
        for ((above, in_flight), demand) in self.above.iter_mut().zip(&self.in_flight).zip(demand) {
            most = most.max(self.base * demand.abs() + in_flight);
            *above += most - in_flight;
        }
    }
}

fn load(class: Class, harshness: f64, draw: &mut Draw) -> Vec<f64> {
    let amplitude = match class {
        Class::Composite | Class::LeakComposite => draw.between(0.2, 0.7),
        class if class.is_daily() => draw.between(0.3, 0.8),
        _ => draw.between(0.1, 0.6),
    };
    let mut load = if class.is_daily() || draw.chance(0.5) {
        draw.daily(amplitude)
    } else {
        vec![1.0; SAMPLES]
    };
    if class == Class::LoadRamp {
        let start_s = draw.between(0.2, 4.0) * DAY_S;
        let rise_s = draw.log_between(4.0, 48.0) * HOUR_S;
        let rise = draw.between(0.3, 1.5);
        for (sample, load) in load.iter_mut().enumerate() {
            *load *= 1.0 + rise * ((sample as f64 * STEP_S - start_s) / rise_s).clamp(0.0, 1.0);
        }
    }
    if class == Class::LoadSteps {
        let dwell_s = draw.log_between(1.0, 12.0) * HOUR_S;
        let highest = draw.between(0.2, 1.0);
        for (load, level) in load.iter_mut().zip(draw.levels(dwell_s, highest)) {
            *load *= 1.0 + level;
        }
    }
    let time_s = draw.log_between(60.0, 3600.0);
    for (load, noise) in load
        .iter_mut()
        .zip(draw.correlated(time_s, 0.05 * harshness))
    {
        *load *= noise.exp();
    }
    load
}
