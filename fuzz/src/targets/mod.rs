//! The targets, a module each: bytes in, a panic where a promise is broken.

pub mod api;
pub mod btf;
pub mod cgroup;
pub mod config;
pub mod containers;
pub mod incidents;
pub mod names;
pub mod otlp;
pub mod proc;
pub mod recording;
pub mod ring;
pub mod state;
pub mod symbols;
pub mod unwind;
