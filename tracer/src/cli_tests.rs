use std::collections::BTreeSet;

use clap::CommandFactory as _;

use super::*;

#[test]
fn the_definitions_are_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn durations_and_sizes_need_a_unit_and_sense() {
    assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
    assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
    for wrong in [
        "",
        "5",
        "s",
        "-1s",
        "1x",
        "0s",
        "9999999999h",
        "1e9s",
        "..s",
    ] {
        assert!(duration(wrong).is_err(), "{wrong}");
    }
    assert!(interval("10ms").is_err());
    assert_eq!(size("16MiB"), Ok(16 << 20));
    assert_eq!(size("4096"), Ok(4096));
    for wrong in ["", "MiB", "16XB", "-1", "99999999T"] {
        assert!(size(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_duration_of_zero_is_told_as_such() {
    for zero in ["0s", "0ms", "0.0h"] {
        assert_eq!(duration(zero), Err("must be above 0".into()), "{zero}");
    }
    assert_eq!(interval("0s"), Err("must be above 0".into()));
    assert!(duration("0").is_err_and(|error| error.contains("a unit")));
    let error = refused(&["oom", "-d", "0s"]);
    assert!(error.contains("must be above 0"), "{error}");
}

#[test]
fn a_fault_sample_is_a_power_of_two() {
    assert_eq!(power_of_two("64"), Ok(64));
    assert_eq!(power_of_two("0"), Ok(0));
    assert!(power_of_two("63").is_err());
}

#[test]
fn the_kinds_of_hooks_are_those_of_the_catalog() {
    let probes = crate::loader::catalog::CATALOG.iter();
    let hooks = probes.flat_map(|probe| probe.alternatives);
    let kinds: BTreeSet<String> = hooks
        .filter_map(|hook| Some(hook.hook.describe().split_once('/')?.0.to_owned()))
        .collect();
    assert_eq!(kinds, HOOK_KINDS.map(String::from).into());
}

/// What the command line is refused with.
fn refused(line: &[&str]) -> String {
    let line = ["memtrace"].iter().chain(line);
    match Cli::try_parse_from(line) {
        Ok(_) => panic!("it is accepted"),
        Err(error) => {
            assert_eq!(error.exit_code(), 2, "{error}");
            error.to_string()
        }
    }
}

#[test]
fn values_that_would_do_nothing_are_refused_with_those_that_do() {
    for (line, told) in [
        (["run", "--skip-hook", "foo"], "kretprobe"),
        (["doctor", "--skip-hook", ""], "perf_event"),
        (["run", "--oom-killer", ""], "earlyoom"),
        (["oom", "--oom-killer", " "], "nohang"),
        (["run", "--cgroup", ""], "/kubepods*"),
        (["incidents", "--cgroup", ""], "/kubepods*"),
        (["run", "--listen", ":9464"], "127.0.0.1:9464"),
        (["run", "--listen", "9464"], "127.0.0.1:9464"),
        (["run", "--listen", "localhost"], "127.0.0.1:9464"),
    ] {
        let error = refused(&line);
        assert!(error.contains(told), "no {told} in {error}");
    }
    let line = [
        "memtrace",
        "run",
        "--skip-hook",
        "fexit,kprobe/oom_kill_process",
        "--listen",
        "[::1]:1",
    ];
    assert!(Cli::try_parse_from(line).is_ok());
}

#[test]
fn a_star_matches_across_directories() {
    let glob = cgroup_glob("/kubepods*").unwrap();
    assert!(glob.is_match("/kubepods/burstable/pod1"));
    assert!(!glob.is_match("/system.slice"));
}
