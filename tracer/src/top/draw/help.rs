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
    ("PSI", "part of the time that tasks waited for memory"),
    ("STALL", "time in reclaim, all tasks together"),
    ("-", "not known, or does not apply"),
];
const KEYS: usize = 22;

pub fn draw(frame: &mut Frame<'_>, screen: Rect, look: Look) {
    let all = keys::HELP.len() + COLUMNS.len() + 1;
    let width = screen.width.min(74);
    let height = screen
        .height
        .min(u16::try_from(all + 2).unwrap_or(u16::MAX));
    let area = Rect {
        x: screen.x + (screen.width - width) / 2,
        y: screen.y + (screen.height - height) / 2,
        width,
        height,
    };
    let block = Block::bordered().title(" memtrace top: keys, then columns; any key closes ");
    let inner = block.inner(area);
    frame.render_widget(Clear, area);
    frame.render_widget(block, area);
    let fits = usize::from(inner.height) >= all;
    let keys = keys::HELP.iter().map(Some);
    let columns = COLUMNS.iter().map(Some);
    // Where there is little room, no gap.
    let lines: Vec<_> = keys.chain(fits.then_some(None)).chain(columns).collect();
    let room = usize::from(inner.width).saturating_sub(KEYS + 1);
    let last = usize::from(inner.height).saturating_sub(1);
    for (at, (place, line)) in inner.rows().zip(&lines).enumerate() {
        let Some((key, what)) = line else { continue };
        let (key, what) = if at == last && at + 1 < lines.len() {
            (&"…", &"more on a taller terminal")
        } else {
            (key, what)
        };
        let line = Line::from(vec![
            Span::styled(text::left(key, KEYS), look.style(Role::Key)),
            Span::raw(" "),
            Span::raw(text::fit(what, room)),
        ]);
        frame
            .buffer_mut()
            .set_line(place.x, place.y, &line, place.width);
    }
}
