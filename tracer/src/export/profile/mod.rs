//! A stack profile for people and tools: flame graph, pprof, folded text, terminal tree, JSON, OTLP.
//!
//! Owns these formats. Pure: the same profile gives the same bytes, whatever the order of its stacks.
//! Names in a profile are untrusted; each format escapes and bounds them. Must not sample or symbolize.
//!
//! - `folded`: a line a call path.
//! - `flamegraph`: SVG, also of the difference between two moments.
//! - `pprof`: `profile.proto`, compressed (`proto` has its messages).
//! - `tree`: the heaviest paths in a terminal.
//! - `json`: the first suspects, small enough to embed in other lines and events.
//! - `otlp`: the profiles signal.

mod calltree;
mod dictionary;
pub mod flamegraph;
pub mod folded;
pub mod json;
mod names;
pub mod otlp;
mod paths;
mod places;
pub mod pprof;
mod proto;
mod summary;
pub mod tree;

#[cfg(test)]
pub(crate) mod fixture;

use crate::stacks::profile::{Estimate, Kind, Profile, ProfileStack};

/// What the widths and weights of an output are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum View {
    /// Anonymous memory that is still resident.
    #[default]
    Resident,
    /// How much of it came since the profile's base; paths that shrank are left out.
    Growth,
    /// All that was written to first since the profile began, resident or not.
    Touched,
    /// Address space by `mmap` and `brk`, whether touched or not.
    Mapped,
}

impl View {
    pub const ALL: [View; 4] = [View::Resident, View::Growth, View::Touched, View::Mapped];

    /// As on the command line and in titles.
    pub fn name(self) -> &'static str {
        match self {
            View::Resident => "resident",
            View::Growth => "growth",
            View::Touched => "touched",
            View::Mapped => "mapped",
        }
    }

    /// Which stacks it shows.
    pub fn kind(self) -> Kind {
        match self {
            View::Mapped => Kind::Mapped,
            View::Resident | View::Growth | View::Touched => Kind::Resident,
        }
    }

    /// The estimate of `stack` that it shows.
    pub fn of(self, stack: &ProfileStack) -> Estimate {
        match self {
            View::Resident | View::Mapped => stack.resident,
            View::Growth => stack.growth,
            View::Touched => stack.touched,
        }
    }
}

/// The sum over all stacks that `view` shows, with its standard error: samples are independent.
pub fn total(profile: &Profile, view: View) -> Estimate {
    let stacks = profile.stacks.iter();
    sum(stacks
        .filter(|stack| stack.kind == view.kind())
        .map(|stack| view.of(stack)))
}

/// The sum of independent estimates.
fn sum(estimates: impl Iterator<Item = Estimate>) -> Estimate {
    let (bytes, variance) = estimates.fold((0.0, 0.0), |(bytes, variance), estimate| {
        (
            bytes + estimate.bytes,
            variance + estimate.error_bytes * estimate.error_bytes,
        )
    });
    Estimate {
        bytes,
        error_bytes: f64::sqrt(variance),
    }
}

/// The stacks in an order that does not depend on theirs.
fn ordered(profile: &Profile) -> Vec<&ProfileStack> {
    let mut stacks: Vec<&ProfileStack> = profile.stacks.iter().collect();
    stacks.sort_by(|a, b| {
        (a.pid, &a.comm, a.kind as u8, &a.frames, a.root)
            .cmp(&(b.pid, &b.comm, b.kind as u8, &b.frames, b.root))
            .then(a.resident.bytes.total_cmp(&b.resident.bytes))
    });
    stacks
}
