//! One panel: a series in its frame.

use std::fmt::Write as _;

use super::{
    Fit, Mark, Panel, Times, WIDTH,
    axis::{Scale, byte_ticks, time_ticks},
    markup::Svg,
    trace,
};
use crate::size;

const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const HEAD: f64 = 38.0;
const PLOT_HEIGHT: f64 = 180.0;
const BAND_HEIGHT: f64 = 10.0;
const MOST_TITLE_CHARS: usize = 120;
const MOST_SUBTITLE_CHARS: usize = 140;
/// Bands drawn; a verdict that changes more often is not readable anyway.
const MOST_BANDS: usize = 2000;
const MOST_STEPS: usize = 2000;
/// Marks drawn; more are not told apart.
const MOST_MARKS: usize = 200;
const HOUR_MS: f64 = 3_600_000.0;

/// Draws `panel` with its upper edge at `top`.
pub fn draw(svg: &mut Svg, panel: &Panel, times: Times, top: f64) {
    let (high, low) = (top + HEAD, top + HEAD + PLOT_HEIGHT);
    let from = panel.from_ms as f64;
    let x = Scale {
        low: from,
        high: (panel.to_ms as f64).max(from + 1.0),
        start: LEFT,
        end: WIDTH - RIGHT,
    };
    let range = Range::of(panel);
    let y = Scale {
        low: range.low,
        high: range.high,
        start: low,
        end: high,
    };
    svg.text(
        16.0,
        top + 16.0,
        "title",
        &cut(&panel.title, MOST_TITLE_CHARS),
    );
    svg.text(
        16.0,
        top + 31.0,
        "",
        &cut(&panel.subtitle, MOST_SUBTITLE_CHARS),
    );
    axes(svg, panel, times, x, y);
    onset(svg, panel, x, [high, low]);
    let longest = panel.longest_step_ms;
    svg.path("series", &trace::series(&panel.points, longest, x, y));
    if let Some(block_ms) = panel.floor_block_ms {
        svg.path("floor", &trace::floor(&panel.points, block_ms, x, y));
    }
    svg.path("limit", &limit(panel, &range, x, y));
    if let Some(bytes) = range.limit_above {
        let text = format!("limit {}, above", size::bytes(bytes as u64));
        // Where there are marks, their numbers stand in the second line.
        let line = if panel.marks.is_empty() { 31.0 } else { 16.0 };
        svg.text(x.end, top + line, "end", &text);
    }
    svg.path(
        "fit",
        &panel.fit.map_or_else(String::new, |fit| line(fit, x, y)),
    );
    marks(svg, &panel.marks, x, [high, low]);
    bands(svg, panel, x, low + 3.0);
    svg.rectangle("frame", [x.start, high, x.end - x.start, PLOT_HEIGHT], None);
    if panel.points.is_empty() {
        svg.text(
            (x.start + x.end) / 2.0,
            (high + low) / 2.0,
            "middle",
            "no value of this signal",
        );
    }
}

/// The bytes that the panel spans.
struct Range {
    low: f64,
    high: f64,
    /// The least limit that is too far above to be drawn.
    limit_above: Option<f64>,
}

impl Range {
    fn of(panel: &Panel) -> Range {
        let values = panel
            .points
            .iter()
            .map(|(_, value)| *value)
            .filter(|value| value.is_finite());
        let (least, most) = values.fold((f64::MAX, 0f64), |(least, most), value| {
            (least.min(value), most.max(value))
        });
        let least = least.min(most);
        let limits = || panel.limits.iter().filter_map(|(_, limit)| *limit);
        let drawn = limits()
            .filter(|limit| *limit <= 2.5 * most)
            .fold(0.0, f64::max);
        let top = most.max(drawn).max(4096.0);
        let low = if least > 0.6 * top {
            least - (top - least) * 0.2
        } else {
            0.0
        };
        let high = (top + (top - low) * 0.06).max(low + 4096.0);
        let above = limits().filter(|limit| *limit > high);
        Range {
            low,
            high,
            limit_above: above.min_by(f64::total_cmp),
        }
    }
}

fn axes(svg: &mut Svg, panel: &Panel, times: Times, x: Scale, y: Scale) {
    for (value, label) in byte_ticks(y.low, y.high, 6) {
        let at = y.at(value);
        svg.path("grid", &format!("M{:.0} {at:.1}H{:.0}", x.start, x.end));
        svg.text(x.start - 6.0, at + 4.0, "end", &label);
    }
    for (time, label) in time_ticks(panel.from_ms, panel.to_ms, 10, times) {
        let at = x.at(time as f64);
        svg.path("grid", &format!("M{at:.1} {:.1}V{:.1}", y.end, y.start));
        // At the edges the middle of a label would be outside.
        let class = if at > x.end - 30.0 { "end" } else { "middle" };
        svg.text(at, y.start + BAND_HEIGHT + 18.0, class, &label);
    }
}

fn onset(svg: &mut Svg, panel: &Panel, x: Scale, [high, low]: [f64; 2]) {
    let Some(onset) = panel.onset else {
        return;
    };
    let at = |ms: i64| x.at(ms as f64);
    let early = at(onset.time_ms.saturating_sub(onset.uncertainty_ms));
    let late = at(onset.time_ms.saturating_add(onset.uncertainty_ms));
    svg.rectangle("doubt", [early, high, late - early, low - high], None);
    svg.path(
        "onset",
        &format!("M{:.1} {high:.1}V{low:.1}", at(onset.time_ms)),
    );
}

/// Each line, and the numbers that find room; those that do not follow the one before.
fn marks(svg: &mut Svg, marks: &[Mark], x: Scale, [high, low]: [f64; 2]) {
    let mut free_from = f64::MIN;
    let inside = |mark: &&Mark| (x.low..=x.high).contains(&(mark.time_ms as f64));
    for mark in marks.iter().filter(inside).take(MOST_MARKS) {
        let at = x.at(mark.time_ms as f64);
        let class = if mark.is_kill { "mark kill" } else { "mark" };
        let name = mark.number.to_string();
        let half = 4.0 * name.len() as f64;
        if at - half >= free_from {
            svg.flag(class, [at, high, low], &name, &mark.hint);
            free_from = at + half;
        } else {
            svg.flag(class, [at, high, low], "", &mark.hint);
        }
    }
}

fn limit(panel: &Panel, range: &Range, x: Scale, y: Scale) -> String {
    let mut path = String::new();
    let ends = panel
        .limits
        .iter()
        .skip(1)
        .map(|(from, _)| *from)
        .chain([panel.to_ms]);
    for ((from, limit), to) in panel.limits.iter().zip(ends).take(MOST_STEPS) {
        if let Some(limit) = limit.filter(|limit| *limit <= range.high) {
            let (from, to) = (x.at(*from as f64), x.at(to as f64));
            let _ = write!(path, "M{from:.1} {:.1}H{to:.1}", y.at(limit));
        }
    }
    path
}

/// The part of the fitted line that is inside the frame.
fn line(fit: Fit, x: Scale, y: Scale) -> String {
    let slope = fit.bytes_per_hour / HOUR_MS;
    let end = fit.to_ms as f64;
    let value = |time: f64| fit.end_bytes - slope * (end - time);
    let mut from = (fit.from_ms as f64).max(x.low);
    let mut to = end.min(x.high);
    for edge in [y.low, y.high] {
        let crossing = end - (fit.end_bytes - edge) / slope;
        if crossing.is_finite() && crossing > from && crossing < to {
            // On which side of the crossing it leaves.
            if (value(from) < y.low) || (value(from) > y.high) {
                from = crossing;
            } else {
                to = crossing;
            }
        }
    }
    let inside = |time: f64| (y.low - 1.0..=y.high + 1.0).contains(&value(time));
    if !slope.is_finite() || from > to || !inside(from) || !inside(to) {
        return String::new();
    }
    let [x1, y1, x2, y2] = [x.at(from), y.at(value(from)), x.at(to), y.at(value(to))];
    format!("M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}")
}

fn bands(svg: &mut Svg, panel: &Panel, x: Scale, top: f64) {
    let ends = panel
        .bands
        .iter()
        .skip(1)
        .map(|band| band.from_ms)
        .chain([panel.to_ms]);
    for (band, to) in panel.bands.iter().zip(ends).take(MOST_BANDS) {
        let (from, to) = (x.at(band.from_ms as f64), x.at(to as f64));
        let name = band.state.name();
        svg.rectangle(
            name,
            [from, top, (to - from).max(0.5), BAND_HEIGHT],
            Some(name),
        );
    }
}

fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars()
        .take(most.saturating_sub(1))
        .chain(['…'])
        .collect()
}
