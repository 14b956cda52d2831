//! Colours and emphasis by meaning. Without colours nothing is told by them alone.

use ratatui::style::{Color, Modifier, Style};

/// How to draw.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    pub colour: bool,
}

/// What a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Plain,
    Title,
    /// Of less interest.
    Dim,
    Key,
    Good,
    Warning,
    Bad,
    Curve,
    Limit,
}

impl Look {
    pub fn style(self, role: Role) -> Style {
        let plain = Style::new();
        let bold = plain.add_modifier(Modifier::BOLD);
        let coloured = |style: Style, colour| match self.colour {
            true => style.fg(colour),
            false => style,
        };
        match role {
            Role::Plain => plain,
            Role::Title => bold,
            Role::Dim => plain.add_modifier(Modifier::DIM),
            Role::Key => coloured(bold, Color::Cyan),
            Role::Good => coloured(plain, Color::Green),
            Role::Warning => coloured(bold, Color::Yellow),
            Role::Bad => coloured(bold, Color::Red),
            Role::Curve => coloured(plain, Color::Cyan),
            Role::Limit => coloured(plain, Color::Red),
        }
    }

    pub fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }
}
