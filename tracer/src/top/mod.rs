//! `memtrace top`.
mod app;
mod columns;
mod details;
mod draw;
mod filter;
#[cfg(test)]
mod fixture;
mod incidents;
mod keys;
mod names;
mod rows;
mod scroll;
mod sort;
mod text;
mod tree;
