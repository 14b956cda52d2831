//! The incidents that are kept, and the report of one.

use ratatui::{Frame, layout::Rect, text::Line};

use super::look::{Look, Role};
use crate::{
    api::records::IncidentRecord,
    export::console::incident::{list, report},
    moment::Zone,
    top::{app::App, text},
};

/// Draws the list or the report; tells them how many lines there is room for.
pub fn draw(frame: &mut Frame<'_>, area: Rect, app: &mut App, look: Look) {
    let Some(incidents) = &mut app.incidents else {
        return;
    };
    let width = usize::from(area.width);
    let mut area = area;
    if let Some(problem) = &incidents.problem {
        for line in text::wrapped(problem, width, 0) {
            if area.height == 0 {
                return;
            }
            let line = Line::styled(line, look.style(Role::Bad));
            frame
                .buffer_mut()
                .set_line(area.x, area.y, &line, area.width);
            area.y += 1;
            area.height -= 1;
        }
    }
    let page = usize::from(area.height);
    if let (Some(mut scroll), Some(incident)) = (incidents.report, incidents.selected()) {
        let report = report(incident, &Zone::utc(), false, width);
        let lines: Vec<&str> = report.lines().collect();
        scroll.fit(lines.len(), page);
        for (place, line) in area.rows().zip(lines.into_iter().skip(scroll.at())) {
            let line = Line::raw(text::fit(line, width));
            frame
                .buffer_mut()
                .set_line(place.x, place.y, &line, place.width);
        }
        incidents.report = Some(scroll);
        return;
    }
    // Below the titles.
    incidents.set_page(page.saturating_sub(1));
    let note = match incidents.told() {
        None if incidents.problem.is_some() => None,
        None => Some("asking the agent…".to_owned()),
        Some(list) if list.items.is_empty() => Some("none so far".to_owned()),
        Some(_) => None,
    };
    if let Some(note) = note {
        let note = Line::styled(note, look.style(Role::Dim));
        frame
            .buffer_mut()
            .set_line(area.x, area.y, &note, area.width);
    }
    let shown: Vec<(&IncidentRecord, bool)> = incidents.on_screen().collect();
    if shown.is_empty() {
        return;
    }
    let room = Some(width.saturating_sub(1));
    let rows = list(
        shown.iter().map(|(incident, _)| *incident),
        &Zone::utc(),
        room,
        false,
    );
    let marks = std::iter::once(None).chain(shown.iter().map(|(_, selected)| Some(*selected)));
    for ((place, line), selected) in area.rows().zip(rows.lines()).zip(marks) {
        let mark = if selected == Some(true) { '>' } else { ' ' };
        let style = match selected {
            None => look.style(Role::Title),
            Some(_) => look.style(Role::Plain),
        };
        let line = Line::styled(text::head(&format!("{mark}{line}"), width), style);
        frame
            .buffer_mut()
            .set_line(place.x, place.y, &line, place.width);
        if selected == Some(true) {
            frame.buffer_mut().set_style(place, look.selected());
        }
    }
}
