//! The running agent: rings and timers in, model in the middle, outputs behind.
//!
//! Wires the rooms together and owns the order of things: an OOM record is
//! handled before anything else that is ready. Must not compute or format.

pub mod clock;
mod otlp;
mod output;
pub mod own;
pub mod readings;
mod run;

pub use run::{Config, Output, RunError, run};
