//! What fails, one at a time, and what is lost by it: the table is `docs/faults.md`.
//!
//! Faults are made from outside: memtrace is the program that is shipped.

mod clock;
mod files;
mod hooks;
mod killed;
mod maps;
mod state;
mod suspended;
