//! A line of parts, the least important of which go where there is no room.

use ratatui::{
    style::Style,
    text::{Line, Span},
};

use crate::top::text;

/// A part of a line.
#[derive(Debug, Clone)]
pub struct Part {
    text: String,
    style: Style,
    /// The larger, the longer it stays.
    importance: u8,
}

impl Part {
    pub fn new(importance: u8, text: impl Into<String>, style: Style) -> Self {
        Self {
            text: text.into(),
            style,
            importance,
        }
    }
}

/// The parts with two spaces between them, as many as there is room for, in their order.
pub fn line(mut parts: Vec<Part>, width: usize) -> Line<'static> {
    while parts.len() > 1 && columns(&parts) > width {
        let least = parts
            .iter()
            .enumerate()
            .rev()
            .min_by_key(|(_, part)| part.importance)
            .map(|(at, _)| at);
        if let Some(at) = least {
            parts.remove(at);
        }
    }
    let mut spans = Vec::with_capacity(parts.len() * 2);
    for part in parts {
        if !spans.is_empty() {
            spans.push(Span::raw("  "));
        }
        spans.push(Span::styled(text::fit(&part.text, width), part.style));
    }
    Line::from(spans)
}

fn columns(parts: &[Part]) -> usize {
    let texts: usize = parts.iter().map(|part| text::width(&part.text)).sum();
    texts + 2 * parts.len().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_important_go_first_and_the_last_is_cut() {
        let parts = || {
            [(9, "name"), (1, "kernel"), (5, "state")]
                .map(|(importance, text)| Part::new(importance, text, Style::new()))
                .to_vec()
        };
        let told = |width| line(parts(), width).to_string();
        assert_eq!(told(40), "name  kernel  state");
        assert_eq!(told(18), "name  state");
        assert_eq!(told(10), "name");
        assert_eq!(told(3), "…me");
    }
}
