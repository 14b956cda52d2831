//! Mapping of incidents: names, severities, times, resources, and that the unknown is left out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs};
use prost::Message;

use super::{Batch, Event, resource_logs};
use crate::export::otlp::events::name;
use crate::export::otlp::resource::{HostInfo, ResourceContext, SCHEMA_URL};
use crate::incident::record::{
    ChargedCgroup, Evidence, Incident, KernelCounts, Kind, Meaning, Request, Stall, Trigger, Victim,
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

fn observed() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1000)
}

fn context() -> ResourceContext {
    ResourceContext {
        service_name: "memtrace".to_owned(),
        host: HostInfo {
            id: Some("h1".to_owned()),
            ..HostInfo::default()
        },
        attributes: Vec::new(),
        ..ResourceContext::default()
    }
}

fn incident(kind: Kind) -> Incident {
    Incident {
        id: "i1".to_owned(),
        kind,
        time: at(100),
        boot_time_ns: 5,
        boot_id: "b".to_owned(),
        complete: true,
        group_kill: None,
        charged: None,
        trigger: None,
        request: Request::default(),
        killer: None,
        victims: Vec::new(),
        victims_left_out: 0,
        evidence: Evidence::default(),
        kernel_counts: KernelCounts::default(),
        stall: None,
        kubernetes: None,
        meaning: Meaning {
            summary: "somebody was killed".to_owned(),
            consequence: String::new(),
        },
    }
}

fn victim(pid: u32, cgroup: Option<&str>) -> Victim {
    Victim {
        pid: Some(pid),
        tid: pid,
        cgroup_id: cgroup.map(|_| 70),
        cgroup: cgroup.map(str::to_owned),
        marked: at(100 + i64::from(pid)),
        killed: Some(true),
        ..Victim::default()
    }
}

fn group_kill(victims: usize) -> Incident {
    Incident {
        group_kill: Some(true),
        charged: Some(ChargedCgroup {
            cgroup_id: 60,
            cgroup: Some("/pod".to_owned()),
            usage_bytes: Some(4096),
            limit_bytes: Some(4096),
            ..ChargedCgroup::default()
        }),
        trigger: Some(Trigger {
            pid: 1,
            tid: 2,
            comm: "worker".to_owned(),
            ..Trigger::default()
        }),
        request: Request {
            order: Some(-1),
            gfp_flags: Some("GFP_KERNEL|__GFP_ZERO".to_owned()),
            ..Request::default()
        },
        victims: (0..victims)
            .map(|index| {
                let cgroup = if index < 2 { "/pod/a" } else { "/pod/b" };
                victim(u32::try_from(index).expect("few") + 1, Some(cgroup))
            })
            .collect(),
        ..incident(Kind::CgroupOom)
    }
}

fn event(incident: &Incident) -> Event {
    Event::Incident(Arc::new(incident.clone()))
}

fn map(incident: &Incident) -> Vec<ResourceLogs> {
    resource_logs(&event(incident), observed(), &context())
}

fn records(resources: &[ResourceLogs]) -> Vec<&LogRecord> {
    let scopes = resources.iter().flat_map(|resource| &resource.scope_logs);
    scopes.flat_map(|scope| &scope.log_records).collect()
}

fn values(attributes: &[KeyValue]) -> BTreeMap<&str, String> {
    let values: BTreeMap<_, _> = attributes
        .iter()
        .map(|kv| {
            let value = kv.value.as_ref().and_then(|value| value.value.as_ref());
            let text = match value.expect("a value") {
                Value::StringValue(text) => text.clone(),
                Value::IntValue(number) => number.to_string(),
                Value::BoolValue(flag) => flag.to_string(),
                other => panic!("{other:?}"),
            };
            (kv.key.as_str(), text)
        })
        .collect();
    assert_eq!(values.len(), attributes.len(), "each key once");
    values
}

fn resource_of(logs: &ResourceLogs) -> BTreeMap<&str, String> {
    values(&logs.resource.as_ref().expect("a resource").attributes)
}

#[test]
fn a_group_kill_is_one_fatal_event_per_victim_on_the_resource_of_its_cgroup() {
    let incident = group_kill(3);
    let resources = map(&incident);
    let of: Vec<_> = resources.iter().map(resource_of).collect();
    let paths: Vec<_> = of
        .iter()
        .map(|of| of["memtrace.cgroup.path"].as_str())
        .collect();
    assert_eq!(paths, ["/pod/a", "/pod/b"]);
    assert_eq!(of[0]["service.instance.id"], "h1:/pod/a");
    assert_eq!(of[0]["memtrace.cgroup.id"], "70");
    assert_eq!(resources[0].schema_url, SCHEMA_URL);

    let records = records(&resources);
    assert_eq!(records.len(), 3);
    for (index, record) in records.iter().enumerate() {
        assert_eq!(record.event_name, name::KILL);
        assert_eq!(
            (record.severity_number, record.severity_text.as_str()),
            (21, "")
        );
        assert_eq!(record.time_unix_nano, (101 + index as u64) * 1_000_000_000);
        assert_eq!(record.observed_time_unix_nano, 1_000_000_000_000);
        let body = record.body.as_ref().and_then(|body| body.value.clone());
        assert_eq!(
            body,
            Some(Value::StringValue(incident.meaning.summary.clone()))
        );
        let values = values(&record.attributes);
        for (key, expected) in [
            ("memtrace.incident.id", "i1"),
            ("memtrace.oom.kind", "cgroup_oom"),
            ("memtrace.oom.scope", "cgroup"),
            ("memtrace.oom.group", "true"),
            ("memtrace.oom.victims", "3"),
            ("memtrace.oom.charged.cgroup.path", "/pod"),
            ("memtrace.oom.charged.cgroup.id", "60"),
            ("memtrace.oom.charged.limit_bytes", "4096"),
            ("memtrace.oom.trigger.tid", "2"),
            ("memtrace.oom.order", "-1"),
            ("memtrace.oom.gfp_flags", "GFP_KERNEL|__GFP_ZERO"),
            ("memtrace.oom.victim.cgroup.id", "70"),
        ] {
            assert_eq!(values.get(key).map(String::as_str), Some(expected), "{key}");
        }
        assert_eq!(values["process.pid"], (index + 1).to_string());
    }
}

#[test]
fn a_kill_is_fatal_only_if_the_container_ends_with_it() {
    let mut incident = group_kill(2);
    incident.group_kill = Some(false);
    let severity = |incident: &Incident| records(&map(incident))[0].severity_number;
    assert_eq!(severity(&incident), 17);
    incident.victims[1].container_init = Some(true);
    assert_eq!(severity(&incident), 21);
    incident.victims[0].killed = Some(false);
    let resources = map(&incident);
    let named: Vec<_> = records(&resources)
        .iter()
        .map(|record| (record.event_name.as_str(), record.severity_number))
        .collect();
    assert_eq!(named, [(name::MARK, 9), (name::KILL, 21)], "only marked");
}

#[test]
fn a_stall_is_one_warning_on_the_resource_of_the_cgroup_that_stalls() {
    let stalled = Incident {
        charged: Some(ChargedCgroup {
            cgroup_id: 60,
            cgroup: Some("/pod".to_owned()),
            ..ChargedCgroup::default()
        }),
        stall: Some(Stall {
            duration_ms: 9000,
            stalled_ns: None,
            oom_disabled: false,
            at_high: true,
            ongoing: true,
            ended_by_kill: false,
        }),
        ..incident(Kind::Stall)
    };
    let resources = map(&stalled);
    let records = records(&resources);
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].event_name, name::STALL);
    assert_eq!(records[0].severity_number, 13);
    assert_eq!(records[0].time_unix_nano, 100_000_000_000);
    assert_eq!(resource_of(&resources[0])["memtrace.cgroup.path"], "/pod");
    let values = values(&records[0].attributes);
    assert_eq!(values["memtrace.oom.stall.duration_ms"], "9000");
    assert_eq!(values["memtrace.oom.stall.at_high"], "true");
    assert!(!values.contains_key("memtrace.oom.stall.stalled_ns"));
    assert!(!values.contains_key("memtrace.oom.victims"));
}

#[test]
fn the_other_kinds_have_names_and_severities_of_their_own() {
    for (kind, expected) in [
        (Kind::MarkedExiting, (name::MARK, 9)),
        (Kind::UserSpaceKill, (name::USER_SPACE_KILL, 17)),
        (Kind::MissedKills, (name::MISSED, 17)),
        (Kind::KernelOom, (name::KILL, 17)),
    ] {
        let resources = map(&incident(kind));
        let records = records(&resources);
        assert_eq!(records.len(), 1, "{kind:?}");
        let named = (records[0].event_name.as_str(), records[0].severity_number);
        assert_eq!(named, expected);
    }
    let mut missed = incident(Kind::MissedKills);
    missed.kernel_counts.missed = Some(4);
    let resources = map(&missed);
    let values = values(&records(&resources)[0].attributes);
    assert_eq!(values["memtrace.oom.missed"], "4");
}

#[test]
fn what_is_not_known_is_left_out_and_an_unknown_cgroup_means_the_host() {
    let unknown = Incident {
        victims: vec![Victim {
            pid: None,
            killed: None,
            ..victim(8, None)
        }],
        ..incident(Kind::KernelOom)
    };
    let resources = map(&unknown);
    assert_eq!(resource_of(&resources[0])["service.instance.id"], "h1");
    let values = values(&records(&resources)[0].attributes);
    let keys: Vec<&str> = values.into_keys().collect();
    assert_eq!(
        keys,
        [
            "memtrace.incident.complete",
            "memtrace.incident.id",
            "memtrace.oom.kind",
            "memtrace.oom.victim.tid",
            "memtrace.oom.victims",
        ]
    );
}

#[test]
fn a_victim_is_described_as_semantic_conventions_describe_a_process() {
    let mut known = group_kill(1);
    known.victims[0] = Victim {
        command_line: Some("python3 app.py".to_owned()),
        executable: Some("/usr/bin/python3.11".to_owned()),
        uid: Some(0),
        started: Some(at(90)),
        namespace_pid: Some(7),
        anon_bytes: Some(0),
        oom_score_adj: Some(-5),
        died_after_ns: Some(11),
        ..known.victims[0].clone()
    };
    let resources = map(&known);
    let values = values(&records(&resources)[0].attributes);
    for (key, expected) in [
        ("process.command_line", "python3 app.py"),
        ("process.executable.path", "/usr/bin/python3.11"),
        ("process.executable.name", "python3.11"),
        ("process.real_user.id", "0"),
        ("process.creation.time", "1970-01-01T00:01:30Z"),
        ("process.vpid", "7"),
        ("memtrace.oom.victim.anon_bytes", "0"),
        ("memtrace.oom.victim.oom_score_adj", "-5"),
        ("memtrace.oom.victim.died_after_ns", "11"),
    ] {
        assert_eq!(values.get(key).map(String::as_str), Some(expected), "{key}");
    }
}

#[test]
fn a_batch_stays_under_its_size_and_goes_on_where_it_was_left_off() {
    let incident = group_kill(50);
    let context = context();
    let (mut from, mut pids) = (0, Vec::new());
    let event = event(&incident);
    while from < event.record_count() {
        let mut batch = Batch::new(&context, 10_000);
        from += batch.add(&event, from, observed());
        let resources = batch.finish();
        let bytes: usize = resources.iter().map(Message::encoded_len).sum();
        assert!(bytes < 10_000, "{bytes}");
        for record in records(&resources) {
            pids.push(values(&record.attributes)["process.pid"].clone());
        }
    }
    let expected: Vec<String> = (1..=50).map(|pid| pid.to_string()).collect();
    assert_eq!(pids, expected);
    let mut tiny = Batch::new(&context, 1);
    assert_eq!(tiny.add(&event, 0, observed()), 1, "one must go");
}

fn code_of(record: &LogRecord) -> Option<(i64, String)> {
    let value = |key: &str| {
        let mut all = record.attributes.iter();
        all.find(|one| one.key == key)?.value.clone()?.value
    };
    match (
        value("memtrace.stack.process.pid"),
        value("code.stacktrace"),
    ) {
        (Some(Value::IntValue(pid)), Some(Value::StringValue(text))) => Some((pid, text)),
        _ => None,
    }
}

#[test]
fn each_victim_has_the_code_of_its_own_process() {
    use crate::stacks::told::tests::record;

    let of = |pid: u32, function: &str| {
        let mut stack = record(&[function, "main (app)"]);
        stack.process.pid = pid;
        stack
    };
    let mut incident = group_kill(3);
    let pids: Vec<u32> = incident.victims.iter().filter_map(|v| v.pid).collect();
    incident.evidence.stacks = vec![of(pids[1], "leak (app)"), of(9999, "cache (app)")];
    let told = |incident: Incident| -> Vec<Option<(i64, String)>> {
        let event = Event::Incident(Arc::new(incident));
        let logs = resource_logs(&event, observed(), &context());
        let scopes = logs.iter().flat_map(|logs| &logs.scope_logs);
        let records = scopes.flat_map(|scope| &scope.log_records);
        records.map(code_of).collect()
    };
    let leak = Some((i64::from(pids[1]), "leak (app)\nmain (app)".to_owned()));
    let first = leak.clone();
    assert_eq!(told(incident.clone()), [first, leak.clone(), None]);
    incident.victims.clear();
    assert_eq!(told(incident.clone()), [leak]);
    incident.evidence.stacks.clear();
    assert_eq!(told(incident), [None]);
}
