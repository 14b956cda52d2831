//! The history of one cgroup as a graph: usage, the limit that binds it, and what happened.

use ratatui::{
    Frame,
    layout::Rect,
    style::Color,
    symbols::Marker,
    text::Line,
    widgets::canvas::{Canvas, Line as Stroke, Points},
};

use super::look::{Look, Role};
use crate::{
    api::records::MarkKind,
    size,
    top::{details::Curve, text},
};

/// Columns of the scale.
const SCALE: u16 = 8;
/// A limit that is further up is told beside the graph, which would be flat else.
const LIMIT_IN_SIGHT: f64 = 4.0;
/// Room above the highest value.
const HEADROOM: f64 = 1.05;

/// Draws the graph, a line of marks and a line of times.
pub fn draw(frame: &mut Frame<'_>, area: Rect, curve: &Curve, span: (f64, &str), look: Look) {
    let (seconds, name) = span;
    if area.width <= SCALE + 10 || area.height < 4 {
        return;
    }
    let Some(highest) = highest(&curve.usage) else {
        let note = format!("no history in the last {name}");
        let line = Line::styled(note, look.style(Role::Dim));
        frame
            .buffer_mut()
            .set_line(area.x, area.y, &line, area.width);
        return;
    };
    let limit = curve.limit.iter().flatten().map(|(_, value)| *value);
    let limit = limit.reduce(f64::max);
    let shown_limit = limit.filter(|limit| *limit <= highest.max(1.0) * LIMIT_IN_SIGHT);
    let top = highest.max(shown_limit.unwrap_or(0.0)).max(4096.0) * HEADROOM;
    let plot = Rect {
        x: area.x + SCALE,
        width: area.width - SCALE,
        height: area.height - 2,
        ..area
    };
    scale(frame, area, plot, top, shown_limit, look);
    let colour = |role| look.style(role).fg.unwrap_or(Color::Reset);
    let canvas = Canvas::default()
        .x_bounds([-seconds, 0.0])
        .y_bounds([0.0, top])
        .marker(Marker::Dot)
        .paint(|context| {
            if shown_limit.is_some() {
                strokes(
                    &curve.limit,
                    |stroke| context.draw(&stroke),
                    colour(Role::Limit),
                );
            }
            context.marker(Marker::Braille);
            context.layer();
            strokes(
                &curve.usage,
                |stroke| context.draw(&stroke),
                colour(Role::Curve),
            );
            for part in &curve.usage {
                context.draw(&Points::new(part, colour(Role::Curve)));
            }
        });
    frame.render_widget(canvas, plot);
    marks(frame, plot, curve, seconds, look);
    let beyond = match limit {
        Some(limit) if shown_limit.is_none() => {
            format!("limit {} is far above", size::bytes(limit as u64))
        }
        Some(_) => "• limit".to_owned(),
        None => String::new(),
    };
    times(frame, plot, name, &beyond, look);
}

fn highest(parts: &[Vec<(f64, f64)>]) -> Option<f64> {
    let values = parts.iter().flatten().map(|(_, value)| *value);
    values.reduce(f64::max)
}

fn strokes(parts: &[Vec<(f64, f64)>], mut draw: impl FnMut(Stroke), colour: Color) {
    for pair in parts.iter().flat_map(|part| part.windows(2)) {
        if let [(x1, y1), (x2, y2)] = pair {
            draw(Stroke::new(*x1, *y1, *x2, *y2, colour));
        }
    }
}

/// The values of the upper edge, the limit and the lower edge.
fn scale(frame: &mut Frame<'_>, area: Rect, plot: Rect, top: f64, limit: Option<f64>, look: Look) {
    let last = plot.height.saturating_sub(1);
    let mut labels = vec![(0, top, Role::Dim), (last, 0.0, Role::Dim)];
    if last >= 4 {
        labels.push((
            last / 2,
            top * (1.0 - f64::from(last / 2) / f64::from(last)),
            Role::Dim,
        ));
    }
    if let Some(limit) = limit {
        let line = ((1.0 - limit / top) * f64::from(last)).round() as u16;
        labels.retain(|(at, ..)| *at != line);
        labels.push((line, limit, Role::Limit));
    }
    for (line, value, role) in labels {
        let label = text::right(&size::bytes(value as u64), usize::from(SCALE) - 1);
        let label = Line::styled(label, look.style(role));
        frame
            .buffer_mut()
            .set_line(area.x, area.y + line.min(last), &label, SCALE);
    }
}

/// A letter below the graph for each thing that happened; the last where several are in one column.
fn marks(frame: &mut Frame<'_>, plot: Rect, curve: &Curve, seconds: f64, look: Look) {
    for (at, mark) in &curve.marks {
        let right = f64::from(plot.width.saturating_sub(1));
        let column = ((1.0 + at / seconds).clamp(0.0, 1.0) * right).round() as u16;
        let (letter, role) = letter(mark.kind);
        let letter = Line::styled(letter, look.style(role));
        let (x, y) = (plot.x + column, plot.y + plot.height);
        frame.buffer_mut().set_line(x, y, &letter, 1);
    }
}

fn times(frame: &mut Frame<'_>, plot: Rect, span: &str, between: &str, look: Look) {
    let width = usize::from(plot.width);
    let first = format!("-{span}");
    let room = width.saturating_sub(text::width(&first) + 3);
    let middle = text::fit(between, room.saturating_sub(4));
    let gap = room.saturating_sub(text::width(&middle));
    let line = format!(
        "{first}{}{middle}{}now",
        " ".repeat(gap / 2),
        " ".repeat(gap - gap / 2)
    );
    let line = Line::styled(line, look.style(Role::Dim));
    frame
        .buffer_mut()
        .set_line(plot.x, plot.y + plot.height + 1, &line, plot.width);
}

/// What stands for a mark below the graph and in the list of what happened.
pub fn letter(kind: MarkKind) -> (&'static str, Role) {
    match kind {
        MarkKind::Started => ("s", Role::Good),
        MarkKind::Gone => ("g", Role::Dim),
        MarkKind::Restarted => ("R", Role::Warning),
        MarkKind::GrowthBegan => ("b", Role::Warning),
        MarkKind::Verdict => ("V", Role::Warning),
        MarkKind::LimitChanged => ("L", Role::Plain),
        MarkKind::Stall => ("S", Role::Warning),
        MarkKind::Oom => ("O", Role::Bad),
        MarkKind::Report => ("k", Role::Plain),
        MarkKind::Action => ("a", Role::Plain),
        MarkKind::AgentStarted => ("(", Role::Dim),
        MarkKind::AgentStopped => (")", Role::Dim),
    }
}
