//! The keys and columns, over everything else.

use ratatui::{
    Frame,
    layout::Rect,
    text::{Line, Span},
    widgets::{Block, Clear},
};

use super::look::{Look, Role};
use crate::top::{keys, text};

pub(super) const COLUMNS: [(&str, &str); 6] = [
    ("OF LIMIT, LIMIT", "own or above; dim: not its own"),
    ("LEAK", "verdict of the growth analysis"),
    ("FULL IN", "when a leak reaches the limit"),
    ("PSI", "share of time tasks wait for memory"),
    ("STALL", "time in reclaim, all tasks together"),
    ("-", "not known, or does not apply"),
];
const KEYS: usize = 19;

pub fn draw(frame: &mut Frame<'_>, screen: Rect, look: Look) {
    let width = screen.width.min(74);
    let room = usize::from(width).saturating_sub(2 + KEYS + 1);
    let entries: Vec<_> = keys::HELP.iter().chain(&COLUMNS).collect();
    let wrapped: Vec<Vec<String>> = entries
        .iter()
        .map(|(_, what)| text::wrapped(what, room, 0))
        .collect();
    let needed: usize = wrapped.iter().map(Vec::len).sum();
    // With a gap and two edges.
    let height = screen
        .height
        .min(u16::try_from(needed + 3).unwrap_or(u16::MAX));
    let area = Rect {
        x: screen.x + (screen.width - width) / 2,
        y: screen.y + (screen.height - height) / 2,
        width,
        height,
    };
    let block = Block::bordered().title(" memtrace top: keys, then columns; Esc closes, q quits ");
    let inner = block.inner(area);
    frame.render_widget(Clear, area);
    frame.render_widget(block, area);
    let height = usize::from(inner.height);
    let mut left = match needed > height {
        // Of the line that tells of more.
        true => height.saturating_sub(1),
        false => height,
    };
    let mut lines = Vec::new();
    for (at, ((key, _), what)) in entries.iter().zip(&wrapped).enumerate() {
        if at == keys::HELP.len() && needed < height {
            lines.push(Line::default());
        }
        // Half of an entry would mislead.
        let Some(rest) = left.checked_sub(what.len()) else {
            lines.push(entry("…", "more on a taller terminal", room, look));
            break;
        };
        left = rest;
        for (at, what) in what.iter().enumerate() {
            lines.push(entry(if at == 0 { key } else { "" }, what, room, look));
        }
    }
    for (place, line) in inner.rows().zip(&lines) {
        frame
            .buffer_mut()
            .set_line(place.x, place.y, line, place.width);
    }
}

fn entry(key: &str, what: &str, room: usize, look: Look) -> Line<'static> {
    Line::from(vec![
        Span::styled(text::left(key, KEYS), look.style(Role::Key)),
        Span::raw(" "),
        Span::raw(text::head(what, room)),
    ])
}
