//! Rows in columns, as wide as the terminal. Owns the layout; cells are escaped by who gives them.

const BOLD: &str = "\x1b[1m";
const RESET: &str = "\x1b[0m";
/// Between two columns.
const GAP: usize = 2;

/// A column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    pub title: &'static str,
    pub align: Align,
    /// To how many characters its cells may be cut; `None`: they never are.
    pub least: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// A header and rows, each ended by a newline. `width`: of the terminal; `None`: nothing is cut.
pub fn table<const N: usize>(
    columns: [Column; N],
    rows: &[[String; N]],
    width: Option<usize>,
    bold: bool,
) -> String {
    let mut widths = columns.map(|column| chars(column.title));
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(chars(cell));
        }
    }
    if let Some(width) = width {
        fit(&columns, &mut widths, width);
    }
    let line = |cells: [&str; N]| {
        let mut line = String::new();
        for ((cell, column), width) in cells.iter().zip(&columns).zip(&widths) {
            let cell = shortened(cell, *width);
            let fill = " ".repeat(width.saturating_sub(chars(&cell)));
            match column.align {
                Align::Left => line += &(cell + &fill),
                Align::Right => line += &(fill + &cell),
            }
            line += &" ".repeat(GAP);
        }
        // Longer than the terminal if it must: the end of a row is what people copy.
        line.trim_end().to_owned()
    };
    let (on, off) = if bold { (BOLD, RESET) } else { ("", "") };
    let mut text = format!("{on}{}{off}\n", line(columns.map(|column| column.title)));
    for row in rows {
        text += &line(row.each_ref().map(String::as_str));
        text.push('\n');
    }
    text
}

/// Takes from the widest of the columns that may be cut, until all fit or none may be cut further.
fn fit(columns: &[Column], widths: &mut [usize], width: usize) {
    let gaps = GAP * columns.len().saturating_sub(1);
    loop {
        let over = (widths.iter().sum::<usize>() + gaps).saturating_sub(width);
        let spare = |(column, width): (&Column, &mut usize)| {
            let least = column.least?.max(chars(column.title));
            (*width > least).then_some((*width, least))
        };
        let mut elastic: Vec<(usize, usize, &mut usize)> = columns
            .iter()
            .zip(widths.iter_mut())
            .filter_map(|(column, width)| {
                let (now, least) = spare((column, width))?;
                Some((now, least, width))
            })
            .collect();
        elastic.sort_by_key(|(now, _, _)| std::cmp::Reverse(*now));
        let next = elastic.get(1).map_or(0, |(now, _, _)| *now);
        let Some((now, least, width)) = elastic.into_iter().next().filter(|_| over > 0) else {
            return;
        };
        // Down to the next widest, at least by one.
        let step = over.min((now - next.min(now)).max(1)).min(now - least);
        *width = now - step;
    }
}

/// Beginning and end tell more than the middle, the end more than the beginning.
pub fn shortened(text: &str, width: usize) -> String {
    let length = chars(text);
    if length <= width {
        return text.to_owned();
    }
    let Some(room) = width.checked_sub(1) else {
        return String::new();
    };
    let head = room / 3;
    let tail = room - head;
    text.chars()
        .take(head)
        .chain(['…'])
        .chain(text.chars().skip(length - tail))
        .collect()
}

fn chars(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [
        Column {
            title: "NAME",
            align: Align::Left,
            least: Some(8),
        },
        Column {
            title: "SIZE",
            align: Align::Right,
            least: None,
        },
        Column {
            title: "NOTE",
            align: Align::Left,
            least: Some(6),
        },
    ];

    fn rows() -> Vec<[String; 3]> {
        vec![
            [
                "/kubepods.slice/one-of-them.scope".to_owned(),
                "1.5M".to_owned(),
                "a note as long as this".to_owned(),
            ],
            ["/a".to_owned(), "100K".to_owned(), String::new()],
        ]
    }

    #[test]
    fn nothing_is_cut_where_there_is_no_terminal() {
        let text = table(COLUMNS, &rows(), None, false);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("/kubepods.slice/one-of-them.scope  1.5M  a note as long"));
        assert_eq!(lines[2], format!("/a{}  100K", " ".repeat(31)));
    }

    #[test]
    fn names_are_cut_to_fit_and_nothing_else_is() {
        let at = |width| table(COLUMNS, &rows(), Some(width), false);
        let narrowest = at(0).lines().map(chars).max().unwrap();
        for width in 0..100 {
            let text = at(width);
            for line in text.lines() {
                assert!(chars(line) <= width.max(narrowest), "{width}: {line}");
            }
            assert_eq!(text.lines().count(), 3);
            assert!(
                text.contains("1.5M") && text.contains("100K"),
                "{width}: {text}"
            );
        }
    }

    #[test]
    fn the_widest_gives_first() {
        let text = table(COLUMNS, &rows(), Some(60), false);
        assert!(text.contains("a note as long as this"), "{text}");
        assert!(text.contains("/kubepods…"), "{text}");
        assert!(text.contains("them.scope"), "{text}");
    }
}
