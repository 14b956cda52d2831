//! What holds, and where each value came from: as TOML with comments, or as JSON. Never shows a secret.

use std::io::{self, Write};

use serde::Serialize;

use crate::{
    actions::{Rule, Run, Trigger},
    host::escape,
    redact::{self, MASK},
};

use super::{
    definition::Shape,
    layers::{Effective, Layers, Origin},
};

/// Column of the comments.
const COLUMN: usize = 44;
const MOST_CHARS: usize = 4096;

/// Prints the values as TOML, each with its origin as a comment.
pub fn text(layers: &Layers, out: &mut dyn Write) -> io::Result<()> {
    let path = layers.path.as_deref();
    match path {
        Some(path) => writeln!(
            out,
            "# file: {}",
            shown(path.as_os_str().as_encoded_bytes())
        )?,
        None => writeln!(out, "# file: none")?,
    }
    for effective in &layers.effective {
        let value = toml_value(effective);
        let name = &effective.key.name;
        let line = match &value {
            Some(value) => format!("{name} = {value}"),
            None => format!("#{name}"),
        };
        writeln!(out, "{line:<COLUMN$} # {}", origin(layers, effective))?;
    }
    for rule in &layers.rules {
        writeln!(out, "# on_event {:?}: {}", rule.name, summary(rule))?;
    }
    Ok(())
}

/// Prints the values as one JSON object.
pub fn json(layers: &Layers, out: &mut dyn Write) -> io::Result<()> {
    #[derive(Serialize)]
    struct Shown<'a> {
        file: Option<String>,
        options: Vec<Value<'a>>,
        on_event: Vec<Event<'a>>,
    }
    #[derive(Serialize)]
    struct Value<'a> {
        key: &'a str,
        /// `null`: not set.
        value: serde_json::Value,
        /// In words, what holds where it is not set.
        default: Option<String>,
        source: &'static str,
        /// Of the file.
        line: Option<usize>,
        /// Of the environment.
        variable: Option<&'a str>,
    }
    #[derive(Serialize)]
    struct Event<'a> {
        name: &'a str,
        on: Vec<&'static str>,
        program: &'a str,
    }
    let options = layers.effective.iter().map(|effective| {
        let (source, line, variable) = match &effective.origin {
            Origin::Unset => ("unset", None, None),
            Origin::Default => ("default", None, None),
            Origin::File { line } => ("file", Some(*line), None),
            Origin::Environment(name) => ("environment", None, Some(name.as_str())),
            Origin::CommandLine => ("command_line", None, None),
        };
        Value {
            key: &effective.key.name,
            value: json_value(effective),
            default: match effective.origin {
                Origin::Unset => effective.key.told_default(),
                _ => None,
            },
            source,
            line,
            variable,
        }
    });
    let path = layers.path.as_deref();
    let shown = Shown {
        file: path.map(|path| shown(path.as_os_str().as_encoded_bytes())),
        options: options.collect(),
        on_event: layers
            .rules
            .iter()
            .map(|rule| Event {
                name: &rule.name,
                on: rule.on.iter().copied().map(Trigger::name).collect(),
                program: program(rule),
            })
            .collect(),
    };
    serde_json::to_writer_pretty(&mut *out, &shown)?;
    writeln!(out)
}

fn shown(bytes: &[u8]) -> String {
    escape::display(bytes, MOST_CHARS)
}

fn origin(layers: &Layers, effective: &Effective) -> String {
    match &effective.origin {
        Origin::Unset => match effective.key.told_default() {
            Some(told) => format!("default: {told}"),
            None => "not set".to_owned(),
        },
        Origin::Default => "default".to_owned(),
        Origin::File { line } => {
            let path = layers.path.as_deref();
            let path = path.map_or(&b"file"[..], |path| path.as_os_str().as_encoded_bytes());
            format!("{}:{line}", shown(path))
        }
        Origin::Environment(name) => format!("environment {name}"),
        Origin::CommandLine => "command line".to_owned(),
    }
}

/// `None`: not set.
fn toml_value(effective: &Effective) -> Option<String> {
    let key = &effective.key;
    let quoted = |text: &String| literal(&mask(effective, text));
    match key.shape {
        Shape::Flag => Some((!effective.values.is_empty()).to_string()),
        _ if effective.origin == Origin::Unset => None,
        Shape::List | Shape::Pairs => {
            let items: Vec<String> = effective.values.iter().map(quoted).collect();
            Some(format!("[{}]", items.join(", ")))
        }
        Shape::Single | Shape::Switch => effective.values.first().map(quoted),
    }
}

/// A number as it is, anything else in quotes.
pub fn literal(text: &str) -> String {
    let is_number = text
        .parse::<i64>()
        .is_ok_and(|number| number.to_string() == text);
    if is_number {
        return text.to_owned();
    }
    toml::Value::String(text.to_owned()).to_string()
}

fn json_value(effective: &Effective) -> serde_json::Value {
    let mut values = effective.values.iter();
    match effective.key.shape {
        Shape::Flag => (!effective.values.is_empty()).into(),
        _ if effective.origin == Origin::Unset => serde_json::Value::Null,
        Shape::List | Shape::Pairs => values.map(|value| mask(effective, value)).collect(),
        Shape::Single | Shape::Switch => values.next().map(|value| mask(effective, value)).into(),
    }
}

/// Nothing of a secret, and no user, password or query of a URL.
fn mask(effective: &Effective, value: &str) -> String {
    if effective.key.is_secret() {
        return MASK.to_owned();
    }
    match value.contains("://") || effective.key.is_url() {
        true => redact::url(value),
        false => value.to_owned(),
    }
}

/// Not the arguments: they may hold a token.
fn program(rule: &Rule) -> &str {
    match &rule.run {
        Run::Command { program, .. } => program,
        Run::Shell(_) => "/bin/sh",
    }
}

fn summary(rule: &Rule) -> String {
    let on: Vec<&str> = rule.on.iter().copied().map(Trigger::name).collect();
    let program = shown(program(rule).as_bytes());
    let (timeout, pace) = (rule.timeout.as_secs_f64(), rule.min_interval.as_secs_f64());
    format!(
        "{} runs {program}, for at most {timeout} s, once in {pace} s for each container",
        on.join(", ")
    )
}
