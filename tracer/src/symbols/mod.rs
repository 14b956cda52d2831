//! Names for places in code: functions, those inlined into them, source lines.
//!
//! ```text
//! Symbols ─ cache ─ worker (another process) ─ image, debug_files, symbol_table   ELF, DWARF
//!                                            └ perf_map, mappings                 generated code
//! ```
//!
//! A place gets no name rather than a wrong one. Files are what tenants of the host wrote, so they
//! are mapped and parsed in a worker process only: a truncated file is a bus error, corrupt debug
//! information may panic, loop, or ask for all memory. The worker is bounded in heap, address space
//! and CPU time, dies before anything else does, and is ended when it is not needed. Must not decide
//! which places are worth a name.

mod cache;
mod debug_files;
mod image;
mod losses;
mod mappings;
pub mod perf_map;
mod resolver;
mod sandbox;
mod symbol_table;
pub mod wire;
mod worker;
mod worker_process;

pub use losses::Losses;
pub use resolver::{Limits, Symbols};
pub use worker::{ServeError, serve};
pub use worker_process::Program;

#[cfg(test)]
mod tests;
