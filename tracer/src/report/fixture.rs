//! Facts for tests: a container that leaks, was killed, and is described by whoever wants to break a page.

use jiff::SignedDuration;
use serde_json::json;

use super::facts::Facts;
use crate::{
    api::records::{CgroupDetails, Mark, MarkKind, Point, Series, Timeline},
    identity::names::Names,
    incident::Incident,
    stacks::told::{StackRecord, tests::record},
};

pub const MIB: u64 = 1 << 20;
const OOM: &str = include_str!("../incident/fixtures/cgroup_oom.json");
const PATH: &str = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod7c1e.slice/cri-containerd-4f0a.scope";

/// Of the process that grew.
fn path(frames: &[&str]) -> StackRecord {
    let mut stack = record(frames);
    stack.process.pid = 31001;
    stack.process.comm = "python3".into();
    stack
}

pub fn incident() -> Incident {
    let mut incident: Incident = serde_json::from_str(OOM).unwrap();
    incident.evidence.stacks = vec![path(&["malloc (libc.so.6)", "leak (app)", "main (app)"])];
    incident
}

/// What is stored, without an agent.
pub fn stored() -> Facts {
    let incident = incident();
    Facts {
        made: incident.time + SignedDuration::from_hours(1),
        since: None,
        agent: None,
        details: None,
        victims_timeline: None,
        asked: Some(incident.id.clone()),
        incidents: vec![incident],
        flamegraph: None,
        missing: vec!["no agent was asked".into()],
    }
}

/// A leak that goes on, as a running agent tells it.
pub fn live() -> Facts {
    let incident = incident();
    let made = incident.time + SignedDuration::from_hours(1);
    let names = Names {
        namespace: Some("shop".into()),
        pod: Some("cart-7c9d".into()),
        container: Some("app".into()),
        pod_qos_class: Some("Burstable".into()),
        ..Names::default()
    };
    let step = |at: i64| made - SignedDuration::from_mins(120 - at);
    let point = |at: i64| Point {
        time: step(at),
        usage_bytes: (100 + at as u64) * MIB,
        anon_bytes: Some((80 + at as u64) * MIB),
        effective_limit_bytes: Some(512 * MIB),
    };
    let mark = |at: i64, kind, text: &str| Mark {
        time: step(at),
        kind,
        text: text.into(),
        incident: None,
    };
    let timeline = Timeline {
        cgroup_id: 48211,
        cgroup: PATH.into(),
        names: Some(names.clone()),
        first_seen: step(0),
        gone: None,
        series: vec![Series {
            step_seconds: 60.0,
            points: (1..=120)
                .filter(|at| !(40..50).contains(at))
                .map(point)
                .collect(),
        }],
        marks: vec![
            mark(1, MarkKind::Started, "the container was made"),
            mark(
                70,
                MarkKind::LimitChanged,
                "the limit changed from 256M to 512M",
            ),
            mark(100, MarkKind::Action, "/usr/local/bin/page exited with 0"),
        ],
        marks_left_out: 0,
    };
    let leak = json!({
        "time": made, "cgroup": PATH, "cgroup_id": 48211, "names": names, "event": null, "from": null,
        "near_limit_changed_to": null, "state": "confirmed", "state_since": step(90), "signal": "anon",
        "rate_bytes_per_hour": {"low": 58.0 * 1048576.0, "mid": 60.0 * 1048576.0, "high": 62.0 * 1048576.0},
        "since": step(30), "since_uncertainty_s": 240.0,
        "time_to_limit_s": {"low": 16000.0, "mid": 17520.0, "high": null},
        "limit_bytes": 512 * MIB, "limit_cgroup": PATH, "usage_bytes": 220 * MIB, "near_limit": null,
        "evidence": {"ring": 0, "window_seconds": 5400.0, "blocks": 60, "mann_kendall_z": 8.5,
            "autocorrelation": 0.2, "r_squared": 0.99, "floor_growth_bytes": 9e7, "floor_bytes": 2.2e8,
            "residual_bytes": 1e6, "swing_bytes": 2e6, "headroom_bytes": 3e8, "epochs_growing": 0},
        "considered": [
            {"explanation": "noise", "holds": false, "value": 90.0, "threshold": 4.0},
            {"explanation": "unverified", "holds": true, "value": 0.5, "threshold": 1.0}],
        "processes": [{"pid": 31001, "comm": "python3", "growth_bytes": 90 * MIB, "share": 0.97,
            "rss_anon_bytes": 150 * MIB, "over_s": 5400.0}],
        "stacks": [path(&["malloc (libc.so.6)", "leak (app)", "serve (app)", "main (app)"])],
    });
    let details: CgroupDetails = serde_json::from_value(json!({
        "time": made,
        "row": {"cgroup_id": 48211, "cgroup": PATH, "has_children": false, "namespace": "shop",
            "pod": "cart-7c9d", "container": "app", "removed": false, "usage_bytes": 220 * MIB,
            "anon_bytes": 200 * MIB, "limit_bytes": 512 * MIB, "effective_limit_bytes": 512 * MIB,
            "effective_limit_cgroup": PATH},
        "names": names, "since": step(0), "file_bytes": 10 * MIB, "processes": [],
        "leak": leak, "stacks": null, "timeline": timeline,
    }))
    .unwrap();
    Facts {
        made,
        details: Some(details),
        asked: None,
        flamegraph: Some("<svg xmlns=\"http://www.w3.org/2000/svg\"></svg>".into()),
        missing: Vec::new(),
        ..stored()
    }
}

/// Markup, quotes, control characters, text that turns around, ends of cells and of blocks.
pub const HOSTILE: &str = "<script>alert(1)</script>\"'&\u{1b}[2J\u{7}\u{202e}|\n```\n# h\u{0} [x](http://evil.example) @all";

/// The same with [`HOSTILE`] wherever a name is told.
pub fn hostile() -> Facts {
    let mut facts = live();
    let evil = || HOSTILE.to_owned();
    if let Some(details) = &mut facts.details {
        details.row.cgroup = evil();
        if let Some(names) = &mut details.names {
            names.namespace = Some(evil());
            names.pod = Some(evil());
            names.image = Some(evil());
            names.pod_qos_class = Some(evil());
        }
        if let Some(leak) = &mut details.leak {
            leak.cgroup = evil();
            leak.limit_cgroup = Some(evil());
            leak.processes[0].comm = Some(evil());
            leak.stacks[0].frames = vec![evil(), evil()];
            leak.stacks[0].process.comm = evil();
        }
        if let Some(timeline) = &mut details.timeline {
            for mark in &mut timeline.marks {
                mark.text = evil();
            }
        }
    }
    for incident in &mut facts.incidents {
        incident.id = evil();
        incident.meaning.summary = evil();
        incident.meaning.consequence = evil();
        if let Some(charged) = &mut incident.charged {
            charged.cgroup = Some(evil());
        }
        for victim in &mut incident.victims {
            victim.comm = Some(evil());
            victim.command_line = Some(evil());
        }
        for grower in &mut incident.evidence.growers {
            grower.comm = Some(evil());
        }
    }
    facts.missing = vec![evil()];
    facts.flamegraph = Some(evil());
    facts
}
