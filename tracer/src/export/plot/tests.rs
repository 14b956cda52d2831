use roxmltree::Document;

use super::*;

const HOUR: i64 = 3_600_000;
const MIB: f64 = 1048576.0;

fn leak(points: i64, step_ms: i64) -> Panel {
    let from_ms = 1_700_000_000_000;
    let to_ms = from_ms + points * step_ms;
    Panel {
        title: "web".into(),
        subtitle: "anon: confirmed".into(),
        from_ms,
        to_ms,
        points: (0..points)
            .map(|at| {
                (
                    from_ms + at * step_ms,
                    100.0 * MIB + at as f64 * 1000.0 + (at % 7) as f64 * MIB,
                )
            })
            .collect(),
        longest_step_ms: None,
        floor_block_ms: Some(60_000),
        limits: vec![(from_ms, None), (from_ms + 10, Some(200.0 * MIB))],
        fit: Some(Fit {
            from_ms,
            to_ms,
            end_bytes: 150.0 * MIB,
            bytes_per_hour: MIB,
        }),
        onset: Some(Onset {
            time_ms: from_ms + HOUR,
            uncertainty_ms: HOUR / 4,
        }),
        bands: vec![
            Band {
                from_ms,
                state: State::Healthy,
            },
            Band {
                from_ms: from_ms + 2 * HOUR,
                state: State::Confirmed,
            },
        ],
        marks: Vec::new(),
    }
}

fn drawn(panels: Vec<Panel>, times: Times) -> String {
    svg(panels.into_iter(), times, None)
}

fn count(document: &Document, class: &str) -> usize {
    document
        .descendants()
        .filter(|node| node.attribute("class") == Some(class))
        .count()
}

/// Every coordinate is a number inside the picture.
fn assert_inside(document: &Document) {
    let root = document.root_element();
    let height: f64 = root.attribute("height").unwrap().parse().unwrap();
    for node in document.descendants() {
        for name in ["x", "y", "width", "height"] {
            if let Some(value) = node.attribute(name).filter(|value| !value.ends_with('%')) {
                let value: f64 = value.parse().unwrap();
                assert!((0.0..=height.max(WIDTH)).contains(&value), "{name} {value}");
            }
        }
        for number in node
            .attribute("d")
            .unwrap_or_default()
            .split(|c: char| c.is_alphabetic() || c == ' ')
        {
            let number: f64 = if number.is_empty() {
                0.0
            } else {
                number.parse().unwrap()
            };
            assert!((0.0..=height.max(WIDTH)).contains(&number), "{number}");
        }
    }
}

#[test]
fn a_leak_shows_series_floor_fit_limit_change_point_and_verdicts() {
    let text = drawn(vec![leak(1000, 60_000)], Times::Wall);
    let document = Document::parse(&text).unwrap();
    // One in the legend, one in the panel.
    for class in [
        "series",
        "floor",
        "fit",
        "limit",
        "onset",
        "healthy",
        "confirmed",
    ] {
        assert_eq!(count(&document, class), 2, "{class}");
    }
    assert_eq!(count(&document, "doubt"), 1);
    assert_inside(&document);
    assert!(
        text.contains(">128M<") && text.contains(">11-15 02:00<"),
        "{text}"
    );
}

#[test]
fn names_cannot_break_out_of_the_document() {
    let panel = Panel {
        title: "</text><script>alert(1)</script>&amp;\"'\0\x1b\u{ffff}]]>".into(),
        subtitle: "&".repeat(1000),
        ..leak(10, 60_000)
    };
    let text = svg([panel].into_iter(), Times::Wall, Some("<b>"));
    let document = Document::parse(&text).unwrap();
    assert!(!text.contains("<script") && !text.contains("<b>"), "{text}");
    let title = document
        .descendants()
        .find(|node| node.attribute("class") == Some("title"));
    assert!(
        title
            .unwrap()
            .text()
            .unwrap()
            .starts_with("</text><script>")
    );
}

#[test]
fn a_million_samples_stay_small() {
    let text = drawn(vec![leak(1_000_000, 1000)], Times::Wall);
    assert!(text.len() < 100_000, "{}", text.len());
    assert_inside(&Document::parse(&text).unwrap());
}

#[test]
fn a_spike_between_pixels_is_seen() {
    let mut panel = leak(200_000, 1000);
    panel.points.iter_mut().for_each(|(_, value)| *value = MIB);
    panel.points[77_777].1 = 300.0 * MIB;
    let y = axis::Scale {
        low: 0.0,
        high: 300.0 * MIB,
        start: 300.0,
        end: 0.0,
    };
    let x = axis::Scale {
        low: panel.from_ms as f64,
        high: panel.to_ms as f64,
        start: 0.0,
        end: 900.0,
    };
    assert!(trace::series(&panel.points, None, x, y).contains("V0.0"));
}

#[test]
fn gaps_break_the_line() {
    let mut panel = leak(100, 60_000);
    panel.points.drain(40..60);
    let x = axis::Scale {
        low: panel.from_ms as f64,
        high: panel.to_ms as f64,
        start: 0.0,
        end: 900.0,
    };
    let y = axis::Scale {
        low: 0.0,
        high: 300.0 * MIB,
        start: 300.0,
        end: 0.0,
    };
    let path = trace::series(&panel.points, None, x, y);
    assert_eq!(path.matches('M').count(), 2, "{path}");
    let floor = trace::floor(&panel.points, 600_000, x, y);
    assert_eq!(floor.matches('M').count(), 2, "{floor}");
}

#[test]
fn nothing_and_extremes_are_drawn_without_a_panic() {
    let empty = Panel {
        points: Vec::new(),
        limits: Vec::new(),
        fit: None,
        onset: None,
        bands: Vec::new(),
        ..leak(1, 1)
    };
    let one = Panel {
        to_ms: 1_700_000_000_000,
        ..leak(1, 1)
    };
    let wild = Panel {
        from_ms: i64::MIN,
        to_ms: i64::MAX,
        points: vec![
            (i64::MIN, f64::NAN),
            (0, f64::MAX),
            (1, -1.0),
            (i64::MAX, f64::INFINITY),
        ],
        floor_block_ms: Some(i64::MIN),
        limits: vec![(i64::MIN, Some(f64::INFINITY)), (0, Some(0.0))],
        fit: Some(Fit {
            from_ms: i64::MIN,
            to_ms: i64::MAX,
            end_bytes: f64::NAN,
            bytes_per_hour: f64::INFINITY,
        }),
        onset: Some(Onset {
            time_ms: i64::MAX,
            uncertainty_ms: i64::MAX,
        }),
        bands: vec![Band {
            from_ms: i64::MAX,
            state: State::Growing,
        }],
        ..leak(1, 1)
    };
    let big = Panel {
        points: vec![(1_700_000_000_000, 1.8e19), (1_700_000_000_001, 1.8e19)],
        ..one.clone()
    };
    for times in [Times::Wall, Times::Seconds] {
        let panels = vec![empty.clone(), one.clone(), wild.clone(), big.clone()];
        let text = drawn(panels, times);
        assert_inside(&Document::parse(&text).unwrap());
    }
    assert!(Document::parse(&drawn(Vec::new(), Times::Wall)).is_ok());
}

#[test]
fn panels_are_capped() {
    let text = drawn(vec![leak(5, 1000); MOST_PANELS + 5], Times::Seconds);
    let document = Document::parse(&text).unwrap();
    assert_eq!(count(&document, "title"), MOST_PANELS);
}

#[test]
fn a_limit_far_above_is_told_and_does_not_flatten_the_series() {
    let mut panel = leak(100, 60_000);
    panel.limits = vec![(panel.from_ms, Some(64.0 * 1024.0 * MIB))];
    let text = drawn(vec![panel], Times::Wall);
    assert!(text.contains("limit 64.0G, above"), "{text}");
}

#[test]
fn a_fit_that_leaves_the_frame_is_cut_at_its_edge() {
    let mut panel = leak(600, 60_000);
    panel.fit = panel.fit.map(|fit| Fit {
        end_bytes: 100.0 * MIB,
        bytes_per_hour: 50.0 * MIB,
        ..fit
    });
    let text = drawn(vec![panel], Times::Wall);
    let document = Document::parse(&text).unwrap();
    assert_eq!(count(&document, "fit"), 2);
    assert_inside(&document);
}

#[test]
fn ticks_are_few_and_round() {
    let bytes = axis::byte_ticks(0.0, 500.0 * MIB, 6);
    let labels: Vec<_> = bytes.iter().map(|(_, label)| label.as_str()).collect();
    assert_eq!(labels, ["0B", "128M", "256M", "384M"]);
    let wall =
        |span| axis::time_ticks(1_700_000_000_000, 1_700_000_000_000 + span, 10, Times::Wall);
    assert_eq!(wall(7 * 24 * HOUR)[0].1, "2023-11-15");
    assert_eq!(wall(6 * HOUR)[0].1, "11-14 23:00");
    assert_eq!(wall(60_000)[0].1, "22:13:30");
    let relative = axis::time_ticks(0, 30 * HOUR, 10, Times::Seconds);
    let labels: Vec<_> = relative.iter().map(|(_, label)| label.as_str()).collect();
    assert_eq!(
        labels,
        [
            "0h", "3h", "6h", "9h", "12h", "15h", "18h", "21h", "1d 0h", "1d 3h", "1d 6h"
        ]
    );
    for span in [0, 1, 1000, i64::MAX] {
        assert!(axis::time_ticks(-5, span, 10, Times::Seconds).len() <= 21);
    }
}

#[test]
fn marks_have_numbers_where_there_is_room_and_a_hint_each() {
    let mut panel = leak(1000, 60_000);
    let (from, minute) = (panel.from_ms, 60_000);
    let mark = |at: i64, number| Mark {
        time_ms: from + at * minute,
        number,
        is_kill: number == 3,
        hint: format!("<{number}> \u{1b}"),
    };
    panel.marks = vec![mark(-1, 1), mark(100, 2), mark(101, 3), mark(900, 4)];
    let text = figure(&panel, Times::Offset(3600), "a \"label\"");
    let document = Document::parse(&text).unwrap();
    let root = document.root_element();
    assert_eq!(root.attribute("aria-label"), Some("a \"label\""));
    assert!(!text.contains("<style"));
    let marks = document.descendants().filter(|node| {
        node.attribute("class")
            .is_some_and(|class| class.starts_with("mark"))
    });
    let marks: Vec<(String, bool)> = marks
        .map(|mark| {
            let part = |name| mark.children().find(|child| child.has_tag_name(name));
            let hint = part("title")
                .and_then(|title| title.text())
                .unwrap_or_default();
            (hint.to_owned(), part("text").is_some())
        })
        .collect();
    let expected = [("<2>", true), ("<3>", false), ("<4>", true)];
    assert_eq!(marks.len(), expected.len(), "one before the beginning");
    for ((hint, numbered), (number, is_numbered)) in marks.iter().zip(expected) {
        assert!(
            hint.starts_with(number) && *numbered == is_numbered,
            "{hint}"
        );
    }
}

#[test]
fn a_value_that_is_not_finite_breaks_the_line() {
    let (x, y) = (
        axis::Scale {
            low: 0.0,
            high: 10.0,
            start: 0.0,
            end: 100.0,
        },
        axis::Scale {
            low: 0.0,
            high: 10.0,
            start: 100.0,
            end: 0.0,
        },
    );
    let points = [(0, 1.0), (1, 2.0), (2, f64::NAN), (3, 4.0), (9, 5.0)];
    let path = trace::series(&points, Some(i64::MAX), x, y);
    assert_eq!(path.matches('M').count(), 2, "{path}");
    assert!(trace::series(&[(0, f64::NAN)], None, x, y).is_empty());
}

#[test]
fn ticks_are_round_in_the_zone_that_is_shown() {
    let from = 1_700_000_000_000;
    let ticks = axis::time_ticks(from, from + 24 * HOUR, 10, Times::Offset(19_800));
    for (_, label) in &ticks {
        assert!(label.ends_with(":00"), "{label}");
    }
    // 22:13 in UTC is 03:43 in India.
    assert_eq!(ticks.first().unwrap().1, "11-15 06:00");
    assert_eq!((ticks.first().unwrap().0 + 19_800_000) % (3 * HOUR), 0);
}
