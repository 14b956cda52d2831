//! The list of cgroups.

use ratatui::{
    Frame,
    layout::Rect,
    text::{Line, Span},
};

use super::{
    cells,
    look::{Look, Role},
};
use crate::top::{
    app::{App, Link},
    columns::{self, Column},
    text,
};

/// Draws titles and lines; tells the list how many lines there is room for.
pub fn draw(frame: &mut Frame<'_>, area: Rect, app: &mut App, look: Look) {
    app.rows
        .set_page(usize::from(area.height.saturating_sub(1)));
    let columns = columns::fitting(area.width.saturating_sub(1));
    let buffer = frame.buffer_mut();
    buffer.set_line(area.x, area.y, &titles(app, &columns, look), area.width);
    if app.rows.lines() == 0 {
        let note = Line::styled(note(app), look.style(Role::Dim));
        if area.height > 1 {
            buffer.set_line(area.x, area.y + 1, &note, area.width);
        }
        return;
    }
    let flat = app.rows.view.flat;
    let places = area.rows().skip(1);
    for (place, (line, row, selected)) in places.zip(app.rows.on_screen()) {
        let mut spans = vec![Span::raw(if selected { ">" } else { " " })];
        let parent = app.rows.parent(line);
        let history = app.rows.history(row.cgroup_id);
        for (at, (column, width)) in columns.iter().enumerate() {
            let width = usize::from(*width);
            let (cell, role) = cells::cell(*column, width, line, row, parent, history, flat);
            if at > 0 {
                spans.push(Span::raw(" "));
            }
            spans.push(Span::styled(cell, look.style(role)));
        }
        buffer.set_line(place.x, place.y, &Line::from(spans), place.width);
        if selected {
            buffer.set_style(place, look.selected());
        }
    }
}

/// The titles; the one by which the list is sorted has an arrow.
fn titles(app: &App, columns: &[(Column, u16)], look: Look) -> Line<'static> {
    let view = &app.rows.view;
    let mut line = String::from(" ");
    for (at, (column, width)) in columns.iter().enumerate() {
        let width = usize::from(*width);
        let arrow = match (view.sort.column() == *column, view.reversed) {
            (false, _) => "",
            (true, false) => "▼",
            (true, true) => "▲",
        };
        let title = format!("{}{arrow}", column.title());
        if at > 0 {
            line.push(' ');
        }
        line += &match column.is_left() {
            true => text::left(&title, width),
            false => text::right(&title, width),
        };
    }
    Line::styled(line, look.style(Role::Title))
}

/// Why there is nothing.
fn note(app: &App) -> String {
    let view = &app.rows.view;
    if app.rows.time().is_none() {
        return match app.link {
            Link::Lost { .. } => "nothing was told yet".into(),
            _ => "waiting for the first interval…".into(),
        };
    }
    let empty = app.rows.hidden_as_empty();
    let chose = !view.filter.is_empty() || app.chosen.is_some();
    match empty {
        0 => {}
        1 if chose => return "1 cgroup matches, and holds nothing now; z shows it".into(),
        _ if chose => {
            return format!("{empty} cgroups match, and hold nothing now; z shows them");
        }
        _ if !view.leaks_only => return "no cgroup holds memory; z shows all".into(),
        _ => {}
    }
    if !view.filter.is_empty() {
        return "no cgroup matches the filter; Esc clears it".into();
    }
    if view.leaks_only {
        return "no leak is suspected; l shows all".into();
    }
    match &app.chosen {
        Some(chosen) => format!("no cgroup matches {}", text::fit(chosen, 60)),
        None => "the agent tells of no cgroup".into(),
    }
}
