//! What to do where nothing leaks, so far: never more calm than what was seen.

use super::{
    super::{facts::Facts, trend::trend},
    List,
};
use crate::{analysis::State, size};

impl List {
    /// Too little was seen for a verdict: what there is in its place.
    pub(super) fn look_again(&mut self, facts: &Facts) {
        if facts
            .details
            .as_ref()
            .is_some_and(|known| known.row.removed)
        {
            self.say("It is gone, and too little was seen of it to say whether it leaked.");
            return;
        }
        let mut known = Vec::new();
        if let Some(details) = &facts.details {
            let row = &details.row;
            match (trend(facts), row.growth_bytes_per_second) {
                (Some(trend), _) => known.push(format!("it grew by {}", trend.told())),
                (None, Some(rate)) => {
                    let rate = size::rate(Some(rate));
                    known.push(format!("its growth over the last interval was {rate}"));
                }
                (None, None) => {}
            }
            match (row.usage_bytes, row.effective_limit_bytes) {
                (Some(usage), Some(limit)) => known.push(format!(
                    "it holds {} at a limit of {}",
                    size::bytes(usage),
                    size::bytes(limit)
                )),
                (Some(usage), None) => known.push(format!("it holds {}", size::bytes(usage))),
                (None, _) => {}
            }
        }
        let mut text =
            "It is too early to say whether it leaks: look again in some minutes.".to_owned();
        if !known.is_empty() {
            text += &format!(" So far {}.", known.join(", and "));
        }
        self.say(text);
    }

    /// Where there is nothing else: no more than is known.
    pub(super) fn calm(&mut self, facts: &Facts) {
        let state = facts.leak().map(|leak| leak.state);
        let untold = facts.untold();
        let span = match untold {
            0 => "",
            _ => " in the time that is told",
        };
        match (trend(facts), state) {
            (Some(trend), _) => self.say(format!(
                "Nothing was killed{span}, and no leak is told so far, but it grew by {}. A verdict takes \
                 longer than that: look again if it goes on.",
                trend.told()
            )),
            (None, None) => self.say(format!(
                "Nothing that is known needs to be done: nothing was killed{span}; whether it leaks is not \
                 judged."
            )),
            (None, Some(State::Warming)) => self.say(format!(
                "Nothing needs to be done now: no leak is told so far, and nothing was killed{span}. It is \
                 young, or its growth flattens: look again later."
            )),
            (None, Some(_)) => self.say(format!(
                "Nothing needs to be done: nothing grows that matters, and nothing was killed{span}."
            )),
        }
        match untold {
            0 => {}
            1 => self.say("1 incident before that time is not told: leave out --since to see it."),
            count => self.say(format!(
                "{count} incidents before that time are not told: leave out --since to see them."
            )),
        }
    }
}
