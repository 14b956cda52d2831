//! The incidents that the agent keeps: the list, and the one that is read.
//!
//! Pure. The selection is of an incident, not of a line.

use super::scroll::Scroll;
use crate::api::records::{IncidentRecord, Listed};

#[derive(Debug, Default)]
pub struct Incidents {
    /// Newest first; `None`: not told yet.
    list: Option<Listed<IncidentRecord>>,
    /// Why there is no newer list.
    pub problem: Option<String>,
    selected: Option<String>,
    at: usize,
    pub scroll: Scroll,
    /// Of the report, while one is open.
    pub report: Option<Scroll>,
}

impl Incidents {
    /// Takes an answer; an error keeps the last list.
    pub fn apply(&mut self, answer: Result<Listed<IncidentRecord>, String>) {
        match answer {
            Ok(list) => {
                let selected = self.selected.as_deref();
                let is_it = |incident: &IncidentRecord| Some(incident.id.as_str()) == selected;
                let found = list.items.iter().position(is_it);
                if found.is_none() {
                    self.report = None;
                }
                self.list = Some(list);
                self.problem = None;
                self.select(found.unwrap_or(self.at));
            }
            Err(problem) => self.problem = Some(problem),
        }
    }

    pub fn told(&self) -> Option<&Listed<IncidentRecord>> {
        self.list.as_ref()
    }

    fn items(&self) -> &[IncidentRecord] {
        self.list.as_ref().map_or(&[], |list| &list.items)
    }

    pub fn selected(&self) -> Option<&IncidentRecord> {
        self.items().get(self.at)
    }

    fn select(&mut self, at: usize) {
        self.at = at.min(self.items().len().saturating_sub(1));
        self.selected = self.selected().map(|incident| incident.id.clone());
        self.scroll.show(self.at);
    }

    /// The list has room for so many lines.
    pub fn set_page(&mut self, lines: usize) {
        self.scroll.fit(self.items().len(), lines);
        self.scroll.show(self.at);
    }

    /// The lines on the screen, and whether each is selected.
    pub fn on_screen(&self) -> impl Iterator<Item = (&IncidentRecord, bool)> {
        let from = self.scroll.at();
        let lines = self.items().iter().enumerate().skip(from);
        let lines = lines.take(self.scroll.page());
        lines.map(|(at, incident)| (incident, at == self.at))
    }

    /// Moves the selection, or the report that is open.
    pub fn step(&mut self, by: isize) {
        match &mut self.report {
            Some(scroll) => scroll.step(by),
            None => self.select(self.at.saturating_add_signed(by)),
        }
    }

    pub fn to(&mut self, line: usize) {
        match &mut self.report {
            Some(scroll) => scroll.to(line),
            None => self.select(line),
        }
    }

    pub fn page(&self) -> usize {
        self.report.unwrap_or(self.scroll).page()
    }

    /// Opens the report of the selected one.
    pub fn open(&mut self) {
        if self.report.is_none() && self.selected().is_some() {
            self.report = Some(Scroll::default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::fixture::listed;

    fn incident(id: &str) -> IncidentRecord {
        let text = include_str!("../incident/fixtures/cgroup_oom.json");
        let mut incident: IncidentRecord = serde_json::from_str(text).unwrap();
        incident.id = id.into();
        incident
    }

    fn of(ids: &[&str]) -> Listed<IncidentRecord> {
        listed(0, ids.iter().map(|id| incident(id)).collect())
    }

    #[test]
    fn the_selection_and_its_report_stay_when_a_newer_incident_comes() {
        let mut incidents = Incidents::default();
        incidents.apply(Ok(of(&["b", "a"])));
        incidents.set_page(5);
        incidents.step(1);
        incidents.open();
        incidents.apply(Ok(of(&["c", "b", "a"])));
        assert_eq!(incidents.selected().unwrap().id, "a");
        assert!(incidents.report.is_some());
        incidents.apply(Ok(of(&["c", "b"])));
        assert!(incidents.report.is_none());
        assert_eq!(incidents.selected().unwrap().id, "b");
    }

    #[test]
    fn an_empty_list_opens_nothing() {
        let mut incidents = Incidents::default();
        incidents.open();
        incidents.step(3);
        incidents.apply(Ok(of(&[])));
        incidents.open();
        assert!(incidents.report.is_none() && incidents.selected().is_none());
    }
}
