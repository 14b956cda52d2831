use std::path::PathBuf;

use globset::Glob;

use super::*;
use crate::incident::{Incident, Kind};

/// A cgroup OOM in a container, as the store has it.
fn incident(pod_uid: &str) -> Incident {
    let stored = include_str!("../incident/fixtures/cgroup_oom.json");
    let mut incident: Incident = serde_json::from_str(stored).unwrap();
    incident.kind = Kind::CgroupOom;
    incident.complete = true;
    incident.charged = Some(crate::incident::record::ChargedCgroup {
        cgroup_id: 77,
        cgroup: Some(format!("/kubepods/{pod_uid}")),
        limit_bytes: Some(4096),
        ..Default::default()
    });
    incident.victims = vec![crate::incident::record::Victim {
        pid: Some(4711),
        comm: Some("java".into()),
        names: Some(Box::new(crate::identity::names::Names {
            namespace: Some("shop".into()),
            pod: Some("cart-0".into()),
            pod_uid: Some(pod_uid.into()),
            container: Some("app".into()),
            ..Default::default()
        })),
        ..Default::default()
    }];
    incident
}

fn facts(pod_uid: &str) -> Facts {
    Facts::of_incident(&incident(pod_uid), |_| None).unwrap()
}

fn glob(text: &str) -> Option<globset::GlobMatcher> {
    Some(Glob::new(text).unwrap().compile_matcher())
}

fn rule(shell: &str) -> Rule {
    Rule {
        name: "test".into(),
        on: vec![Trigger::Incident],
        kinds: Vec::new(),
        cgroup: None,
        namespace: None,
        pod: None,
        run: Run::Shell(shell.into()),
        timeout: Duration::from_secs(30),
        min_interval: Duration::from_secs(600),
    }
}

fn ended(actions: &mut Actions) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let long = Duration::from_secs(60);
    let ended = async { tokio::time::timeout(long, actions.ended()).await };
    runtime.block_on(ended).unwrap()
}

#[test]
fn a_rule_runs_its_command_with_the_facts_of_the_event() {
    let mut actions = Actions::new(vec![rule(
        "echo \"$MEMTRACE_EVENT $MEMTRACE_INCIDENT_KIND $MEMTRACE_POD $MEMTRACE_PID $MEMTRACE_USAGE_BYTES-\"",
    )]);
    assert_eq!(actions.act(&facts("u1"), Instant::now()), []);
    let outcome = ended(&mut actions);
    assert!(outcome.good, "{outcome:?}");
    assert_eq!(outcome.cgroup_id, Some(77));
    assert_eq!(outcome.output, "incident cgroup_oom cart-0 4711 -");
    assert!(
        outcome
            .text
            .starts_with("\"test\" ran for incident: done in")
    );
}

#[test]
fn filters_choose_the_events() {
    let chosen = |change: fn(&mut Rule)| {
        let mut rule = rule("true");
        change(&mut rule);
        rule.matches(&facts("u1"))
    };
    assert!(chosen(|_| {}));
    assert!(chosen(|rule| rule.cgroup = glob("/kubepods*")));
    assert!(!chosen(|rule| rule.cgroup = glob("/system*")));
    assert!(chosen(|rule| rule.namespace = glob("sh*")));
    assert!(!chosen(|rule| rule.pod = glob("cart-1")));
    assert!(chosen(|rule| rule.kinds = vec![Kind::CgroupOom]));
    assert!(!chosen(|rule| rule.kinds = vec![Kind::Stall]));
    assert!(!chosen(|rule| {
        rule.on = vec![Trigger::Growth(crate::growth::GrowthEvent::Confirmed)];
    }));
}

#[test]
fn the_path_of_a_known_cgroup_is_matched_not_what_is_shown_of_it() {
    let path = |_| Some(PathBuf::from("/real"));
    let facts = Facts::of_incident(&incident("u1"), path).unwrap();
    let mut rule = rule("true");
    rule.cgroup = glob("/real");
    assert!(rule.matches(&facts));
}

#[test]
fn an_incident_that_goes_on_runs_nothing() {
    let mut incident = incident("u1");
    incident.complete = false;
    assert!(Facts::of_incident(&incident, |_| None).is_none());
}

#[test]
fn a_second_event_of_the_container_within_min_interval_is_counted_and_told_once() {
    let mut actions = Actions::new(vec![rule("true")]);
    let now = Instant::now();
    assert_eq!(actions.act(&facts("u1"), now), []);
    let told = actions.act(&facts("u1"), now);
    assert!(told[0].text.contains("min_interval"), "{told:?}");
    assert_eq!(actions.act(&facts("u1"), now), []);
    assert_eq!(actions.losses()[0], ("action_rate_limited", 2));
    assert_eq!(actions.act(&facts("u2"), now), [], "another container");
    assert!(ended(&mut actions).good && ended(&mut actions).good);
    let rest = actions.stop(Duration::ZERO);
    assert!(rest[0].text.contains("for 1 more event:"), "{rest:?}");
}

#[test]
fn what_finds_no_room_is_refused_counted_and_told_once_and_then_as_a_number() {
    let mut actions = Actions::new(vec![rule("sleep 60")]);
    let mut refused = Vec::new();
    for container in 0..25 {
        refused.extend(actions.act(&facts(&format!("u{container}")), Instant::now()));
    }
    assert!(refused.iter().all(|told| told.text.contains("too many")));
    let by_itself = refused.iter().filter(|told| told.is_news);
    assert_eq!(by_itself.count(), 1, "{refused:?}");
    // At most one job a thread has been taken out of the queue.
    let (cause, count) = actions.losses()[1];
    assert_eq!((cause, count), ("action_queue_full", refused.len() as u64));
    assert!((5..=9).contains(&count), "{count}");
    let ended = actions.stop(Duration::ZERO);
    assert!(!ended.is_empty() && ended.iter().all(|outcome| !outcome.good));
    let number = format!("was not run for {} more events: too many", count - 1);
    let numbers = ended
        .iter()
        .filter(|outcome| outcome.text.contains(&number));
    assert_eq!(numbers.count(), 1, "{ended:?}");
}

#[test]
fn what_found_no_room_has_its_turn_at_the_next_event() {
    let mut busy = rule("sleep 60");
    busy.min_interval = Duration::ZERO;
    let mut late = rule("true");
    late.name = "late".into();
    late.min_interval = Duration::from_secs(3600);
    let mut actions = Actions::new(vec![busy, late]);
    let now = Instant::now();
    for container in 0..40 {
        actions.act(&facts(&format!("u{container}")), now);
    }
    let before = actions.losses();
    actions.act(&facts("u39"), now);
    assert_eq!(actions.losses()[0], before[0], "it is not too early");
    assert_eq!(actions.losses()[1].1, before[1].1 + 2, "there is no room");
    actions.stop(Duration::ZERO);
}

#[test]
fn a_program_that_cannot_be_started_is_told_once_and_then_as_a_number() {
    let mut absent = rule("");
    absent.run = Run::Command {
        program: "/nonexistent".into(),
        arguments: Vec::new(),
    };
    let mut actions = Actions::new(vec![absent]);
    for container in 0..5 {
        actions.act(&facts(&format!("u{container}")), Instant::now());
    }
    let first = ended(&mut actions);
    assert!(first.text.contains("could not be started"), "{first:?}");
    assert!(first.is_news);
    let mut rest = actions.stop(Duration::from_secs(20));
    rest.retain(|outcome| outcome.is_news);
    let numbers = rest
        .iter()
        .filter(|it| it.text.contains("for 4 more events"));
    assert_eq!((rest.len(), numbers.count()), (1, 1), "{rest:?}");
}

#[test]
fn a_number_is_told_when_its_time_has_come_though_no_command_ends() {
    let mut unknown = rule("");
    unknown.run = Run::Command {
        program: "/bin/true".into(),
        arguments: vec![Argument::parse("{usage_bytes}").unwrap()],
    };
    let mut actions = Actions::new(vec![unknown]);
    let long_ago = Instant::now().checked_sub(refusals::PACE * 2).unwrap();
    let told: Vec<Outcome> = (0..10)
        .flat_map(|_| actions.act(&facts("u1"), long_ago))
        .collect();
    let by_itself = told.iter().filter(|told| told.is_news);
    assert_eq!((told.len(), by_itself.count()), (10, 1), "{told:?}");
    let number = ended(&mut actions);
    assert!(number.text.contains("for 9 more events"), "{number:?}");
    assert_eq!((number.cgroup_id, number.good), (None, false));
}

#[test]
fn facts_in_arguments_stay_one_argument_and_an_unknown_one_runs_nothing() {
    let parse = |text: &str| Argument::parse(text).unwrap();
    let mut known = incident("u1");
    known.victims[0].names.as_mut().unwrap().pod = Some("a b; $(reboot)\n".into());
    let known = Facts::of_incident(&known, |_| None).unwrap();
    let argument = parse("/dumps/{pod}-{pid}.hprof");
    assert!(argument.has_facts());
    assert_eq!(
        argument.fill(&known).as_deref(),
        Ok("/dumps/a b; $(reboot)\n-4711.hprof")
    );
    for plain in [
        "",
        "{",
        "}",
        "{}",
        "{ pid }",
        "{\"a\": 1}",
        "a}b{c",
        "{Pid}",
    ] {
        assert_eq!(parse(plain).fill(&known).as_deref(), Ok(plain));
    }
    assert_eq!(Argument::parse("x{pidd}").unwrap_err(), "pidd");
    assert_eq!(
        Argument::parse("{comm}").unwrap_err(),
        "comm",
        "a process may call itself like an option"
    );
    let mut rule = rule("");
    rule.run = Run::Command {
        program: "/bin/true".into(),
        arguments: vec![parse("{usage_bytes}")],
    };
    let mut actions = Actions::new(vec![rule]);
    let told = actions.act(&known, Instant::now());
    assert!(
        told[0].text.contains("{usage_bytes} is not known"),
        "{told:?}"
    );
}

#[test]
fn a_fact_makes_no_option_of_an_argument() {
    let mut hostile = incident("u1");
    hostile.victims[0].names.as_mut().unwrap().container_id = Some("-Htcp:evil:2375".into());
    let facts = Facts::of_incident(&hostile, |_| None).unwrap();
    let fill = |text: &str| Argument::parse(text).unwrap().fill(&facts);
    assert_eq!(fill("{container_id}"), Err("container_id"));
    assert_eq!(fill("{container_id}-{pid}"), Err("container_id"));
    let within = fill("--id={container_id}");
    assert_eq!(within.as_deref(), Ok("--id=-Htcp:evil:2375"));
}

#[test]
fn hostile_names_reach_the_command_and_harm_nothing() {
    let mut hostile = incident("u1");
    let name = "x\0y\x1b[31m\n$(touch /tmp/never)".to_owned();
    hostile.victims[0].names.as_mut().unwrap().pod = Some(name);
    let facts = Facts::of_incident(&hostile, |_| None).unwrap();
    let mut actions = Actions::new(vec![rule("printf %s \"$MEMTRACE_POD\"")]);
    assert_eq!(actions.act(&facts, Instant::now()), []);
    let outcome = ended(&mut actions);
    assert!(outcome.good, "{outcome:?}");
    assert!(
        outcome.output.contains("$(touch /tmp/never)"),
        "{outcome:?}"
    );
    assert!(
        !outcome.output.contains(|c: char| c.is_control()),
        "{outcome:?}"
    );
}

#[test]
fn the_line_is_what_the_json_output_prints() {
    let line: serde_json::Value = serde_json::from_slice(&facts("u1").line).unwrap();
    assert_eq!(line["type"], "oom_incident");
    assert_eq!(line["victims"][0]["pid"], 4711);
}

#[test]
fn a_change_of_a_verdict_is_told_with_what_is_known_of_it() {
    let change: crate::growth::GrowthChange = serde_json::from_value(serde_json::json!({
        "time": "2026-11-21T07:42:00Z", "cgroup": "/app", "cgroup_id": 9, "names": null,
        "event": "confirmed", "from": null, "near_limit_changed_to": null,
        "state": "confirmed", "state_since": null, "signal": null,
        "rate_bytes_per_hour": {"low": 1.0, "mid": 1048576.4, "high": null},
        "since": null, "since_uncertainty_s": null, "time_to_limit_s": null,
        "limit_bytes": null, "limit_cgroup": null, "usage_bytes": 4096, "near_limit": null,
        "evidence": null, "considered": [],
        "processes": [{"pid": 12, "comm": "java", "growth_bytes": 1, "share": 1.0,
                       "rss_anon_bytes": 1, "over_s": 1.0}],
        "stacks": [],
    }))
    .unwrap();
    let facts = Facts::of_growth(&change, None).unwrap();
    assert_eq!(facts.trigger.name(), "leak_confirmed");
    let told: Vec<(String, &str)> = facts.environment().collect();
    let told: Vec<(&str, &str)> = told
        .iter()
        .map(|(name, value)| (name.as_str(), *value))
        .collect();
    assert_eq!(
        told,
        [
            ("MEMTRACE_EVENT", "leak_confirmed"),
            ("MEMTRACE_TIME", "2026-11-21T07:42:00Z"),
            ("MEMTRACE_CGROUP", "/app"),
            ("MEMTRACE_CGROUP_ID", "9"),
            ("MEMTRACE_PID", "12"),
            ("MEMTRACE_COMM", "java"),
            ("MEMTRACE_USAGE_BYTES", "4096"),
            ("MEMTRACE_RATE_BYTES_PER_HOUR", "1048576"),
            (
                "MEMTRACE_SUMMARY",
                "leak confirmed in /app: memory grows 1.0M/h, 100% of it by java (pid 12)"
            ),
        ],
        "what is unknown is absent"
    );
    let on_the_way = crate::growth::GrowthChange {
        event: None,
        ..change
    };
    assert!(Facts::of_growth(&on_the_way, None).is_none());
}
