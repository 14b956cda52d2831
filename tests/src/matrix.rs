//! What the tests found out about this kernel, as lines for the tables of `cargo xtask vm`.
//!
//! Fields are separated by tabs. Nothing is written where `MEMTRACE_MATRIX` names no file.

use std::env;
use std::fmt::Debug;
use std::fs::OpenOptions;
use std::io::Write;
use std::thread;

use serde_json::Value;

/// Instructions that the verifier walked for the program on this hook.
pub fn instructions(probe: &str, hook: &str, reads: &str, count: u64) {
    write(&format!("instructions\t{probe}\t{hook}\t{reads}\t{count}"));
}

/// Holds one field of an incident of the running test against what the kernel says.
///
/// # Panics
/// When it tells another value; `context` says where.
pub fn assert_right(field: &str, told: &Value, kernel: impl Into<Value>, context: &Value) {
    let kernel = kernel.into();
    verdict(field, if *told == kernel { "right" } else { "wrong" });
    assert_eq!(*told, kernel, "{field} of {context}");
}

/// The same for a value that need not be equal.
///
/// # Panics
/// When it is not right.
pub fn assert_holds(field: &str, right: bool, kernel: impl Debug, context: &Value) {
    verdict(field, if right { "right" } else { "wrong" });
    assert!(right, "{field}: the kernel says {kernel:?}, {context}");
}

/// Holds a field that this kernel does not tell.
///
/// # Panics
/// When it is there.
pub fn assert_absent(field: &str, told: &Value, context: &Value) {
    verdict(field, if told.is_null() { "absent" } else { "wrong" });
    assert!(told.is_null(), "{field} of {context}");
}

fn verdict(field: &str, verdict: &str) {
    let thread = thread::current();
    let scenario = thread.name().unwrap_or("main");
    write(&format!("field\t{scenario}\t{field}\t{verdict}"));
}

fn write(line: &str) {
    let Some(path) = env::var_os("MEMTRACE_MATRIX") else {
        return;
    };
    let file = OpenOptions::new().append(true).create(true).open(path);
    // One write for a line: a serial port has no other order.
    let written = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    if let Err(error) = written {
        panic!("cannot write what MEMTRACE_MATRIX names: {error}");
    }
}
