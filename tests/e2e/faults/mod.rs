//! What fails, one at a time, and what is lost by it: the table is `docs/faults.md`.
//!
//! Faults are made from outside: memtrace is the program that is shipped.

mod asleep;
mod clock;
mod files;
mod hooks;
mod killed;
mod maps;
mod procfs;
mod rings;
mod state;
mod suspended;
mod types;

/// Every so many rows of a table are tried: all of them, and few in an emulated machine, where each start of
/// memtrace takes long.
fn step() -> usize {
    if memtrace_tests::machine::is_vm() {
        6
    } else {
        1
    }
}
