//! TOML text to settings, or to all that is wrong with it. Pure.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::actions::Rule;

use super::{
    definition::{Key, Shape},
    on_event,
    problem::{self, Problem},
};

/// The key that is no flag.
pub const ON_EVENT: &str = "on_event";
/// Keys of a table, and values of a list, that are looked at: each is checked by itself.
pub const MOST_VALUES: usize = 256;

const CONTROL: &str = "control characters cannot be given to a flag";

/// What a file says.
#[derive(Debug, Default)]
pub struct Settings {
    /// In the order of the file, each key once.
    pub entries: Vec<Entry>,
    pub rules: Vec<Rule>,
}

/// A key that the file has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// See [`Key::name`].
    pub key: String,
    /// As the flag takes them, in order; of a flag without a value none if it is off.
    pub values: Vec<String>,
    pub line: usize,
}

/// Lines of a text by offset.
pub struct Lines<'a>(&'a str);

impl Lines<'_> {
    pub fn of(&self, span: Range<usize>) -> usize {
        let before = self.0.as_bytes().get(..span.start);
        let before = before.unwrap_or(self.0.as_bytes());
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }
}

/// Parses a file.
///
/// # Errors
/// Every problem, by line.
pub fn parse(text: &str, keys: &[Key]) -> Result<Settings, Vec<Problem>> {
    let lines = Lines(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut problems: Vec<Problem> = errors
        .iter()
        .map(|error| {
            let end = text.len()..text.len();
            let line = lines.of(error.span().unwrap_or(end));
            Problem::new(line, error.message().replace('\n', ", "))
        })
        .collect();
    // What is read of a broken text may be anything: only its syntax is told.
    if !problems.is_empty() {
        problems.sort_by_key(|problem| problem.line);
        return Err(problems);
    }
    let mut settings = Settings::default();
    if document.get_ref().len() > MOST_VALUES {
        let text = format!("more than {MOST_VALUES} keys: no configuration has so many");
        return Err(vec![Problem::new(1, text)]);
    }
    for (name, value) in document.get_ref() {
        if problems.len() > problem::MOST {
            break;
        }
        let line = lines.of(name.span());
        if name.get_ref() == ON_EVENT {
            settings.rules = on_event::rules(value, line, &lines, &mut problems);
            continue;
        }
        let Some(key) = keys.iter().find(|key| key.name == **name.get_ref()) else {
            problems.push(Problem::new(line, unknown(name.get_ref(), value, keys)));
            continue;
        };
        let found = problems.len();
        let values = values(key, value, &lines, &mut problems);
        if problems.len() == found {
            settings.entries.push(Entry {
                key: key.name.clone(),
                values,
                line,
            });
        }
    }
    settings.entries.sort_by_key(|entry| entry.line);
    if problems.is_empty() {
        return Ok(settings);
    }
    problems.sort_by_key(|problem| problem.line);
    Err(problems)
}

fn unknown(name: &str, value: &Spanned<DeValue<'_>>, keys: &[Key]) -> String {
    let known = keys.iter().map(|key| key.name.as_str()).chain([ON_EVENT]);
    // A dash instead of an underscore, a plural, a slip.
    let hint = match suggestion(&name.replace('-', "_"), known) {
        Some(known) => format!("; did you mean `{known}`?"),
        None if value.get_ref().is_table() => {
            "; keys are not grouped in tables: write them at the top of the file".to_owned()
        }
        None => "; `memtrace config example` lists all".to_owned(),
    };
    format!("unknown key `{}`{hint}", problem::cited(name))
}

/// The known name that is most like it, if any is.
pub fn suggestion<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let most_slips = (name.chars().count() / 3).max(1);
    known
        .map(|known| (strsim::osa_distance(name, known), known))
        .filter(|(slips, _)| *slips <= most_slips)
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, known)| known)
}

fn values(
    key: &Key,
    value: &Spanned<DeValue<'_>>,
    lines: &Lines<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<String> {
    let line = lines.of(value.span());
    let name = &key.name;
    let mut wrong = |line, text: String| problems.push(Problem::new(line, text));
    let one =
        |text: Result<String, &'static str>, line, wrong: &mut dyn FnMut(usize, String)| match text
            .map_err(str::to_owned)
            .and_then(|text| {
                key.check(&text)?;
                Ok(text)
            }) {
            Ok(text) => Some(text),
            Err(error) => {
                wrong(line, format!("{name}: {error}"));
                None
            }
        };
    let count = match value.get_ref() {
        DeValue::Array(array) => array.len(),
        DeValue::Table(table) => table.len(),
        _ => 1,
    };
    if count > MOST_VALUES {
        wrong(line, format!("{name}: more than {MOST_VALUES} values"));
        return Vec::new();
    }
    match (key.shape, value.get_ref()) {
        (Shape::Flag, DeValue::Boolean(true)) => vec!["true".to_owned()],
        (Shape::Flag, DeValue::Boolean(false)) => Vec::new(),
        (Shape::Flag, _) => {
            wrong(line, format!("{name}: write true or false"));
            Vec::new()
        }
        (Shape::Switch, DeValue::Boolean(on)) => {
            vec![if *on { "on" } else { "off" }.to_owned()]
        }
        (Shape::Pairs, DeValue::Table(table)) => table
            .iter()
            .filter_map(|(name, value)| {
                let text = match name.get_ref().contains(char::is_control) {
                    true => Err(CONTROL),
                    false => {
                        plain(value.get_ref()).map(|value| format!("{}={value}", name.get_ref()))
                    }
                };
                one(text, lines.of(name.span()), &mut wrong)
            })
            .collect(),
        (Shape::List | Shape::Pairs, DeValue::Array(array)) => {
            if array.is_empty() && !key.defaults().is_empty() {
                let text = "an empty list stands for no value; leave the key out for the default";
                wrong(line, format!("{name}: {text}"));
            }
            array
                .iter()
                .filter_map(|item| one(plain(item.get_ref()), lines.of(item.span()), &mut wrong))
                .collect()
        }
        (Shape::List, DeValue::Table(_)) => {
            wrong(line, format!("{name}: write a list: [\"…\", \"…\"]"));
            Vec::new()
        }
        (Shape::Single | Shape::Switch, DeValue::Array(_) | DeValue::Table(_)) => {
            wrong(line, format!("{name}: write one value"));
            Vec::new()
        }
        (_, single) => one(plain(single), line, &mut wrong).into_iter().collect(),
    }
}

/// A value as a flag takes it.
fn plain(value: &DeValue<'_>) -> Result<String, &'static str> {
    match value {
        DeValue::String(text) if text.chars().any(char::is_control) => Err(CONTROL),
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .map(|number| number.to_string())
            .map_err(|_| "the number is too large"),
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        DeValue::Boolean(_) => Err("it is not on or off: write a value"),
        DeValue::Datetime(_) => Err("it is no date: write a value"),
        DeValue::Array(_) | DeValue::Table(_) => Err("write one value"),
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
