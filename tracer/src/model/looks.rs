//! What one process held at the looks of the last minutes: where its growth is measured from.

use std::{collections::VecDeque, time::Duration};

/// Looks kept of a process.
const MOST: usize = 16;

/// Anonymous memory of a process at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Since memtrace started.
    pub at: Duration,
    pub anon_bytes: u64,
}

/// Some of the looks at one process, oldest first.
#[derive(Debug, Default)]
pub struct Looks {
    kept: VecDeque<Look>,
}

impl Looks {
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    pub fn clear(&mut self) {
        self.kept.clear();
    }

    /// Keeps a look; newer ones follow `between` apart. `last`: the one before it, kept or not.
    pub fn remember(&mut self, look: Look, last: Option<Look>, between: Duration) {
        // Between two looks far apart nothing happened: the process had until the second what it had at
        // the first.
        if let Some(last) = last
            && look.at.saturating_sub(last.at) > between
            && self.kept.back().is_some_and(|back| back.at < last.at)
        {
            self.push(last);
        }
        let due = self
            .kept
            .back()
            .is_none_or(|back| look.at.saturating_sub(back.at) >= between);
        if due {
            self.push(look);
        }
    }

    fn push(&mut self, look: Look) {
        if self.kept.len() == MOST {
            self.kept.pop_front();
        }
        self.kept.push_back(look);
    }

    /// The look that tells best what the process held at `from`; the first if all are later.
    /// `last`: the last look, kept or not.
    pub fn nearest(&self, from: Duration, last: Option<Look>, between: Duration) -> Option<Look> {
        let all = self.kept.iter().copied().chain(last);
        let mut before = None;
        let mut after = None;
        for look in all {
            if look.at <= from {
                before = Some(look);
            } else {
                after = Some(look);
                break;
            }
        }
        match (before, after) {
            (Some(before), Some(after)) => {
                let passed = from.saturating_sub(before.at);
                // After a longer pause the process was idle: it held the same.
                let nearer = passed <= between && after.at.saturating_sub(from) < passed;
                Some(if nearer { after } else { before })
            }
            (before, after) => before.or(after),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BETWEEN: Duration = Duration::from_secs(20);

    fn look(second: u64, anon_bytes: u64) -> Look {
        Look {
            at: Duration::from_secs(second),
            anon_bytes,
        }
    }

    fn looks(all: &[Look]) -> (Looks, Option<Look>) {
        let (mut looks, mut last) = (Looks::default(), None);
        for look in all {
            looks.remember(*look, last, BETWEEN);
            last = Some(*look);
        }
        (looks, last)
    }

    #[test]
    fn looks_of_five_minutes_are_kept_whatever_comes() {
        let all: Vec<Look> = (0..1000).map(|second| look(second, second)).collect();
        let (looks, last) = looks(&all);
        let first = looks.nearest(Duration::ZERO, last, BETWEEN).unwrap();
        assert!((680..=700).contains(&first.at.as_secs()), "{first:?}");
        let near = looks.nearest(Duration::from_secs(850), last, BETWEEN);
        assert!(near.unwrap().at.as_secs().abs_diff(850) <= 10, "{near:?}");
    }

    #[test]
    fn a_process_that_was_idle_held_until_then_what_it_had_at_the_last_look() {
        let (looks, last) = looks(&[look(0, 10), look(15, 40), look(600, 90), look(605, 95)]);
        let from = |second| looks.nearest(Duration::from_secs(second), last, BETWEEN);
        assert_eq!(from(300), Some(look(15, 40)));
        assert_eq!(from(599), Some(look(15, 40)));
        assert_eq!(from(602), Some(look(600, 90)));
    }

    #[test]
    fn growth_before_the_window_is_left_out_when_nothing_followed() {
        let (looks, last) = looks(&[look(0, 10), look(15, 40)]);
        let from = Duration::from_secs(300);
        assert_eq!(looks.nearest(from, last, BETWEEN), Some(look(15, 40)));
    }
}
