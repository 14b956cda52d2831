//! The mapping: names, units, kinds, start times, and that the unmeasured stays absent.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Metric, ResourceMetrics, metric, number_data_point,
};

use super::{point_count, resource_metrics};
use crate::export::otlp::resource::{HostInfo, ResourceContext, SCHEMA_URL};
use crate::model::snapshot::{
    CgroupSnapshot, EffectiveLimit, ExitTotals, HeapTotals, HostReading, Limit, MemoryReading,
    OomKillCount, Pressure, Rates, ReclaimTotals, STALL_BUCKETS, SelfReading, Snapshot,
};

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn context() -> ResourceContext {
    ResourceContext {
        service_name: "memtrace".to_owned(),
        host: HostInfo {
            id: Some("h1".to_owned()),
            name: Some("node".to_owned()),
            booted: Some(at(10)),
        },
        attributes: vec![
            ("service.instance.id".to_owned(), "x".to_owned()),
            ("host.name".to_owned(), "mine".to_owned()),
        ],
        ..ResourceContext::default()
    }
}

fn bare(path: &str, since: u64) -> CgroupSnapshot {
    CgroupSnapshot {
        cgroup_id: 7,
        cgroup: path.to_owned(),
        names: Default::default(),
        growers: Vec::new(),
        container: None,
        since: at(since),
        removed: false,
        memory: MemoryReading {
            usage_bytes: Some(100),
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
    }
}

fn full(path: &str, since: u64) -> CgroupSnapshot {
    let mut stall_histogram = [0; STALL_BUCKETS];
    (stall_histogram[0], stall_histogram[10], stall_histogram[39]) = (1, 2, 3);
    CgroupSnapshot {
        memory: MemoryReading {
            usage_bytes: Some(1000),
            anon_bytes: Some(600),
            inactive_file_bytes: Some(100),
            limit: Some(Limit::Bytes(2000)),
            faults: Some(50),
            major_faults: Some(5),
            pressure: Pressure {
                some_ns: Some(1_500_000_000),
                full_ns: None,
            },
            ..MemoryReading::default()
        },
        effective_limit: Some(EffectiveLimit {
            bytes: 1500,
            cgroup: None,
        }),
        heap: Some(HeapTotals {
            mmap_bytes: 9,
            ..HeapTotals::default()
        }),
        reclaim: Some(ReclaimTotals {
            direct: 1,
            memcg: 5,
            stall_ns: 2_000_000_000,
            reclaimed_pages: 3,
            stall_histogram,
        }),
        execs: Some(0),
        exits: Some(ExitTotals::default()),
        ..bare(path, since)
    }
}

fn map(cgroups: Vec<CgroupSnapshot>, host: HostReading) -> Vec<ResourceMetrics> {
    let snapshot = Snapshot {
        time: at(200),
        started: at(100),
        host,
        cgroups,
        own: SelfReading::default(),
    };
    resource_metrics(&snapshot, &context()).collect()
}

fn by_name(resource: &ResourceMetrics) -> BTreeMap<&str, &Metric> {
    resource.scope_metrics[0]
        .metrics
        .iter()
        .map(|metric| (metric.name.as_str(), metric))
        .collect()
}

/// Value of the point whose only attribute is `attribute` ("" for none), with its start in seconds.
fn point(metric: &Metric, attribute: &str) -> Option<(f64, u64, bool)> {
    let Some(metric::Data::Sum(sum)) = &metric.data else {
        panic!("{} is no sum", metric.name)
    };
    assert_eq!(
        sum.aggregation_temporality,
        i32::from(AggregationTemporality::Cumulative)
    );
    let found = sum.data_points.iter().find(|point| {
        let value = point
            .attributes
            .first()
            .and_then(|kv| kv.value.as_ref()?.value.as_ref());
        match value {
            Some(any_value::Value::StringValue(text)) => text == attribute,
            _ => attribute.is_empty(),
        }
    })?;
    assert_eq!(found.time_unix_nano, 200_000_000_000);
    let value = match found.value? {
        number_data_point::Value::AsDouble(value) => value,
        number_data_point::Value::AsInt(value) => value as f64,
    };
    Some((
        value,
        found.start_time_unix_nano / 1_000_000_000,
        sum.is_monotonic,
    ))
}

#[test]
fn convention_names_carry_derived_values() {
    let resources = map(vec![full("/a", 150)], HostReading::default());
    assert_eq!(
        resources.len(),
        1,
        "a host without readings has no resource"
    );
    let metrics = by_name(&resources[0]);
    for (name, unit, attribute, value, monotonic) in [
        ("container.memory.usage", "By", "", 1000.0, false),
        ("container.memory.rss", "By", "", 600.0, false),
        ("container.memory.working_set", "By", "", 900.0, false),
        ("container.memory.available", "By", "", 1100.0, false),
        ("container.paging.faults", "{fault}", "minor", 45.0, true),
        ("container.paging.faults", "{fault}", "major", 5.0, true),
        ("memtrace.memory.limit", "By", "", 2000.0, false),
        ("memtrace.memory.effective_limit", "By", "", 1500.0, false),
        ("memtrace.pressure.memory.time", "s", "some", 1.5, true),
        ("memtrace.heap.mapped", "By", "", 9.0, true),
        ("memtrace.reclaim.time", "s", "", 2.0, true),
        ("memtrace.reclaim.count", "{reclaim}", "memcg", 5.0, true),
        ("memtrace.process.exits", "{process}", "", 0.0, true),
    ] {
        assert_eq!(metrics[name].unit, unit, "{name}");
        assert_eq!(
            point(metrics[name], attribute),
            Some((value, 150, monotonic)),
            "{name} {attribute}"
        );
    }
    assert_eq!(
        point(metrics["memtrace.pressure.memory.time"], "full"),
        None
    );
}

#[test]
fn what_was_not_measured_is_absent() {
    let resources = map(vec![bare("/a", 150)], HostReading::default());
    let names: Vec<_> = by_name(&resources[0]).into_keys().collect();
    assert_eq!(names, ["container.memory.usage"]);
    let mut unlimited = full("/a", 150);
    unlimited.memory.limit = Some(Limit::Unlimited);
    let resources = map(vec![unlimited], HostReading::default());
    let metrics = by_name(&resources[0]);
    assert!(!metrics.contains_key("container.memory.available"));
    assert!(!metrics.contains_key("memtrace.memory.limit"));
}

#[test]
fn kernel_counters_have_no_start_when_the_birth_was_not_seen() {
    let resources = map(vec![full("/old", 100)], HostReading::default());
    let metrics = by_name(&resources[0]);
    assert_eq!(
        point(metrics["container.paging.faults"], "major"),
        Some((5.0, 0, true))
    );
    assert_eq!(
        point(metrics["memtrace.heap.mapped"], ""),
        Some((9.0, 100, true))
    );
}

#[test]
fn a_birth_was_seen_also_where_the_wall_clock_was_set_back_before_it() {
    let resources = map(vec![full("/new", 50)], HostReading::default());
    assert_eq!(
        point(by_name(&resources[0])["container.paging.faults"], "major"),
        Some((5.0, 50, true))
    );
}

#[test]
fn every_resource_has_its_own_instance() {
    let host = HostReading {
        mem_total_bytes: Some(1),
        faults: Some(3),
        major_faults: Some(1),
        ..HostReading::default()
    };
    let resources = map(vec![bare("/a", 100), bare("/b", 100)], host);
    let mut instances = BTreeSet::new();
    for resource in &resources {
        let attributes = &resource.resource.as_ref().expect("resource").attributes;
        let keys: BTreeSet<_> = attributes.iter().map(|kv| kv.key.as_str()).collect();
        assert_eq!(keys.len(), attributes.len(), "each key once");
        let text = |key: &str| {
            let found = attributes.iter().find(|kv| kv.key == key)?;
            match found.value.as_ref()?.value.as_ref()? {
                any_value::Value::StringValue(text) => Some(text.clone()),
                _ => None,
            }
        };
        assert_eq!(text("service.name").as_deref(), Some("memtrace"));
        assert_eq!(text("host.id").as_deref(), Some("h1"));
        assert_eq!(
            text("host.name").as_deref(),
            Some("mine"),
            "the operator's attribute wins"
        );
        assert_eq!(resource.schema_url, SCHEMA_URL);
        instances.extend(text("service.instance.id"));
    }
    assert_eq!(
        instances,
        ["h1", "h1:/a", "h1:/b"].map(str::to_owned).into()
    );
    let metrics = by_name(&resources[0]);
    assert_eq!(
        point(metrics["system.paging.faults"], "minor"),
        Some((2.0, 10, true))
    );
    assert!(!metrics.contains_key("system.memory.usage"));
    assert_eq!(point_count(&resources), 5);
}

#[test]
fn the_stall_histogram_adds_up() {
    let resources = map(vec![full("/a", 150)], HostReading::default());
    let metrics = by_name(&resources[0]);
    let Some(metric::Data::Histogram(histogram)) = &metrics["memtrace.reclaim.duration"].data
    else {
        panic!("no histogram");
    };
    let point = &histogram.data_points[0];
    assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
    assert_eq!(
        (point.count, point.bucket_counts.iter().sum::<u64>()),
        (6, 6)
    );
    assert_eq!(point.bucket_counts[..2], [1, 2]);
    assert_eq!(point.bucket_counts.last(), Some(&3));
    assert_eq!(point.explicit_bounds[0], 1.024e-6);
    assert_eq!(point.sum, Some(2.0));
    let mut calm = full("/a", 150);
    calm.reclaim = calm.reclaim.map(|reclaim| ReclaimTotals {
        stall_histogram: [0; STALL_BUCKETS],
        ..reclaim
    });
    assert!(
        !by_name(&map(vec![calm], HostReading::default())[0])
            .contains_key("memtrace.reclaim.duration")
    );
}

#[test]
fn kills_are_counted_by_what_is_known_of_them() {
    let counted = |scope, group, count| OomKillCount {
        scope,
        group,
        count,
    };
    let mut killed = bare("/a", 150);
    killed.oom_kills = Some(vec![
        counted(Some("cgroup"), Some(true), 5),
        counted(Some("global"), None, 2),
        counted(None, None, 1),
    ]);
    let resources = map(vec![killed], HostReading::default());
    let metrics = by_name(&resources[0]);
    let kills = metrics["memtrace.oom.kills"];
    assert_eq!(kills.unit, "{kill}");
    for (scope, value) in [("cgroup", 5.0), ("global", 2.0), ("", 1.0)] {
        assert_eq!(point(kills, scope), Some((value, 150, true)), "{scope}");
    }
    let Some(metric::Data::Sum(sum)) = &kills.data else {
        panic!("no sum");
    };
    let keys = |index: usize| -> Vec<&str> {
        let attributes = &sum.data_points[index].attributes;
        attributes.iter().map(|kv| kv.key.as_str()).collect()
    };
    assert_eq!(keys(0), ["memtrace.oom.scope", "memtrace.oom.group"]);
    assert_eq!(keys(1), ["memtrace.oom.scope"]);
    assert!(keys(2).is_empty());
}

#[test]
fn a_cgroup_without_kills_has_no_kill_series() {
    let mut calm = bare("/a", 150);
    calm.oom_kills = Some(Vec::new());
    let resources = map(vec![calm], HostReading::default());
    assert!(!by_name(&resources[0]).contains_key("memtrace.oom.kills"));
}
