use super::super::history::{History, Row};
use super::*;
use crate::analysis::{
    Change, Considered, Evidence, Explanation, NearLimit, Signal, Since, StateChange, TimeToLimit,
};

const MIB: f64 = 1048576.0;

fn series(name: &str) -> Series {
    let mut history = History::default();
    let place = history.place(name.as_bytes()).unwrap();
    history.add(place, 0, &Row::default()).unwrap();
    history.settle().series.remove(0)
}

fn told() -> Told {
    let estimate = |mid: f64| Estimate {
        low: 0.5 * mid,
        mid,
        high: Some(2.0 * mid),
    };
    let considered = |explanation, holds, value| Considered {
        explanation,
        holds,
        value,
        threshold: 0.5,
    };
    Told {
        change: Change {
            time_ms: 1_700_000_000_000,
            state: Some(StateChange {
                from: State::Growing,
                to: State::Suspected,
            }),
            near_limit: Some(true),
        },
        verdict: Verdict {
            state: State::Suspected,
            state_since_ms: 1_700_000_000_000,
            signal: Some(Signal::Anon),
            rate_bytes_per_hour: Some(estimate(12.0 * MIB)),
            since: Some(Since {
                time_ms: 1_699_990_000_000,
                uncertainty_ms: 720_000,
            }),
            time_to_limit: Some(TimeToLimit {
                seconds: estimate(36_000.0),
                limit_bytes: 512 << 20,
            }),
            near_limit: Some(NearLimit {
                near: true,
                ratio: 0.93,
                unreclaimable_bytes: 476 << 20,
                limit_bytes: 512 << 20,
                pressure: Some(true),
                since_ms: None,
            }),
            evidence: Some(Evidence {
                ring: 1,
                window_seconds: 21_600.0,
                blocks: 60,
                mann_kendall_z: 9.25,
                autocorrelation: 0.1,
                r_squared: 0.98,
                floor_growth_bytes: 72.0 * MIB,
                floor_bytes: 300.0 * MIB,
                residual_bytes: 0.3 * MIB,
                swing_bytes: f64::NAN,
                headroom_bytes: Some(-MIB),
                epochs_growing: 2,
            }),
            considered: vec![
                considered(Explanation::Slowing, false, 0.97),
                considered(Explanation::Unverified, true, 0.1),
            ],
        },
    }
}

const STYLE: Style = Style {
    colour: false,
    clock: Clock::Wall,
};

fn changed(style: Style, told: &Told) -> String {
    let mut out = Vec::new();
    change(&mut out, style, &series("web"), told).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_suspicion_tells_rate_onset_limit_evidence_and_what_was_rejected() {
    assert_eq!(
        changed(STYLE, &told()),
        "2023-11-14T22:13:20Z  web  growing → suspected, limit near
    476M of 512M cannot be reclaimed (93 %), stalls or reclaim bear it out
    anon 12.0M/h (6.0M to 24.0M) since 2023-11-14T19:26:40Z ± 12m
    reaches the limit of 512M in 10h (5h to 20h)
    evidence: the floor is at 300M and rose by 72.0M, as a line, in 6h00m (60 blocks, scatter 307K, swing 0B); \
headroom -1.0M; trend Z 9.25, line R² 0.98, autocorrelation 0.10; 2 earlier starts also ended while it grew
    rejected: slowing down (the later part rose 0.97 times as fast as before; slowing is below 0.50)
    possible: growth that ends soon (10 % of what verifies that it goes on was seen)
"
    );
}

#[test]
fn what_is_not_known_is_left_out() {
    let mut told = told();
    told.verdict = Verdict {
        state: State::Growing,
        ..Verdict::default()
    };
    told.change.near_limit = None;
    assert_eq!(
        changed(STYLE, &told),
        "2023-11-14T22:13:20Z  web  growing → suspected\n"
    );
}

#[test]
fn an_interval_without_an_upper_end_says_so() {
    let mut told = told();
    if let Some(limit) = &mut told.verdict.time_to_limit {
        limit.seconds.high = None;
    }
    assert!(changed(STYLE, &told).contains("in 10h (5h or more)"));
}

#[test]
fn states_are_coloured_on_a_terminal_only() {
    let style = Style {
        colour: true,
        ..STYLE
    };
    assert!(changed(style, &told()).contains("\x1b[31msuspected\x1b[0m"));
    assert!(!changed(STYLE, &told()).contains('\x1b'));
}

#[test]
fn the_table_aligns_and_shortens_long_names() {
    let long = series(&"x".repeat(300));
    let short = series("größe");
    let judged = Judged {
        told: vec![told()],
        ..Judged::default()
    };
    let leak = Judged {
        verdict: told().verdict,
        ..Judged::default()
    };
    let mut out = Vec::new();
    table(&mut out, STYLE, &[(&short, &leak), (&long, &judged)]).unwrap();
    let text = String::from_utf8(out).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let column = |line: &str, word: &str| {
        let at = line.find(word).unwrap();
        line[..at].chars().count()
    };
    assert_eq!(column(lines[0], "VERDICT"), column(lines[1], "suspected"));
    assert_eq!(column(lines[0], "VERDICT"), column(lines[2], "unknown"));
    assert_eq!(column(lines[0], "NEAR"), column(lines[1], "93%"));
    assert!(lines[1].contains("10h (5h to 20h)") && lines[1].contains("2023-11-14T19:26:40Z"));
    assert!(
        lines[2].contains("xxx…xxx") && lines[2].contains("suspected"),
        "{text}"
    );
    assert!(
        lines.iter().all(|line| line.chars().count() < 220),
        "{text}"
    );
}

#[test]
fn the_worst_state_is_kept_beside_the_final_one() {
    let judged = Judged {
        told: vec![told()],
        ..Judged::default()
    };
    assert_eq!(judged.worst(), State::Suspected);
    assert_eq!(judged.weightiest().1.state, State::Suspected);
    assert_eq!(judged.weightiest().0, 1_700_000_000_000);
    assert_eq!(Judged::default().worst(), State::Unknown);
}

#[test]
fn lines_for_scripts_name_every_field() {
    let mut out = Vec::new();
    super::super::line::change(&mut out, Clock::Wall, &series("a\"b"), &told()).unwrap();
    let judged = Judged {
        told: vec![told()],
        signals: vec![(Signal::Anon, State::Healthy)],
        ..Judged::default()
    };
    super::super::line::last(&mut out, Clock::Seconds, &series("b"), &judged).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.starts_with("{\"type\":\"leak\",\"time\":\"2023-11-14T22:13:20Z\","));
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let change = &lines[0];
    assert_eq!(change["series"], "a\"b");
    assert_eq!(
        (&change["from"], &change["state"]),
        (&"growing".into(), &"suspected".into())
    );
    assert_eq!(change["near_limit_changed_to"], true);
    assert_eq!(change["since"], "2023-11-14T19:26:40Z");
    assert_eq!(change["since_uncertainty_s"], 720.0);
    assert_eq!(change["time_to_limit_s"]["mid"], 36_000.0);
    assert_eq!(change["considered"][0]["explanation"], "slowing");
    assert_eq!(change["evidence"]["blocks"], 60);
    let last = &lines[1];
    assert_eq!(
        (&last["type"], &last["time"]),
        (&"leak_verdict".into(), &serde_json::Value::Null)
    );
    assert_eq!(
        (&last["worst_state"], &last["samples"]),
        (&"suspected".into(), &1.into())
    );
    assert_eq!(last["signals"]["anon"], "healthy");
    assert!(last["rate_bytes_per_hour"].is_null() && last.get("from").is_none());
}
