use std::time::{Duration, Instant};

use super::*;
use crate::export::profile::fixture::{self, profile, stack};

fn drawn(write: impl Fn(&mut Vec<u8>) -> io::Result<()>) -> String {
    let mut out = Vec::new();
    write(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn parsed(svg: &str) -> roxmltree::Document<'_> {
    let options = roxmltree::ParsingOptions {
        allow_dtd: true,
        ..Default::default()
    };
    roxmltree::Document::parse_with_options(svg, options).unwrap_or_else(|e| panic!("{e}: {svg}"))
}

/// What shows under the pointer, and the colour, of each frame.
fn frames(svg: &str) -> Vec<(String, String)> {
    let document = parsed(svg);
    let groups = document
        .descendants()
        .filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", "g")));
    let text = |node: roxmltree::Node, name| {
        let mut of = node.children().filter(move |n| n.tag_name().name() == name);
        of.next().map(|n| {
            let fill = n.attribute("fill");
            fill.or(n.text()).unwrap_or_default().to_owned()
        })
    };
    groups
        .filter_map(|group| Some((text(group, "title")?, text(group, "rect")?)))
        .collect()
}

fn fill(svg: &str, name: &str) -> String {
    let frames = frames(svg);
    let start = format!("{name} (");
    let of = frames.iter().find(|(title, _)| title.starts_with(&start));
    of.unwrap_or_else(|| panic!("{name} in {frames:?}"))
        .1
        .clone()
}

#[test]
fn title_and_subtitle_say_whose_when_how_much_and_how_exact() {
    let profile = fixture::leak_and_cache();
    let svg = drawn(|out| write(&profile, View::Resident, out));
    let document = parsed(&svg);
    let text: String = document.descendants().filter_map(|n| n.text()).collect();
    for said in [
        "/kubepods/app (resident)",
        "2026-01-02 03:04:05Z to 2026-01-02 03:05:05Z (1m00s)",
        "264K ±14.3K resident",
        "1 in 64 pages sampled",
        "3 samples lost",
    ] {
        assert!(text.contains(said), "{said} in {text}");
    }
}

#[test]
fn a_frame_holds_what_is_above_it() {
    let profile = fixture::leak_and_cache();
    let svg = drawn(|out| write(&profile, View::Resident, out));
    let titles: Vec<String> = frames(&svg).into_iter().map(|(title, _)| title).collect();
    for said in [
        "all (270,000 bytes, 100%)",
        "app-7 (180,000 bytes, 66.67%)",
        "leak (80,000 bytes, 29.63%)",
    ] {
        assert!(titles.iter().any(|title| title == said), "{titles:?}");
    }
}

#[test]
fn siblings_whose_names_begin_alike_are_not_drawn_in_pieces() {
    let stacks = [
        ["foo", "main"].as_slice(),
        &["foo(int)", "main"],
        &["bar", "foo", "main"],
    ];
    let stacks = stacks.map(|names| stack(1, names, 10.0));
    let svg = drawn(|out| write(&profile(stacks.to_vec()), View::Resident, out));
    let named = |name: &str| {
        let frames = frames(&svg);
        frames.iter().filter(|(t, _)| t.starts_with(name)).count()
    };
    assert_eq!(named("foo ("), 1);
    assert_eq!(named("foo(int) ("), 1);
}

#[test]
fn what_grew_is_red_down_to_its_root_and_what_shrank_is_blue() {
    let mut grew = stack(1, &["leak", "serve"], 50_000.0);
    grew.growth.bytes = 40_000.0;
    let mut shrank = stack(2, &["cache"], 50_000.0);
    shrank.growth.bytes = -20_000.0;
    let profile = profile(vec![grew, shrank]);
    let svg = drawn(|out| write_growth(&profile, out));
    assert_eq!(fill(&svg, "leak"), "rgb(255,100,100)");
    assert_eq!(fill(&svg, "serve"), "rgb(255,100,100)");
    assert_eq!(fill(&svg, "cache"), "rgb(175,175,255)");
    assert!(svg.contains("leak (50,000 bytes, 50.00%; +40.00%)"));
    assert!(svg.contains("cache (50,000 bytes, 50.00%; -20.00%)"));
}

#[test]
fn hostile_names_are_only_text() {
    let profile = fixture::hostile();
    for svg in [
        drawn(|out| write(&profile, View::Resident, out)),
        drawn(|out| write_growth(&profile, out)),
    ] {
        let document = parsed(&svg);
        let scripts = document
            .descendants()
            .filter(|n| n.tag_name().name() == "script");
        assert_eq!(scripts.count(), 1, "inferno's own");
        assert!(frames(&svg).iter().any(|(t, _)| t.starts_with("<script>")));
        assert!(!svg.chars().any(|c| c.is_control() && c != '\n'));
    }
}

#[test]
fn the_picture_needs_nothing_from_elsewhere() {
    let svg = drawn(|out| write(&fixture::leak_and_cache(), View::Resident, out));
    let document = parsed(&svg);
    for node in document.descendants() {
        for attribute in node.attributes() {
            let outside = ["href", "src"].contains(&attribute.name());
            assert!(!outside, "{attribute:?}");
            assert!(!attribute.value().contains("url(h"), "{attribute:?}");
        }
    }
    assert!(!svg.contains("@import") && !svg.contains("fetch("));
}

#[test]
fn a_profile_of_nothing_says_so() {
    let empty = profile(Vec::new());
    let gone = profile(vec![stack(1, &["<f>"], 0.0)]);
    for svg in [
        drawn(|out| write(&empty, View::Resident, out)),
        drawn(|out| write(&gone, View::Mapped, out)),
        drawn(|out| write(&gone, View::Growth, out)),
        drawn(|out| write_growth(&gone, out)),
    ] {
        assert!(svg.contains("No sampled memory to show."), "{svg}");
        parsed(&svg);
    }
}

#[test]
fn ten_thousand_deep_stacks_make_a_picture_of_bounded_size() {
    let profile = fixture::many(10_000, 100);
    let begun = Instant::now();
    let svg = drawn(|out| write(&profile, View::Resident, out));
    assert!(begun.elapsed() < Duration::from_secs(60));
    assert!(frames(&svg).len() <= MOST_FRAMES + 1);
    assert!(svg.len() < 16 << 20, "{}", svg.len());
}
