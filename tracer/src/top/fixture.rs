//! Records for the tests of the screen.

use jiff::Timestamp;
use serde_json::json;

use crate::api::records::{AgentRecord, CgroupDetails, CgroupRow, Listed};

pub const MIB: u64 = 1 << 20;

/// Of which nothing else is known.
pub fn row(id: u64, path: &str) -> CgroupRow {
    serde_json::from_value(json!({
        "cgroup_id": id, "cgroup": path, "has_children": false, "removed": false, "usage_bytes": MIB,
    }))
    .unwrap()
}

pub fn sized(id: u64, path: &str, usage_bytes: u64) -> CgroupRow {
    CgroupRow {
        usage_bytes: Some(usage_bytes),
        ..row(id, path)
    }
}

/// A leak of 1 MiB/s with a limit of 256 MiB.
pub fn leaking(id: u64, path: &str) -> CgroupRow {
    let mut row = sized(id, path, 240 * MIB);
    row.limit_bytes = Some(256 * MIB);
    row.effective_limit_bytes = Some(256 * MIB);
    row.growth_bytes_per_second = Some(MIB as f64);
    row.faults_per_second = Some(256.0);
    row.reclaim_stall_ratio = Some(0.02);
    row.pressure_some_ratio = Some(0.125);
    row.leak = Some(
        serde_json::from_value(json!({
            "state": "confirmed", "signal": "anon",
            "rate_bytes_per_hour": {"low": 3.6e9, "mid": 3.7e9, "high": 3.8e9},
            "since": "2026-11-22T04:00:00Z",
            "time_to_limit_s": {"low": 10.0, "mid": 16.0, "high": 20.0},
            "near_limit": true,
        }))
        .unwrap(),
    );
    row
}

/// The `n`th interval.
pub fn time(n: i64) -> Timestamp {
    Timestamp::from_second(1_795_000_000 + 5 * n).unwrap()
}

pub fn listed<T>(n: i64, items: Vec<T>) -> Listed<T> {
    Listed {
        time: time(n),
        items,
        left_out: 0,
    }
}

pub fn agent(n: i64) -> AgentRecord {
    serde_json::from_value(json!({
        "version": env!("CARGO_PKG_VERSION"), "kernel": "6.1.0-18-amd64", "cgroup_mode": "v2",
        "hostname": "node-1", "time": time(n), "started": time(0), "interval_seconds": 5.0,
        "pid": 4711, "cgroups": 95, "leaks": true, "stacks": true,
        "mem_total_bytes": 8192 * MIB, "mem_available_bytes": 2048 * MIB,
        "swap_total_bytes": 1024 * MIB, "swap_free_bytes": 1000 * MIB, "oom_kills": 3,
        "probes": {}, "losses": {"ring_full": 0},
    }))
    .unwrap()
}

pub fn details(row: CgroupRow, n: i64) -> CgroupDetails {
    let points: Vec<_> = (0..120)
        .map(|at| {
            json!({"time": time(n - 119 + at), "usage_bytes": (120 + at as u64) * MIB,
                "anon_bytes": (100 + at as u64) * MIB, "effective_limit_bytes": 256 * MIB})
        })
        .collect();
    let timeline = json!({
        "cgroup_id": row.cgroup_id, "cgroup": row.cgroup, "first_seen": time(0),
        "series": [{"step_seconds": 5.0, "points": points}],
        "marks": [{"time": time(n - 60), "kind": "verdict", "text": "leak suspected: anon grows 3.4G/h"}],
        "marks_left_out": 0,
    });
    serde_json::from_value(json!({
        "time": time(n), "row": row, "since": time(0), "file_bytes": 3 * MIB, "shmem_bytes": 0,
        "kernel_bytes": MIB, "peak_bytes": 241 * MIB,
        "processes": [{"pid": 77, "comm": "leaky", "rss_bytes": 230 * MIB, "rss_anon_bytes": 229 * MIB,
            "growth_bytes_per_second": 1048576.0}],
        "stacks": [{"resident_bytes": 200 * MIB, "error_bytes": 6 * MIB, "growth_bytes": 180 * MIB,
            "growth_error_bytes": 5 * MIB, "share": 0.9, "oldest_seconds": 500.0, "median_age_seconds": 60.0,
            "samples": 400, "process": {"pid": 77, "comm": "leaky"},
            "frames": ["leak_step (leaky)", "main (leaky)"], "truncated": false}],
        "timeline": timeline,
    }))
    .unwrap()
}
