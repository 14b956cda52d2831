//! Which key does what.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// What a person asks for by a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Quit,
    /// Closes what is open.
    Back,
    Suspend,
    Redraw,
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
    Open,
    /// Hides what is below in the tree, or leads to the parent.
    Collapse,
    Expand,
    Tree,
    NextSort,
    PreviousSort,
    Reverse,
    Filter,
    Pause,
    LeaksOnly,
    Empty,
    Incidents,
    LongerSpan,
    ShorterSpan,
    Help,
}

/// For the help: keys and what they do.
pub const HELP: [(&str, &str); 15] = [
    ("↑ ↓  k j", "select, scroll"),
    ("PgUp PgDn  Home End", "by pages, to the ends"),
    ("Enter", "details; the report of an incident"),
    ("← →", "hide, show what is below in the tree"),
    ("t", "tree or flat list"),
    ("s S  r", "next, previous order; reversed"),
    ("/", "filter: part of a name, or a glob"),
    ("l", "only suspected and confirmed leaks"),
    ("z", "also cgroups that hold no memory"),
    ("i", "incidents"),
    ("+ -", "longer and shorter span of the graph"),
    ("Space", "hold the screen, go on"),
    ("Ctrl-L  Ctrl-Z", "draw anew, suspend"),
    ("Esc", "back; ends at the list"),
    ("q  Ctrl-C  ?", "quit; this help"),
];

/// `None`: the key means nothing.
pub fn command(key: KeyEvent) -> Option<Command> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => Some(Command::Quit),
            KeyCode::Char('z') => Some(Command::Suspend),
            KeyCode::Char('l') => Some(Command::Redraw),
            KeyCode::Char('b') => Some(Command::PageUp),
            KeyCode::Char('f') => Some(Command::PageDown),
            _ => None,
        };
    }
    if key.modifiers.contains(KeyModifiers::ALT) {
        return None;
    }
    Some(match key.code {
        KeyCode::Char('q') => Command::Quit,
        KeyCode::Esc | KeyCode::Backspace => Command::Back,
        KeyCode::Up | KeyCode::Char('k') => Command::Up,
        KeyCode::Down | KeyCode::Char('j') => Command::Down,
        KeyCode::PageUp => Command::PageUp,
        KeyCode::PageDown => Command::PageDown,
        KeyCode::Home | KeyCode::Char('g') => Command::First,
        KeyCode::End | KeyCode::Char('G') => Command::Last,
        KeyCode::Enter => Command::Open,
        KeyCode::Left => Command::Collapse,
        KeyCode::Right => Command::Expand,
        KeyCode::Char('t') => Command::Tree,
        KeyCode::Char('s') => Command::NextSort,
        KeyCode::Char('S') => Command::PreviousSort,
        KeyCode::Char('r') => Command::Reverse,
        KeyCode::Char('/') => Command::Filter,
        KeyCode::Char(' ') => Command::Pause,
        KeyCode::Char('l') => Command::LeaksOnly,
        KeyCode::Char('z') => Command::Empty,
        KeyCode::Char('i') => Command::Incidents,
        KeyCode::Char('+' | '=') => Command::LongerSpan,
        KeyCode::Char('-') => Command::ShorterSpan,
        KeyCode::Char('?' | 'h') | KeyCode::F(1) => Command::Help,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_released_key_does_nothing() {
        let mut key = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE);
        assert_eq!(command(key), Some(Command::Quit));
        key.kind = KeyEventKind::Release;
        assert_eq!(command(key), None);
    }

    #[test]
    fn control_keys_are_no_letters() {
        let with = |letter| KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL);
        assert_eq!(command(with('c')), Some(Command::Quit));
        assert_eq!(command(with('l')), Some(Command::Redraw));
        assert_eq!(command(with('s')), None);
    }
}
