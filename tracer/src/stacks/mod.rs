//! Which code grows: sampled pages that are still resident, by the stacks that touched them first.
//!
//! ```text
//! sample (ring) ─► unwind ─► pages ◄─ residency (/proc/PID/pagemap)
//!                    │         │
//!                 modules      └─► profile ─► symbols, export
//! ```
//!
//! Must not format, and must not run on the agent's loop: it has a thread of its own.

pub mod callpaths;
pub mod code;
pub mod collector;
mod cpu_share;
pub mod density;
mod elf;
pub mod estimate;
pub mod file_view;
#[cfg(test)]
mod forged;
mod function_table;
mod functions;
pub mod limits;
pub mod losses;
pub mod mappings;
pub mod modules;
pub mod pages;
pub mod profile;
pub mod raw;
pub mod residency;
pub mod room;
pub mod service;
pub mod space;
mod steady;
pub mod suspects;
pub mod told;
pub mod unwind;
