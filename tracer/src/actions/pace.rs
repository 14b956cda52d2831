//! How often a rule runs for one container. Pure.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::{Duration, Instant},
};

/// Runs that are remembered.
const MOST: usize = 4096;

/// The last runs.
#[derive(Debug, Default)]
pub struct Pace {
    last: HashMap<(String, String), Last>,
}

#[derive(Debug)]
struct Last {
    at: Instant,
    min_interval: Duration,
    /// An event in between was told to be left out.
    told: bool,
}

/// Whether an event is acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Run,
    /// Too early; the first time since the last run if `first`.
    TooEarly {
        first: bool,
    },
}

impl Pace {
    /// What had its turn did not run.
    pub fn give_back(&mut self, rule: &str, container: &str) {
        self.last.remove(&(rule.to_owned(), container.to_owned()));
    }

    /// Counts a run of the rule for the container, if it has its turn.
    pub fn turn(
        &mut self,
        rule: &str,
        container: &str,
        min_interval: Duration,
        now: Instant,
    ) -> Turn {
        let over = |last: &Last| now.saturating_duration_since(last.at) >= last.min_interval;
        if self.last.len() >= MOST {
            self.last.retain(|_, last| !over(last));
        }
        // A storm over more containers than that forgets the longest ago.
        if self.last.len() >= MOST
            && let Some(oldest) = self.last.iter().min_by_key(|(_, last)| last.at)
        {
            let key = oldest.0.clone();
            self.last.remove(&key);
        }
        let fresh = Last {
            at: now,
            min_interval,
            told: false,
        };
        match self.last.entry((rule.to_owned(), container.to_owned())) {
            Entry::Occupied(mut entry) => {
                let last = entry.get_mut();
                // A reloaded rule may have another.
                last.min_interval = min_interval;
                if over(last) {
                    *last = fresh;
                    return Turn::Run;
                }
                let first = !std::mem::replace(&mut last.told, true);
                Turn::TooEarly { first }
            }
            Entry::Vacant(entry) => {
                entry.insert(fresh);
                Turn::Run
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_rule_runs_once_an_interval_for_each_container() {
        let mut pace = Pace::default();
        let start = Instant::now();
        let mut turn = |container, secs| {
            let now = start + Duration::from_secs(secs);
            pace.turn("dump", container, MINUTE, now)
        };
        assert_eq!(turn("a", 0), Turn::Run);
        assert_eq!(turn("b", 1), Turn::Run);
        assert_eq!(turn("a", 30), Turn::TooEarly { first: true });
        assert_eq!(turn("a", 40), Turn::TooEarly { first: false });
        assert_eq!(turn("a", 60), Turn::Run);
        assert_eq!(turn("a", 61), Turn::TooEarly { first: true });
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut pace = Pace::default();
        let now = Instant::now();
        for container in 0..MOST + 100 {
            pace.turn("r", &container.to_string(), MINUTE, now);
        }
        assert!(pace.last.len() <= MOST);
        pace.turn("r", "later", MINUTE, now + MINUTE);
        assert_eq!(pace.last.len(), 1, "what is over is forgotten");
    }
}
