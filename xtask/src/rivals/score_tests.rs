use std::time::Duration;

use super::super::seen::{self, Ended, Process};
use super::super::truth::Short;
use super::*;

fn kill(pid: u32, cgroup: &str, manner: Manner) -> Kill {
    Kill {
        pid,
        cgroup: cgroup.to_owned(),
        limit_cgroup: "/pod".to_owned(),
        trigger_pid: 7,
        anon_bytes: 8 << 20,
        manner,
    }
}

fn short(pid: u32, cgroup: &str) -> Short {
    Short {
        pid,
        cgroup: cgroup.to_owned(),
        faults: 100,
        lived: Duration::from_millis(5),
    }
}

fn truth() -> Truth {
    Truth {
        kills: vec![
            kill(1, "/a", Manner::Service),
            kill(2, "/b", Manner::Storm),
            kill(3, "/b", Manner::Storm),
        ],
        shorts: vec![short(10, "/a"), short(11, "/a"), short(12, "/b")],
        ..Truth::default()
    }
}

fn told(pid: u32) -> seen::Kill {
    seen::Kill {
        pid,
        ..seen::Kill::default()
    }
}

#[test]
fn only_what_a_tool_tells_is_held_against_it_and_a_wrong_word_is_no_hit() {
    let seen = Seen {
        kills: Kills::Each(vec![
            seen::Kill {
                cgroup: Some("/a".to_owned()),
                trigger_pid: Some(8),
                anon_bytes: Some(8 << 20),
                ..told(1)
            },
            seen::Kill {
                anon_bytes: Some(4 << 20),
                ..told(3)
            },
            told(99),
        ]),
        ..Seen::default()
    };
    let score = Score::of(&truth(), &seen);
    assert_eq!((score.kills, score.storm_kills), (Some(2), Some(1)));
    assert_eq!(
        (score.right_cgroup, score.right_trigger),
        (Some(1), Some(0))
    );
    assert_eq!((score.right_limit, score.right_memory), (None, Some(1)));
    assert_eq!((score.shorts, score.faults), (None, None));
}

#[test]
fn a_count_of_a_cgroup_finds_no_more_kills_than_there_were() {
    let counts = BTreeMap::from([("/a".to_owned(), 5), ("/c".to_owned(), 2)]);
    let seen = Seen {
        kills: Kills::OfCgroups(counts),
        ..Seen::default()
    };
    let score = Score::of(&truth(), &seen);
    assert_eq!((score.kills, score.storm_kills), (Some(1), Some(0)));
    assert_eq!(score.right_pid, None);
}

#[test]
fn faults_count_for_the_cgroup_only_where_it_is_the_right_one() {
    let process = |cgroup: &str| Process {
        faults: Some(150),
        cgroup: Some(cgroup.to_owned()),
    };
    let each = Seen {
        processes: Processes::Each(BTreeMap::from([(10, process("/a")), (12, process("/a"))])),
        ..Seen::default()
    };
    let score = Score::of(&truth(), &each);
    assert_eq!(score.shorts, Some(2));
    assert_eq!(score.faults, Some(200.0 / 300.0));
    assert_eq!(score.faults_by_cgroup, Some(100.0 / 300.0));
    let ended = Ended {
        processes: 9,
        faults: 150,
    };
    let sums = Seen {
        processes: Processes::OfCgroups(BTreeMap::from([("/a".to_owned(), ended)])),
        ..Seen::default()
    };
    let score = Score::of(&truth(), &sums);
    assert_eq!((score.shorts, score.faults_by_cgroup), (Some(2), Some(0.5)));
}
