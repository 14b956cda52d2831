//! A picture of judged series: one self-contained SVG, a panel a series, for screen and paper.
//!
//! Owns layout and drawing. Must not judge. Texts are untrusted and escaped; the size is bounded by
//! pixels and panels, not by the number of samples.

mod axis;
pub mod markup;
mod panel;
mod trace;

#[cfg(test)]
mod tests;

use crate::analysis::State;
use markup::Svg;

/// Panels that a picture has room for.
pub const MOST_PANELS: usize = 40;

const WIDTH: f64 = 1000.0;
const TOP: f64 = 56.0;
const PANEL_HEIGHT: f64 = 270.0;

/// What the times are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// Milliseconds since 1970, shown in UTC.
    Wall,
    /// Milliseconds since 1970, shown so many seconds east of UTC.
    Offset(i32),
    /// Milliseconds since whatever, shown as lengths.
    Seconds,
}

/// A series and what was said of it. Times are in milliseconds and rise.
#[derive(Debug, Clone)]
pub struct Panel {
    /// Name of the series.
    pub title: String,
    /// The verdict in a line.
    pub subtitle: String,
    /// The first time of the axis.
    pub from_ms: i64,
    /// The last time of the axis.
    pub to_ms: i64,
    /// Time and bytes. A value that is not finite is a gap.
    pub points: Vec<(i64, f64)>,
    /// Longest time between two points that a line joins; `None`: a few times the usual one.
    pub longest_step_ms: Option<i64>,
    /// Length of the blocks whose minima are the floor; `None`: it is not drawn.
    pub floor_block_ms: Option<i64>,
    /// From when on, and the limit in bytes; `None` is none.
    pub limits: Vec<(i64, Option<f64>)>,
    /// The line through the floors.
    pub fit: Option<Fit>,
    /// Since when it grows.
    pub onset: Option<Onset>,
    /// Verdicts.
    pub bands: Vec<Band>,
    /// What happened, in order of time.
    pub marks: Vec<Mark>,
}

/// A fitted line.
#[derive(Debug, Clone, Copy)]
pub struct Fit {
    pub from_ms: i64,
    pub to_ms: i64,
    /// Where it ends.
    pub end_bytes: f64,
    pub bytes_per_hour: f64,
}

/// The time of a change point.
#[derive(Debug, Clone, Copy)]
pub struct Onset {
    pub time_ms: i64,
    /// Half width of its interval.
    pub uncertainty_ms: i64,
}

/// A verdict that holds until the next one.
#[derive(Debug, Clone, Copy)]
pub struct Band {
    pub from_ms: i64,
    pub state: State,
}

/// Something that happened, as a line at its time with its number above.
#[derive(Debug, Clone)]
pub struct Mark {
    pub time_ms: i64,
    /// What it is called beside the picture.
    pub number: usize,
    /// Drawn stronger than others.
    pub is_kill: bool,
    /// Shows under the pointer.
    pub hint: String,
}

/// The picture. At most [`MOST_PANELS`] panels are drawn; `note` stands at the top.
pub fn svg(
    panels: impl ExactSizeIterator<Item = Panel>,
    times: Times,
    note: Option<&str>,
) -> String {
    let count = panels.len().min(MOST_PANELS);
    let height = TOP + PANEL_HEIGHT * count.max(1) as f64;
    let mut svg = Svg::new(WIDTH, height);
    legend(&mut svg);
    if let Some(note) = note {
        svg.text(WIDTH - 16.0, 46.0, "small end", note);
    }
    for (at, panel) in panels.take(MOST_PANELS).enumerate() {
        panel::draw(&mut svg, &panel, times, TOP + PANEL_HEIGHT * at as f64);
    }
    svg.finish()
}

/// One panel without legend and without style, to stand in a page that has a style for its classes below
/// `plot`. `label` says what it shows where it cannot be seen.
pub fn figure(panel: &Panel, times: Times, label: &str) -> String {
    let mut svg = Svg::inline(WIDTH, PANEL_HEIGHT, "plot", label);
    panel::draw(&mut svg, panel, times, 0.0);
    svg.finish()
}

fn legend(svg: &mut Svg) {
    let mut x = 16.0;
    for (class, name) in [
        ("series", "series"),
        ("floor", "floor"),
        ("fit", "fit since the change point"),
        ("limit", "limit"),
        ("onset", "change point"),
    ] {
        svg.path(class, &format!("M{x:.0} 18h22"));
        svg.text(x + 28.0, 22.0, "", name);
        x += 46.0 + 6.6 * name.len() as f64;
    }
    let mut x = 16.0;
    for state in [
        State::Unknown,
        State::Healthy,
        State::Warming,
        State::Reclaimed,
        State::Growing,
        State::Suspected,
        State::Confirmed,
    ] {
        svg.rectangle(state.name(), [x, 36.0, 14.0, 10.0], None);
        svg.text(x + 19.0, 45.0, "", state.name());
        x += 36.0 + 6.6 * state.name().len() as f64;
    }
}
