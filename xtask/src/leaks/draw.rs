//! Random draws and the random processes that series are made of.
//! Everything is a function of the seed. Must not know the classes.

use std::f64::consts::TAU;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Exp1, Gamma, Poisson, StandardNormal};

use super::series::{DAY_S, SAMPLES, STEP_S};

/// A stream of random draws.
#[derive(Debug)]
pub struct Draw(ChaCha8Rng);

impl Draw {
    /// Streams of one seed are independent of each other.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(stream);
        Self(random)
    }

    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.0.random::<f64>()
    }

    /// Uniform in the logarithm.
    pub fn log_between(&mut self, low: f64, high: f64) -> f64 {
        self.between(low.ln(), high.ln()).exp()
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.0.random::<f64>() < probability
    }

    /// Uniform among `0..bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0.random_range(0..bound)
    }

    pub fn normal(&mut self) -> f64 {
        StandardNormal.sample(&mut self.0)
    }

    /// Exponentially distributed with the given mean.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        let unit: f64 = Exp1.sample(&mut self.0);
        unit * mean
    }

    /// Gamma distributed with mean 1 and relative deviation ½.
    pub fn step_size(&mut self) -> f64 {
        Gamma::new(4.0, 0.25).map_or(1.0, |gamma| gamma.sample(&mut self.0))
    }

    pub fn poisson(&mut self, mean: f64) -> usize {
        Poisson::new(mean).map_or(0, |poisson| poisson.sample(&mut self.0) as usize)
    }

    /// Stationary noise with the given correlation time and standard deviation
    /// (Ornstein–Uhlenbeck, sampled).
    pub fn correlated(&mut self, time_s: f64, deviation: f64) -> Vec<f64> {
        let memory = if time_s <= STEP_S {
            0.0
        } else {
            (-STEP_S / time_s).exp()
        };
        let innovation = deviation * (1.0 - memory * memory).sqrt();
        let mut value = deviation * self.normal();
        let mut noise = Vec::with_capacity(SAMPLES);
        noise.push(value);
        for _ in 1..SAMPLES {
            value = memory * value + innovation * self.normal();
            noise.push(value);
        }
        noise
    }

    /// A load around 1 with a daily swing; every second one has quieter weekends.
    pub fn daily(&mut self, amplitude: f64) -> Vec<f64> {
        let (first, second) = (self.between(0.0, TAU), self.between(0.0, TAU));
        let weekend = self.chance(0.5).then(|| {
            let quieter = 1.0 - self.between(0.1, 0.4);
            (self.between(0.0, 7.0), quieter)
        });
        (0..SAMPLES)
            .map(|sample| {
                let day = sample as f64 * STEP_S / DAY_S;
                let swing = (TAU * day + first).sin() + 0.25 * (2.0 * TAU * day + second).sin();
                let factor = match weekend {
                    Some((shift, quieter)) if (day + shift).floor() % 7.0 >= 5.0 => quieter,
                    _ => 1.0,
                };
                ((1.0 + amplitude * swing) * factor).max(0.05)
            })
            .collect()
    }

    /// A garbage-collected heap: grows with the load by `amplitude` per `period_s` and falls back to
    /// nearly nothing, at thresholds that vary by a quarter.
    pub fn sawtooth(&mut self, period_s: f64, amplitude: f64, load: &[f64]) -> Vec<f64> {
        let growth = amplitude * STEP_S / period_s;
        let threshold = |draw: &mut Self| amplitude * (1.0 + 0.25 * draw.between(-1.0, 1.0));
        let mut until_collection = threshold(self);
        let mut survivors = 0.04 * amplitude * self.between(0.0, 1.0);
        let mut heap = 0.0;
        load.iter()
            .map(|load| {
                heap += growth * load;
                while heap >= until_collection {
                    heap -= until_collection;
                    until_collection = threshold(self);
                    survivors = 0.04 * amplitude * self.between(0.0, 1.0);
                }
                heap + survivors
            })
            .collect()
    }

    /// Levels between 0 and `highest`, each kept for a while; the first is 0.
    pub fn levels(&mut self, mean_dwell_s: f64, highest: f64) -> Vec<f64> {
        let (mut level, mut until_s) = (0.0, 0.0);
        until_s += self.exponential(mean_dwell_s) + 600.0;
        (0..SAMPLES)
            .map(|sample| {
                while sample as f64 * STEP_S >= until_s {
                    level = self.between(0.0, highest);
                    until_s += self.exponential(mean_dwell_s) + 600.0;
                }
                level
            })
            .collect()
    }

    /// Bursts at random times: a rise in a straight line, then a decay.
    pub fn bursts(&mut self, per_hour: f64, amplitude: f64, rise_s: f64) -> Vec<f64> {
        let mut total = vec![0.0; SAMPLES];
        let hours = SAMPLES as f64 * STEP_S / 3600.0;
        for _ in 0..self.poisson(per_hour * hours) {
            let start = self.below(SAMPLES);
            let rise = (self.log_between(0.3, 3.0) * rise_s / STEP_S)
                .max(2.0)
                .floor();
            let height = amplitude * self.between(0.2, 1.0);
            for (age, value) in total
                .iter_mut()
                .skip(start)
                .take(8 * rise as usize)
                .enumerate()
            {
                let age = age as f64;
                *value += height
                    * if age < rise {
                        age / rise
                    } else {
                        (-(age - rise) / (0.5 * rise)).exp()
                    };
            }
        }
        total
    }
}

/// The mean of the last `width` values, of fewer at the start.
pub fn trailing_mean(values: &[f64], width: usize) -> Vec<f64> {
    let width = width.max(1);
    let mut sum = 0.0;
    values
        .iter()
        .enumerate()
        .map(|(index, value)| {
            sum += value;
            if let Some(old) = index.checked_sub(width).and_then(|old| values.get(old)) {
                sum -= old;
            }
            sum / (index + 1).min(width) as f64
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deviation(values: &[f64]) -> f64 {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        (squares / values.len() as f64).sqrt()
    }

    #[test]
    fn noise_has_the_deviation_and_the_memory_asked_for() {
        let noise = Draw::new(7, 0).correlated(60.0, 3.0);
        assert!((deviation(&noise) - 3.0).abs() < 0.15);
        let product: f64 = noise.windows(2).map(|pair| pair[0] * pair[1]).sum();
        let lag_1 = product / noise.iter().map(|value| value * value).sum::<f64>();
        assert!((lag_1 - (-10.0_f64 / 60.0).exp()).abs() < 0.02);
    }

    #[test]
    fn a_sawtooth_stays_within_its_amplitude_and_collects_as_often_as_its_period_says() {
        let heap = Draw::new(7, 0).sawtooth(1000.0, 5.0, &vec![1.0; SAMPLES]);
        assert!(heap.iter().all(|bytes| (0.0..=5.0 * 1.3).contains(bytes)));
        let collections = heap.windows(2).filter(|pair| pair[1] < pair[0]).count();
        let expected = SAMPLES as f64 * STEP_S / 1000.0;
        assert!((collections as f64 / expected - 1.0).abs() < 0.1);
    }

    #[test]
    fn levels_are_bounded_and_start_at_zero() {
        let levels = Draw::new(3, 1).levels(3600.0, 0.5);
        assert_eq!(levels[0], 0.0);
        assert!(levels.iter().all(|level| (0.0..0.5).contains(level)));
        assert!(levels.windows(2).filter(|pair| pair[0] != pair[1]).count() > 50);
    }

    #[test]
    fn bursts_are_mostly_absent_when_rare() {
        let bursts = Draw::new(3, 1).bursts(0.1, 10.0, 60.0);
        let active = bursts.iter().filter(|bytes| **bytes > 1.0).count();
        assert!(active > 0 && active < SAMPLES / 20);
    }

    #[test]
    fn a_trailing_mean_uses_what_there_is() {
        assert_eq!(
            trailing_mean(&[2.0, 4.0, 6.0, 8.0], 2),
            [2.0, 3.0, 5.0, 7.0]
        );
    }
}
