use jiff::SignedDuration;

use super::super::fixture::live;
use super::*;
use crate::{export::console::leak, growth::GrowthEvent};

/// The last verdict, where a leak was confirmed a minute before the kill and cleared so long after it.
fn cleared(seconds: i64, change: impl Fn(&mut Facts)) -> String {
    let mut facts = live();
    let kill = facts.incidents[0].time;
    let details = facts.details.as_mut().unwrap();
    let verdict = details.leak.as_mut().unwrap();
    verdict.event = Some(GrowthEvent::Confirmed);
    let confirmed = leak::line(verdict).unwrap();
    verdict.event = Some(GrowthEvent::Cleared);
    verdict.state = State::Reclaimed;
    let cleared = leak::line(verdict).unwrap();
    let mark = |seconds, text| Mark {
        time: kill + SignedDuration::from_secs(seconds),
        kind: MarkKind::Verdict,
        text,
        incident: None,
    };
    let timeline = details.timeline.as_mut().unwrap();
    timeline.marks.push(mark(-60, confirmed));
    timeline.marks.push(mark(seconds, cleared));
    change(&mut facts);
    let told = events(&facts, &Zone::utc()).told;
    let mut verdicts = told.iter().filter(|one| one.kind == MarkKind::Verdict);
    verdicts.next_back().unwrap().text.clone()
}

#[test]
fn a_leak_that_a_kill_ended_is_not_told_as_reclaimed() {
    let place = "no leak any more in shop/cart-7c9d/app";
    assert_eq!(
        cleared(11, |_| {}),
        format!("{place}: the leaking process was killed")
    );
    let other_victims = |facts: &mut Facts| {
        for victim in &mut facts.incidents[0].victims {
            victim.pid = Some(5);
        }
    };
    assert_eq!(
        cleared(11, other_victims),
        format!("{place}: what grew was freed by a kill")
    );
}

#[test]
fn what_no_kill_freed_is_told_as_reclaimed() {
    let reclaimed = "no leak any more in shop/cart-7c9d/app: reclaimed";
    assert_eq!(cleared(11, |facts| facts.incidents.clear()), reclaimed);
    assert_eq!(cleared(3000, |_| {}), reclaimed);
    // That kill was before the leak.
    let before = |facts: &mut Facts| {
        facts.incidents[0].time -= SignedDuration::from_secs(120);
    };
    assert_eq!(cleared(11, before), reclaimed);
    let stall = |facts: &mut Facts| facts.incidents[0].kind = Kind::Stall;
    assert_eq!(cleared(11, stall), reclaimed);
}
