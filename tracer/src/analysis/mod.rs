//! Growth analysis: is it a leak, since when, how fast, and when does it reach the limit.
//!
//! Pure: samples in, verdict out. No clock, no reading, no writing, nothing of the rest of the crate.
//!
//! Each signal (anon, shmem, kernel, page cache) keeps four rings of block *minima*: 60 blocks each of
//! 1, 6, 36 and 216 minutes, that is an hour, 6 hours, 36 hours and 9 days. The minimum of a block is
//! what garbage collection and bursts leave behind.

mod analyzer;
mod assess;
mod clock;
mod epochs;
mod eta;
mod judge;
mod load;
mod near_limit;
mod onset;
mod report;
mod ring;
mod sample;
mod shape;
mod signals;
mod thresholds;
mod trend;
mod verdict;
mod window;

pub use analyzer::{Analyzer, Saved};
pub use sample::Sample;
pub use thresholds::{Threshold, ThresholdError, Thresholds};
pub use verdict::{
    Change, Considered, Estimate, Evidence, Explanation, NearLimit, Signal, Since, State,
    StateChange, TimeToLimit, Verdict,
};

#[cfg(test)]
mod consistency_tests;
#[cfg(test)]
mod properties_tests;
