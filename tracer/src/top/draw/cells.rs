//! The cells of a line of the list. Pure: numbers in, text and its role out.

use super::look::Role;
use crate::{
    analysis::State,
    api::records::CgroupRow,
    export::console::duration,
    model::history::History,
    size,
    top::{columns::Column, names, rows::Shown, sort, text},
};

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Parts of a cell, from empty to full.
const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
/// Share of a limit that is worth a warning.
const FULL: f64 = 0.9;
/// Changes below this share of the largest value are no change.
const FLAT: f64 = 1.0 / 64.0;
const UNKNOWN: &str = "-";

/// What a column has for a cgroup, exactly `width` wide.
pub fn cell(
    column: Column,
    width: usize,
    line: &Shown,
    row: &CgroupRow,
    parent: Option<&CgroupRow>,
    history: Option<&History>,
    flat: bool,
) -> (String, Role) {
    let share = sort::share(row);
    let (cell, role) = match column {
        Column::Name => return name(width, line, row, parent, flat),
        Column::Usage => (
            row.usage_bytes.map_or(UNKNOWN.into(), size::bytes),
            Role::Plain,
        ),
        Column::Share => return (bar(share, width), share_role(share)),
        Column::Limit => limit(row),
        Column::Growth => (size::rate(row.growth_bytes_per_second), Role::Plain),
        Column::Leak => verdict(row),
        Column::TimeToLimit => time_to_limit(row),
        Column::History => {
            let values: Vec<Option<u64>> = history
                .into_iter()
                .flat_map(History::newest_first)
                .take(width)
                .collect();
            (sparkline(&values), Role::Curve)
        }
        Column::Pressure => (percent(row.pressure_some_ratio), Role::Plain),
        Column::Stall => (percent(row.reclaim_stall_ratio), Role::Plain),
        Column::Faults => (size::count(row.faults_per_second), Role::Plain),
    };
    let padded = match column {
        Column::Leak => text::left(&cell, width),
        _ => text::right(&cell, width),
    };
    (padded, role)
}

fn name(
    width: usize,
    line: &Shown,
    row: &CgroupRow,
    parent: Option<&CgroupRow>,
    flat: bool,
) -> (String, Role) {
    let role = if line.context { Role::Dim } else { Role::Plain };
    if flat {
        return (text::left(&names::full(row), width), role);
    }
    let indent = (usize::from(line.depth) * 2).min(width / 2);
    let fold = if line.collapsed { "▸ " } else { "" };
    let name = names::below(row, parent);
    let room = width.saturating_sub(indent + text::width(fold));
    let name = format!("{}{fold}{}", " ".repeat(indent), text::fit(&name, room));
    (text::left(&name, width), role)
}

/// The limit that binds; dim where it is another's.
fn limit(row: &CgroupRow) -> (String, Role) {
    match row.effective_limit_bytes {
        None => (UNKNOWN.into(), Role::Plain),
        Some(limit) if row.limit_bytes == Some(limit) => (size::bytes(limit), Role::Plain),
        Some(limit) => (size::bytes(limit), Role::Dim),
    }
}

fn verdict(row: &CgroupRow) -> (String, Role) {
    let state = row.leak.as_ref().map(|leak| leak.state);
    let role = match state {
        Some(State::Confirmed) => Role::Bad,
        Some(State::Suspected) => Role::Warning,
        _ => Role::Plain,
    };
    let shown = match state {
        None | Some(State::Unknown) => UNKNOWN,
        Some(state) => state.name(),
    };
    (shown.to_owned(), role)
}

fn time_to_limit(row: &CgroupRow) -> (String, Role) {
    let time = row.leak.as_ref().and_then(|leak| leak.time_to_limit_s);
    match time {
        Some(time) => (duration::rough(time.mid), Role::Warning),
        None => (UNKNOWN.into(), Role::Plain),
    }
}

/// `12%`, `0.4%`; `-` where it is not known.
pub fn percent(ratio: Option<f64>) -> String {
    match ratio.map(|ratio| ratio * 100.0) {
        None => UNKNOWN.into(),
        Some(0.0) => "0%".into(),
        Some(percent) if percent < 9.95 => format!("{percent:.1}%"),
        Some(percent) if percent < 9999.0 => format!("{percent:.0}%"),
        Some(_) => ">9999%".into(),
    }
}

pub fn share_role(share: Option<f64>) -> Role {
    match share {
        Some(share) if share >= 0.97 => Role::Bad,
        Some(share) if share >= FULL => Role::Warning,
        _ => Role::Plain,
    }
}

/// A bar and the number that it stands for; `!` where that is near all.
pub fn bar(share: Option<f64>, width: usize) -> String {
    let Some(share) = share.filter(|share| share.is_finite()) else {
        return text::right(UNKNOWN, width);
    };
    let room = width.saturating_sub(5);
    let filled = ((share.clamp(0.0, 1.0) * room as f64 * 8.0).round()) as usize;
    let mut bar = "█".repeat(filled / 8);
    bar += EIGHTHS.get(filled % 8).copied().unwrap_or_default();
    let empty = room.saturating_sub(text::width(&bar));
    bar += &"░".repeat(empty);
    let mark = if share >= FULL { '!' } else { ' ' };
    let number = format!("{:.0}%", (share * 100.0).min(999.0));
    format!("{bar}{mark}{number:>4}")
}

/// The oldest on the left, from the smallest value to the largest; a space where nothing was read.
pub fn sparkline(newest_first: &[Option<u64>]) -> String {
    let known = newest_first.iter().flatten();
    let (Some(low), Some(high)) = (known.clone().min(), known.max()) else {
        return String::new();
    };
    let range = (high - low) as f64;
    let is_flat = range <= *high as f64 * FLAT;
    let block = |value: &Option<u64>| {
        let Some(value) = value else { return ' ' };
        let level = if is_flat {
            0
        } else {
            ((value - low) as f64 / range * (BLOCKS.len() - 1) as f64).round() as usize
        };
        BLOCKS.get(level).copied().unwrap_or(' ')
    };
    newest_first.iter().rev().map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::{
        fixture::{leaking, row},
        text::width,
    };

    #[test]
    fn a_bar_is_as_wide_as_its_cell_and_marks_what_is_nearly_full() {
        assert_eq!(bar(Some(0.5), 13), "████░░░░  50%");
        assert_eq!(bar(Some(0.94), 12), "██████▋! 94%");
        assert_eq!(bar(Some(7.0), 12), "███████!700%");
        assert_eq!(bar(None, 5), "    -");
        for share in [
            None,
            Some(0.0),
            Some(1e300),
            Some(f64::NAN),
            Some(f64::INFINITY),
        ] {
            assert_eq!(width(&bar(share, 12)), 12, "{share:?}");
        }
    }

    #[test]
    fn a_sparkline_shows_gaps_and_no_noise() {
        let newest_first = [Some(8), None, Some(4), Some(1)];
        assert_eq!(sparkline(&newest_first), "▁▄ █");
        assert_eq!(sparkline(&[Some(1000), Some(1001)]), "▁▁");
        assert_eq!(sparkline(&[None]), "");
        assert_eq!(sparkline(&[Some(u64::MAX), Some(0)]), "▁█");
    }

    #[test]
    fn what_is_not_known_is_no_zero() {
        let line = Shown {
            row: 0,
            depth: 0,
            collapsed: false,
            context: false,
        };
        let mut unknown = row(1, "/a");
        unknown.usage_bytes = None;
        let of = |column, row: &CgroupRow| cell(column, 9, &line, row, None, None, true).0;
        for (column, _) in crate::top::columns::fitting(200).into_iter().skip(1) {
            if column != Column::History {
                assert_eq!(of(column, &unknown).trim(), "-", "{column:?}");
            }
        }
        let leak = leaking(1, "/a");
        assert_eq!(of(Column::Leak, &leak), "confirmed");
        assert_eq!(of(Column::TimeToLimit, &leak).trim(), "16s");
        assert_eq!(percent(Some(0.004)), "0.4%");
        assert_eq!(percent(Some(0.0)), "0%");
    }
}
