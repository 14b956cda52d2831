//! From the embedded BPF object to attached programs: catalog → plan → attach → verdict.
//!
//! The only module that knows aya. Hands out counts, records and verdicts in
//! the contract's own types; must not interpret them.

pub mod attach;
pub mod catalog;
pub mod commands;
pub mod counts;
mod options;
pub mod plan;
mod refusal;
pub mod ring;
mod runs;
pub mod stacks;

pub use attach::{LoadError, Loader, Verdict};
pub use catalog::hooks;
pub use options::Options;
pub use plan::DIRECT_READS;
