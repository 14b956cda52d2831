//! A verdict on growth in words: rate, since when, until when, what it rests on, what else was weighed.
//!
//! Owns these words, wherever a verdict is told: `leaks`, `top`, `report`, `analyze`. Judges nothing.

use crate::{
    analysis::{Considered, Estimate, Evidence, Explanation, NearLimit, Signal, State},
    growth::{GrowthChange, GrowthShare},
    moment::Zone,
    size,
};

use super::{duration, incident::shown};

/// `12.3M/h (11.8M to 12.9M)`.
pub fn rate(bytes_per_hour: Estimate) -> String {
    format!(
        "{} ({})",
        per_hour(bytes_per_hour.mid),
        interval(bytes_per_hour, bytes)
    )
}

/// `12.3M/h`.
pub fn per_hour(bytes_per_hour: f64) -> String {
    format!("{}/h", bytes(bytes_per_hour))
}

/// `11.8M to 12.9M`, or `11.8M or more`.
pub fn interval(estimate: Estimate, show: impl Fn(f64) -> String) -> String {
    match estimate.high {
        Some(high) => format!("{} to {}", show(estimate.low), show(high)),
        None => format!("{} or more", show(estimate.low)),
    }
}

/// `8h10m (7h40m to 8h50m)`.
pub fn time_left(seconds: Estimate) -> String {
    format!(
        "{} ({})",
        duration::rough(seconds.mid),
        interval(seconds, duration::rough)
    )
}

/// How near memory that cannot be reclaimed is to the limit.
pub fn nearness(near: &NearLimit) -> String {
    let pressure = match near.pressure {
        Some(true) => ", stalls or reclaim bear it out",
        Some(false) => ", without stalls or reclaim",
        None => "",
    };
    let (used, limit) = (
        size::bytes(near.unreclaimable_bytes),
        size::bytes(near.limit_bytes),
    );
    format!(
        "{used} of {limit} cannot be reclaimed ({:.0} %){pressure}",
        near.ratio * 100.0
    )
}

/// How a state is coloured on a terminal; empty: not at all.
pub fn colour(state: State) -> &'static str {
    match state {
        State::Confirmed => "\x1b[1;31m",
        State::Suspected => "\x1b[31m",
        State::Growing => "\x1b[33m",
        _ => "",
    }
}

/// `2026-11-21T07:42:26Z ± 4m`.
pub fn since(change: &GrowthChange, zone: &Zone) -> Option<String> {
    let since = zone.seconds(change.since?);
    Some(match change.since_uncertainty_s {
        Some(uncertainty) => format!("{since} ± {}", duration::rough(uncertainty)),
        None => since,
    })
}

/// `its own limit of 512M`.
pub fn limit(change: &GrowthChange) -> Option<String> {
    let bytes = size::bytes(change.limit_bytes?);
    Some(match &change.limit_cgroup {
        Some(owner) if *owner == change.cgroup => format!("its own limit of {bytes}"),
        Some(owner) => format!("the limit of {bytes} of its ancestor {}", shown(owner)),
        None => format!("the machine's memory of {bytes}"),
    })
}

/// Whose memory it is: the container's name where it is known, else the cgroup's path.
pub fn place(change: &GrowthChange) -> String {
    let short = change.names.as_ref().and_then(|names| names.short());
    shown(&short.unwrap_or_else(|| change.cgroup.clone()))
}

/// What the signal is.
pub fn signal(signal: Signal) -> &'static str {
    match signal {
        Signal::Anon => "anonymous memory",
        Signal::Shmem => "shared memory and tmpfs",
        Signal::Kernel => "kernel memory",
        Signal::File => "page cache",
        Signal::WorkingSet => "working set",
        Signal::Usage => "usage",
    }
}

/// What it rests on.
pub fn evidence(evidence: &Evidence) -> String {
    let mut text = format!(
        "the floor is at {} and rose by {}, as a line, in {} ({} blocks, scatter {}, swing {})",
        bytes(evidence.floor_bytes),
        bytes(evidence.floor_growth_bytes),
        duration::rough(evidence.window_seconds),
        evidence.blocks,
        bytes(evidence.residual_bytes),
        bytes(evidence.swing_bytes),
    );
    if let Some(headroom) = evidence.headroom_bytes {
        text += &format!("; headroom {}", bytes(headroom));
    }
    text += &format!(
        "; trend Z {}, line R² {}, autocorrelation {}",
        figure(evidence.mann_kendall_z),
        figure(evidence.r_squared),
        figure(evidence.autocorrelation)
    );
    text += &match evidence.epochs_growing {
        0 => String::new(),
        1 => "; 1 earlier start also ended while it grew".to_owned(),
        starts => format!("; {starts} earlier starts also ended while it grew"),
    };
    text
}

/// What was weighed: first what was rejected, then what is possible, each with its heading.
pub fn weighed_by_outcome(considered: &[Considered]) -> [(&'static str, Vec<String>); 2] {
    [(false, "rejected"), (true, "possible")].map(|(holds, heading)| {
        let those = considered.iter().filter(|one| one.holds == holds);
        (heading, those.map(weighed).collect())
    })
}

/// One explanation that was weighed, with its figure; whether it holds is for the heading to say.
fn weighed(considered: &Considered) -> String {
    let (value, threshold) = (figure(considered.value), figure(considered.threshold));
    match considered.explanation {
        Explanation::Noise => {
            format!("noise (growth is {value} times the scatter; noise is below {threshold})")
        }
        Explanation::Insignificant => format!(
            "too little to matter (weighs {value} of the room to the limit; asked for {threshold})"
        ),
        Explanation::Slowing => format!(
            "slowing down (the later part rose {value} times as fast as before; slowing is below {threshold})"
        ),
        Explanation::Saturating => format!(
            "levelling off (a curve that flattens fits {value} times as well as a line; asked for {threshold})"
        ),
        Explanation::EarlierPeak => format!(
            "a level that was there before (it is {value} of what is asked above the earlier peak)"
        ),
        Explanation::Load => {
            format!("more load (load grew {value} times as much as memory; asked for {threshold})")
        }
        Explanation::FillingCache => format!(
            "a cache that fills to a cap (it never was calm; all growth weighs {value}, asked for {threshold})"
        ),
        Explanation::Unverified if considered.holds => format!(
            "growth that ends soon ({:.0} % of what verifies that it goes on was seen)",
            considered.value.clamp(0.0, 1.0) * 100.0
        ),
        Explanation::Unverified => "growth that ends soon (it went on as predicted)".to_owned(),
    }
}

/// `python3 (pid 7), 97 % of the growth: +60.1M in 5h00m, holds 80.0M`.
pub fn process(share: &GrowthShare) -> String {
    format!(
        "{} (pid {}), {:.0} % of the growth: +{} in {}, holds {}",
        share.comm.as_deref().map_or("?".into(), shown),
        share.pid,
        share.share * 100.0,
        size::bytes(share.growth_bytes),
        duration::rough(share.over_s),
        size::bytes(share.rss_anon_bytes),
    )
}

/// Bytes that may be below 0. A float turns into an integer by saturation, NaN into 0.
fn bytes(bytes: f64) -> String {
    let sign = if bytes < 0.0 { "-" } else { "" };
    format!("{sign}{}", size::bytes(bytes.abs().round() as u64))
}

fn figure(value: f64) -> String {
    match value.abs() {
        small if small < 10.0 => format!("{value:.2}"),
        large if large < 1e6 => format!("{value:.0}"),
        _ => format!("{value:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: f64 = 1048576.0;

    fn estimate(low: f64, mid: f64, high: Option<f64>) -> Estimate {
        Estimate { low, mid, high }
    }

    #[test]
    fn a_rate_has_its_interval_in_the_unit_of_all_sizes() {
        for (of, shown) in [
            (
                estimate(11.8 * MIB, 12.3 * MIB, Some(12.9 * MIB)),
                "12.3M/h (11.8M to 12.9M)",
            ),
            (
                estimate(0.9 * MIB, 1.0 * MIB, None),
                "1.0M/h (922K or more)",
            ),
            (estimate(-5.0, 10.0, Some(20.0)), "10B/h (-5B to 20B)"),
            (
                estimate(2048.0 * MIB, 2560.0 * MIB, Some(3072.0 * MIB)),
                "2.5G/h (2.0G to 3.0G)",
            ),
        ] {
            assert_eq!(rate(of), shown);
        }
    }

    #[test]
    fn time_left_has_an_interval_that_may_be_open() {
        assert_eq!(
            time_left(estimate(27_600.0, 29_400.0, Some(31_800.0))),
            "8h10m (7h40m to 8h50m)"
        );
        assert_eq!(
            time_left(estimate(60.0, 120.0, None)),
            "2m00s (1m00s or more)"
        );
    }

    #[test]
    fn every_explanation_has_words_with_its_figure() {
        for explanation in [
            Explanation::Noise,
            Explanation::Insignificant,
            Explanation::Slowing,
            Explanation::Saturating,
            Explanation::EarlierPeak,
            Explanation::Load,
            Explanation::FillingCache,
        ] {
            let text = weighed(&Considered {
                explanation,
                holds: true,
                value: 1.25,
                threshold: 2.5,
            });
            assert!(text.contains("1.25"), "{text}");
        }
    }

    #[test]
    fn what_was_verified_is_no_longer_called_unverified() {
        let unverified = |holds, value| Considered {
            explanation: Explanation::Unverified,
            holds,
            value,
            threshold: 1.0,
        };
        let [rejected, open] = weighed_by_outcome(&[unverified(false, 3.0), unverified(true, 0.4)]);
        assert_eq!(
            rejected,
            (
                "rejected",
                vec!["growth that ends soon (it went on as predicted)".to_owned()]
            )
        );
        let told = "growth that ends soon (40 % of what verifies that it goes on was seen)";
        assert_eq!(open, ("possible", vec![told.to_owned()]));
    }
}
