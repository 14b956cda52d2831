use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::Parser;
use jiff::Timestamp;

use super::{super::gather::gather, *};
use crate::{
    report::fixture,
    store::{Store, StoreLimits},
};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: ReportArgs,
}

fn incident(id: &str, cgroup: &str, minute: i64) -> Incident {
    let mut incident = fixture::incident();
    incident.id = id.into();
    incident.time = Timestamp::now() - jiff::SignedDuration::from_mins(60 - minute);
    if let Some(charged) = &mut incident.charged {
        charged.cgroup = Some(cgroup.into());
    }
    incident.victims.clear();
    incident
}

fn store() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), StoreLimits::default()).unwrap();
    for incident in [
        incident("aa-1", "/pods/a", 1),
        incident("ab-2", "/pods/b", 2),
        incident("aa-3", "/pods/a", 3),
    ] {
        store.write(Arc::new(incident));
    }
    assert_eq!(store.close(Duration::from_secs(30)).written, 3);
    dir
}

/// Without an agent.
fn gathered(line: &[&str]) -> Result<facts::Facts, ReportError> {
    gathered_in(&store(), line)
}

fn gathered_in(dir: &tempfile::TempDir, line: &[&str]) -> Result<facts::Facts, ReportError> {
    let (state, socket) = (dir.path().to_owned(), dir.path().join("none.sock"));
    let text = |path: &PathBuf| path.to_str().unwrap().to_owned();
    let mut all = vec!["report".to_owned()];
    all.extend(line.iter().map(|word| (*word).to_owned()));
    all.extend([
        "--state-dir".into(),
        text(&state),
        "--socket".into(),
        text(&socket),
    ]);
    let args = Line::try_parse_from(all)
        .map_err(|e| e.to_string())
        .unwrap()
        .args;
    gather(&args, Timestamp::now())
}

fn ids(facts: &facts::Facts) -> Vec<&str> {
    let all = facts.incidents.iter();
    all.map(|incident| incident.id.as_str()).collect()
}

#[test]
fn without_an_agent_the_incidents_of_one_container_make_the_report() {
    for line in [&["latest"][..], &["aa-3"], &["--cgroup", "/pods/a"]] {
        let facts = gathered(line).unwrap();
        assert_eq!(ids(&facts), ["aa-1", "aa-3"], "{line:?}");
        assert_eq!(facts.incident().unwrap().id, "aa-3");
        assert!(
            facts.missing[0].contains("no agent answers"),
            "{:?}",
            facts.missing
        );
    }
    assert_eq!(ids(&gathered(&["ab"]).unwrap()), ["ab-2"]);
}

#[test]
fn what_is_not_there_or_not_clear_is_an_error_that_says_so() {
    let error = |line: &[&str]| gathered(line).unwrap_err().to_string();
    assert!(error(&["zz"]).starts_with("no incident zz is known"));
    let several = error(&["aa"]);
    assert!(
        several.contains("aa-1") && several.contains("aa-3"),
        "{several}"
    );
    let several = error(&["--cgroup", "/pods*"]);
    assert!(
        several.contains("matches 2") && several.contains("\n  /pods/b"),
        "{several}"
    );
    let all = error(&["--cgroup", "*"]);
    assert!(all.starts_with("--cgroup '*' matches 2"), "{all}");
    let nothing = error(&["--pod", "shop/cart"]);
    assert!(
        nothing.contains("--pod shop/cart") && nothing.contains("no agent answers"),
        "{nothing}"
    );
}

#[test]
fn the_latest_of_nothing_says_where_nothing_is_and_what_to_do() {
    let empty = tempfile::tempdir().unwrap();
    let error = gathered_in(&empty, &["latest"]).unwrap_err();
    assert_eq!(error.exit_code(), 1);
    let text = error.to_string();
    let place = format!("no incident is stored in {}: ", empty.path().display());
    for part in [place.as_str(), "no agent answers", "--cgroup GLOB"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn whose_report_it_is_must_be_said_once() {
    for line in [&["report"][..], &["report", "latest", "--cgroup", "/a"]] {
        assert!(Line::try_parse_from(line).is_err(), "{line:?}");
    }
}

#[test]
fn the_pattern_of_a_path_fits_it_whatever_is_in_it() {
    for path in [
        "/a",
        "/a*b?[c]{d,e}",
        r"/system.slice/a\\x2db.service",
        "/größe",
    ] {
        assert!(only(path).unwrap().is_match(path), "{path}");
        assert!(!only(path).unwrap().is_match("/other"), "{path}");
    }
}
