//! Which call paths look like a leak: what is still resident, keeps growing and is old.
//!
//! Owns the score. Must not read a clock: ages are as of the profile.

use std::{cmp::Ordering, sync::Arc, time::Duration};

use super::profile::{Estimate, Frame, Kind, Profile, ProfileStack};

/// Standard errors that growth must exceed to count.
pub const SURE: f64 = 2.0;
/// Least product of age share and kept share of memory that grows rather than comes and goes. A steady
/// leak has an age share of a half and keeps all; memory that lives for a second has a hundredth of each.
pub const LEAST_LASTING: f64 = 0.005;

/// Resident memory by all stacks of a process that go through the same functions, whatever the
/// addresses in them.
#[derive(Debug, Clone, Copy)]
pub struct Suspect<'a> {
    /// The one of them with the most resident bytes.
    pub stack: &'a ProfileStack,
    pub resident: Estimate,
    /// Since the profile's base; negative if it shrank.
    pub growth: Estimate,
    /// All that was sampled since the profile began.
    pub touched: Estimate,
    /// Sampled pages behind `resident`.
    pub samples: u64,
    /// Age of the oldest page that is still resident.
    pub oldest: Duration,
    /// Median age of the resident bytes, each stack's taken to be as old as its median.
    pub median_age: Duration,
}

/// The stacks of [`suspect_paths`].
pub fn suspects(profile: &Profile) -> Vec<&ProfileStack> {
    let paths = suspect_paths(profile).into_iter();
    paths.map(|path| path.stack).collect()
}

/// Call paths of resident memory, the first suspect first.
///
/// Two numbers decide, the second among equals of the first, both in bytes:
///
/// 1. growth less two standard errors, or 0: what surely grew;
/// 2. resident bytes.
///
/// Each is multiplied by the *age share* (median age of the resident bytes over the time since the
/// profile's base, at most 1) and by what was *kept* (resident over touched bytes, at most 1); where
/// the two together are below [`LEAST_LASTING`], growth is a burst and does not count. So a cache that is
/// warm (old, growth within its error of 0) comes after whatever surely grows, and memory that is soon
/// given back (young, little of it kept) comes last.
pub fn suspect_paths(profile: &Profile) -> Vec<Suspect<'_>> {
    let span = profile.until.duration_since(profile.base);
    let span = span.unwrap_or_default().as_secs_f64();
    let stacks = profile.stacks.iter();
    let mut stacks: Vec<&ProfileStack> = stacks.filter(|s| s.kind == Kind::Resident).collect();
    stacks.sort_by(|a, b| {
        let by_size = b.resident.bytes.total_cmp(&a.resident.bytes);
        by_path(a, b).then(by_size).then(a.frames.cmp(&b.frames))
    });
    let mut ranked: Vec<([f64; 2], Suspect)> = stacks
        .chunk_by(|a, b| by_path(a, b) == Ordering::Equal)
        .filter_map(summed)
        .map(|suspect| (score(&suspect, span), suspect))
        .collect();
    // Equals stay in the order of their paths.
    ranked.sort_by(|(a, _), (b, _)| {
        let scores = b.iter().zip(a).map(|(b, a)| b.total_cmp(a));
        scores.fold(Ordering::Equal, Ordering::then)
    });
    ranked.into_iter().map(|(_, suspect)| suspect).collect()
}

fn summed<'a>(stacks: &[&'a ProfileStack]) -> Option<Suspect<'a>> {
    let (first, rest) = stacks.split_first()?;
    let ages = stacks.iter();
    let ages = ages.map(|stack| (stack.median_age, stack.resident.bytes));
    let mut suspect = Suspect {
        stack: first,
        resident: first.resident,
        growth: first.growth,
        touched: first.touched,
        samples: first.samples,
        oldest: first.oldest,
        median_age: weighted_median(ages),
    };
    for stack in rest {
        suspect.resident = plus(suspect.resident, stack.resident);
        suspect.growth = plus(suspect.growth, stack.growth);
        suspect.touched = plus(suspect.touched, stack.touched);
        suspect.samples = suspect.samples.saturating_add(stack.samples);
        suspect.oldest = suspect.oldest.max(stack.oldest);
    }
    Some(suspect)
}

/// Growth beyond the sampling error, bytes; 0 if it may be none.
pub fn sure_growth(growth: Estimate) -> f64 {
    (growth.bytes - SURE * growth.error_bytes).max(0.0)
}

fn score(suspect: &Suspect, span: f64) -> [f64; 2] {
    let age = share(suspect.median_age.as_secs_f64(), span);
    let kept = share(suspect.resident.bytes, suspect.touched.bytes);
    let lasting = age * kept;
    let growth = if lasting < LEAST_LASTING {
        0.0
    } else {
        sure_growth(suspect.growth)
    };
    let resident = suspect.resident.bytes.max(0.0);
    [growth * lasting, resident * lasting]
}

/// At most 1; 1 where there is nothing to compare with.
fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 {
        (part / whole).clamp(0.0, 1.0)
    } else {
        1.0
    }
}

/// Median age of resident bytes, from the ages and the bytes of parts.
pub fn weighted_median(parts: impl Iterator<Item = (Duration, f64)>) -> Duration {
    let mut ages: Vec<(Duration, f64)> = parts.map(|(age, bytes)| (age, bytes.max(0.0))).collect();
    ages.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let half = ages.iter().map(|(_, bytes)| bytes).sum::<f64>() / 2.0;
    let mut below = 0.0;
    for (age, bytes) in &ages {
        below += bytes;
        if below >= half {
            return *age;
        }
    }
    ages.last().map(|(age, _)| *age).unwrap_or_default()
}

/// Samples are independent.
fn plus(a: Estimate, b: Estimate) -> Estimate {
    Estimate {
        bytes: a.bytes + b.bytes,
        error_bytes: a.error_bytes.hypot(b.error_bytes),
    }
}

fn by_path(a: &ProfileStack, b: &ProfileStack) -> Ordering {
    let whose = |stack: &ProfileStack| (stack.pid, stack.kind as u8, stack.root);
    whose(a)
        .cmp(&whose(b))
        .then_with(|| a.comm.cmp(&b.comm))
        .then_with(|| a.frames.iter().map(named).cmp(b.frames.iter().map(named)))
}

/// What of a frame stays the same at all addresses of its function.
fn named(frame: &Arc<Frame>) -> (Option<&str>, &str, Option<u64>, bool) {
    let place = frame.function.is_none().then_some(frame.offset);
    let function = frame.function.as_deref();
    (function, &frame.module, place, frame.inlined)
}

#[cfg(test)]
#[path = "suspects_tests.rs"]
mod tests;
