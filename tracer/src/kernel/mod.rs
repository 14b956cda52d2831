//! Facts about the running kernel, and nothing but facts.
//!
//! Owns BTF look-ups, field offsets, and what hooks exist. Must not decide
//! anything (that is `loader::plan`) and must not load anything.

pub mod btf;
pub mod capability;
pub mod fields;
pub mod gfp;
pub mod support;
