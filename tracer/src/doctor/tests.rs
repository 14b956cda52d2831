use super::*;

fn findings(
    verdict: Level,
    probes: &[(&'static str, Option<&str>)],
    problems: &[&str],
) -> Findings {
    Findings {
        verdict,
        version: "0",
        kernel: None,
        btf: true,
        cgroup_mode: None,
        cgroup_root: None,
        lockdown: None,
        tracefs: None,
        capabilities: Vec::new(),
        probes: probes
            .iter()
            .map(|&(probe, hook)| ProbeFinding {
                probe,
                hook: hook.map(str::to_owned),
                verified_instructions: None,
                not_used: Vec::new(),
            })
            .collect(),
        names: Vec::new(),
        missing_fields: Vec::new(),
        map_bytes: None,
        problems: problems.iter().map(|text| (*text).to_owned()).collect(),
    }
}

const MARK: (&str, Option<&str>) = ("oom.mark_victim", Some("tp_btf/mark_victim"));

#[test]
fn everything_works_only_where_no_hook_is_missing() {
    let all = findings(Level::Ok, &[MARK], &[]);
    assert!(all.text().ends_with("\nEverything works."));
    let less = findings(Level::Ok, &[MARK, ("oom.kill_process", None)], &[]).text();
    assert!(!less.contains("Everything works"), "{less}");
    assert!(
        less.contains("\nmemtrace runs; 1 of 2 probes have no hook"),
        "{less}"
    );
    assert!(
        less.contains("- oom.kill_process: order, gfp flags"),
        "{less}"
    );
}

#[test]
fn what_another_hook_tells_is_not_lost() {
    let event = ("fault.user", Some("perf_event/page-faults"));
    let kernel = ("fault.kernel", None);
    let found = findings(Level::Ok, &[event, kernel], &[]);
    assert_eq!(found.conclusion(), "Everything works.");
    assert!(!found.text().contains("NONE"));
    let tracepoint = ("fault.user", Some("tp_btf/page_fault_user"));
    let found = findings(Level::Ok, &[tracepoint, kernel], &[]).conclusion();
    assert!(found.contains("1 of 2 probes"), "{found}");
    let found = findings(Level::Ok, &[("lifecycle.cgroup_rmdir", None)], &[]);
    assert_eq!(found.conclusion(), "Everything works.");
}

#[test]
fn problems_are_counted() {
    let one = findings(Level::Degraded, &[MARK], &["a"]);
    assert_eq!(one.conclusion(), "memtrace runs, with the problem above.");
    let two = findings(Level::Degraded, &[("heap.brk", None)], &["a", "b"]).conclusion();
    assert!(
        two.starts_with("memtrace runs, with the 2 problems above; 1 of 1 probes"),
        "{two}"
    );
    assert!(two.contains("all heap counts"), "{two}");
    let none = findings(Level::CannotRun, &[], &["a"]);
    assert_eq!(none.conclusion(), "memtrace cannot run here.");
}

#[test]
fn locked_memory_is_a_cause_before_linux_5_11_only() {
    for old in ["5.10.0-28-amd64\n", "5.8", "4.19.0", "", "unknown"] {
        assert!(counts_as_locked_memory(old), "{old}");
    }
    for new in ["5.11.0", "5.15.0-91-generic", "6.1.0", "6.18.44-fc-v669\n"] {
        assert!(!counts_as_locked_memory(new), "{new}");
    }
}
