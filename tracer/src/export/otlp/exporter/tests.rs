//! The exporter against a backend that is absent or never answers.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::Exporter;
use super::slot::{MAX_REMOVED, Slot};
use crate::export::otlp::config::{OtlpConfig, OtlpFlags};
use crate::export::otlp::resource::ResourceContext;
use crate::model::snapshot::{
    CgroupSnapshot, HostReading, MemoryReading, Rates, SelfReading, Snapshot,
};

pub(super) fn snapshot(removed: usize) -> Arc<Snapshot> {
    let cgroup = |id| CgroupSnapshot {
        cgroup_id: id,
        cgroup: format!("/{id}"),
        names: Default::default(),
        growers: Vec::new(),
        container: None,
        since: SystemTime::now(),
        removed: true,
        memory: MemoryReading {
            usage_bytes: Some(1),
            ..MemoryReading::default()
        },
        effective_limit: None,
        heap: None,
        reclaim: None,
        execs: None,
        exits: None,
        oom_kills: None,
        rates: Rates::default(),
        leak: None,
        processes: Vec::new(),
    };
    Arc::new(Snapshot {
        time: SystemTime::now(),
        started: SystemTime::now(),
        host: HostReading {
            mem_total_bytes: Some(1),
            ..HostReading::default()
        },
        cgroups: (0..removed as u64).map(cgroup).collect(),
        own: SelfReading::default(),
    })
}

fn exporter(port: u16, timeout_ms: &str, interval_ms: &str) -> Exporter {
    let flags = OtlpFlags {
        endpoint: Some(format!("http://127.0.0.1:{port}")),
        timeout_ms: Some(timeout_ms.to_owned()),
        interval_ms: Some(interval_ms.to_owned()),
        ..OtlpFlags::default()
    };
    let config = OtlpConfig::resolve(&flags, &|_| None)
        .expect("valid")
        .expect("enabled");
    Exporter::start(&config, ResourceContext::default()).expect("started")
}

#[test]
fn the_slot_keeps_removed_cgroups_within_a_bound() {
    let slot = Slot::default();
    slot.put(snapshot(2));
    slot.put(snapshot(0));
    assert_eq!(slot.take().expect("held").removed.len(), 2);
    assert!(slot.take().is_none());
    slot.put(snapshot(MAX_REMOVED + 3));
    slot.put(snapshot(0));
    assert_eq!(
        (slot.take().expect("held").removed.len(), slot.dropped()),
        (MAX_REMOVED, 3)
    );
}

#[test]
fn an_absent_backend_costs_counted_points_only() {
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("port")
        .port();
    let exporter = exporter(port, "300", "60000");
    exporter.offer(snapshot(1));
    let begun = Instant::now();
    while exporter.counters().failed_points == 0 && begun.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(exporter.counters().failed_points, 2);
    assert!(exporter.shutdown(Duration::from_secs(1)), "nothing is held");
}

#[test]
fn a_silent_backend_delays_shutdown_by_the_deadline_only() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let exporter = exporter(
        listener.local_addr().expect("address").port(),
        "60000",
        "50",
    );
    exporter.offer(snapshot(1));
    std::thread::sleep(Duration::from_millis(100));
    exporter.offer(snapshot(3));
    let begun = Instant::now();
    assert!(!exporter.shutdown(Duration::from_millis(300)));
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(exporter.counters().failed_points, 2 + 4);
    assert!(exporter.counters().dropped_snapshots > 0);
}
