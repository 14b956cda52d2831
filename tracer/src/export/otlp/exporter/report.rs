//! What an operator is told of a backend: that it fails, and that it works again.
//!
//! Owns the pace: a backend that stays down, or goes up and down, does not fill the log. Must not count.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::export::otlp::client::{Delivery, SendError};
use crate::redact;

/// Between two lines on whether a backend works.
const PACE: Duration = Duration::from_secs(60);

pub(super) struct Report {
    /// Without secrets.
    endpoint: String,
    /// What is sent, in words.
    what: &'static str,
    pace: Arc<Mutex<Pace>>,
    warned_partial: bool,
    /// When the time of the flush at the end was over.
    unsent: u64,
    /// Of that, as far as an attempt failed.
    cause: Option<SendError>,
}

impl Report {
    pub(super) fn new(endpoint: &http::Uri, what: &'static str) -> Self {
        Report {
            endpoint: redact::url(&endpoint.to_string()),
            what,
            pace: Arc::default(),
            warned_partial: false,
            unsent: 0,
            cause: None,
        }
    }

    /// `meanwhile`: what becomes of what is not sent, in words.
    pub(super) fn fails(&mut self, error: &SendError, meanwhile: &str) {
        let (endpoint, what) = (&self.endpoint, self.what);
        self.is(State::Fails(format!(
            "OTLP export of {what} to {endpoint} fails: {error}; tracing goes on, {meanwhile}"
        )));
    }

    pub(super) fn works(&mut self, delivery: &Delivery) {
        let (endpoint, what) = (&self.endpoint, self.what);
        if let Some(warning) = &delivery.warning
            && !std::mem::replace(&mut self.warned_partial, true)
        {
            log::warn!(
                "OTLP backend {endpoint} refused {} {what} of an export: {warning}; \
                 further ones are only counted",
                delivery.rejected
            );
        }
        if delivery.error.is_none() {
            self.is(State::Works(format!(
                "OTLP export of {what} to {endpoint} works again"
            )));
        }
    }

    /// The time of the flush at the end is over. [`Self::ends`] tells it.
    pub(super) fn out_of_time(&mut self, unsent: u64, cause: Option<SendError>) {
        self.unsent += unsent;
        self.cause = cause.or(self.cause.take());
    }

    /// Nothing is sent any more.
    pub(super) fn ends(&self) {
        if let Some(line) = self.last_line() {
            log::warn!("{line}");
        }
    }

    /// Why something is unsent is not told again.
    fn last_line(&self) -> Option<String> {
        let pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        (self.unsent > 0 && !pace.now.is_failure()).then(|| {
            let cause = self.cause.as_ref();
            let cause = cause.map_or_else(String::new, |cause| format!(": {cause}"));
            format!(
                "OTLP export to {} did not end in time: {} {} unsent{cause}",
                self.endpoint, self.unsent, self.what
            )
        })
    }

    /// Tells it now, or when it is time: what is true then.
    fn is(&self, state: State) {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        pace.change(state);
        if let Some(line) = pace.line(Instant::now()) {
            line.tell();
        } else if let Some(at) = pace.wait() {
            let pace = Arc::clone(&self.pace);
            tokio::spawn(async move {
                tokio::time::sleep_until(at).await;
                let mut pace = pace.lock().unwrap_or_else(PoisonError::into_inner);
                pace.waiting = false;
                if let Some(line) = pace.line(Instant::now()) {
                    line.tell();
                }
            });
        }
    }
}

/// How a backend is, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Fails(String),
    Works(String),
}

impl Default for State {
    fn default() -> Self {
        State::Works(String::new())
    }
}

impl State {
    fn is_failure(&self) -> bool {
        matches!(self, State::Fails(_))
    }
}

/// A line for the log.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    state: State,
    /// Failures since the line before that were not told.
    untold: u64,
}

impl Line {
    fn tell(self) {
        let untold = match self.untold {
            0 => String::new(),
            times => format!(" (it failed {times} more times in between)"),
        };
        match self.state {
            State::Fails(text) => log::warn!("{text}{untold}"),
            State::Works(text) => log::info!("{text}{untold}"),
        }
    }
}

/// Causes of one outage that are told, each once: one that changes with every attempt does not fill the log.
const MAX_CAUSES: usize = 4;

/// Which changes are told, and when. Pure.
#[derive(Debug, Default)]
struct Pace {
    now: State,
    /// What was told of the outage; empty: the last word was that it works.
    told: Vec<State>,
    told_at: Option<Instant>,
    /// Changes to failing since the last line.
    failures: u64,
    /// Somebody comes when it is time.
    waiting: bool,
}

impl Pace {
    fn change(&mut self, state: State) {
        let begins = state.is_failure() && !self.now.is_failure();
        self.failures += u64::from(begins);
        self.now = state;
    }

    /// What is to be told.
    fn line(&mut self, now: Instant) -> Option<Line> {
        if !self.is_news() || self.next().is_some_and(|next| now < next) {
            return None;
        }
        let is_failure = self.now.is_failure();
        match is_failure {
            true => self.told.push(self.now.clone()),
            false => self.told.clear(),
        }
        self.told_at = Some(now);
        let failures = std::mem::take(&mut self.failures);
        Some(Line {
            state: self.now.clone(),
            // The line itself tells one.
            untold: failures.saturating_sub(u64::from(is_failure)),
        })
    }

    fn is_news(&self) -> bool {
        match self.now.is_failure() {
            true => self.told.len() < MAX_CAUSES && !self.told.contains(&self.now),
            false => !self.told.is_empty(),
        }
    }

    fn next(&self) -> Option<Instant> {
        self.told_at.map(|at| at + PACE)
    }

    /// When to come again; `None`: somebody does, or nothing is to be told.
    fn wait(&mut self) -> Option<Instant> {
        let is_due = self.is_news() && !self.waiting;
        let next = self.next().filter(|_| is_due)?;
        self.waiting = true;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails() -> State {
        State::Fails("fails".to_owned())
    }

    fn works() -> State {
        State::Works("works".to_owned())
    }

    fn told(pace: &mut Pace, at: Instant, state: State) -> Option<Line> {
        pace.change(state);
        pace.line(at)
    }

    #[test]
    fn a_backend_is_named_without_its_token() {
        let endpoint = http::Uri::from_static("https://backend/v1/metrics?token=secret");
        let report = Report::new(&endpoint, "events");
        assert_eq!(report.endpoint, "https://backend/v1/metrics?***");
    }

    #[test]
    fn what_two_exports_leave_unsent_at_the_end_is_one_line() {
        let endpoint = http::Uri::from_static("http://backend:4318");
        let mut report = Report::new(&endpoint, "data points");
        assert_eq!(report.last_line(), None);
        let refused = SendError::Unreachable("refused".to_owned());
        report.out_of_time(2, Some(refused.clone()));
        report.out_of_time(3, None);
        let line = report.last_line().unwrap();
        assert!(
            line.ends_with(": 5 data points unsent: cannot reach the backend: refused"),
            "{line}"
        );
        report.fails(&refused, "they wait");
        assert_eq!(report.last_line(), None, "its cause is told");
    }

    #[test]
    fn the_first_failure_is_told_at_once_and_those_that_follow_are_not() {
        let (mut pace, at) = (Pace::default(), Instant::now());
        assert_eq!(told(&mut pace, at, works()), None);
        let state = fails();
        assert_eq!(
            told(&mut pace, at, fails()),
            Some(Line { state, untold: 0 })
        );
        for seconds in [1, 61, 3600] {
            let later = at + Duration::from_secs(seconds);
            assert_eq!(told(&mut pace, later, fails()), None);
        }
        let state = works();
        let later = at + PACE;
        assert_eq!(
            told(&mut pace, later, works()),
            Some(Line { state, untold: 0 })
        );
    }

    #[test]
    fn another_cause_of_the_same_outage_is_told_once() {
        let (mut pace, at) = (Pace::default(), Instant::now());
        let cause = |number: usize| State::Fails(format!("cause {number}"));
        let later = |minutes: u32| at + PACE * minutes;
        let mut lines = Vec::new();
        for minute in 0..20 {
            // The first and the second come by turns, then it is one of its own each time.
            let number = if minute < 8 { minute % 2 } else { minute };
            let state = cause(number as usize);
            lines.extend(told(&mut pace, later(minute), state).map(|line| line.state));
        }
        assert_eq!(lines, [0, 1, 8, 9].map(cause));
        let line = told(&mut pace, later(20), works());
        assert_eq!(line.map(|line| line.state), Some(works()));
        let line = told(&mut pace, later(21), cause(1));
        assert_eq!(line.map(|line| line.state), Some(cause(1)));
    }

    #[test]
    fn a_backend_that_goes_up_and_down_makes_a_line_a_minute() {
        let (mut pace, begin) = (Pace::default(), Instant::now());
        let (mut lines, mut failures) = (Vec::new(), 0);
        for second in 0..600 {
            let fails_now = second % 2 == 0;
            failures += u64::from(fails_now);
            let state = if fails_now { fails() } else { works() };
            let at = begin + Duration::from_secs(second);
            lines.extend(told(&mut pace, at, state).map(|line| (at, line)));
        }
        assert!((9..=10).contains(&lines.len()), "{}", lines.len());
        assert!(lines.windows(2).all(|two| two[1].0 - two[0].0 >= PACE));
        let counted = |(_, line): &(Instant, Line)| line.untold + u64::from(line.state == fails());
        let counted: u64 = lines.iter().map(counted).sum();
        assert_eq!(counted + pace.failures, failures);
    }

    #[test]
    fn what_was_too_early_to_tell_is_told_when_it_is_time() {
        let (mut pace, at) = (Pace::default(), Instant::now());
        assert!(told(&mut pace, at, fails()).is_some());
        assert_eq!(pace.wait(), None, "all is told");
        assert_eq!(told(&mut pace, at + Duration::from_secs(5), works()), None);
        assert_eq!(pace.wait(), Some(at + PACE));
        assert_eq!(pace.wait(), None, "one waits");
        pace.waiting = false;
        assert_eq!(pace.line(at + PACE).map(|line| line.state), Some(works()));
    }
}
