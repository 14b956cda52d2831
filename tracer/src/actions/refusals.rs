//! How often it is told that a command was not run: a storm of events must not fill the log. Pure.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Between two lines on the same rule and cause.
pub const PACE: Duration = Duration::from_secs(60);

/// What was told and what was not, by rule and cause.
#[derive(Debug, Default)]
pub struct Refusals {
    of: BTreeMap<(String, String), Refused>,
}

#[derive(Debug)]
struct Refused {
    told_at: Instant,
    untold: u64,
}

/// Refusals that were not told one by one.
#[derive(Debug, PartialEq, Eq)]
pub struct Untold {
    pub rule: String,
    pub why: String,
    pub count: u64,
}

impl Refusals {
    /// Whether one is told now; else it is told in a number later. One that is no `news` never is by itself.
    pub fn is_told(&mut self, rule: &str, why: &str, now: Instant, news: bool) -> bool {
        let is_over = |refused: &Refused| now.saturating_duration_since(refused.told_at) >= PACE;
        self.of
            .retain(|_, refused| refused.untold > 0 || !is_over(refused));
        let key = (rule.to_owned(), why.to_owned());
        if let Some(refused) = self.of.get_mut(&key) {
            refused.untold += 1;
            return false;
        }
        let fresh = Refused {
            told_at: now,
            untold: u64::from(!news),
        };
        self.of.insert(key, fresh);
        news
    }

    /// When a number is to be told next.
    pub fn due(&self) -> Option<Instant> {
        let waiting = self.of.values().filter(|refused| refused.untold > 0);
        waiting.map(|refused| refused.told_at + PACE).min()
    }

    /// One number whose time has come.
    pub fn take(&mut self, now: Instant) -> Option<Untold> {
        let is_due = |refused: &Refused| {
            refused.untold > 0 && now.saturating_duration_since(refused.told_at) >= PACE
        };
        let ((rule, why), refused) = self.of.iter_mut().find(|(_, refused)| is_due(refused))?;
        refused.told_at = now;
        Some(Untold {
            rule: rule.clone(),
            why: why.clone(),
            count: std::mem::take(&mut refused.untold),
        })
    }

    /// All numbers, at the end.
    pub fn rest(&mut self) -> Vec<Untold> {
        let all = std::mem::take(&mut self.of).into_iter();
        let waiting = all.filter(|(_, refused)| refused.untold > 0);
        waiting
            .map(|((rule, why), refused)| Untold {
                rule,
                why,
                count: refused.untold,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_a_storm_as_a_number() {
        let mut refusals = Refusals::default();
        let start = Instant::now();
        let told = (0..1000).filter(|_| refusals.is_told("dump", "full", start, true));
        assert_eq!(told.count(), 1);
        assert!(
            refusals.is_told("dump", "unknown", start, true),
            "another cause"
        );
        assert!(
            refusals.is_told("page", "full", start, true),
            "another rule"
        );
        assert_eq!(refusals.due(), Some(start + PACE));
        assert_eq!(refusals.take(start + PACE / 2), None);
        let untold = |count| Untold {
            rule: "dump".to_owned(),
            why: "full".to_owned(),
            count,
        };
        assert_eq!(refusals.take(start + PACE), Some(untold(999)));
        assert_eq!((refusals.take(start + PACE), refusals.due()), (None, None));
        assert!(!refusals.is_told("dump", "full", start + PACE, true));
        assert_eq!(refusals.due(), Some(start + PACE * 2));
        assert_eq!(refusals.rest(), [untold(1)]);
        assert_eq!(refusals.rest(), []);
    }

    #[test]
    fn what_is_no_news_is_only_counted() {
        let mut refusals = Refusals::default();
        let start = Instant::now();
        assert!(refusals.is_told("dump", "early", start, true));
        assert!((0..28).all(|_| !refusals.is_told("dump", "early", start, false)));
        assert_eq!(refusals.take(start + PACE).unwrap().count, 28);
        assert!(!refusals.is_told("page", "early", start, false));
        assert_eq!(refusals.rest()[0].count, 1);
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let mut refusals = Refusals::default();
        let start = Instant::now();
        assert!(refusals.is_told("dump", "full", start, true));
        assert!(refusals.is_told("dump", "unknown", start + PACE, true));
        assert_eq!(refusals.of.len(), 1);
        assert!(refusals.is_told("dump", "full", start + PACE, true));
    }
}
