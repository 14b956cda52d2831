//! Text by the columns it takes on a screen.
//!
//! Owns how names are cut. Nothing that could act on a terminal gets through.

use ratatui::{buffer::CellWidth as _, style::Style, text::Span};

use crate::host::escape;

/// Longest name looked at, characters.
const MOST_CHARS: usize = 1024;

/// Columns that `text` takes.
pub fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// At most `columns` wide; where that is too narrow, `…` stands for a part in the middle, since the end of a
/// name says more than its beginning.
pub fn fit(text: &str, columns: usize) -> String {
    cut(text, columns, |pieces, room| {
        let head = within(pieces.iter().copied(), room / 3);
        let head_columns: usize = head.iter().map(|piece| columns_of(piece)).sum();
        let mut tail = within(pieces.iter().rev().copied(), room - head_columns);
        tail.reverse();
        format!("{}…{}", head.concat(), tail.concat())
    })
}

/// The beginning of `text`, `…` last where it was cut.
pub fn head(text: &str, columns: usize) -> String {
    cut(text, columns, |pieces, room| {
        within(pieces.iter().copied(), room).concat() + "…"
    })
}

/// Made safe; where it is wider than `columns`, `shorten` has its pieces and the columns beside an `…`.
fn cut(text: &str, columns: usize, shorten: impl Fn(&[&str], usize) -> String) -> String {
    let text = escape::again(text, MOST_CHARS);
    if width(&text) <= columns {
        return text;
    }
    let Some(room) = columns.checked_sub(1) else {
        return String::new();
    };
    let span = Span::raw(text.as_str());
    let pieces = span.styled_graphemes(Style::default());
    let pieces: Vec<&str> = pieces.map(|grapheme| grapheme.symbol).collect();
    shorten(&pieces, room)
}

/// As [`fit`], filled with spaces on the right.
pub fn left(text: &str, columns: usize) -> String {
    let mut text = fit(text, columns);
    let missing = columns.saturating_sub(width(&text));
    text.extend(std::iter::repeat_n(' ', missing));
    text
}

/// The same, filled with spaces on the left.
pub fn right(text: &str, columns: usize) -> String {
    let text = fit(text, columns);
    let missing = columns.saturating_sub(width(&text));
    format!("{}{text}", " ".repeat(missing))
}

/// Lines of at most `columns`, broken at spaces where there are any, the later ones indented.
pub fn wrapped(text: &str, columns: usize, indent: usize) -> Vec<String> {
    let text = escape::again(text, 8 * MOST_CHARS);
    let columns = columns.max(indent + 8);
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        let mut word = word.to_owned();
        let gap = usize::from(!line.trim().is_empty());
        if gap == 1 && width(&line) + 1 + width(&word) > columns {
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
        } else if gap == 1 {
            line.push(' ');
        }
        // A word that is longer than a line.
        while width(&line) + width(&word) > columns {
            let room = columns - width(&line);
            let span = Span::raw(word.as_str());
            let first = within(
                span.styled_graphemes(Style::default()).map(|it| it.symbol),
                room,
            )
            .concat();
            if first.is_empty() {
                break;
            }
            let rest = word.get(first.len()..).unwrap_or_default().to_owned();
            line += &first;
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
            word = rest;
        }
        line += &word;
    }
    lines.push(line);
    lines
}

fn columns_of(piece: &str) -> usize {
    usize::from(piece.cell_width())
}

/// The first pieces that fit.
fn within<'a>(pieces: impl Iterator<Item = &'a str>, columns: usize) -> Vec<&'a str> {
    let mut left = columns;
    pieces
        .take_while(|piece| match left.checked_sub(columns_of(piece)) {
            Some(rest) => {
                left = rest;
                true
            }
            None => false,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_keeps_its_end() {
        assert_eq!(fit("/kubepods/burstable/pod-1234", 12), "/ku…pod-1234");
        assert_eq!(fit("short", 5), "short");
        assert_eq!(fit("abc", 1), "…");
        assert_eq!(fit("abc", 0), "");
    }

    #[test]
    fn wide_and_combined_characters_count_by_their_columns() {
        assert_eq!(width("日本"), 4);
        for columns in 0..20 {
            let cut = fit("日本語/コンテナ/e\u{301}e\u{301}e\u{301}", columns);
            assert!(width(&cut) <= columns, "{columns}: {cut}");
            assert_eq!(width(&left("日本語日本語", columns)), columns);
            assert_eq!(width(&right("日本語日本語", columns)), columns);
        }
    }

    #[test]
    fn what_acts_on_a_terminal_or_hides_is_escaped() {
        let cut = fit("a\u{1b}[2J\u{202e}b\tc", 40);
        assert_eq!(cut, r"a\x1b[2J\xe2\x80\xaeb\tc");
    }

    #[test]
    fn prose_is_broken_at_spaces_and_long_words_where_they_must() {
        assert_eq!(wrapped("one two three", 8, 0), ["one two", "three"]);
        assert_eq!(wrapped("a abcdefghijkl", 8, 0), ["a", "abcdefgh", "ijkl"]);
        assert_eq!(wrapped("", 8, 2), [""]);
        assert_eq!(
            wrapped("label long text here", 11, 2),
            ["label long", "  text here"]
        );
    }
}
