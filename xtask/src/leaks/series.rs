//! A labelled week of one simulated container: what its cgroup would have shown, and the truth.
//! Assembles load, background, leak and restarts; the shapes themselves are in `shapes`.

use super::class::Class;
use super::draw::Draw;
use super::life::{self, Plan};
use super::shapes::Background;

/// Seconds between samples.
pub const STEP_S: f64 = 10.0;
pub const HOUR_S: f64 = 3600.0;
pub const DAY_S: f64 = 86_400.0;
/// How long a series is.
pub const DAYS: f64 = 7.0;
/// Samples of a series.
pub const SAMPLES: usize = 60_480;
pub const MIB: f64 = 1_048_576.0;

/// From which distribution the parameters of a series come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conditions {
    /// Those that the analysis was designed on.
    Usual,
    /// More noise, longer garbage collection, more memory per request, a CPU figure that sometimes
    /// says nothing about the load.
    Shifted,
}

impl Conditions {
    pub fn shifted(self) -> bool {
        self == Self::Shifted
    }
}

/// The samples and the truth about them. Bytes are fractions only before they are rounded to pages.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub class: Class,
    pub seed: u64,
    pub anon: Vec<f64>,
    pub file: Vec<f64>,
    pub kernel: Vec<f64>,
    /// CPU in use, in cores.
    pub cpu: Vec<f64>,
    /// How often the container was started anew.
    pub epoch: Vec<u32>,
    /// The share of file cache that counts as working set.
    pub active_file: f64,
    pub limit: f64,
    /// The footprint before anything else happens.
    pub base: f64,
    /// When the leak starts; absent in a healthy series.
    pub onset_s: Option<f64>,
    /// Mean bytes leaked per hour behind the onset.
    pub rate: f64,
    /// When the container was first killed for want of memory.
    pub first_oom_s: Option<f64>,
}

impl Series {
    /// Simulates the week; the same arguments give the same bytes.
    pub fn generate(class: Class, seed: u64, conditions: Conditions) -> Self {
        let stream = 2 * class as u64 + u64::from(conditions.shifted());
        let mut draw = Draw::new(seed, stream);
        let mut background = Background::draw(class, conditions, &mut draw);
        let mut plan = if class.leaks() {
            Plan::leaking(class, &mut background, &mut draw)
        } else {
            Plan::healthy(&background)
        };
        plan.restarts_s.extend(&background.restarts_s);

        let kernel: Vec<f64> = draw
            .correlated(600.0, 0.05)
            .into_iter()
            .map(|noise| background.base * 0.03 * (1.0 + noise) + 2.0 * MIB)
            .collect();
        if !class.leaks() {
            plan.limit = roomy_limit(&background, &kernel, &mut draw);
        }
        let life = life::live(&plan, &background, &kernel, &mut draw);

        let mut series = Self {
            class,
            seed,
            file: Vec::new(),
            cpu: Vec::new(),
            epoch: life.epoch,
            active_file: draw.between(0.2, 0.8),
            limit: plan.limit,
            base: background.base,
            onset_s: plan.onset_s,
            rate: plan.rate,
            first_oom_s: life.first_oom_s,
            anon: life.anon,
            kernel,
        };
        series.file = series.page_cache(&background, &mut draw);
        let proxy_fails = conditions.shifted() && draw.chance(0.3);
        let cores = draw.log_between(0.05, 4.0);
        series.cpu = background
            .load
            .iter()
            .map(|load| {
                let load = if proxy_fails { 1.0 } else { *load };
                cores * load * (0.08 * draw.normal()).exp() + 0.01
            })
            .collect();
        series
    }

    /// Fills what anonymous and kernel memory leave of the limit.
    fn page_cache(&self, background: &Background, draw: &mut Draw) -> Vec<f64> {
        let room = |sample: usize| (self.limit - self.anon[sample] - self.kernel[sample]).max(0.0);
        if let Some(fill_s) = background.file_fill_s {
            let mean = self.anon.iter().sum::<f64>() / SAMPLES as f64;
            let speed = (self.limit - mean) / fill_s;
            return (0..SAMPLES)
                .map(|sample| (speed * sample as f64 * STEP_S).min(room(sample)).max(0.0))
                .collect();
        }
        draw.correlated(HOUR_S, 1.0)
            .into_iter()
            .enumerate()
            .map(|(sample, noise)| {
                (background.file * (1.0 + 0.05 * noise)).clamp(0.0, room(sample))
            })
            .collect()
    }

    /// What kubelet and cAdvisor call working set.
    pub fn working_set(&self, sample: usize) -> f64 {
        self.anon[sample] + self.kernel[sample] + self.active_file * self.file[sample]
    }
}

/// A limit under which the healthy container can live: half of the fleet is tight, half is not.
fn roomy_limit(background: &Background, kernel: &[f64], draw: &mut Draw) -> f64 {
    let peak = (0..SAMPLES)
        .map(|sample| background.at(sample, sample as f64 * STEP_S) + kernel[sample])
        .fold(0.0, f64::max);
    peak * if draw.chance(0.5) {
        draw.between(1.04, 1.35)
    } else {
        draw.between(1.35, 3.0)
    }
}

#[cfg(test)]
#[path = "series_tests.rs"]
mod tests;
