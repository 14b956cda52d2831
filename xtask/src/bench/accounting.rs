//! What the kernel accounts to memtrace's BPF programs.
//! Must not know what the load is.

use std::fs;

use anyhow::Result;
use serde_json::Value;

use super::tracer::Tools;

/// What the kernel accounted to one BPF program.
#[derive(Debug)]
pub struct Program {
    pub probe: String,
    pub runs: u64,
    pub ns_per_run: f64,
}

/// Of one run of `load` under memtrace; empty where the kernel keeps no account. The accounting
/// costs time itself, so nothing else is measured in this run.
pub fn programs(tools: &Tools, load: impl FnOnce() -> Result<()>) -> Result<Vec<Program>> {
    let Some(_accounting) = Accounting::enable() else {
        return Ok(Vec::new());
    };
    let running = tools.memtrace(&["--interval", "1s"])?;
    load()?;
    let last = running.stop()?;
    let probes = last
        .as_ref()
        .and_then(|line| line["probes"].as_array())
        .map_or(&[][..], Vec::as_slice);
    Ok(probes.iter().filter_map(program).collect())
}

fn program(probe: &Value) -> Option<Program> {
    let runs = probe["run_count"].as_u64().filter(|&runs| runs > 0)?;
    Some(Program {
        probe: probe["probe"].as_str()?.to_owned(),
        runs,
        ns_per_run: probe["run_time_ns"].as_u64()? as f64 / runs as f64,
    })
}

/// `kernel.bpf_stats_enabled`, put back when dropped.
struct Accounting(String);

const ACCOUNTING: &str = "/proc/sys/kernel/bpf_stats_enabled";

impl Accounting {
    fn enable() -> Option<Self> {
        let before = fs::read_to_string(ACCOUNTING).ok()?;
        fs::write(ACCOUNTING, "1").ok()?;
        Some(Self(before))
    }
}

impl Drop for Accounting {
    fn drop(&mut self) {
        let _ = fs::write(ACCOUNTING, &self.0);
    }
}
