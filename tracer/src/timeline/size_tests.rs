//! How much histories hold, and what they cost.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::{tests::*, *};
use crate::model::snapshot::Limit;

/// Histories with every ring and every list of limits full.
fn full_host(histories: u64) -> Host {
    let mut host = Host::new();
    for id in 1..=histories {
        host.made(
            id,
            &format!("/kubepods.slice/pod{id}.slice/container-{id}.scope"),
        );
    }
    for interval in 0..12 {
        for id in 1..=histories {
            let limit = Limit::Bytes((512 + interval) * MIB);
            host.has(id, (100 + interval) * MIB, limit);
        }
        host.pass(7_200_000);
    }
    // A week passes in steps that fill each ring without a gap.
    for (intervals, ms) in [
        (74, 7_200_000),
        (146, 600_000),
        (122, 60_000),
        (62, INTERVAL_MS),
    ] {
        for _ in 0..intervals {
            host.now.sample_ms += ms;
            host.timelines.interval(&host.cgroups, host.now);
        }
    }
    host
}

#[test]
fn five_thousand_full_histories_hold_less_than_20_mb_and_marks_give_way() {
    let mut host = full_host(5000);
    let sizes = host.timelines.sizes();
    assert_eq!(sizes.cgroups, 5000);
    let points: usize = host.timeline(7).series.iter().map(|s| s.points.len()).sum();
    assert_eq!(points, 60 + 120 + 144 + 84);
    let each = sizes.state_bytes / 5000;
    assert!((3264..4096).contains(&each), "{each} bytes");
    let long = KeptMark::new(host.now.sample_ms, MarkKind::Oom, &"x".repeat(600));
    for id in 1..=5000 {
        for at in 0..10 {
            let mut mark = long.clone();
            mark.time_ms += at;
            assert!(host.timelines.mark(id, None, mark));
        }
    }
    host.pass(INTERVAL_MS);
    let sizes = host.timelines.sizes();
    assert!(sizes.state_bytes <= MOST_BYTES, "{sizes:?}");
    assert!(sizes.marks_forgotten > 45_000);
}

/// Of this thread.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .unwrap()
        .into()
}

/// By hand: `cargo test --release -p memtrace --lib cost_of_an_interval -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, run by hand"]
fn cost_of_an_interval() {
    let mut host = full_host(5000);
    let rounds = 100;
    let start = cpu_time();
    for _ in 0..rounds {
        host.now.sample_ms += INTERVAL_MS;
        host.timelines.interval(&host.cgroups, host.now);
    }
    let interval = (cpu_time() - start) / rounds;
    let start = cpu_time();
    let kept: Vec<Kept> = host.timelines.kept(|_| true).collect();
    let shared = host.timelines.shared(host.now);
    let bytes = crate::store::shards::encode(1, &(shared, kept)).unwrap();
    let sizes = host.timelines.sizes();
    println!(
        "interval {interval:?}, all written {:?} and {} bytes, {sizes:?}",
        cpu_time() - start,
        bytes.len()
    );
}

/// Bytes that are allocated now, in all threads.
#[cfg(target_env = "gnu")]
fn allocated_bytes() -> usize {
    // SAFETY: takes no pointer and only reads the allocator's own figures.
    unsafe { libc::mallinfo2() }.uordblks
}

/// In a process of its own, see below.
#[test]
#[cfg(target_env = "gnu")]
#[ignore = "run by the next"]
fn allocated_and_told() {
    let mut host = full_host(1000);
    let told = host.timelines.state_bytes();
    let before = allocated_bytes();
    host.timelines = Host::new().timelines;
    let real = before - allocated_bytes();
    println!("told {told}, allocated {real}");
    let ratio = real as f64 / told as f64;
    assert!(
        (0.95..1.1).contains(&ratio),
        "told {told}, allocated {real}"
    );
}

#[test]
#[cfg(target_env = "gnu")]
fn what_is_told_is_what_the_allocator_gave() {
    // Other tests of this process allocate, too.
    let run = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "--nocapture",
            "timeline::size_tests::allocated_and_told",
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && said.contains("1 passed"), "{said}");
}
