//! A rule of `[[on_event]]`: which events, and what to run. Pure.

use std::time::Duration;

use globset::GlobMatcher;

use crate::{growth::GrowthEvent, incident::Kind};

use super::facts::{Facts, IN_ARGUMENTS};

/// An event that a rule may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    Growth(GrowthEvent),
    /// An incident is complete.
    Incident,
}

impl Trigger {
    pub const ALL: [Trigger; 5] = [
        Trigger::Growth(GrowthEvent::Suspected),
        Trigger::Growth(GrowthEvent::Confirmed),
        Trigger::Growth(GrowthEvent::Cleared),
        Trigger::Growth(GrowthEvent::LimitNear),
        Trigger::Incident,
    ];

    /// As written in the file and told to commands.
    pub fn name(self) -> &'static str {
        match self {
            Trigger::Growth(GrowthEvent::Suspected) => "leak_suspected",
            Trigger::Growth(GrowthEvent::Confirmed) => "leak_confirmed",
            Trigger::Growth(GrowthEvent::Cleared) => "leak_cleared",
            Trigger::Growth(GrowthEvent::LimitNear) => "limit_near",
            Trigger::Incident => "incident",
        }
    }
}

/// Which events run which command.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Unique; in the log and in marks.
    pub name: String,
    pub on: Vec<Trigger>,
    /// Of incidents; empty: all.
    pub kinds: Vec<Kind>,
    pub cgroup: Option<GlobMatcher>,
    pub namespace: Option<GlobMatcher>,
    pub pod: Option<GlobMatcher>,
    pub run: Run,
    /// After it the command is ended, with all that it started.
    pub timeout: Duration,
    /// Between two runs for one container.
    pub min_interval: Duration,
}

/// What a rule runs.
#[derive(Debug, Clone)]
pub enum Run {
    /// A program by its path, and its arguments.
    Command {
        program: String,
        arguments: Vec<Argument>,
    },
    /// Text for `/bin/sh -c`, which gets facts only by its environment.
    Shell(String),
}

impl Rule {
    pub fn matches(&self, facts: &Facts) -> bool {
        let among = |glob: &Option<GlobMatcher>, name: Option<&str>| match glob {
            None => true,
            Some(glob) => name.is_some_and(|name| glob.is_match(name)),
        };
        self.on.contains(&facts.trigger)
            && (self.kinds.is_empty() || facts.kind.is_none_or(|kind| self.kinds.contains(&kind)))
            && self
                .cgroup
                .as_ref()
                .is_none_or(|glob| facts.paths.iter().any(|path| glob.is_match(path)))
            && among(&self.namespace, facts.get("namespace"))
            && among(&self.pod, facts.get("pod"))
    }
}

/// An argument of a command: text with facts in between. It stays one argument whatever they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Fact(&'static str),
}

impl Argument {
    /// Takes `{pid}` for a fact; braces around anything but a lower-case word stay as they are.
    ///
    /// # Errors
    /// The word in braces that is no fact.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            plain.push_str(before);
            let word = after.split_once('}').map(|(word, _)| word);
            let Some(word) = word.filter(|word| is_word(word)) else {
                plain.push('{');
                rest = after;
                continue;
            };
            let known = IN_ARGUMENTS.iter().find(|name| **name == word);
            let fact = known.ok_or_else(|| word.to_owned())?;
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(Piece::Fact(fact));
            rest = after.split_once('}').map_or("", |(_, rest)| rest);
        }
        plain.push_str(rest);
        if !plain.is_empty() || pieces.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self(pieces))
    }

    /// Whether it has facts in it.
    pub fn has_facts(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Fact(_)))
    }

    /// The argument for an event.
    ///
    /// # Errors
    /// The fact that is not known of it, or that would make an option of the argument.
    pub fn fill(&self, facts: &Facts) -> Result<String, &'static str> {
        let pieces = self.0.iter().map(|piece| match piece {
            Piece::Text(text) => Ok(text.as_str()),
            Piece::Fact(name) => facts.get(name).ok_or(*name),
        });
        let filled = pieces.collect::<Result<String, _>>()?;
        match self.0.first() {
            // Others choose names; options are the operator's.
            Some(Piece::Fact(name)) if filled.starts_with('-') => Err(*name),
            _ => Ok(filled),
        }
    }
}

fn is_word(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c == '_';
    !text.is_empty() && text.chars().all(allowed)
}
