//! The parameters of a request: decoded, known, each at most once; and written behind a path.
//!
//! A parameter that is not known is refused by name, not ignored: a filter that does nothing would lie.

use reqwest::Url;

use crate::host::escape;

/// Most characters of a foreign text in an error.
const MOST_SHOWN: usize = 128;

/// A parameter that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadQuery {
    #[error("unknown parameter {name}; {}", those(known))]
    Unknown {
        /// Escaped.
        name: String,
        known: &'static [&'static str],
    },
    #[error("the parameter {name} is given more than once")]
    Twice { name: &'static str },
    #[error("{name}={value}: {expected}")]
    Value {
        name: &'static str,
        /// Escaped.
        value: String,
        expected: String,
    },
}

fn those(known: &[&str]) -> String {
    match known {
        [] => "this path takes none".to_owned(),
        known => format!("known here: {}", known.join(", ")),
    }
}

/// The parameters of a request, each at most once.
#[derive(Debug)]
pub struct Parameters(Vec<(&'static str, String)>);

impl Parameters {
    /// Splits and decodes `query`, as browsers write forms.
    ///
    /// # Errors
    /// A parameter that is not in `known`, or that is there twice.
    pub fn parse(query: &str, known: &'static [&'static str]) -> Result<Self, BadQuery> {
        let mut given: Vec<(&'static str, String)> = Vec::new();
        for (name, value) in decoded(query) {
            let Some(&name) = known.iter().find(|known| **known == name) else {
                let name = shown(&name);
                return Err(BadQuery::Unknown { name, known });
            };
            if given.iter().any(|(other, _)| *other == name) {
                return Err(BadQuery::Twice { name });
            }
            given.push((name, value));
        }
        Ok(Self(given))
    }

    /// A value as `read` takes it; `None` where it is not given.
    pub fn get<T>(
        &self,
        name: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, BadQuery> {
        let Some((_, value)) = self.0.iter().find(|(given, _)| *given == name) else {
            return Ok(None);
        };
        let bad = |expected| BadQuery::Value {
            name,
            value: shown(value),
            expected,
        };
        read(value).map(Some).map_err(bad)
    }

    pub fn number(
        &self,
        name: &'static str,
        least: usize,
        most: usize,
    ) -> Result<Option<usize>, BadQuery> {
        let in_range = |number: &usize| (least..=most).contains(number);
        self.get(name, |value| {
            let number = value.parse().ok().filter(in_range);
            number.ok_or_else(|| format!("write a whole number from {least} to {most}"))
        })
    }

    pub fn switch(&self, name: &'static str) -> Result<bool, BadQuery> {
        let read = |value: &str| match value {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("write true or false".to_owned()),
        };
        Ok(self.get(name, read)?.unwrap_or(false))
    }

    pub fn text(&self, name: &'static str) -> Result<Option<String>, BadQuery> {
        self.get(name, |value| match value {
            "" => Err("it is empty".to_owned()),
            value => Ok(value.to_owned()),
        })
    }
}

fn shown(text: &str) -> String {
    escape::display(text.as_bytes(), MOST_SHOWN)
}

fn decoded(query: &str) -> Vec<(String, String)> {
    let Ok(mut url) = Url::parse("http://agent/") else {
        return Vec::new();
    };
    url.set_query(Some(query));
    let pairs = url
        .query_pairs()
        .filter(|(name, value)| !name.is_empty() || !value.is_empty());
    pairs
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect()
}

/// `path` with parameters.
pub fn target(path: &str, pairs: &[(&'static str, String)]) -> String {
    let Ok(mut url) = Url::parse("http://agent/") else {
        return path.to_owned();
    };
    url.query_pairs_mut()
        .extend_pairs(pairs.iter().map(|(name, value)| (*name, value.as_str())));
    match url.query() {
        Some(query) if !pairs.is_empty() => format!("{path}?{query}"),
        _ => path.to_owned(),
    }
}
