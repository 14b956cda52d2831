//! How much a profile explains and how exact it is, in words that all outputs share.

use std::time::SystemTime;

use super::{View, total};
use crate::export::console::duration;
use crate::host::escape::display;
use crate::size;
use crate::stacks::profile::{Estimate, Kind, Profile};

/// Most characters of a scope.
const MOST_SCOPE_CHARS: usize = 120;

/// Whose profile it is.
pub(super) fn scope(profile: &Profile) -> String {
    let scope = display(profile.scope.as_bytes(), MOST_SCOPE_CHARS);
    scope.replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}")
}

/// `2026-01-02 03:04:05Z to 2026-01-02 03:05:05Z (1m00s)`.
pub(super) fn span(profile: &Profile) -> String {
    let length = seconds_between(profile.from, profile.until);
    format!(
        "{} to {} ({})",
        second(profile.from),
        second(profile.until),
        duration::rough(length)
    )
}

/// `2026-01-02 03:04:05Z`; empty for a time outside of the calendar.
pub(super) fn second(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time)
        .map(|time| time.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
        .unwrap_or_default()
}

pub(super) fn seconds_between(from: SystemTime, until: SystemTime) -> f64 {
    until.duration_since(from).unwrap_or_default().as_secs_f64()
}

/// `1.2G ±30M resident`.
pub(super) fn amount(profile: &Profile, view: View) -> String {
    let total = total(profile, view);
    let signed = if view == View::Growth {
        signed(total.bytes)
    } else {
        size::bytes(whole(total.bytes))
    };
    format!("{signed} {} {}", margin(total), view.name())
}

/// Resident memory against the kernel's count.
pub(super) fn explained(profile: &Profile) -> String {
    let resident = total(profile, View::Resident);
    let shown = size::bytes(whole(resident.bytes));
    match profile.anon_bytes {
        Some(anon) if anon > 0 => format!(
            "explained {shown} of {} anon ({:.0}%)",
            size::bytes(anon),
            resident.bytes * 100.0 / anon as f64
        ),
        Some(_) => format!("explained {shown} of 0B anon"),
        None => format!("explained {shown} of unknown anon"),
    }
}

/// `1 in 64 pages sampled`.
pub(super) fn sampling(profile: &Profile) -> String {
    let mut stacks = profile.stacks.iter();
    if !stacks.any(|stack| stack.kind == Kind::Resident) {
        return "no page sampled".to_owned();
    }
    match profile.pages_per_sample {
        1 => "every page sampled".to_owned(),
        pages => format!("1 in {pages} pages sampled"),
    }
}

/// `3 samples lost`.
pub(super) fn lost(profile: &Profile) -> String {
    match profile.lost_samples {
        1 => "1 sample lost".to_owned(),
        lost => format!("{lost} samples lost"),
    }
}

/// `±30M`: one standard error.
pub(super) fn margin(estimate: Estimate) -> String {
    format!("±{}", size::bytes(whole(estimate.error_bytes)))
}

/// `+1.5M`, `-20K`, `0`.
pub(super) fn signed(bytes: f64) -> String {
    let magnitude = size::bytes(whole(bytes.abs()));
    match bytes {
        _ if bytes >= 0.5 => format!("+{magnitude}"),
        _ if bytes <= -0.5 => format!("-{magnitude}"),
        _ => "0".to_owned(),
    }
}

/// Whole bytes; what is no amount is 0.
pub(super) fn whole(bytes: f64) -> u64 {
    bytes.round().max(0.0) as u64
}
