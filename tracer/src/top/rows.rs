//! The list of cgroups: what the agent told last, a short history of each, and what of it is shown in which
//! order.
//!
//! Pure. The selection is of a cgroup, not of a line.

use std::{
    cmp::Ordering,
    collections::{HashMap, HashSet},
};

use jiff::Timestamp;

use super::{filter::Filter, sort::Sort, tree};
use crate::{
    api::records::{CgroupRow, Listed},
    model::history::History,
};

/// What of the list is shown, and how.
#[derive(Debug, Clone, Default)]
pub struct View {
    pub flat: bool,
    pub sort: Sort,
    pub reversed: bool,
    pub filter: Filter,
    pub leaks_only: bool,
    /// Also those that hold no memory.
    pub empty: bool,
}

/// A line of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// Among all rows.
    pub row: usize,
    /// Cgroups above it in the tree.
    pub depth: u16,
    /// Something is below it that is hidden by [`Rows::collapse`].
    pub collapsed: bool,
    /// Only there for what is below it.
    pub context: bool,
}

/// All cgroups that the agent told.
#[derive(Debug, Default)]
pub struct Rows {
    pub view: View,
    rows: Vec<CgroupRow>,
    /// The nearest above that is told.
    parents: Vec<Option<usize>>,
    histories: HashMap<u64, History>,
    collapsed: HashSet<u64>,
    shown: Vec<Shown>,
    selected: Option<u64>,
    /// Line of the selection.
    at: usize,
    /// First line on the screen.
    top: usize,
    /// Lines on the screen.
    page: usize,
    time: Option<Timestamp>,
    left_out: u64,
}

impl Rows {
    pub fn new(view: View) -> Self {
        Self {
            view,
            ..Self::default()
        }
    }

    /// Takes a new list.
    pub fn apply(&mut self, list: Listed<CgroupRow>) {
        let is_new = self.time != Some(list.time);
        let mut histories = HashMap::with_capacity(list.items.len());
        self.rows = list.items;
        for row in &mut self.rows {
            let mut history = self.histories.remove(&row.cgroup_id).unwrap_or_default();
            let recent = std::mem::take(&mut row.recent_usage_bytes);
            if !recent.is_empty() {
                history = History::default();
                recent.into_iter().for_each(|bytes| history.push(bytes));
            } else if is_new {
                history.push(row.usage_bytes);
            }
            histories.insert(row.cgroup_id, history);
        }
        self.histories = histories;
        self.collapsed.retain(|id| self.histories.contains_key(id));
        self.parents = tree::parents(&self.rows);
        self.time = Some(list.time);
        self.left_out = list.left_out;
        self.arrange();
    }

    /// Takes a reading of one cgroup, while only that is asked for.
    pub fn observe(&mut self, row: &CgroupRow, time: Timestamp) {
        if self.time == Some(time) {
            return;
        }
        if let Some(history) = self.histories.get_mut(&row.cgroup_id) {
            history.push(row.usage_bytes);
            self.time = Some(time);
        }
    }

    /// Orders anew, after a change of [`Rows::view`].
    pub fn arrange(&mut self) {
        let mut keys: Vec<Option<f64>> = Vec::with_capacity(self.rows.len());
        let mut matches = Vec::with_capacity(self.rows.len());
        for row in &self.rows {
            keys.push(self.view.sort.key(row));
            matches.push(self.is_asked_for(row));
        }
        self.shown = if self.view.flat {
            let mut order: Vec<usize> = matching(&matches).collect();
            self.order(&mut order, &keys);
            let line = |row| Shown {
                row,
                depth: 0,
                collapsed: false,
                context: false,
            };
            order.into_iter().map(line).collect()
        } else {
            let kept = tree::with_ancestors(&self.parents, &matches, &mut keys);
            let mut order: Vec<usize> = matching(&kept).collect();
            self.order(&mut order, &keys);
            let is_collapsed = |row: usize| {
                let row = self.rows.get(row);
                row.is_some_and(|row| self.collapsed.contains(&row.cgroup_id))
            };
            let mut lines = tree::lines(&self.parents, &order, is_collapsed);
            for line in &mut lines {
                line.context = !matches.get(line.row).copied().unwrap_or(false);
            }
            lines
        };
        self.follow_selection();
    }

    fn is_asked_for(&self, row: &CgroupRow) -> bool {
        (self.view.empty || row.usage_bytes != Some(0)) && self.is_wanted(row)
    }

    /// Were it not for what it holds.
    fn is_wanted(&self, row: &CgroupRow) -> bool {
        (!self.view.leaks_only || row.leak.as_ref().is_some_and(|leak| leak.state.is_leak()))
            && self.view.filter.matches(row)
    }

    fn order(&self, order: &mut [usize], keys: &[Option<f64>]) {
        let key = |row: &usize| keys.get(*row).copied().flatten();
        let path = |row: &usize| self.rows.get(*row).map(|row| row.cgroup.as_str());
        let reversed = self.view.reversed;
        let turned = |order: Ordering| if reversed { order.reverse() } else { order };
        order.sort_unstable_by(|a, b| match (key(a), key(b)) {
            (Some(left), Some(right)) => {
                turned(right.total_cmp(&left)).then_with(|| path(a).cmp(&path(b)))
            }
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) if self.view.sort == Sort::Name => turned(path(a).cmp(&path(b))),
            (None, None) => path(a).cmp(&path(b)),
        });
    }

    /// The selected cgroup, or what is where it was.
    fn follow_selection(&mut self) {
        let found = self.selected.and_then(|id| {
            let is_it = |line: &Shown| self.rows.get(line.row).map(|row| row.cgroup_id) == Some(id);
            self.shown.iter().position(is_it)
        });
        self.select(found.unwrap_or(self.at));
    }

    fn select(&mut self, line: usize) {
        self.at = line.min(self.shown.len().saturating_sub(1));
        if let Some(row) = self.selected_row() {
            self.selected = Some(row.cgroup_id);
        }
        self.scroll();
    }

    fn scroll(&mut self) {
        let most = self.shown.len().saturating_sub(self.page);
        let first = (self.at + 1).saturating_sub(self.page.max(1));
        self.top = self.top.clamp(first, self.at.max(first)).min(most);
    }

    /// The screen has so many lines for it.
    pub fn set_page(&mut self, lines: usize) {
        self.page = lines;
        self.scroll();
    }

    pub fn page(&self) -> usize {
        self.page.max(1)
    }

    /// Moves the selection by so many lines.
    pub fn step(&mut self, by: isize) {
        self.select(self.at.saturating_add_signed(by));
    }

    pub fn select_first(&mut self) {
        self.select(0);
    }

    pub fn select_last(&mut self) {
        self.select(usize::MAX);
    }

    /// Hides what is below the selection; where that is nothing, selects what is above.
    pub fn collapse(&mut self) {
        let Some(line) = self.shown.get(self.at).copied() else {
            return;
        };
        let next = self.shown.get(self.at + 1);
        let is_open = next.is_some_and(|next| next.depth > line.depth);
        if let (true, Some(row)) = (is_open, self.rows.get(line.row)) {
            self.collapsed.insert(row.cgroup_id);
            self.arrange();
        } else if let Some(above) = self.parents.get(line.row).copied().flatten()
            && let Some(at) = self.shown.iter().position(|line| line.row == above)
        {
            self.select(at);
        }
    }

    /// Shows what is below the selection.
    pub fn expand(&mut self) {
        if let Some(row) = self.selected_row() {
            let id = row.cgroup_id;
            self.collapsed.remove(&id);
            self.arrange();
        }
    }

    /// The lines on the screen, and whether each is selected.
    pub fn on_screen(&self) -> impl Iterator<Item = (&Shown, &CgroupRow, bool)> {
        let lines = self.shown.iter().enumerate().skip(self.top).take(self.page);
        lines.filter_map(|(at, line)| Some((line, self.rows.get(line.row)?, at == self.at)))
    }

    /// The nearest above that is told.
    pub fn parent(&self, line: &Shown) -> Option<&CgroupRow> {
        self.rows.get((*self.parents.get(line.row)?)?)
    }

    pub fn selected_row(&self) -> Option<&CgroupRow> {
        self.rows.get(self.shown.get(self.at)?.row)
    }

    pub fn history(&self, cgroup_id: u64) -> Option<&History> {
        self.histories.get(&cgroup_id)
    }

    /// All that the agent told.
    pub fn told(&self) -> usize {
        self.rows.len()
    }

    /// More that the agent has and did not tell.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Those that are asked for; context and what is collapsed included.
    pub fn lines(&self) -> usize {
        self.shown.len()
    }

    /// Those that are not shown only since they hold no memory.
    pub fn hidden_as_empty(&self) -> usize {
        let is_hidden = |row: &&CgroupRow| self.is_wanted(row) && !self.is_asked_for(row);
        self.rows.iter().filter(is_hidden).count()
    }

    /// Of the newest list.
    pub fn time(&self) -> Option<Timestamp> {
        self.time
    }

    /// Nothing was read for a while: the histories show a gap.
    pub fn mark_gap(&mut self) {
        for history in self.histories.values_mut() {
            history.push(None);
        }
    }
}

fn matching(matches: &[bool]) -> impl Iterator<Item = usize> {
    let rows = matches.iter().enumerate();
    rows.filter_map(|(row, matches)| matches.then_some(row))
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
