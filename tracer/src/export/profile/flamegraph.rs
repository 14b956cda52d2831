//! Flame graphs: one self-contained SVG with search and zoom, drawn by inferno.
//!
//! Owns what is drawn and what its title says. Frames too narrow to see, and all above
//! [`MOST_FRAMES`] by weight, are left out; their bytes stay in the frame below.

use std::io::{self, Write};

use inferno::flamegraph::{
    self, Options, Palette,
    color::{BackgroundColor, BasicPalette},
};

use super::calltree::{self, Bounds, Node};
use super::paths::{Path, Paths, Style};
use super::summary::{self, whole};
use super::{View, sum};
use crate::export::plot::markup::Svg;
use crate::stacks::profile::Profile;

/// Frames that are drawn at most.
const MOST_FRAMES: usize = 20_000;
/// Below this share of the total a frame is narrower than a line.
const LEAST_SHARE: f64 = 0.000_2;

/// Bytes beyond which inferno's shades would overflow; more than an address space has.
const MOST_CHANGE: i64 = 1 << 53;

const BOUNDS: Bounds = Bounds {
    least_share: LEAST_SHARE,
    most_cost: MOST_FRAMES,
    cost: |frames| frames,
    most_depth: usize::MAX,
};

/// A flame graph of `view`. If there is nothing to draw, the picture says so.
pub fn write(profile: &Profile, view: View, out: impl Write) -> io::Result<()> {
    let paths = Paths::new(profile, view.kind(), Style::Folded);
    let bytes = |path: &Path| sum(path.stacks.iter().map(|stack| view.of(stack))).bytes;
    let weights: Vec<f64> = paths.all().iter().map(bytes).collect();
    let nodes = calltree::heaviest(&paths, &weights, BOUNDS);
    let mut lines = Vec::new();
    for node in &nodes {
        let own = whole(own_bytes(node, &nodes));
        if own > 0 {
            lines.push((path_of(&paths, node, node.end), format!("{own}")));
        }
    }
    let title = format!("{} ({})", summary::scope(profile), view.name());
    let palette = match view {
        View::Growth => BasicPalette::Hot,
        View::Resident | View::Touched | View::Mapped => BasicPalette::Mem,
    };
    let options = options(title, profile, view, Palette::Basic(palette));
    draw(&paths, lines, options, profile, out)
}

/// What grew (red) and shrank (blue) since the profile's base. Widths are resident memory now: what was
/// given back wholly has none.
pub fn write_growth(profile: &Profile, out: impl Write) -> io::Result<()> {
    let paths = &Paths::new(profile, View::Resident.kind(), Style::Folded);
    let title = format!(
        "{} (red grew, blue shrank since {})",
        summary::scope(profile),
        summary::second(profile.base)
    );
    let (mut weights, mut changes) = (Vec::new(), Vec::new());
    for path in paths.all() {
        let stacks = || path.stacks.iter();
        weights.push(sum(stacks().map(|stack| stack.resident)).bytes);
        changes.push(stacks().map(|stack| stack.growth.bytes).sum::<f64>());
    }
    let nodes = calltree::heaviest(paths, &weights, BOUNDS);
    let mut lines = Vec::new();
    for node in &nodes {
        let changes = changes.get(node.paths.clone()).unwrap_or_default();
        let change = changes.iter().sum::<f64>().round();
        let change = (change as i64).clamp(-MOST_CHANGE, MOST_CHANGE);
        for depth in node.depth + 1..=node.end {
            // inferno colours the last frame of a line, by the second number less the first, which it
            // makes signed. A line without width colours a frame by all that is above it.
            let colour = format!("{} 0", -change as u64);
            lines.push((path_of(paths, node, depth), colour));
        }
        let own = whole(own_bytes(node, &nodes));
        if own > 0 {
            lines.push((path_of(paths, node, node.end), format!("{own} {own}")));
        }
    }
    let palette = Palette::default();
    let mut options = options(title, profile, View::Resident, palette);
    options.bgcolors = Some(BackgroundColor::Grey);
    let change = summary::amount(profile, View::Growth);
    options.subtitle = options.subtitle.map(|text| format!("{change} · {text}"));
    draw(paths, lines, options, profile, out)
}

/// What a node weighs beside the children that are drawn.
fn own_bytes(node: &Node, nodes: &[Node]) -> f64 {
    let children = node.children.iter().filter_map(|child| nodes.get(*child));
    let children: f64 = children.map(|child| whole(child.weight) as f64).sum();
    (whole(node.weight) as f64 - children).max(0.0)
}

/// The first frames of a node's paths.
fn path_of<'p>(paths: &'p Paths, node: &Node, depth: usize) -> &'p [u32] {
    let path = paths.all().get(node.paths.start);
    path.and_then(|path| path.steps.get(..depth))
        .unwrap_or_default()
}

fn options<'o>(title: String, profile: &Profile, view: View, palette: Palette) -> Options<'o> {
    let (count_name, factor) = unit(super::total(profile, view).bytes);
    let mut options = Options::default();
    options.title = title;
    options.subtitle = Some(subtitle(profile, view));
    options.count_name = count_name.to_owned();
    options.factor = factor;
    options.colors = palette;
    options.deterministic = true;
    options.min_width = 0.0;
    // The lines are in order already: by frames, which is not the order of their text.
    options.flame_chart = true;
    options
}

/// Inferno counts whole numbers of one unit.
fn unit(total_bytes: f64) -> (&'static str, f64) {
    match total_bytes {
        bytes if bytes < f64::from(10 << 20) => ("bytes", 1.0),
        bytes if bytes < 10.0 * f64::from(1 << 30) => ("KiB", 1.0 / 1024.0),
        _ => ("MiB", 1.0 / f64::from(1 << 20)),
    }
}

fn subtitle(profile: &Profile, view: View) -> String {
    [
        summary::span(profile),
        summary::amount(profile, view),
        summary::sampling(profile),
        summary::lost(profile),
    ]
    .join(" · ")
}

fn draw(
    paths: &Paths,
    mut lines: Vec<(&[u32], String)>,
    mut options: Options,
    profile: &Profile,
    mut out: impl Write,
) -> io::Result<()> {
    if lines.iter().all(|(_, weight)| weight.ends_with(" 0")) {
        return out.write_all(nothing(&options.title, profile).as_bytes());
    }
    lines.sort_by_key(|(steps, _)| *steps);
    let lines: Vec<String> = lines
        .iter()
        .map(|(steps, weight)| format!("{} {weight}", paths.joined(steps)))
        .collect();
    // It turns a chart around.
    let lines = lines.iter().rev().map(String::as_str);
    flamegraph::from_lines(&mut options, lines, out)
}

/// A picture that says that there is none.
fn nothing(title: &str, profile: &Profile) -> String {
    let mut svg = Svg::new(1200.0, 100.0);
    svg.text(600.0, 28.0, "title middle", title);
    let said = "No sampled memory to show.";
    svg.text(600.0, 54.0, "middle", said);
    let subtitle = subtitle(profile, View::Resident);
    svg.text(600.0, 78.0, "small middle", &subtitle);
    svg.finish()
}

#[cfg(test)]
#[path = "flamegraph_tests.rs"]
mod tests;
