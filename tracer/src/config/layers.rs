//! Command line and environment over the file over defaults.
//!
//! Owns the order, and where each value came from. The process environment is read by clap and here.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

use clap::{ArgMatches, FromArgMatches as _, parser::ValueSource};

use crate::{
    actions::Rule,
    analysis::Thresholds,
    cli::{RunArgs, Switch},
    export::otlp::{Fallback, OtlpConfig},
    identity::options::{NamingConfig, Process},
};

use super::{
    definition::{self, Key, Shape},
    file::{self, DEFAULT_PATH},
    parse::{Entry, Settings},
    problem::ConfigError,
};

/// What was given on the command line and in the environment. It can be laid over a file again and again.
#[derive(Clone, Default)]
pub struct CommandLine {
    /// As flags, without those of the environment.
    arguments: Vec<OsString>,
    /// By key.
    given: BTreeMap<String, Origin>,
    /// `--config`.
    file: Option<PathBuf>,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Neither given nor with a default.
    Unset,
    Default,
    File {
        line: usize,
    },
    Environment(String),
    CommandLine,
}

/// A key and what holds of it.
#[derive(Clone)]
pub struct Effective {
    pub key: Key,
    /// As a flag takes them; empty: none, or a flag that is off.
    pub values: Vec<String>,
    pub origin: Origin,
}

/// All that holds, and what it makes. Without `Debug`: it has secrets.
pub struct Layers {
    pub args: RunArgs,
    /// `None`: no file was read.
    pub path: Option<PathBuf>,
    /// In the order of the help.
    pub effective: Vec<Effective>,
    pub rules: Vec<Rule>,
    pub resolved: Resolved,
}

/// What the values mean together.
#[derive(Debug)]
pub struct Resolved {
    pub otlp: Option<OtlpConfig>,
    /// `None`: growth is not judged.
    pub thresholds: Option<Thresholds>,
    pub naming: NamingConfig,
}

impl CommandLine {
    /// Of the matches of `memtrace run`, or of a command with its flags.
    pub fn of(matches: &ArgMatches) -> Self {
        let mut line = Self::default();
        for key in definition::keys() {
            let id = key.arg.get_id().as_str();
            let origin = match matches.value_source(id) {
                Some(ValueSource::CommandLine) => Origin::CommandLine,
                Some(ValueSource::EnvVariable) => {
                    let variable = key.arg.get_env().unwrap_or_default();
                    Origin::Environment(variable.to_string_lossy().into_owned())
                }
                _ => continue,
            };
            if origin == Origin::CommandLine {
                line.arguments.extend(arguments(&key, matches));
            }
            line.given.insert(key.name, origin);
        }
        line.file = matches.get_one::<PathBuf>("config").cloned();
        line
    }

    /// Nothing but a file, or what `MEMTRACE_CONFIG` names.
    pub fn asking_for(file: Option<PathBuf>) -> Self {
        let variable = || std::env::var_os("MEMTRACE_CONFIG").map(PathBuf::from);
        Self {
            file: file.or_else(variable),
            ..Self::default()
        }
    }

    /// The same over another file.
    pub fn with_file(&self, path: PathBuf) -> Self {
        Self {
            file: Some(path),
            ..self.clone()
        }
    }

    /// The file that is asked for, or the one that is there; `None`: none.
    pub fn path(&self) -> Option<PathBuf> {
        match &self.file {
            Some(none) if none.as_os_str() == "none" => None,
            Some(asked) => Some(asked.clone()),
            None => {
                Some(PathBuf::from(DEFAULT_PATH)).filter(|path| path.try_exists().unwrap_or(true))
            }
        }
    }

    /// Lays it over the file.
    ///
    /// # Errors
    /// Everything that is wrong with the file, or with all together.
    pub fn load(&self) -> Result<Layers, ConfigError> {
        let path = self.path();
        let keys = definition::keys();
        let settings = match &path {
            Some(path) => file::read(path, &keys)?,
            None => Settings::default(),
        };
        self.over(settings, path, &|name| std::env::var(name).ok())
    }

    /// Lays it over what a file says.
    pub fn over(
        &self,
        settings: Settings,
        path: Option<PathBuf>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Layers, ConfigError> {
        let keys = definition::keys();
        let mut arguments = Vec::new();
        let mut fallback = BTreeMap::new();
        for entry in &settings.entries {
            let Some(key) = keys.iter().find(|key| key.name == entry.key) else {
                continue;
            };
            if self.given.contains_key(&key.name) {
                continue;
            }
            // Their variables are not clap's, and one of a single signal leaves the file to the others.
            if let Some(variable) = key.otlp_variable() {
                let value = fallback_value(key, entry);
                let named = name(path.as_deref(), entry);
                fallback.extend(value.map(|value| (variable, (named, value))));
                continue;
            }
            match key.shape {
                Shape::Flag if entry.values.is_empty() => {}
                Shape::Flag => arguments.push(format!("--{}", key.flag).into()),
                _ => arguments.extend(
                    entry
                        .values
                        .iter()
                        .map(|value| format!("--{}={value}", key.flag).into()),
                ),
            }
        }
        let together = |error: clap::Error| ConfigError::Together(error.to_string());
        let arguments: Vec<OsString> = arguments
            .into_iter()
            .chain(self.arguments.iter().cloned())
            .collect();
        let matches = definition::command()
            .try_get_matches_from(arguments)
            .map_err(together)?;
        let args = RunArgs::from_arg_matches(&matches).map_err(together)?;
        let fallback = |name: &str| fallback.get(name).cloned();
        let resolved = resolve(&args, env, &fallback).map_err(ConfigError::Together)?;
        let effective = keys
            .into_iter()
            .map(|key| self.effective(key, &matches, &settings.entries, env))
            .collect();
        Ok(Layers {
            args,
            path,
            effective,
            rules: settings.rules,
            resolved,
        })
    }

    fn effective(
        &self,
        key: Key,
        matches: &ArgMatches,
        entries: &[Entry],
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Effective {
        let entry = entries.iter().find(|entry| entry.key == key.name);
        let variable = key.otlp_variable();
        let of_variable = variable.and_then(|name| {
            let value = env(name)?.trim().to_owned();
            (!value.is_empty()).then_some((name, value))
        });
        if let (None, Some((name, value))) = (self.given.get(&key.name), of_variable) {
            return Effective {
                key,
                values: vec![value],
                origin: Origin::Environment(name.to_owned()),
            };
        }
        if let (None, Some(entry)) = (self.given.get(&key.name), entry) {
            return Effective {
                key,
                values: entry.values.clone(),
                origin: Origin::File { line: entry.line },
            };
        }
        let values = match key.shape {
            Shape::Flag if matches.get_flag(key.arg.get_id().as_str()) => vec!["true".to_owned()],
            Shape::Flag => Vec::new(),
            _ => raw(&key, matches)
                .map(|value| value.to_string_lossy().into_owned())
                .collect(),
        };
        let origin = match self.given.get(&key.name) {
            Some(given) => given.clone(),
            None if values.is_empty() && key.shape != Shape::Flag => Origin::Unset,
            None => Origin::Default,
        };
        Effective {
            key,
            values,
            origin,
        }
    }
}

/// What a problem of this value is called: the key and its line, for lack of a flag.
fn name(path: Option<&Path>, entry: &Entry) -> String {
    let path = path.map_or("memtrace.toml".into(), Path::to_string_lossy);
    format!("{path}:{}: {}", entry.line, entry.key)
}

/// As the variable would have it.
fn fallback_value(key: &Key, entry: &Entry) -> Option<String> {
    let value = entry.values.first()?;
    match (key.shape, key.flag.as_str()) {
        (Shape::Flag, "otlp-profiles") => Some("otlp".to_owned()),
        _ => Some(value.clone()),
    }
}

fn arguments(key: &Key, matches: &ArgMatches) -> Vec<OsString> {
    if key.shape == Shape::Flag {
        return vec![format!("--{}", key.flag).into()];
    }
    raw(key, matches)
        .map(|value| {
            let mut argument = OsString::from(format!("--{}=", key.flag));
            argument.push(value);
            argument
        })
        .collect()
}

fn raw<'a>(key: &Key, matches: &'a ArgMatches) -> impl Iterator<Item = &'a std::ffi::OsStr> {
    let values = matches.get_raw(key.arg.get_id().as_str());
    values.into_iter().flatten()
}

/// What the values mean together.
fn resolve(
    args: &RunArgs,
    env: &dyn Fn(&str) -> Option<String>,
    fallback: &Fallback<'_>,
) -> Result<Resolved, String> {
    let otlp = OtlpConfig::resolve_over(&args.otlp, env, fallback)
        .map_err(|error| error.to_string())?
        .map(|otlp| otlp.keeping_events_in(&args.state_dir));
    let thresholds = args
        .growth
        .thresholds
        .thresholds()
        .map_err(|error| error.to_string())?;
    let naming = args
        .names
        .resolve(&Process)
        .map_err(|error| error.to_string())?;
    Ok(Resolved {
        otlp,
        thresholds: Some(thresholds).filter(|_| args.growth.leaks == Switch::On),
        naming,
    })
}

#[cfg(test)]
#[path = "layers_tests.rs"]
mod tests;
