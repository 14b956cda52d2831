//! The columns of the list: their titles, widths, and which of them a terminal has room for.

/// What a column tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    Name,
    Usage,
    /// Share of the limit, as a bar.
    Share,
    Limit,
    Growth,
    Leak,
    TimeToLimit,
    History,
    Pressure,
    Stall,
    Faults,
}

/// In the order in which they are shown.
const ALL: [Column; 11] = [
    Column::Name,
    Column::Usage,
    Column::Share,
    Column::Limit,
    Column::Growth,
    Column::Leak,
    Column::TimeToLimit,
    Column::History,
    Column::Pressure,
    Column::Stall,
    Column::Faults,
];

/// The first is the last to go.
const BY_IMPORTANCE: [Column; 11] = [
    Column::Name,
    Column::Usage,
    Column::Share,
    Column::Growth,
    Column::Leak,
    Column::Limit,
    Column::TimeToLimit,
    Column::History,
    Column::Pressure,
    Column::Stall,
    Column::Faults,
];

/// A name that is wider leaves its room to the history.
const WIDE_NAME: u16 = 48;
/// As many readings as there are.
const WIDEST_HISTORY: u16 = 60;

impl Column {
    pub fn title(self) -> &'static str {
        match self {
            Column::Name => "CGROUP",
            Column::Usage => "USAGE",
            Column::Share => "OF LIMIT",
            Column::Limit => "LIMIT",
            Column::Growth => "GROWTH",
            Column::Leak => "LEAK",
            Column::TimeToLimit => "FULL IN",
            Column::History => "HISTORY",
            Column::Pressure => "PSI",
            Column::Stall => "STALL",
            Column::Faults => "FAULTS/s",
        }
    }

    /// Whether its text stands on the left.
    pub fn is_left(self) -> bool {
        matches!(
            self,
            Column::Name | Column::Share | Column::Leak | Column::History
        )
    }

    fn least_width(self) -> u16 {
        match self {
            Column::Name => 18,
            Column::Usage | Column::Limit => 6,
            Column::Share => 12,
            Column::Growth => 10,
            Column::Leak => 9,
            Column::TimeToLimit => 7,
            Column::History => 12,
            Column::Pressure => 5,
            Column::Stall => 6,
            Column::Faults => 8,
        }
    }
}

/// Those that `width` columns have room for, with a space between them, and the width of each.
pub fn fitting(width: u16) -> Vec<(Column, u16)> {
    let mut left = width.saturating_add(1);
    let mut chosen = Vec::new();
    for column in BY_IMPORTANCE {
        let Some(rest) = left.checked_sub(column.least_width() + 1) else {
            break;
        };
        left = rest;
        chosen.push(column);
    }
    let has_history = chosen.contains(&Column::History);
    let name = left.min(WIDE_NAME - Column::Name.least_width());
    let history = (left - name).min(WIDEST_HISTORY - Column::History.least_width());
    let history = if has_history { history } else { 0 };
    let name = left - history;
    ALL.into_iter()
        .filter(|column| chosen.contains(column))
        .map(|column| {
            let more = match column {
                Column::Name => name,
                Column::History => history,
                _ => 0,
            };
            (column, column.least_width() + more)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(width: u16) -> Vec<Column> {
        fitting(width)
            .into_iter()
            .map(|(column, _)| column)
            .collect()
    }

    #[test]
    fn the_columns_fill_the_width_exactly_and_never_exceed_it() {
        for width in 18..400 {
            let columns = fitting(width);
            let used: u16 = columns.iter().map(|(_, width)| width + 1).sum();
            assert_eq!(used, width + 1, "{columns:?}");
        }
    }

    #[test]
    fn the_least_important_go_first() {
        use Column::{Growth, Leak, Limit, Name, Share, TimeToLimit, Usage};
        assert_eq!(of(60), [Name, Usage, Share, Growth, Leak]);
        assert_eq!(
            of(80),
            [Name, Usage, Share, Limit, Growth, Leak, TimeToLimit]
        );
        assert_eq!(of(120).len(), ALL.len());
        assert!(of(0).is_empty());
    }
}
