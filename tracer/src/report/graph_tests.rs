use super::super::{
    events::events,
    fixture::{live, stored},
};
use super::*;

fn drawn(facts: &Facts) -> Vec<Graph> {
    let zone = Zone::utc();
    graphs(facts, &events(facts, &zone).told, &zone)
}

#[test]
fn it_begins_when_the_container_did() {
    let mut facts = live();
    facts.incidents.clear();
    let timeline = facts.details.as_mut().unwrap().timeline.as_mut().unwrap();
    let first = timeline.series[0].points[0].time;
    timeline.first_seen = first - SignedDuration::from_secs(20);
    let since = Some(first - SignedDuration::from_hours(1));
    facts.since = since;
    let graph = graphs(&facts, &[], &Zone::utc()).remove(0);
    assert_eq!(graph.begin, first - SignedDuration::from_secs(20));
}

#[test]
fn a_graph_has_the_events_that_lie_in_it() {
    let graphs = drawn(&live());
    assert_eq!(graphs.len(), 2, "the history, and what led up to the kill");
    assert_eq!(
        graphs[0].events,
        [2, 3, 4, 5, 6],
        "the start lies long before"
    );
    assert_eq!(graphs[1].events, [3]);
    assert!(
        graphs[0]
            .points
            .iter()
            .any(|point| point.usage_bytes.is_none())
    );
    let (panel, _) = graphs[1].panel();
    assert!(panel.marks[0].is_kill);
    assert_eq!(panel.marks[0].time_ms, panel.to_ms);
}

#[test]
fn characters_show_the_rise_to_the_limit_and_the_kill() {
    let graphs = drawn(&stored());
    let text = graphs[0].characters(&Zone::utc());
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with(" limit 512M ┤"), "{text}");
    assert!(lines[0].contains('┄') && lines[0].ends_with('█'), "{text}");
    assert_eq!(
        lines[7].chars().filter(|char| *char == '█').count(),
        COLUMNS,
        "{text}"
    );
    assert!(text.contains("2026-11-21T07:37:31Z"), "{text}");
    let widest = lines.iter().map(|line| line.chars().count()).max();
    assert!(widest <= Some(13 + COLUMNS), "{text}");
}

#[test]
fn a_limit_far_above_is_named_and_does_not_flatten_the_graph() {
    let mut facts = stored();
    if let Some(charged) = &mut facts.incidents[0].charged {
        charged.limit_bytes = Some(1 << 40);
    }
    let text = drawn(&facts)[0].characters(&Zone::utc());
    assert!(text.contains("limit 1.0T, far above"), "{text}");
    assert!(text.lines().next().unwrap().contains('█'), "{text}");
}

#[test]
fn a_single_point_is_no_graph() {
    let mut facts = stored();
    facts.incidents[0].evidence.usage.truncate(1);
    assert!(drawn(&facts).is_empty());
}

#[test]
fn characters_are_blank_only_in_a_gap() {
    let mut facts = live();
    facts.incidents.clear();
    let text = drawn(&facts)[0].characters(&Zone::utc());
    let base = text.lines().nth(ROWS - 1).unwrap();
    let columns: String = base.chars().skip(13).collect();
    assert!(columns.starts_with('█') && columns.ends_with('█'), "{text}");
    assert_eq!(
        columns.split('█').filter(|gap| !gap.is_empty()).count(),
        1,
        "{text}"
    );
}
