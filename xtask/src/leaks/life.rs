//! The life of a simulated container: its leak, its limit, restarts and OOM kills.
//! Must not shape what is not a leak: see `shapes`.

use super::class::Class;
use super::draw::Draw;
use super::series::{DAY_S, DAYS, HOUR_S, MIB, SAMPLES, STEP_S};
use super::shapes::Background;

const PAGE: f64 = 4096.0;

/// What happens to the container.
#[derive(Debug)]
pub struct Plan {
    pub limit: f64,
    pub onset_s: Option<f64>,
    /// Mean bytes leaked per hour behind the onset.
    pub rate: f64,
    pub restarts_s: Vec<f64>,
    /// Bytes leaked per sample.
    leaked: Vec<f64>,
}

/// What became of it.
#[derive(Debug)]
pub struct Life {
    pub anon: Vec<f64>,
    pub epoch: Vec<u32>,
    pub first_oom_s: Option<f64>,
}

impl Plan {
    /// No leak; the limit follows from the background.
    pub fn healthy(background: &Background) -> Self {
        Self {
            limit: background.base,
            onset_s: None,
            rate: 0.0,
            restarts_s: Vec::new(),
            leaked: Vec::new(),
        }
    }

    /// Draws limit, onset and speed of the leak, and the background that belongs to the class.
    pub fn leaking(class: Class, background: &mut Background, draw: &mut Draw) -> Self {
        let limit = background.base * draw.between(1.6, 4.0);
        let onset_s = onset(class, draw);
        shape(class, background, draw);
        let mut plan = Self {
            limit,
            onset_s: Some(onset_s),
            rate: MIB,
            restarts_s: Vec::new(),
            leaked: Vec::new(),
        };
        let mut room = f64::INFINITY;
        if class == Class::LeakSlow {
            plan.limit = 4096.0 * MIB;
        } else {
            // A limit above anything but the leak, and then the time until it is reached.
            let peak = background.peak();
            plan.limit = limit.max(peak * draw.between(1.15, 2.5));
            room = plan.limit - peak;
            let hours = match class {
                Class::LeakRestarts => draw.log_between(3.0, 60.0),
                Class::LeakDiurnalBg | Class::LeakRequestDiurnal => draw.log_between(12.0, 240.0),
                _ => draw.log_between(2.0, 240.0),
            };
            plan.rate = room / hours;
        }
        plan.leaked = leaked(class, plan.rate, room, &background.load, draw);
        let first = (onset_s / STEP_S).ceil() as usize;
        plan.leaked
            .iter_mut()
            .take(first)
            .for_each(|bytes| *bytes = 0.0);
        if class == Class::LeakRestarts {
            let every_s = draw.log_between(8.0, 48.0) * HOUR_S;
            let count = (DAYS * DAY_S / every_s) as usize;
            plan.restarts_s = (1..=count).map(|number| number as f64 * every_s).collect();
        }
        plan
    }
}

fn onset(class: Class, draw: &mut Draw) -> f64 {
    match class {
        Class::LeakMidway | Class::LeakComposite => draw.between(1.0, 4.0) * DAY_S,
        Class::LeakDiurnalBg if draw.chance(0.5) => draw.between(0.5, 4.0) * DAY_S,
        _ => 0.0,
    }
}

/// What the container does beside leaking.
fn shape(class: Class, background: &mut Background, draw: &mut Draw) {
    let harshness = background.harshness;
    match class {
        Class::LeakMidway => match draw.below(4) {
            0 => background.collect((0.05, 0.6), (30.0, 1800.0), draw),
            1 => {
                let swing: Vec<f64> = draw.daily(0.5).iter().map(|load| load - 1.0).collect();
                background.add(0.3 * background.base, &swing);
            }
            2 => {
                let time_s = draw.log_between(1.0, 6.0) * HOUR_S;
                background.wander(time_s, 0.015 * harshness, draw);
            }
            _ => {}
        },
        Class::LeakSawtooth => background.collect((0.1, 0.6), (30.0, 1800.0), draw),
        Class::LeakWarmup => {
            background.warm_up((0.2, 0.8), (0.2 * HOUR_S, 6.0 * HOUR_S), draw);
        }
        Class::LeakComposite => {
            background.collect((0.03, 0.3), (30.0, 1800.0), draw);
            background.burst((0.1, 3.0), (0.1, 0.3), (60.0, 1800.0), draw);
            let time_s = draw.log_between(1.0, 8.0) * HOUR_S;
            background.wander(time_s, draw.between(0.005, 0.02) * harshness, draw);
        }
        Class::LeakSlow => {
            background.rebase(2048.0 * MIB);
            let time_s = draw.log_between(60.0, 3600.0);
            background.wander(time_s, 0.01, draw);
        }
        _ => {}
    }
}

/// Bytes leaked in each sample, as if the leak were there from the start.
fn leaked(class: Class, rate: f64, room: f64, load: &[f64], draw: &mut Draw) -> Vec<f64> {
    let per_sample = rate * STEP_S / HOUR_S;
    match class {
        Class::LeakRequestDiurnal => {
            let mean = load.iter().sum::<f64>() / load.len() as f64;
            load.iter().map(|load| per_sample * load / mean).collect()
        }
        Class::LeakStep => {
            // At least six steps until the limit.
            let gap_s = (draw.log_between(0.25, 6.0) * HOUR_S).min(room / rate * HOUR_S / 6.0);
            let step = rate * gap_s / HOUR_S;
            (0..SAMPLES)
                .map(|_| {
                    if draw.chance(STEP_S / gap_s) {
                        step * draw.step_size()
                    } else {
                        0.0
                    }
                })
                .collect()
        }
        // Half the rate at first, 1.5 times the rate when the limit would be reached.
        Class::LeakAccel => {
            let to_limit = room / rate * HOUR_S / STEP_S;
            (0..SAMPLES)
                .map(|sample| per_sample * (0.5 + sample as f64 / to_limit))
                .collect()
        }
        _ => draw
            .correlated(600.0, 1.0)
            .into_iter()
            .map(|noise| per_sample * (1.0 + 0.3 * noise).max(0.0))
            .collect(),
    }
}

/// Lives through the week: a restart by plan, or by the kernel when the limit is reached, begins a new
/// epoch at the base footprint.
pub fn live(plan: &Plan, background: &Background, kernel: &[f64], draw: &mut Draw) -> Life {
    let mut restarts: Vec<usize> = plan
        .restarts_s
        .iter()
        .map(|at_s| (at_s / STEP_S) as usize)
        .filter(|sample| (1..SAMPLES).contains(sample))
        .collect();
    restarts.sort_unstable();
    let mut life = Life {
        anon: Vec::with_capacity(SAMPLES),
        epoch: Vec::with_capacity(SAMPLES),
        first_oom_s: None,
    };
    let mut epoch = 0;
    while life.anon.len() < SAMPLES {
        let start = life.anon.len();
        let end = restarts
            .iter()
            .copied()
            .find(|at| *at > start)
            .unwrap_or(SAMPLES);
        let killed = live_once(plan, background, kernel, start..end, &mut life);
        life.epoch.resize(life.anon.len(), epoch);
        epoch += 1;
        if killed {
            let at_s = (life.anon.len() - 1) as f64 * STEP_S;
            life.first_oom_s.get_or_insert(at_s);
            let down = (draw.between(10.0, 60.0) / STEP_S) as usize + 1;
            let back = (life.anon.len() + down).min(SAMPLES);
            life.anon.resize(back, MIB);
            life.epoch.resize(back, epoch);
        }
    }
    life
}

/// Appends the samples of one process; true when it ended by an OOM kill.
fn live_once(
    plan: &Plan,
    background: &Background,
    kernel: &[f64],
    span: std::ops::Range<usize>,
    life: &mut Life,
) -> bool {
    let mut leaked = 0.0;
    // One that does not even fit when it starts is no leak; it is left alone.
    let mut fits = true;
    for sample in span.clone() {
        let age_s = (sample - span.start) as f64 * STEP_S;
        leaked += plan.leaked.get(sample).copied().unwrap_or(0.0);
        let still_loading = 0.6 * background.base * (-age_s / 5.0).exp();
        let bytes = background.at(sample, age_s) - still_loading + leaked;
        life.anon.push((bytes.max(MIB) / PAGE).floor() * PAGE);
        if fits && bytes + kernel[sample] > plan.limit {
            if sample - span.start > 2 {
                return true;
            }
            fits = false;
        }
    }
    false
}
