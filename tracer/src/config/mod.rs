//! The configuration file of `memtrace run`, and `memtrace config`.
//!
//! Owns how command line, environment, file and defaults become one set of options, and what can be
//! reloaded. Must not run anything.
//!
//! - `definition`: the keys, from clap's definition of the flags.
//! - `parse`, `on_event`: text to settings, or to all that is wrong with it.
//! - `file`: the file itself, and who may write it.
//! - `layers`: what beats what.
//! - `show`, `example`: what holds, and a file that explains itself.
//! - `reload`: what a running agent takes over.

mod command;
mod definition;
mod example;
mod file;
mod layers;
mod on_event;
mod parse;
mod problem;
pub mod reload;
mod show;

pub use command::{ConfigArgs, run};
pub use file::DEFAULT_PATH;
pub use layers::{CommandLine, Effective, Layers, Origin, Resolved};
pub use problem::ConfigError;
