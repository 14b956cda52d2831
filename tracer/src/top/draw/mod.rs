//! Draws what [`App`] says on a terminal of any size. Asks nobody, decides nothing.
//!
//! - `look`: colours by meaning.
//! - `header`: the lines above and below.
//! - `list`, `details`, `incidents`, `help`: the panes.
//! - `cells`, `graph`, `parts`: what they are made of.

mod cells;
mod details;
mod graph;
mod header;
mod help;
mod incidents;
mod list;
mod look;
mod parts;
#[cfg(test)]
mod tests;

use ratatui::{
    Frame,
    layout::Rect,
    style::{Modifier, Style},
    text::Line,
};

pub use look::Look;

use super::app::{App, Link, Pane};
use look::Role;

/// Below this nothing useful has room.
const LEAST_WIDTH: u16 = 40;
const LEAST_HEIGHT: u16 = 8;

/// Draws everything; tells the panes how many lines they have.
pub fn draw(frame: &mut Frame<'_>, app: &mut App, look: Look) {
    let screen = frame.area();
    let width = usize::from(screen.width);
    if screen.width < LEAST_WIDTH || screen.height < LEAST_HEIGHT {
        let note = format!("{}x{} is too small", screen.width, screen.height);
        let remedy = format!("needs {LEAST_WIDTH}x{LEAST_HEIGHT}");
        for (place, line) in screen.rows().zip([note, remedy, "q quits".to_owned()]) {
            let line = Line::raw(line);
            frame
                .buffer_mut()
                .set_line(place.x, place.y, &line, place.width);
        }
        return;
    }
    let above = [
        header::agent(app, look, width),
        header::machine(app, look, width),
        header::view(app, look, width),
    ];
    for (place, line) in screen.rows().zip(&above) {
        frame
            .buffer_mut()
            .set_line(place.x, place.y, line, place.width);
    }
    let body = Rect {
        y: screen.y + 3,
        height: screen.height - 4,
        ..screen
    };
    match app.pane() {
        Pane::List => list::draw(frame, body, app, look),
        Pane::Details => details::draw(frame, body, app, look),
        Pane::Incidents => incidents::draw(frame, body, app, look),
    }
    if matches!(app.link, Link::Lost { .. }) {
        let old = Style::new().add_modifier(Modifier::DIM);
        frame.buffer_mut().set_style(body, old);
    }
    let below = Rect {
        y: screen.bottom() - 1,
        height: 1,
        ..screen
    };
    let keys = header::keys(app, look, width);
    frame
        .buffer_mut()
        .set_line(below.x, below.y, &keys, below.width);
    frame.buffer_mut().set_style(below, look.style(Role::Key));
    if app.help {
        help::draw(frame, screen, look);
    }
}
