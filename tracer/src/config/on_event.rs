//! `[[on_event]]` tables to rules. Pure.

use std::{collections::HashSet, time::Duration};

use globset::GlobMatcher;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    actions::{Argument, Rule, Run, Trigger, facts::IN_ARGUMENTS},
    cli,
    host::pattern::{cgroup_glob, glob},
    incident::Kind,
};

use super::{
    parse::{Lines, MOST_VALUES, suggestion},
    problem::{Problem, cited},
};

const MOST_RULES: usize = 32;
const MOST_NAME_CHARS: usize = 64;
const MOST_ARGUMENTS: usize = 256;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(3600);
const DEFAULT_MIN_INTERVAL: Duration = Duration::from_secs(600);
const KEYS: [&str; 10] = [
    "name",
    "on",
    "kinds",
    "cgroup",
    "namespace",
    "pod",
    "command",
    "shell",
    "timeout",
    "min_interval",
];

/// The rules of a file; what is wrong with them is added to `problems`.
pub fn rules(
    value: &Spanned<DeValue<'_>>,
    line: usize,
    lines: &Lines<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<Rule> {
    let DeValue::Array(tables) = value.get_ref() else {
        problems.push(Problem::new(
            line,
            "on_event: write [[on_event]], in double brackets",
        ));
        return Vec::new();
    };
    if tables.len() > MOST_RULES {
        let text = format!("on_event: more than {MOST_RULES} tables");
        problems.push(Problem::new(line, text));
        return Vec::new();
    }
    let mut rules: Vec<Rule> = Vec::new();
    let mut names = HashSet::new();
    for (index, table) in tables.iter().enumerate() {
        let line = lines.of(table.span());
        let DeValue::Table(table) = table.get_ref() else {
            problems.push(Problem::new(line, "on_event: write [[on_event]] tables"));
            continue;
        };
        let mut reader = Reader {
            table,
            line,
            lines,
            problems,
        };
        let Some(rule) = reader.rule(index + 1) else {
            continue;
        };
        if !names.insert(rule.name.clone()) {
            reader.wrong("name", "another [[on_event]] has the same name");
        }
        rules.push(rule);
    }
    rules
}

struct Reader<'a> {
    table: &'a DeTable<'a>,
    line: usize,
    lines: &'a Lines<'a>,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    /// `None` if anything is wrong with it.
    fn rule(&mut self, number: usize) -> Option<Rule> {
        let before = self.problems.len();
        for name in self.table.keys().take(MOST_VALUES) {
            if !KEYS.contains(&&**name.get_ref()) {
                let hint = suggestion(name.get_ref(), KEYS.into_iter());
                let hint = hint.map_or_else(
                    || format!("; it has {}", KEYS.join(", ")),
                    |known| format!("; did you mean `{known}`?"),
                );
                let line = self.lines.of(name.span());
                let text = format!("on_event: unknown key `{}`{hint}", cited(name.get_ref()));
                self.problems.push(Problem::new(line, text));
            }
        }
        let rule = Rule {
            name: self.name(number),
            on: self.on(),
            kinds: self.kinds(),
            cgroup: self.glob("cgroup"),
            namespace: self.glob("namespace"),
            pod: self.glob("pod"),
            run: self.run().unwrap_or(Run::Shell(String::new())),
            timeout: self.duration("timeout").unwrap_or(DEFAULT_TIMEOUT),
            min_interval: self
                .duration("min_interval")
                .unwrap_or(DEFAULT_MIN_INTERVAL),
        };
        if rule.timeout > LONGEST_TIMEOUT {
            self.wrong("timeout", "longer than 1h: few commands run at a time");
        }
        if !rule.kinds.is_empty() && !rule.on.contains(&Trigger::Incident) {
            self.wrong(
                "kinds",
                "only incidents have kinds: add \"incident\" to `on`",
            );
        }
        (self.problems.len() == before).then_some(rule)
    }

    /// A problem with a key, in its line.
    fn wrong(&mut self, key: &str, text: &str) {
        let found = self.table.get_key_value(key);
        let line = found.map_or(self.line, |(name, _)| self.lines.of(name.span()));
        let text = format!("on_event: {key}: {text}");
        self.problems.push(Problem::new(line, text));
    }

    fn value(&self, key: &str) -> Option<&DeValue<'_>> {
        self.table.get(key).map(Spanned::get_ref)
    }

    /// A string without NUL, which no program can be given.
    fn text(&mut self, key: &str) -> Option<String> {
        let text = match self.value(key)? {
            DeValue::String(text) if !text.is_empty() && !text.contains('\0') => {
                Some(text.to_string())
            }
            _ => None,
        };
        if text.is_none() {
            self.wrong(key, "write a string in quotes, not empty");
        }
        text
    }

    /// The same in one line, as flags take it.
    fn line(&mut self, key: &str) -> Option<String> {
        let text = self.text(key)?;
        if text.contains(char::is_control) {
            self.wrong(key, "control characters are no part of it");
            return None;
        }
        Some(text)
    }

    fn list(&mut self, key: &str) -> Option<Vec<String>> {
        let list = match self.value(key)? {
            DeValue::Array(items) => items
                .iter()
                .map(|item| match item.get_ref() {
                    DeValue::String(text) if !text.contains('\0') => Some(text.to_string()),
                    _ => None,
                })
                .collect::<Option<Vec<_>>>()
                .filter(|list| !list.is_empty()),
            _ => None,
        };
        if list.is_none() {
            self.wrong(key, "write a list of strings: [\"…\", \"…\"]");
        }
        list
    }

    fn name(&mut self, number: usize) -> String {
        let Some(name) = self.text("name") else {
            return format!("on_event {number}");
        };
        if name.chars().count() > MOST_NAME_CHARS || name.chars().any(char::is_control) {
            self.wrong("name", "write at most 64 characters, in one line");
        }
        name
    }

    fn on(&mut self) -> Vec<Trigger> {
        let known = || Trigger::ALL.into_iter().map(Trigger::name);
        if self.value("on").is_none() {
            let known: Vec<&str> = known().collect();
            self.wrong("on", &format!("missing: which of {}?", known.join(", ")));
        }
        let mut on = Vec::new();
        for name in self.list("on").unwrap_or_default() {
            match Trigger::ALL.into_iter().find(|known| known.name() == name) {
                Some(trigger) => on.push(trigger),
                None => self.wrong("on", &no_such("event", &name, known())),
            }
        }
        on
    }

    fn kinds(&mut self) -> Vec<Kind> {
        let mut kinds = Vec::new();
        for name in self.list("kinds").unwrap_or_default() {
            match Kind::ALL.into_iter().find(|known| known.name() == name) {
                Some(kind) => kinds.push(kind),
                None => {
                    let known = Kind::ALL.into_iter().map(Kind::name);
                    self.wrong("kinds", &no_such("kind", &name, known));
                }
            }
        }
        kinds
    }

    fn glob(&mut self, key: &str) -> Option<GlobMatcher> {
        let text = self.line(key)?;
        let read = match key {
            "cgroup" => cgroup_glob,
            _ => glob,
        };
        read(&text).map_err(|error| self.wrong(key, &error)).ok()
    }

    fn duration(&mut self, key: &str) -> Option<Duration> {
        let text = self.line(key)?;
        cli::duration(&text)
            .map_err(|error| self.wrong(key, &error))
            .ok()
    }

    fn run(&mut self) -> Option<Run> {
        match (self.value("command"), self.value("shell")) {
            (Some(_), None) => self.command(),
            (None, Some(_)) => self.text("shell").map(Run::Shell),
            (Some(_), Some(_)) => {
                self.wrong("shell", "write command or shell, not both");
                None
            }
            (None, None) => {
                self.wrong("command", "missing: what to run? (or shell)");
                None
            }
        }
    }

    fn command(&mut self) -> Option<Run> {
        let mut given = self.list("command")?.into_iter();
        let program = given.next().filter(|program| program.starts_with('/'));
        let Some(program) = program else {
            self.wrong("command", "write the full path of the program first");
            return None;
        };
        if given.len() > MOST_ARGUMENTS {
            self.wrong("command", "too many arguments: write a script");
        }
        if Argument::parse(&program).map_or(true, |program| program.has_facts()) {
            self.wrong("command", "the program itself cannot depend on the event");
        }
        let mut arguments = Vec::new();
        for text in given {
            match Argument::parse(&text) {
                Ok(argument) => arguments.push(argument),
                Err(fact) => {
                    let no_fact = no_such("fact for arguments", &fact, IN_ARGUMENTS.into_iter());
                    self.wrong("command", &no_fact);
                }
            }
        }
        Some(Run::Command { program, arguments })
    }
}

fn no_such<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    match suggestion(name, known.clone()) {
        Some(known) => format!("{name:?} is no {what}; did you mean {known:?}?"),
        None => {
            let known: Vec<&str> = known.collect();
            format!("{name:?} is no {what}: there are {}", known.join(", "))
        }
    }
}
