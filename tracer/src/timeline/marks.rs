//! What happened to one cgroup, in order of time, bounded. Text is escaped and capped here, once.

use serde::{Deserialize, Serialize};

use crate::{
    api::records::{Mark, MarkKind},
    host::escape,
};

use super::unix;

/// Marks of one cgroup; with those of the agent itself a timeline has no more than 64.
pub const MOST: usize = 48;
/// Longest text and longest id of an incident, characters.
const MOST_TEXT: usize = 512;
const MOST_INCIDENT: usize = 64;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptMark {
    /// On the sample clock.
    pub time_ms: i64,
    pub kind: MarkKind,
    text: Box<str>,
    incident: Option<Box<str>>,
}

impl KeptMark {
    pub fn new(time_ms: i64, kind: MarkKind, text: &str) -> Self {
        Self {
            time_ms,
            kind,
            text: escape::again(text, MOST_TEXT).into(),
            incident: None,
        }
    }

    /// Of an incident.
    pub fn of_incident(mut self, id: &str) -> Self {
        self.incident = Some(escape::again(id, MOST_INCIDENT).into());
        self
    }

    /// The same, of a file that anybody may have written.
    fn restored(self, latest_ms: i64) -> Self {
        let restored = Self::new(self.time_ms.min(latest_ms), self.kind, &self.text);
        match &self.incident {
            Some(id) => restored.of_incident(id),
            None => restored,
        }
    }

    pub fn told(&self, to_unix_ms: i64) -> Mark {
        Mark {
            time: unix(self.time_ms, to_unix_ms),
            kind: self.kind,
            text: self.text.to_string(),
            incident: self.incident.as_deref().map(str::to_owned),
        }
    }

    fn is_same_incident(&self, other: &Self) -> bool {
        self.kind == other.kind && self.incident.is_some() && self.incident == other.incident
    }

    fn text_bytes(&self) -> usize {
        self.text.len() + self.incident.as_ref().map_or(0, |id| id.len())
    }
}

/// All of them, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    kept: Vec<KeptMark>,
    /// Left out for newer ones.
    pub forgotten: u64,
}

impl Marks {
    /// Puts one in at its time; of an incident that is told again the latest text stays.
    pub fn put(&mut self, mark: KeptMark) {
        if let Some(former) = self
            .kept
            .iter_mut()
            .rev()
            .find(|former| former.is_same_incident(&mark))
        {
            former.text = mark.text;
            return;
        }
        let at = self
            .kept
            .partition_point(|kept| kept.time_ms <= mark.time_ms);
        if self.kept.len() == self.kept.capacity() {
            self.kept.reserve_exact((self.kept.len() / 2).max(2));
        }
        self.kept.insert(at, mark);
        self.forget_beyond(MOST);
    }

    /// Forgets down to `most` and gives back the room; says how many bytes that was.
    pub fn shrink_to(&mut self, most: usize) -> usize {
        if self.kept.len() <= most {
            return 0;
        }
        let before = self.held_bytes();
        self.forget_beyond(most);
        self.kept.shrink_to_fit();
        before.saturating_sub(self.held_bytes())
    }

    /// Forgets the oldest of the kind that has most, until `most` are left: what happens all the time
    /// does not drive out what happened once.
    fn forget_beyond(&mut self, most: usize) {
        while self.kept.len() > most {
            let count = |kind| self.kept.iter().filter(|kept| kept.kind == kind).count();
            let oldest_of_most = (0..self.kept.len())
                .rev()
                .max_by_key(|at| self.kept.get(*at).map_or(0, |kept| count(kept.kind)));
            self.kept.remove(oldest_of_most.unwrap_or(0));
            self.forgotten = self.forgotten.saturating_add(1);
        }
    }

    /// Gives back room that is not used.
    pub fn shrink_to_fit(&mut self) {
        self.kept.shrink_to_fit();
    }

    /// Takes in those of the same cgroup under another id.
    pub fn join(&mut self, others: Marks) {
        let begun = |mark: &KeptMark| mark.kind == MarkKind::Started;
        for mark in others.kept.into_iter().filter(|mark| !begun(mark)) {
            self.put(mark);
        }
        self.forgotten = self.forgotten.saturating_add(others.forgotten);
    }

    /// Those of a file, none later than `latest_ms`.
    pub fn restored(self, shift_ms: i64, latest_ms: i64) -> Self {
        let mut marks = Self {
            kept: Vec::new(),
            forgotten: self.forgotten,
        };
        for mut mark in self.kept {
            mark.time_ms = mark.time_ms.saturating_sub(shift_ms);
            marks.put(mark.restored(latest_ms));
        }
        marks
    }

    pub fn iter(&self) -> impl Iterator<Item = &KeptMark> {
        self.kept.iter()
    }

    pub fn last(&self) -> Option<&KeptMark> {
        self.kept.last()
    }

    /// Bytes on the heap.
    pub fn held_bytes(&self) -> usize {
        let texts: usize = self.kept.iter().map(KeptMark::text_bytes).sum();
        self.kept.capacity() * size_of::<KeptMark>() + texts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(time_ms: i64, kind: MarkKind) -> KeptMark {
        KeptMark::new(time_ms, kind, &format!("at {time_ms}"))
    }

    fn times(marks: &Marks) -> Vec<i64> {
        marks.iter().map(|mark| mark.time_ms).collect()
    }

    #[test]
    fn marks_are_in_order_of_time_and_the_oldest_go_first_and_are_counted() {
        let mut marks = Marks::default();
        for time in 0..100 {
            // Told later than what came after it.
            marks.put(mark(time ^ 1, MarkKind::Verdict));
        }
        assert_eq!(times(&marks), (52..100).collect::<Vec<_>>());
        assert_eq!(marks.forgotten, 52);
    }

    #[test]
    fn what_happens_all_the_time_does_not_drive_out_what_happened_once() {
        let mut marks = Marks::default();
        marks.put(mark(1, MarkKind::Oom));
        (2..500).for_each(|time| marks.put(mark(time, MarkKind::LimitChanged)));
        assert_eq!(times(&marks).first(), Some(&1));
        assert_eq!(times(&marks).get(1), Some(&(500 - MOST as i64 + 1)));
    }

    #[test]
    fn an_incident_that_is_told_again_is_one_mark() {
        let mut marks = Marks::default();
        let stall = |text| KeptMark::new(5, MarkKind::Stall, text).of_incident("a");
        marks.put(stall("so far"));
        marks.put(stall("ended"));
        marks.put(KeptMark::new(9, MarkKind::Report, "said").of_incident("a"));
        let texts: Vec<String> = marks.iter().map(|mark| mark.told(0).text).collect();
        assert_eq!(texts, ["ended", "said"]);
    }

    #[test]
    fn text_is_safe_for_a_terminal_and_short_and_escaped_once_only() {
        let hostile = format!("\x1b[31m a\\x2db {}", "x".repeat(10_000));
        let once = KeptMark::new(0, MarkKind::Action, &hostile).of_incident(&hostile);
        let text = once.told(0).text;
        assert!(text.starts_with("\\x1b[31m a\\x2db x"), "{text}");
        assert_eq!(text.chars().count(), MOST_TEXT + 1);
        let twice = once.clone().restored(0);
        assert_eq!(
            twice.told(0).text.trim_end_matches('…'),
            text.trim_end_matches('…')
        );
        assert!(twice.told(0).incident.is_some_and(|id| id.len() < 100));
    }
}
