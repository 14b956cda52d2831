use clap::Parser;

use super::*;
use crate::report::fixture;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: LeaksArgs,
}

const SCREEN: Screen = Screen {
    colour: false,
    width: None,
};

fn args(line: &[&str]) -> LeaksArgs {
    let line = ["leaks", "--utc"].iter().chain(line);
    Line::try_parse_from(line)
        .map_err(|e| e.to_string())
        .unwrap()
        .args
}

fn leak() -> LeakRecord {
    *fixture::live().details.unwrap().leak.unwrap()
}

fn answer(leaks: Vec<LeakRecord>, judged: Option<Judged>) -> Answer {
    Answer {
        leaks: Listed {
            time: jiff::Timestamp::UNIX_EPOCH,
            items: leaks,
            left_out: 0,
        },
        judged,
    }
}

/// Standard output and error.
fn told(line: &[&str], answer: &Answer) -> (String, String) {
    let (mut out, mut remarks) = (Vec::new(), Vec::new());
    tell(&args(line), answer, SCREEN, &mut out, &mut remarks).unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(out), text(remarks))
}

#[test]
fn a_leak_is_told_with_all_that_it_rests_on() {
    let (text, _) = told(&[], &answer(vec![leak()], None));
    for part in [
        "shop/cart-7c9d/app: leak confirmed since 2026-11-21T08:12:26Z",
        "rate          60.0M/h (58.0M to 62.0M)",
        "grows since   2026-11-21T07:12:26Z ± 4m00s",
        "to the limit  4h52m (4h26m or more), its own limit of 512M",
        "evidence      the floor is at",
        "rejected      noise (growth is 90 times the scatter",
        "possible      growth that ends soon (50 % of",
        "who           python3 (pid 31001), 97 % of the growth: +90.0M in 1h30m",
        "code          leak < serve < main: 61.0M ±6.0M resident, grew 20.0M ±2.0M",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
}

#[test]
fn it_fits_the_terminal() {
    let text = block::block(&leak(), &Zone::utc(), false, Some(80));
    // A path is never cut.
    let fits = |line: &str| line.chars().count() <= 80 || line.contains("  cgroup  ");
    assert!(text.lines().all(fits), "{text}");
    assert!(text.contains("python3 (pid 31001)"), "{text}");
}

#[test]
fn where_nothing_leaks_it_says_how_many_are_judged() {
    let counted = |judged, young| Judged {
        judged,
        warming: 0,
        young,
    };
    for (line, judged, young, expected) in [
        (&[][..], 7, 0, "7 cgroups are judged, and none leaks"),
        (&["--all"], 7, 0, "7 cgroups are judged, and none grows"),
        (&[], 1, 0, "1 cgroup is judged, and does not leak"),
        (
            &["--all"],
            3,
            1,
            "3 cgroups are judged, and none grows; 1 more is too young to judge",
        ),
        (
            &["--all"],
            0,
            2,
            "no cgroup is judged yet: 2 are too young, look again in some minutes",
        ),
        (&["--pod", "a/b"], 0, 0, "no cgroup of pod a/b is judged"),
        (
            &["--cgroup", "/x*"],
            0,
            0,
            "no cgroup that matches '/x*' is judged",
        ),
        (
            &["--cgroup", "shop"],
            0,
            1,
            "no cgroup that matches 'shop' is judged yet: 1 is too young, look again in some minutes",
        ),
    ] {
        let answer = answer(Vec::new(), Some(counted(judged, young)));
        assert_eq!(told(line, &answer).0, format!("{expected}\n"));
    }
    let (out, remarks) = told(&["--json"], &answer(Vec::new(), Some(counted(7, 0))));
    assert!(out.is_empty() && remarks.contains("none leaks"));
}

#[test]
fn what_warms_up_is_not_said_to_stand_still() {
    let states = [
        State::Healthy,
        State::Warming,
        State::Unknown,
        State::Unknown,
    ];
    let all = Judged::count(states.into_iter());
    assert_eq!(
        none(&args(&["--all"]), all),
        "2 cgroups are judged, and none grows; 1 of them is young, or its growth flattens; 2 more are too young to judge"
    );
    let one = Judged::count([State::Warming].into_iter());
    assert_eq!(
        none(&args(&["--all"]), one),
        "1 cgroup is judged: it is young, or its growth flattens"
    );
}

#[test]
fn json_is_a_leak_a_line() {
    let (text, _) = told(&["--json"], &answer(vec![leak(), leak()], None));
    let read: Vec<LeakRecord> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(read, [leak(), leak()]);
}

#[test]
fn a_pod_or_a_glob_chooses() {
    for (line, is_chosen) in [
        (&[][..], true),
        (&["--pod", "cart-7c9d"], true),
        (&["--pod", "shop/cart-7c9d"], true),
        (&["--pod", "other/cart-7c9d"], false),
        (&["--cgroup", "/kubepods*"], true),
        (&["--cgroup", "/system*"], false),
    ] {
        assert_eq!(is_asked(&args(line), &leak()), is_chosen, "{line:?}");
    }
}

#[test]
fn nothing_hostile_reaches_the_terminal() {
    let mut hostile = leak();
    hostile.names = None;
    hostile.cgroup = fixture::HOSTILE.into();
    hostile.limit_cgroup = Some(fixture::HOSTILE.into());
    hostile.processes[0].comm = Some(fixture::HOSTILE.into());
    hostile.stacks[0].frames = vec![fixture::HOSTILE.into()];
    let (text, _) = told(&[], &answer(vec![hostile], None));
    let bad = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!text.contains(bad), "{text}");
    assert!(!text.lines().any(|line| line.starts_with("```")), "{text}");
}

#[test]
fn without_an_agent_the_error_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let line = ["--socket", socket.to_str().unwrap()];
    let error = run(&args(&line), SCREEN, &mut Vec::new(), &mut Vec::new()).unwrap_err();
    assert_eq!(error.exit_code(), 1);
    let text = error.to_string();
    for part in [
        "memtrace run",
        "systemctl start memtrace",
        "memtrace analyze",
    ] {
        assert!(text.contains(part), "{text}");
    }
}
