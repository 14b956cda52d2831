use std::{fs, path::Path};

use super::*;
use crate::config::definition;

fn line(file: &Path, arguments: &[&str]) -> CommandLine {
    let asked = format!("--config={}", file.display());
    let arguments = [asked.as_str()]
        .into_iter()
        .chain(arguments.iter().copied());
    let matches = definition::command().try_get_matches_from(arguments);
    CommandLine::of(&matches.unwrap())
}

fn reloader(file: &Path, arguments: &[&str]) -> Reloader {
    let line = line(file, arguments);
    let layers = line.load().unwrap_or_else(|error| panic!("{error}"));
    Reloader::new(line, &layers)
}

#[test]
fn what_changed_is_taken_over_or_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("memtrace.toml");
    fs::write(&file, "cgroup = \"/a*\"\ninterval = \"2s\"\n").unwrap();
    let mut reloader = reloader(&file, &[]);
    let same = reloader.reload().unwrap().unwrap();
    assert!(
        same.changed.is_empty() && same.needs_restart.is_empty(),
        "{same:?}"
    );

    let changed = "cgroup = \"/b*\"\nstall_after = \"3s\"\ninterval = \"4s\"\nthreshold = { young = 5 }\n\
                   [[on_event]]\non = [\"incident\"]\nshell = \"true\"\n";
    fs::write(&file, changed).unwrap();
    let now = reloader.reload().unwrap().unwrap();
    assert_eq!(
        now.changed,
        ["cgroup", "stall_after", "threshold", "on_event"]
    );
    assert_eq!(now.needs_restart, ["interval"]);
    assert!(now.cgroup.unwrap().is_match("/b/c"));
    assert_eq!(now.stall_after.as_secs(), 3);
    assert_eq!(now.thresholds.unwrap().young, 5.0);
    assert_eq!(now.rules.len(), 1);

    let again = reloader.reload().unwrap().unwrap();
    assert!(again.changed.is_empty(), "{again:?}");
    assert_eq!(
        again.needs_restart,
        ["interval"],
        "it is still not taken over"
    );
}

#[test]
fn a_file_that_is_wrong_or_gone_is_an_error_and_the_next_good_one_is_taken() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("memtrace.toml");
    fs::write(&file, "cgroup = \"/a*\"\n").unwrap();
    let mut reloader = reloader(&file, &[]);
    fs::write(&file, "cgroup = \"/b*\"\nintervall = \"4s\"\n").unwrap();
    let error = reloader.reload().unwrap_err().to_string();
    assert!(error.contains("memtrace.toml:2: unknown key"), "{error}");
    fs::remove_file(&file).unwrap();
    assert!(matches!(
        reloader.reload(),
        Err(ConfigError::Unreadable { .. })
    ));
    fs::write(&file, "cgroup = \"/b*\"\n").unwrap();
    assert_eq!(reloader.reload().unwrap().unwrap().changed, ["cgroup"]);
}

#[test]
fn a_flag_stays_above_the_file_after_a_reload() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("memtrace.toml");
    fs::write(&file, "").unwrap();
    let mut reloader = reloader(&file, &["--cgroup=/flag*"]);
    fs::write(&file, "cgroup = \"/file*\"\n").unwrap();
    let now = reloader.reload().unwrap().unwrap();
    assert!(now.changed.is_empty());
    assert!(now.cgroup.unwrap().is_match("/flag/x"));
}

#[test]
fn without_a_file_there_is_nothing_to_reload() {
    let none = line(Path::new("none"), &[]);
    let layers = none.load().unwrap_or_else(|error| panic!("{error}"));
    assert!(Reloader::new(none, &layers).reload().unwrap().is_none());
}
