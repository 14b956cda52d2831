use std::collections::HashSet;

use jiff::SignedDuration;
use roxmltree::{Document, ParsingOptions};

use super::{
    facts::Facts,
    fixture::{HOSTILE, hostile, live, stored},
    html, markdown,
    story::{self, Report},
};
use crate::{api::records::MarkKind, incident::Kind, moment::Zone};

fn report(facts: Facts) -> Report {
    story::report(facts, &Zone::utc())
}

fn page(facts: Facts) -> String {
    html::page(&report(facts), &Zone::utc())
}

fn ticket(facts: Facts) -> String {
    markdown::text(&report(facts), &Zone::utc())
}

fn parsed(page: &str) -> Document<'_> {
    let options = ParsingOptions {
        allow_dtd: true,
        ..ParsingOptions::default()
    };
    Document::parse_with_options(page, options).unwrap()
}

/// Everything there is, of an agent and of the store, and by whoever wants to break it.
fn all() -> [Facts; 4] {
    let mut nothing = stored();
    nothing.incidents.clear();
    nothing.asked = None;
    [live(), stored(), hostile(), nothing]
}

#[test]
fn what_a_kill_freed_is_not_called_given_back() {
    let mut facts = live();
    let leak = facts.details.as_mut().unwrap().leak.as_mut().unwrap();
    leak.state = crate::analysis::State::Reclaimed;
    let kill = stored().incidents[0].clone();
    leak.state_since = Some(kill.time + jiff::SignedDuration::from_secs(60));
    facts.incidents = vec![kill];
    let told = page(facts.clone());
    assert!(told.contains("verdict now: reclaimed by a kill"), "{told}");
    assert!(!told.contains("class=\"state reclaimed\""), "{told}");
    facts.incidents.clear();
    assert!(page(facts.clone()).contains("class=\"state reclaimed\""));
    let story = report(facts);
    assert!(
        story.conclusion.contains("given back"),
        "{}",
        story.conclusion
    );
}

#[test]
fn a_page_is_well_formed_and_every_link_leads_somewhere() {
    for facts in all() {
        let page = page(facts);
        let document = parsed(&page);
        let mut ids = HashSet::new();
        for node in document.descendants() {
            if let Some(id) = node.attribute("id") {
                assert!(ids.insert(id), "{id} twice");
            }
        }
        for node in document.descendants() {
            if let Some(link) = node.attribute("href") {
                let id = link.strip_prefix('#').unwrap();
                assert!(ids.contains(id), "{link}");
            }
        }
    }
}

#[test]
fn a_page_loads_nothing_and_runs_nothing() {
    for facts in all() {
        let page = page(facts);
        assert!(page.contains("default-src 'none'"));
        for node in parsed(&page).descendants() {
            let name = node.tag_name().name();
            assert!(
                !["script", "link", "iframe", "object", "base"].contains(&name),
                "{name}"
            );
            for attribute in node.attributes() {
                let (name, value) = (attribute.name(), attribute.value());
                assert!(!name.starts_with("on"), "{name}");
                if ["src", "href"].contains(&name) {
                    assert!(
                        value.starts_with('#') || value.starts_with("data:"),
                        "{value}"
                    );
                }
            }
        }
        let style = page.split("<style>").nth(1).unwrap();
        let style = style.split("</style>").next().unwrap();
        assert!(!style.contains("url(") && !style.contains("@import"));
    }
}

#[test]
fn nothing_hostile_acts_in_a_page() {
    let page = page(hostile());
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    let bad = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!page.contains(bad));
    assert!(!page.contains("<script"));
}

#[test]
fn nothing_hostile_acts_in_a_ticket() {
    let text = ticket(hostile());
    let bad = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!text.contains(bad));
    // Fences end where they began, and outside of them there is no markup but ours.
    let mut fence: Option<&str> = None;
    for line in text.lines() {
        let bare = line.trim_start();
        match fence {
            Some(open) if bare == open || (open == "```sh" && bare == "```") => fence = None,
            Some(_) => {}
            None if bare.starts_with("```") => fence = Some(bare),
            None => {
                assert!(!bare.contains("<script"), "{line}");
                assert!(!bare.replace("\\]", "").contains("]("), "{line}");
                assert!(!bare.contains("://"), "{line}");
                assert!(!bare.contains("@all"), "{line}");
                let is_ours = bare.starts_with("# Memory report") || bare.starts_with("## ");
                assert!(!bare.starts_with('#') || is_ours, "{line}");
            }
        }
    }
    assert_eq!(fence, None);
}

#[test]
fn every_row_of_a_ticket_has_the_cells_of_its_head() {
    for facts in all() {
        let text = ticket(facts);
        let cells = |line: &str| line.replace("\\|", "").matches('|').count();
        let lines: Vec<&str> = text.lines().collect();
        let mut rows = 0;
        for pair in lines.windows(2) {
            if pair[0].starts_with('|') && pair[1].starts_with('|') {
                assert_eq!(cells(pair[0]), cells(pair[1]), "{}\n{}", pair[0], pair[1]);
                rows += 1;
            }
        }
        assert!(rows > 0 || !text.contains('|'));
    }
}

#[test]
fn the_json_is_all_of_it_and_its_text_is_as_it_was() {
    let report = report(hostile());
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["format"], "memtrace.report/1");
    assert_eq!(json["incidents"][0]["id"], HOSTILE);
    assert_eq!(json["leak"]["state"], "confirmed");
    assert_eq!(json["graphs"][0]["points"][0]["usage_bytes"], 108 << 20);
    assert!(json["graphs"][0].get("marks").is_none());
    assert!(json["events"].as_array().unwrap().len() >= 5);
}

#[test]
fn the_story_is_in_order_and_each_event_is_told_once() {
    let mut facts = live();
    let incident = facts.incidents[0].clone();
    if let Some(timeline) = facts
        .details
        .as_mut()
        .and_then(|known| known.timeline.as_mut())
    {
        timeline.marks.push(crate::api::records::Mark {
            time: incident.time,
            kind: MarkKind::Oom,
            text: "the same in short".into(),
            incident: Some(incident.id.clone()),
        });
    }
    let report = report(facts);
    let times: Vec<_> = report.events.iter().map(|event| event.time).collect();
    assert!(times.is_sorted());
    let kinds: Vec<MarkKind> = report.events.iter().map(|event| event.kind).collect();
    assert_eq!(
        kinds,
        [
            MarkKind::Started,
            MarkKind::GrowthBegan,
            MarkKind::Oom,
            MarkKind::LimitChanged,
            MarkKind::Verdict,
            MarkKind::Action
        ]
    );
    assert!(
        !report
            .events
            .iter()
            .any(|event| event.text == "the same in short")
    );
}

#[test]
fn the_first_sentence_says_what_matters_most() {
    let leak = report(live()).conclusion;
    for part in [
        "A leak: anonymous memory grows by 60.0M/h (58.0M to 62.0M)",
        "97 % of it by python3 (pid 31001)",
        "in leak < serve < main",
        "it reaches its own limit of 512M in 4h52m (4h26m or more)",
    ] {
        assert!(leak.contains(part), "{part}: {leak}");
    }
    let oom = report(stored()).conclusion;
    assert!(oom.contains("were killed as a group"), "{oom}");
    assert!(
        oom.contains("grew from 180M to 512M in 4m55s, 97 % of it by python3"),
        "{oom}"
    );
    let mut calm = live();
    calm.incidents.clear();
    if let Some(details) = &mut calm.details {
        details.leak = None;
    }
    let calm = report(calm).conclusion;
    assert!(
        calm.starts_with("Whether it leaks is not judged; its usage is 220M"),
        "{calm}"
    );
}

#[test]
fn a_healthy_verdict_does_not_hide_growth_of_the_last_minutes() {
    let told = |state| {
        let mut facts = live();
        facts.incidents.clear();
        facts.details.as_mut().unwrap().leak.as_mut().unwrap().state = state;
        report(facts).conclusion
    };
    let grew = "its usage is 220M at a limit of 512M and grew by 15.0M over the last 15m";
    assert_eq!(
        told(crate::analysis::State::Healthy),
        format!("No leak is told so far; {grew}, and no incident is known.")
    );
    assert_eq!(
        told(crate::analysis::State::Unknown),
        format!("Too little was seen to judge whether it leaks; {grew}, and no incident is known.")
    );
}

#[test]
fn kills_that_were_missed_are_named_where_no_cgroup_is() {
    let mut facts = stored();
    let missed = &mut facts.incidents[0];
    missed.kind = Kind::MissedKills;
    missed.charged = None;
    missed.victims.clear();
    missed.kernel_counts.missed = Some(3);
    assert_eq!(
        report(facts.clone()).name,
        "3 OOM kills that memtrace missed"
    );
    facts.incidents[0].kind = Kind::KernelOom;
    assert_eq!(report(facts).name, "(cgroup unknown)");
}

#[test]
fn a_sentence_is_not_followed_by_a_semicolon() {
    let text = ticket(stored());
    assert!(!text.contains(".;"), "{text}");
    assert!(text.contains("512M of 512M used in /kubepods"), "{text}");
}

#[test]
fn nothing_before_since_is_told() {
    let mut facts = live();
    facts.since = Some(facts.made - SignedDuration::from_mins(25));
    let since = facts.since.unwrap();
    let report = report(facts);
    assert!(report.incidents.is_empty());
    assert!(report.events.iter().all(|event| event.time >= since));
    assert!(!report.events.is_empty());
    let points = report.graphs.iter().flat_map(|graph| &graph.points);
    assert!(points.clone().count() > 10);
    assert!(points.clone().all(|point| point.time >= since));
}

#[test]
fn the_incident_that_is_asked_for_is_told_whatever_since_is() {
    for mut facts in [stored(), live()] {
        let id = facts.incidents[0].id.clone();
        facts.asked = Some(id.clone());
        facts.since = Some(facts.made - SignedDuration::from_secs(10));
        let report = report(facts);
        let told = &report.conclusion;
        assert!(told.contains("were killed as a group"), "{told}");
        assert_eq!(report.incidents.len(), 1);
        let is_kill = |event: &super::events::Event| {
            event.kind == MarkKind::Oom && event.incident.as_ref() == Some(&id)
        };
        assert!(report.events.iter().any(is_kill));
        let mut graphs = report.graphs.iter();
        assert!(graphs.any(|graph| graph.title.starts_with("What led up to it")));
        for one in &report.advice {
            assert!(!one.text.contains("othing was killed"), "{}", one.text);
        }
    }
}

#[test]
fn the_incident_that_is_asked_for_is_told_however_many_came_after_it() {
    let mut facts = stored();
    let first = facts.incidents[0].clone();
    for minutes in 1..=25 {
        let mut again = first.clone();
        again.id = format!("again-{minutes}");
        again.time = first.time + SignedDuration::from_mins(minutes);
        facts.incidents.push(again);
    }
    let report = report(facts);
    assert_eq!(report.incidents.len(), 20);
    assert_eq!(report.incidents_left_out, 6);
    assert_eq!(report.incidents[0].id, first.id);
}

#[test]
fn incidents_before_since_are_not_denied() {
    let mut facts = live();
    facts.details.as_mut().unwrap().leak = None;
    facts.since = Some(facts.made - SignedDuration::from_secs(10));
    let told = report(facts.clone()).conclusion;
    let ending =
        "and no incident is known since 2026-11-21T08:42:16Z: 1 incident before that is not told.";
    assert!(told.ends_with(ending), "{told}");
    facts.details = None;
    facts.incidents.push(facts.incidents[0].clone());
    assert_eq!(
        report(facts.clone()).conclusion,
        "Nothing is known of it since 2026-11-21T08:42:16Z: 2 incidents before that are not told."
    );
    facts.incidents.clear();
    assert_eq!(report(facts).conclusion, "Nothing is known of it.");
}

#[test]
fn times_are_in_the_zone_that_is_asked_for() {
    let page = page(live());
    assert!(page.contains("2026-11-21T07:42:26Z"));
    assert!(!page.contains("+00:00"));
    assert!(ticket(live()).contains("Made by memtrace"));
}

#[test]
fn the_code_of_another_life_of_the_container_is_not_told() {
    for mut facts in [live(), stored()] {
        assert_eq!(report(facts.clone()).stacks.len(), 1);
        for incident in &mut facts.incidents {
            incident.evidence.stacks[0].process.pid = 5;
        }
        if let Some(details) = &mut facts.details {
            details.leak.as_mut().unwrap().stacks[0].process.pid = 5;
            details.processes.push(crate::api::records::ProcessRow {
                pid: 31001,
                comm: None,
                rss_bytes: None,
                rss_anon_bytes: None,
                growth_bytes_per_second: None,
            });
        }
        assert!(report(facts).stacks.is_empty());
    }
}
