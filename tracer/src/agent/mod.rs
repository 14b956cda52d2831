//! The running agent: rings and timers in, model in the middle, outputs behind.
//!
//! Wires the rooms together and owns the order of things: an OOM record is
//! handled before anything else that is ready. Must not compute or format.

mod active_processes;
pub mod clock;
mod config;
mod evidence;
mod otlp;
mod output;
pub mod own;
pub mod readings;
mod run;
mod running_commands;
pub mod signals;
pub mod stacks;

pub use config::{ApiAt, Config, Output, RunError};
pub use run::{Pods, run};
