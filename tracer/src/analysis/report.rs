//! The verdict on a cgroup out of the judgements of its signals. Judges nothing itself.

use super::assess::Figures;
use super::clock::Clock;
use super::judge::Judge;
use super::signals::Signals;
use super::thresholds::Thresholds;
use super::verdict::{
    Considered, Estimate, Evidence, Explanation, Since, State, TimeToLimit, Verdict,
};

/// Longest time to a limit that is told: beyond a year it says nothing.
const LONGEST_SECONDS: f64 = 366.0 * 86_400.0;
/// Share of the limit that is free again after it was reached.
const GIVEN_BACK: f64 = 0.1;
/// Lower end of a rate that is known to be above zero and no more, as a share of it.
const LEAST_SHARE: f64 = 0.1;
const MINUTES_PER_HOUR: f64 = 60.0;

/// What a report needs beside the signals.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// The thresholds.
    pub thresholds: &'a Thresholds,
    /// The time of the samples.
    pub clock: &'a Clock,
    /// Milliseconds of the clock to a minute of analysis.
    pub minute_ms: f64,
    /// The limit.
    pub limit: Option<u64>,
    /// Bytes swapped out.
    pub swap: u64,
}

/// The verdict, without nearness to the limit.
pub fn report(signals: &mut Signals, frame: &Frame) -> Verdict {
    let now_ms = frame.clock.last_ms();
    let Some((signal, state)) = signals.worst() else {
        return Verdict {
            state_since_ms: now_ms,
            ..Verdict::default()
        };
    };
    let room = signals.room(signal, frame.limit, frame.swap);
    let mut verdict = Verdict {
        state,
        state_since_ms: now_ms,
        signal: Some(signal),
        ..Verdict::default()
    };
    let judge = signals.judge_mut(signal);
    let Some((judge, figures)) = judge.and_then(|judge| judge.figures().map(|f| (judge, f))) else {
        return verdict;
    };
    verdict.considered = considered(state, figures.0, &figures.1, judge, frame.thresholds);
    verdict.evidence = Some(evidence(figures.0, &figures.1, judge, frame));
    if state < State::Growing {
        return verdict;
    }
    if let Some(onset) = judge.onset() {
        let uncertainty_ms = (onset.uncertainty * frame.minute_ms) as i64;
        verdict.since = Some(Since {
            time_ms: frame.clock.time_ms(onset.minute, frame.minute_ms),
            uncertainty_ms,
        });
    }
    rate_and_time(&mut verdict, judge, &figures.1, room, frame);
    verdict
}

fn rate_and_time(
    verdict: &mut Verdict,
    judge: &mut Judge,
    figures: &Figures,
    room: Option<f64>,
    frame: &Frame,
) {
    let hourly = MINUTES_PER_HOUR * 60_000.0 / frame.minute_ms;
    let tracked = verdict.state.is_leak().then(|| judge.track(room)).flatten();
    let since_onset = tracked.map(|track| (track.rate_low, track.rate, track.rate_high));
    let of_window = (
        f64::from(figures.slope_low),
        f64::from(figures.slope),
        f64::from(figures.slope_high),
    );
    let rate = match since_onset {
        // It rises in the window, how little is not known since the onset.
        Some((low, mid, high)) if low <= 0.0 && of_window.0 > 0.0 => Some((
            of_window.0.min(LEAST_SHARE * mid),
            mid,
            high.max(of_window.2),
        )),
        Some(since_onset) => Some(since_onset),
        None => Some(of_window),
    };
    // A verdict that is held over a pause has no rate meanwhile.
    let is_leak = verdict.state.is_leak();
    let rate =
        rate.filter(|(low, mid, _)| mid.is_finite() && *mid > 0.0 && (*low > 0.0 || !is_leak));
    verdict.rate_bytes_per_hour = rate.map(|(low, mid, high)| Estimate {
        low: low * hourly,
        mid: mid * hourly,
        high: Some(high * hourly),
    });
    let (Some(track), Some(room), Some(limit_bytes)) = (tracked, room, frame.limit) else {
        return;
    };
    let (low, mid, high) = track.minutes(room);
    let seconds = |minutes: f64| minutes * frame.minute_ms / 1000.0;
    // Its peaks reached the limit, but by now much was given back: the next time cannot be told yet.
    let left = room - judge.level().unwrap_or(room);
    let given_back = mid <= 0.0 && left > GIVEN_BACK * limit_bytes as f64;
    if seconds(mid) <= LONGEST_SECONDS && !given_back {
        let high = high.map(seconds).filter(|high| *high <= LONGEST_SECONDS);
        let seconds = Estimate {
            low: seconds(low),
            mid: seconds(mid),
            high,
        };
        verdict.time_to_limit = Some(TimeToLimit {
            seconds,
            limit_bytes,
        });
    }
}

fn evidence(ring: usize, figures: &Figures, judge: &Judge, frame: &Frame) -> Evidence {
    Evidence {
        ring: ring as u8,
        window_seconds: f64::from(figures.span) * frame.minute_ms / 1000.0,
        blocks: figures.points,
        mann_kendall_z: f64::from(figures.z),
        autocorrelation: f64::from(figures.correlation),
        r_squared: f64::from(figures.r_squared),
        floor_growth_bytes: f64::from(figures.growth),
        floor_bytes: f64::from(figures.floor),
        residual_bytes: f64::from(figures.sigma),
        swing_bytes: f64::from(figures.swing),
        headroom_bytes: frame.limit.is_some().then_some(f64::from(figures.headroom)),
        epochs_growing: judge.epochs().growing(),
    }
}

fn considered(
    state: State,
    ring: usize,
    figures: &Figures,
    judge: &Judge,
    thresholds: &Thresholds,
) -> Vec<Considered> {
    let below = |explanation, value: f32, threshold: f64| {
        let value = f64::from(value);
        Considered {
            explanation,
            holds: value < threshold,
            value,
            threshold,
        }
    };
    let above = |explanation, value: f32, threshold: f64| {
        let value = f64::from(value);
        Considered {
            explanation,
            holds: value > threshold,
            value,
            threshold,
        }
    };
    let noise = (figures.growth / figures.sigma.max(1.0)).min(1e6);
    let mut list = Vec::with_capacity(8);
    list.push(below(Explanation::Noise, noise, thresholds.growth_sigma));
    if !figures.significant {
        return list;
    }
    list.push(below(
        Explanation::Insignificant,
        figures.weight,
        figures.suspect_weight(thresholds),
    ));
    list.push(below(
        Explanation::Slowing,
        figures.slowing,
        thresholds.slowing,
    ));
    list.push(above(
        Explanation::Saturating,
        figures.saturation,
        thresholds.saturating,
    ));
    list.push(below(Explanation::EarlierPeak, figures.record, 1.0));
    list.push(above(
        Explanation::Load,
        figures.load,
        thresholds.load_share,
    ));
    // What bars a confirmation, and no suspicion.
    let mut bar = |considered: Considered| {
        if state != State::Confirmed || !considered.holds {
            list.push(considered);
        }
    };
    if figures.young {
        bar(below(
            Explanation::FillingCache,
            judge.weight(ring, figures),
            f64::from(figures.horizon_factor),
        ));
    }
    if let Some(share) = judge.verified_share(ring, figures, thresholds) {
        bar(below(Explanation::Unverified, share as f32, 1.0));
    }
    list
}
