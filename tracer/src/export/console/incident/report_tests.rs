use super::super::tests::CGROUP_OOM;
use super::*;
use crate::incident::{Kind, record::Evidence};

fn incident() -> Incident {
    serde_json::from_str(CGROUP_OOM).unwrap()
}

#[test]
fn the_report_says_what_it_means_first_and_shows_every_section() {
    let text = report(&incident(), &Zone::utc(), false, 80);
    assert!(text.starts_with("python3 (pid 31001) and 1 other process were killed"));
    for part in [
        "expect OOMKilled",
        "Whose limit",
        "512M of 512M",
        "failed charges  4312",
        "Trigger",
        "sidecar-worker(31019)",
        "GFP_KERNEL",
        "Victims (2)",
        "python3 -m app.ingest",
        "the init of its container",
        "Timeline",
        "dead 18ms after its mark",
        "python3(31001) +320M in 4m55s, 97 % of the growth",
        "█ 512M in 4m55s",
        "811 times, 3.4s stalled",
        "(2.1s before)",
        "oom_group_kill  1",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains('\x1b'));
    assert!(report(&incident(), &Zone::utc(), true, 80).contains(RED));
}

#[test]
fn an_unfinished_stall_goes_on_and_has_no_victims_that_die() {
    let mut incident = incident();
    incident.complete = false;
    let told = |incident: &Incident| report(incident, &Zone::utc(), false, 80);
    assert!(told(&incident).contains("incomplete      recorded while victims were still dying"));
    incident.kind = Kind::Stall;
    incident.victims.clear();
    incident.stall = Some(crate::incident::record::Stall {
        duration_ms: 30_000,
        stalled_ns: None,
        oom_disabled: false,
        at_high: false,
        ongoing: true,
        ended_by_kill: false,
    });
    let text = told(&incident);
    assert!(text.contains("incomplete      the stall goes on"), "{text}");
    assert!(!text.contains("victims"), "{text}");
}

#[test]
fn all_its_times_are_in_one_zone_that_is_named_once() {
    let zone = crate::moment::tests::central_europe();
    let mut incident = incident();
    incident.victims[0].started = Some("2026-11-21T06:00:00Z".parse().unwrap());
    let text = report(&incident, &zone, false, 80);
    assert!(text.contains("2026-11-21T08:42:26.000123+01:00"), "{text}");
    assert!(text.contains("2026-11-21T07:00:00\n"), "{text}");
    assert_eq!(text.matches("+01:00").count(), 1, "{text}");
    assert!(!text.contains("Z\n"), "{text}");
}

#[test]
fn swap_that_may_count_memory_is_not_called_swap_alone() {
    let swap = |usage: u64, limit: Option<u64>, counts: KernelCounts| {
        let mut incident = incident();
        incident.kernel_counts = counts;
        if let Some(charged) = &mut incident.charged {
            charged.swap_usage_bytes = Some(usage);
            charged.swap_limit_bytes = limit;
        }
        let text = report(&incident, &Zone::utc(), false, 80);
        let line = text.lines().find(|line| line.starts_with("  swap "));
        line.unwrap_or_default().trim().to_owned()
    };
    let v1 = swap(512 << 20, None, KernelCounts::default());
    assert!(
        v1.ends_with(" 512M; on cgroup v1 that is memory and swap together"),
        "{v1}"
    );
    let v2 = KernelCounts {
        oom_kill_hierarchical: Some(1),
        ..KernelCounts::default()
    };
    assert!(swap(512 << 20, None, v2).ends_with(" 512M"));
    let less = swap(1 << 20, Some(2 << 20), KernelCounts::default());
    assert!(less.ends_with(" 1.0M of 2.0M"), "{less}");
}

#[test]
fn a_victim_that_maps_more_than_the_limit_is_explained() {
    let mut incident = incident();
    let explained = |incident: &Incident| {
        let text = report(incident, &Zone::utc(), false, 80);
        text.contains("A victim maps more than the limit")
    };
    assert!(!explained(&incident));
    incident.victims[0].shmem_bytes = Some(512 << 20);
    assert!(explained(&incident));
    incident.victims[0].anon_bytes = Some(600 << 20);
    assert!(!explained(&incident), "no page that is shared explains it");
}

#[test]
fn many_victims_are_summed_up() {
    let mut incident = incident();
    let victim = incident.victims[0].clone();
    incident.victims = vec![victim; 50];
    incident.victims_left_out = 7;
    let text = report(&incident, &Zone::utc(), false, 80);
    assert!(text.contains("Victims (57)") && text.contains("… and 47 more"));
    assert!(text.lines().count() < 120);
}

#[test]
fn what_is_unknown_is_left_out_and_never_zero() {
    let mut bare = incident();
    bare.kind = Kind::KernelOom;
    bare.charged = None;
    bare.trigger = None;
    bare.request = Default::default();
    bare.group_kill = None;
    bare.evidence = Default::default();
    bare.kernel_counts = Default::default();
    bare.victims = vec![Victim {
        tid: 7,
        ..Victim::default()
    }];
    let text = report(&bare, &Zone::utc(), false, 80);
    for absent in ["Whose limit", "Trigger", "led up", "counted", " 0B"] {
        assert!(!text.contains(absent), "{absent}\n{text}");
    }
    assert!(text.contains("unknown"));
}

#[test]
fn nothing_in_a_tampered_record_reaches_the_terminal() {
    let hostile = CGROUP_OOM
        .replace("python3", "\\u001b[2J\\u009b")
        .replace("GFP_KERNEL", "\\u001b]0;x\\u0007")
        .replace("sidecar", "\\u202e\\n")
        .replace("20261121T074226", "\\r");
    let incident: Incident = serde_json::from_str(&hostile).unwrap();
    let text = report(&incident, &Zone::utc(), false, 80) + &super::super::line(&incident);
    assert!(
        text.chars().all(|c| c == '\n' || !c.is_control()),
        "{text:?}"
    );
    assert!(!text.contains('\u{202e}'));
}

#[test]
fn numbers_out_of_range_are_no_panic() {
    let mut odd = incident();
    odd.request.order = Some(i32::MIN);
    odd.victims_left_out = u64::MAX;
    odd.victims[0].anon_bytes = Some(u64::MAX);
    odd.victims[0].marked = Timestamp::MIN;
    odd.evidence.usage.reverse();
    odd.evidence.growers[0].grown_bytes = i64::MIN;
    odd.evidence.growers[0].share = Some(f64::NAN);
    assert!(!report(&odd, &Zone::utc(), false, 0).is_empty());
}

#[test]
fn the_code_that_held_the_memory_is_told_after_the_evidence() {
    use crate::stacks::told::tests::record;

    let mut incident = incident();
    incident.evidence.stacks = vec![record(&["leak (app)", "main (app)"]); 5];
    let text = report(&incident, &Zone::utc(), false, 80);
    let (_, code) = text.split_once("Which code held it\n").unwrap();
    assert!(
        code.starts_with("  About 76.2M of 491M anonymous"),
        "{code}"
    );
    assert!(code.contains("\n  61.0M ±6.0M  app(7)"), "{code}");
    assert!(
        code.contains("\n    leak (app)\n    main (app)\n"),
        "{code}"
    );
    assert!(code.contains("… and 2 more"), "{code}");
    incident.evidence = Evidence {
        stacks: incident.evidence.stacks,
        ..Evidence::default()
    };
    let text = report(&incident, &Zone::utc(), false, 80);
    assert!(text.contains("Which code held it") && !text.contains("What led up to it"));
}
