//! The keys of the file: the flags of `memtrace run`, as clap defines them.
//!
//! Owns how a flag becomes a key and what values it takes. There is no second list: a new flag is a new key.

use clap::{
    Arg, ArgAction, Args as _, Command,
    builder::Resettable,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::{cli::RunArgs, export::otlp::OtlpFlags};

/// Flags whose values no output shows.
const SECRET: [&str; 1] = ["otlp-headers"];
/// Not of the file: it names the file.
const NOT_A_KEY: [&str; 1] = ["config"];

/// A key of the file and the flag it stands for.
#[derive(Debug, Clone)]
pub struct Key {
    /// The long name with `_` for `-`.
    pub name: String,
    /// The long name.
    pub flag: String,
    pub shape: Shape,
    pub arg: Arg,
}

/// What a value may look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `true` or `false`: the flag stands by itself.
    Flag,
    /// `true` or `false` beside "on" and "off".
    Switch,
    Single,
    List,
    /// A table, or a list of NAME=VALUE.
    Pairs,
}

/// All keys, in the order of the help.
pub fn keys() -> Vec<Key> {
    let mut keys: Vec<Key> = command()
        .get_arguments()
        .filter_map(Key::of)
        .filter(|key| !NOT_A_KEY.contains(&key.flag.as_str()))
        .collect();
    // What has no heading comes first, as in the help.
    keys.sort_by_key(|key| key.arg.get_help_heading().is_some());
    keys
}

/// `memtrace run` by itself.
pub fn command() -> Command {
    RunArgs::augment_args(Command::new("run"))
        .no_binary_name(true)
        .disable_help_flag(true)
}

impl Key {
    fn of(arg: &Arg) -> Option<Self> {
        let flag = arg.get_long()?.to_owned();
        let values = arg.get_possible_values();
        let is_switch = values.len() == 2
            && ["on", "off"]
                .iter()
                .all(|name| values.iter().any(|value| value.matches(name, false)));
        let named = arg.get_value_names().unwrap_or_default();
        let shape = match arg.get_action() {
            ArgAction::SetTrue => Shape::Flag,
            ArgAction::Append if named.iter().any(|name| name.contains('=')) => Shape::Pairs,
            ArgAction::Append => Shape::List,
            ArgAction::Set if is_switch => Shape::Switch,
            ArgAction::Set => Shape::Single,
            _ => return None,
        };
        Some(Self {
            name: flag.replace('-', "_"),
            flag,
            shape,
            arg: arg.clone(),
        })
    }

    pub fn is_secret(&self) -> bool {
        SECRET.contains(&self.flag.as_str())
    }

    /// Whether its value is a URL, which may be written without a scheme.
    pub fn is_url(&self) -> bool {
        let named = self.arg.get_value_names().unwrap_or_default();
        named.iter().any(|name| *name == "URL")
    }

    /// The `OTEL_*` variable of this flag, of all signals; it beats the file.
    pub fn otlp_variable(&self) -> Option<&'static str> {
        let mut variables = OtlpFlags::VARIABLES.iter();
        let found = variables.find(|(flag, _)| *flag == self.flag);
        found.map(|(_, variable)| *variable)
    }

    /// What clap has as default, one for each value.
    pub fn defaults(&self) -> Vec<String> {
        let defaults = self.arg.get_default_values().iter();
        defaults
            .map(|value| value.to_string_lossy().into_owned())
            .collect()
    }

    /// What holds where clap knows no default and nothing is given, as the help says it; `None`: nothing.
    pub fn told_default(&self) -> Option<String> {
        let help = self.arg.get_help()?.to_string();
        let (_, rest) = help.split_once("[default: ")?;
        let (told, _) = rest.split_once(']')?;
        Some(told.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// Checks a value as the flag would.
    ///
    /// # Errors
    /// What is expected; never the value itself where that is secret.
    pub fn check(&self, value: &str) -> Result<(), String> {
        // Beside the others, on which it may depend, but not with what their variables say.
        let command = command().mut_args(|arg| arg.env(Resettable::Reset));
        let argument = format!("--{}={value}", self.flag);
        let Err(error) = command.try_get_matches_from([argument]) else {
            return Ok(());
        };
        // Of all options together, not of this value.
        if matches!(
            error.kind(),
            ErrorKind::MissingRequiredArgument | ErrorKind::ArgumentConflict
        ) {
            return Ok(());
        }
        let possible = error.get(ContextKind::ValidValue);
        if let Some(ContextValue::Strings(possible)) = possible {
            return Err(format!("write one of {}", possible.join(", ")));
        }
        let source = std::error::Error::source(&error);
        Err(source.map_or_else(|| "write a value".to_owned(), ToString::to_string))
    }
}
