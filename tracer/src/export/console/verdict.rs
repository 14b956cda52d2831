//! A verdict on growth in words: rate, since when, until when, what it rests on, what else was weighed.
//!
//! Owns these words, for `memtrace leaks` and `memtrace report`. Judges nothing.

use crate::{
    analysis::{Considered, Estimate, Evidence, Explanation, Signal},
    growth::{GrowthChange, GrowthShare},
    moment::Zone,
    size,
};

use super::{duration, incident::shown};

const UNITS: [(f64, &str); 4] = [
    (1024.0 * 1024.0 * 1024.0 * 1024.0, "TiB"),
    (1024.0 * 1024.0 * 1024.0, "GiB"),
    (1024.0 * 1024.0, "MiB"),
    (1024.0, "KiB"),
];

/// `12.3 MiB/h (11.8 to 12.9)`: all in the unit of the estimate.
pub fn rate(bytes_per_hour: Estimate) -> String {
    let Estimate { low, mid, high } = bytes_per_hour;
    let (scale, unit) = UNITS
        .into_iter()
        .find(|(scale, _)| mid.abs() >= *scale)
        .unwrap_or((1.0, "B"));
    let shown = |bytes: f64| format!("{:.1}", bytes / scale);
    let range = match high {
        Some(high) => format!("{} to {}", shown(low), shown(high)),
        None => format!("{} or more", shown(low)),
    };
    format!("{} {unit}/h ({range})", shown(mid))
}

/// `8h10m (7h40m to 8h50m)`.
pub fn time_left(seconds: Estimate) -> String {
    let range = match seconds.high {
        Some(high) => format!(
            "{} to {}",
            duration::rough(seconds.low),
            duration::rough(high)
        ),
        None => format!("{} or more", duration::rough(seconds.low)),
    };
    format!("{} ({range})", duration::rough(seconds.mid))
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
        Some(owner) => format!("the limit of {bytes} of {}, above it", shown(owner)),
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
        "the floor is at {} and rose by {}, as a line, in {} ({} blocks, scatter {})",
        bytes(evidence.floor_bytes),
        bytes(evidence.floor_growth_bytes),
        duration::rough(evidence.window_seconds),
        evidence.blocks,
        bytes(evidence.residual_bytes),
    );
    text += &format!(
        "; trend Z {}, line R² {}",
        figure(evidence.mann_kendall_z),
        figure(evidence.r_squared)
    );
    if evidence.epochs_growing > 0 {
        text += &format!(
            "; {} starts before it ended growing too",
            evidence.epochs_growing
        );
    }
    text
}

/// One explanation that was weighed, with its figure; whether it holds is for the caller to say.
pub fn weighed(considered: &Considered) -> String {
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
        Explanation::Unverified => format!(
            "not yet verified ({:.0} % of the verification is done)",
            considered.value.clamp(0.0, 1.0) * 100.0
        ),
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
    fn a_rate_and_its_interval_have_one_unit() {
        for (of, shown) in [
            (
                estimate(11.8 * MIB, 12.3 * MIB, Some(12.9 * MIB)),
                "12.3 MiB/h (11.8 to 12.9)",
            ),
            (
                estimate(0.9 * MIB, 1.0 * MIB, None),
                "1.0 MiB/h (0.9 or more)",
            ),
            (estimate(-5.0, 10.0, Some(20.0)), "10.0 B/h (-5.0 to 20.0)"),
            (
                estimate(2048.0 * MIB, 2560.0 * MIB, Some(3072.0 * MIB)),
                "2.5 GiB/h (2.0 to 3.0)",
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
        let text = weighed(&Considered {
            explanation: Explanation::Unverified,
            holds: true,
            value: 0.4,
            threshold: 1.0,
        });
        assert_eq!(text, "not yet verified (40 % of the verification is done)");
    }
}
