//! How much the kernel prints to its console while it kills: a slow one holds the CPU for milliseconds.

use std::fs;

use anyhow::{Context, Result};

const LEVELS: &str = "/proc/sys/kernel/printk";

/// The console shows emergencies only, until this is dropped.
#[derive(Debug)]
pub struct Quiet {
    before: String,
}

impl Quiet {
    pub fn new() -> Result<Self> {
        let before = fs::read_to_string(LEVELS).context(LEVELS)?;
        // The first of four numbers is the console's.
        fs::write(LEVELS, "1").context(LEVELS)?;
        Ok(Self { before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Err(error) = fs::write(LEVELS, &self.before) {
            eprintln!("xtask: the console's log level stays at 1: {error}");
        }
    }
}
