//! What top shows, and what keys and answers change of it. Pure: no screen, no connection, no clock.

use jiff::Timestamp;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::{
    details::Details,
    filter::{self, Filter},
    incidents::Incidents,
    keys::{self, Command},
    names,
    rows::{Rows, View},
};
use crate::api::records::{AgentRecord, CgroupDetails, CgroupRow, IncidentRecord, Listed};

/// What came from the agent.
#[derive(Debug)]
pub enum Told {
    Agent(Box<AgentRecord>),
    Cgroups(Listed<CgroupRow>),
    Details(u64, Result<Box<CgroupDetails>, String>),
    Incidents(Result<Listed<IncidentRecord>, String>),
    /// No answer came.
    Lost {
        /// Of this failure.
        time: Timestamp,
        why: String,
    },
}

/// What is to be asked of the agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wants {
    /// Nothing.
    pub paused: bool,
    /// Only this cgroup, not the list.
    pub details: Option<u64>,
    pub incidents: bool,
}

/// How the connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    Connecting,
    Live,
    Lost { since: Timestamp, why: String },
}

/// What is to be done after a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    Nothing,
    Draw,
    /// Clears the screen before.
    Redraw,
    Suspend,
    Quit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pane {
    List,
    Details,
    Incidents,
}

#[derive(Debug)]
pub struct App {
    pub rows: Rows,
    pub agent: Option<Box<AgentRecord>>,
    pub link: Link,
    /// The agent is of this process.
    pub own: bool,
    pub details: Option<Details>,
    pub incidents: Option<Incidents>,
    pub help: bool,
    pub paused: bool,
    /// The filter while it is typed, and the one before.
    pub typing: Option<(String, Filter)>,
    /// What `--cgroup` and `--pod` chose, for people.
    pub chosen: Option<String>,
}

impl App {
    pub fn new(view: View, own: bool, chosen: Option<String>) -> Self {
        Self {
            rows: Rows::new(view),
            agent: None,
            link: Link::Connecting,
            own,
            details: None,
            incidents: None,
            help: false,
            paused: false,
            typing: None,
            chosen,
        }
    }

    /// What lies on top.
    pub fn pane(&self) -> Pane {
        match (&self.details, &self.incidents) {
            (_, Some(_)) => Pane::Incidents,
            (Some(_), None) => Pane::Details,
            (None, None) => Pane::List,
        }
    }

    pub fn wants(&self) -> Wants {
        let details = self.details.as_ref().map(|details| details.cgroup_id);
        Wants {
            paused: self.paused,
            details: details.filter(|_| self.incidents.is_none()),
            incidents: self.incidents.is_some(),
        }
    }

    /// Takes what the agent told; whether the screen shows it.
    pub fn hear(&mut self, told: Told) -> bool {
        // What was on its way when the screen was held.
        if self.paused && !matches!(told, Told::Lost { .. }) {
            return false;
        }
        match told {
            Told::Lost { time, why } => {
                let since = match self.link {
                    Link::Lost { since, .. } => since,
                    _ => time,
                };
                let link = Link::Lost { since, why };
                let changed = self.link != link;
                self.link = link;
                return changed;
            }
            Told::Agent(agent) => {
                if matches!(self.link, Link::Lost { .. }) {
                    self.rows.mark_gap();
                }
                let changed = self.link != Link::Live || self.agent.as_ref() != Some(&agent);
                self.link = Link::Live;
                self.agent = Some(agent);
                return changed;
            }
            Told::Cgroups(list) => {
                self.rows.apply(list);
                return self.pane() == Pane::List;
            }
            Told::Details(id, answer) => match &mut self.details {
                Some(details) if details.cgroup_id == id => {
                    if let Ok(record) = &answer {
                        self.rows.observe(&record.row, record.time);
                    }
                    details.apply(answer);
                }
                _ => return false,
            },
            Told::Incidents(answer) => match &mut self.incidents {
                Some(incidents) => incidents.apply(answer),
                None => return false,
            },
        }
        true
    }

    /// A key was pressed.
    pub fn press(&mut self, key: KeyEvent) -> Then {
        if self.typing.is_some() {
            return self.type_filter(key);
        }
        let Some(command) = keys::command(key) else {
            return Then::Nothing;
        };
        match command {
            Command::Quit => return Then::Quit,
            Command::Suspend => return Then::Suspend,
            Command::Redraw => return Then::Redraw,
            _ if self.help => {
                self.help = false;
                return Then::Draw;
            }
            Command::Help => {
                self.help = true;
                return Then::Draw;
            }
            Command::Pause => {
                self.paused = !self.paused;
                return Then::Draw;
            }
            _ => {}
        }
        match self.pane() {
            Pane::List => self.on_list(command),
            Pane::Details => self.on_details(command),
            Pane::Incidents => self.on_incidents(command),
        }
    }

    fn on_list(&mut self, command: Command) -> Then {
        let page = isize::try_from(self.rows.page()).unwrap_or(isize::MAX);
        match command {
            Command::Up => self.rows.step(-1),
            Command::Down => self.rows.step(1),
            Command::PageUp => self.rows.step(-page),
            Command::PageDown => self.rows.step(page),
            Command::First => self.rows.select_first(),
            Command::Last => self.rows.select_last(),
            Command::Collapse => self.rows.collapse(),
            Command::Expand => self.rows.expand(),
            Command::Open => {
                let Some(row) = self.rows.selected_row() else {
                    return Then::Nothing;
                };
                self.details = Some(Details::new(row.cgroup_id, names::full(row)));
            }
            Command::Incidents => self.incidents = Some(Incidents::default()),
            Command::Filter => {
                let before = self.rows.view.filter.clone();
                self.typing = Some((before.text().to_owned(), before));
            }
            Command::Back if !self.rows.view.filter.is_empty() => {
                self.rows.view.filter = Filter::default();
                self.rows.arrange();
            }
            Command::Back => return Then::Quit,
            Command::Tree => self.arrange(|view| view.flat = !view.flat),
            Command::Reverse => self.arrange(|view| view.reversed = !view.reversed),
            Command::LeaksOnly => self.arrange(|view| view.leaks_only = !view.leaks_only),
            Command::Empty => self.arrange(|view| view.empty = !view.empty),
            Command::NextSort => self.arrange(|view| view.sort = view.sort.step(true)),
            Command::PreviousSort => self.arrange(|view| view.sort = view.sort.step(false)),
            _ => return Then::Nothing,
        }
        Then::Draw
    }

    fn arrange(&mut self, change: impl FnOnce(&mut View)) {
        change(&mut self.rows.view);
        self.rows.arrange();
    }

    fn on_details(&mut self, command: Command) -> Then {
        let Some(details) = &mut self.details else {
            return Then::Nothing;
        };
        let page = isize::try_from(details.scroll.page()).unwrap_or(isize::MAX);
        match command {
            Command::Up => details.scroll.step(-1),
            Command::Down => details.scroll.step(1),
            Command::PageUp => details.scroll.step(-page),
            Command::PageDown => details.scroll.step(page),
            Command::First => details.scroll.to(0),
            Command::Last => details.scroll.to(usize::MAX),
            Command::LongerSpan => details.longer(),
            Command::ShorterSpan => details.shorter(),
            Command::Incidents => self.incidents = Some(Incidents::default()),
            Command::Back => self.details = None,
            _ => return Then::Nothing,
        }
        Then::Draw
    }

    fn on_incidents(&mut self, command: Command) -> Then {
        let Some(incidents) = &mut self.incidents else {
            return Then::Nothing;
        };
        let page = isize::try_from(incidents.page()).unwrap_or(isize::MAX);
        match command {
            Command::Up => incidents.step(-1),
            Command::Down => incidents.step(1),
            Command::PageUp => incidents.step(-page),
            Command::PageDown => incidents.step(page),
            Command::First => incidents.to(0),
            Command::Last => incidents.to(usize::MAX),
            Command::Open => incidents.open(),
            Command::Back if incidents.report.is_some() => incidents.report = None,
            Command::Back | Command::Incidents => self.incidents = None,
            _ => return Then::Nothing,
        }
        Then::Draw
    }

    /// The list follows each letter; Esc brings the former filter back.
    fn type_filter(&mut self, key: KeyEvent) -> Then {
        let Some((text, before)) = &mut self.typing else {
            return Then::Nothing;
        };
        if key.kind == KeyEventKind::Release {
            return Then::Nothing;
        }
        let with_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if with_control => return Then::Quit,
            KeyCode::Char('z') if with_control => return Then::Suspend,
            KeyCode::Char('u') if with_control => text.clear(),
            KeyCode::Char(_) if with_control => return Then::Nothing,
            KeyCode::Enter => {
                self.typing = None;
                return Then::Draw;
            }
            KeyCode::Esc => {
                self.rows.view.filter = std::mem::take(before);
                self.typing = None;
                self.rows.arrange();
                return Then::Draw;
            }
            KeyCode::Backspace => {
                text.pop();
            }
            KeyCode::Char(letter)
                if !letter.is_control() && text.chars().count() < filter::MOST_CHARS =>
            {
                text.push(letter);
            }
            _ => return Then::Nothing,
        }
        self.rows.view.filter = Filter::new(text);
        self.rows.arrange();
        Then::Draw
    }
}

#[cfg(test)]
#[path = "app_tests.rs"]
mod tests;
