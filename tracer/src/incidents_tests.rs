use std::{os::unix::fs::symlink, path::Path, sync::Arc, time::Duration};

use clap::Parser;

use jiff::SignedDuration;

use super::*;
use crate::store::{Store, StoreLimits};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: IncidentsArgs,
}

const SCREEN: Screen = Screen {
    colour: false,
    width: None,
};

fn args(state_dir: &Path, line: &[&str]) -> IncidentsArgs {
    let dir = state_dir.to_str().unwrap();
    let line = ["incidents", "--state-dir", dir]
        .into_iter()
        .chain(line.iter().copied());
    Line::try_parse_from(line)
        .map_err(|e| e.to_string())
        .unwrap()
        .args
}

/// Standard output and error of the command.
fn told(state_dir: &Path, line: &[&str]) -> Result<(String, String), IncidentsError> {
    let (mut out, mut remarks) = (Vec::new(), Vec::new());
    run(&args(state_dir, line), SCREEN, &mut out, &mut remarks)?;
    Ok((
        String::from_utf8(out).unwrap(),
        String::from_utf8(remarks).unwrap(),
    ))
}

fn incident(id: &str, kind: Kind, cgroup: &str, hours_ago: i64) -> Incident {
    let text = include_str!("incident/fixtures/cgroup_oom.json");
    let mut incident: Incident = serde_json::from_str(text).unwrap();
    incident.id = id.into();
    incident.kind = kind;
    incident.time = Timestamp::now() - SignedDuration::from_hours(hours_ago);
    if let Some(charged) = &mut incident.charged {
        charged.cgroup = Some(cgroup.into());
    }
    incident
}

fn store() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), StoreLimits::default()).unwrap();
    for incident in [
        incident("aa-3", Kind::CgroupOom, "/pods/new", 1),
        incident("aa-1", Kind::Stall, "/pods/old", 10),
        incident("ab-2", Kind::CgroupOom, "/system", 5),
    ] {
        store.write(Arc::new(incident));
    }
    assert_eq!(store.close(Duration::from_secs(30)).written, 3);
    dir
}

/// Ids at the end of the rows told.
fn ids(state_dir: &Path, line: &[&str]) -> Vec<String> {
    let (out, _) = told(state_dir, line).unwrap();
    out.lines()
        .skip(1)
        .map(|line| line.rsplit(' ').next().unwrap().to_owned())
        .collect()
}

#[test]
fn the_newest_is_listed_last_and_filters_narrow() {
    let dir = store();
    let ids = |line: &[&str]| ids(dir.path(), line);
    assert_eq!(ids(&[]), ["aa-1", "ab-2", "aa-3"]);
    assert_eq!(ids(&["--since", "6h"]), ["ab-2", "aa-3"]);
    assert_eq!(ids(&["--since", "2020-01-01T00:00:00Z"]).len(), 3);
    assert_eq!(ids(&["--kind", "stall,global_oom"]), ["aa-1"]);
    assert_eq!(ids(&["--cgroup", "/pods*"]), ["aa-1", "aa-3"]);
    assert_eq!(ids(&["--cgroup", "/kubepods*"]).len(), 3, "the victim's");
    assert_eq!(ids(&["--last", "1"]), ["aa-3"]);
    assert!(ids(&["--cgroup", "/none"]).is_empty());
}

#[test]
fn until_and_pod_narrow_too() {
    let dir = store();
    let ids = |line: &[&str]| ids(dir.path(), line);
    assert_eq!(ids(&["--until", "3h"]), ["aa-1", "ab-2"]);
    assert_eq!(ids(&["--since", "6h", "--until", "3h"]), ["ab-2"]);
    assert!(ids(&["--pod", "shop/cart"]).is_empty());
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), StoreLimits::default()).unwrap();
    let mut named = incident("ba-1", Kind::CgroupOom, "/pods/x", 1);
    let names = Names {
        namespace: Some("shop".into()),
        pod: Some("cart".into()),
        ..Names::default()
    };
    named.victims[0].names = Some(Box::new(names));
    store.write(Arc::new(named));
    store.write(Arc::new(incident("ba-2", Kind::CgroupOom, "/pods/y", 1)));
    assert_eq!(store.close(Duration::from_secs(30)).written, 2);
    for pod in ["cart", "shop/cart"] {
        assert_eq!(super::tests::ids(dir.path(), &["--pod", pod]), ["ba-1"]);
    }
    assert!(super::tests::ids(dir.path(), &["--pod", "other/cart"]).is_empty());
}

#[test]
fn times_are_in_utc_where_that_is_asked_for() {
    let dir = store();
    let (out, _) = told(dir.path(), &["--utc"]).unwrap();
    let mut rows = out.lines().skip(1);
    assert!(
        rows.all(|row| row.split(' ').next().unwrap().ends_with('Z')),
        "{out}"
    );
    let (out, _) = told(dir.path(), &[]).unwrap();
    for row in out.lines().skip(1) {
        let time: Timestamp = row.split(' ').next().unwrap().parse().unwrap();
        assert!(Timestamp::now() > time, "{out}");
    }
}

#[test]
fn json_is_one_incident_a_line() {
    let dir = store();
    let (out, _) = told(dir.path(), &["--json"]).unwrap();
    let read: Vec<Incident> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(read.len(), 3);
    let (one, _) = told(dir.path(), &["show", "ab", "--json"]).unwrap();
    assert_eq!(serde_json::from_str::<Incident>(&one).unwrap(), read[1]);
}

#[test]
fn json_of_a_forged_record_holds_no_character_that_a_terminal_obeys() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), StoreLimits::default()).unwrap();
    let cgroup = "/a\u{9b}2Jb\u{202e}c\u{2066}d\u{200f}e\u{61c}f\u{85}";
    store.write(Arc::new(incident("aa-1", Kind::CgroupOom, cgroup, 1)));
    assert_eq!(store.close(Duration::from_secs(30)).written, 1);
    for line in [&["--json"][..], &["show", "aa-1", "--json"]] {
        let (out, _) = told(dir.path(), line).unwrap();
        let mut hidden = cgroup.chars().filter(|character| !character.is_ascii());
        assert!(hidden.all(|character| !out.contains(character)), "{out:?}");
        assert!(out.contains(r"/a\u009b2Jb\u202ec\u2066d"), "{out:?}");
        let read: Incident = serde_json::from_str(&out).unwrap();
        assert_eq!(read.charged.unwrap().cgroup.as_deref(), Some(cgroup));
    }
}

#[test]
fn the_beginning_of_an_id_is_enough_if_it_is_unique() {
    let dir = store();
    for id in ["ab", "ab-2"] {
        let (out, _) = told(dir.path(), &["show", id]).unwrap();
        assert!(out.contains("incident        ab-2"), "{out}");
    }
    let (out, _) = told(dir.path(), &["show", "latest"]).unwrap();
    assert!(out.contains("aa-3"));
    let (out, _) = told(dir.path(), &["--kind", "stall", "show", "latest"]).unwrap();
    assert!(out.contains("aa-1"));
    let error = told(dir.path(), &["show", "aa"]).unwrap_err();
    assert_eq!(error.exit_code(), 1);
    let text = error.to_string();
    assert!(text.contains("aa-1") && text.contains("aa-3") && !text.contains("ab-2"));
    let error = told(dir.path(), &["show", "zz"]).unwrap_err();
    assert!(matches!(error, IncidentsError::NotFound { .. }));
    assert_eq!(error.exit_code(), 1);
}

#[test]
fn nothing_stored_is_said_and_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let (out, remarks) = told(dir.path(), &[]).unwrap();
    assert!(out.is_empty() && remarks.contains("no agent ran"));
    std::fs::create_dir(dir.path().join("incidents")).unwrap();
    let (out, remarks) = told(dir.path(), &[]).unwrap();
    assert!(out.is_empty() && remarks.contains("so far"));
    let error = told(dir.path(), &["show", "latest"]).unwrap_err();
    assert!(
        error.to_string().starts_with("no incident is stored in "),
        "{error}"
    );
}

#[test]
fn the_latest_of_a_kind_that_is_not_stored_is_told_by_that_kind() {
    let dir = store();
    let error = |line: &[&str]| told(dir.path(), line).unwrap_err().to_string();
    let text = error(&["--kind", "global_oom", "show", "latest"]);
    assert!(text.starts_with("no global_oom is stored in "), "{text}");
    let text = error(&[
        "--kind",
        "stall,global_oom",
        "--since",
        "1m",
        "show",
        "latest",
    ]);
    assert!(
        text.starts_with("no stall or global_oom is stored in "),
        "{text}"
    );
    assert!(
        text.ends_with(" that --since, --until, --cgroup and --pod ask for"),
        "{text}"
    );
}

#[test]
fn a_link_in_place_of_the_directory_fails_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    symlink("/etc", dir.path().join("incidents")).unwrap();
    let error = told(dir.path(), &[]).unwrap_err();
    assert_eq!(error.exit_code(), 1);
    assert!(error.to_string().contains("symbolic link"));
}

#[test]
fn missing_permission_has_an_exit_code_and_a_remedy_of_its_own() {
    let error = IncidentsError::from(StoreError::Io {
        action: "open",
        path: "/var/lib/memtrace".into(),
        source: io::ErrorKind::PermissionDenied.into(),
    });
    assert_eq!(error.exit_code(), 77);
    assert!(error.to_string().contains("sudo"));
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    let dir = store();
    let (reader, mut out) = io::pipe().unwrap();
    drop(reader);
    run(&args(dir.path(), &[]), SCREEN, &mut out, &mut io::sink()).unwrap();
}

#[test]
fn wrong_words_are_refused() {
    for line in [
        ["--since", "yesterday"],
        ["--kind", "murder"],
        ["--last", "0"],
        ["--cgroup", "["],
    ] {
        assert!(Line::try_parse_from(["incidents"].iter().chain(&line)).is_err());
    }
}
