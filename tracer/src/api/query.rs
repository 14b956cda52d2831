//! What can be asked of the API: the parameters of each path, read by the server and written by the client.
//!
//! A parameter that is not known is refused by name, not ignored: a filter that does nothing would lie.

use globset::GlobMatcher;
use jiff::Timestamp;
use reqwest::Url;

use crate::{
    cli,
    host::escape,
    identity::names::Names,
    incident::{Incident, Kind},
};

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
    fn get<T>(
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

    fn number(
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

    fn switch(&self, name: &'static str) -> Result<bool, BadQuery> {
        let read = |value: &str| match value {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("write true or false".to_owned()),
        };
        Ok(self.get(name, read)?.unwrap_or(false))
    }

    fn text(&self, name: &'static str) -> Result<Option<String>, BadQuery> {
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

/// Which cgroups are meant: those that all of it fits.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Of the path, as `--cgroup` takes it.
    pub glob: Option<GlobMatcher>,
    pub namespace: Option<String>,
    pub pod: Option<String>,
    pub container: Option<String>,
}

impl Selection {
    fn parse(given: &Parameters) -> Result<Self, BadQuery> {
        Ok(Self {
            glob: given.get("glob", cli::glob)?,
            namespace: given.text("namespace")?,
            pod: given.text("pod")?,
            container: given.text("container")?,
        })
    }

    fn pairs(&self) -> Vec<(&'static str, String)> {
        let glob = self.glob.as_ref().map(|glob| glob.glob().glob().to_owned());
        let all = [
            ("glob", glob),
            ("namespace", self.namespace.clone()),
            ("pod", self.pod.clone()),
            ("container", self.container.clone()),
        ];
        all.into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect()
    }

    /// `cgroup`: the path as it is told.
    pub fn has(&self, cgroup: &str, names: &Names) -> bool {
        let is = |wanted: &Option<String>, name: &Option<String>| {
            wanted.is_none() || wanted.as_deref() == name.as_deref()
        };
        is(&self.namespace, &names.namespace)
            && is(&self.pod, &names.pod)
            && is(&self.container, &names.container)
            && self.glob.as_ref().is_none_or(|glob| glob.is_match(cgroup))
    }
}

/// In which order cgroups come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sort {
    /// Most memory first.
    #[default]
    Usage,
    /// Fastest growing first.
    Growth,
    Path,
    /// Soonest at the limit first.
    TimeToLimit,
}

impl Sort {
    pub const ALL: [Sort; 4] = [Sort::Usage, Sort::Growth, Sort::Path, Sort::TimeToLimit];

    /// As the parameter has it.
    pub fn name(self) -> &'static str {
        match self {
            Sort::Usage => "usage",
            Sort::Growth => "growth",
            Sort::Path => "path",
            Sort::TimeToLimit => "time_to_limit",
        }
    }
}

/// Of `/v1/cgroups`.
#[derive(Debug, Clone)]
pub struct CgroupQuery {
    pub selection: Selection,
    /// Only those whose leak is suspected or confirmed.
    pub leaks: bool,
    pub sort: Sort,
    pub limit: usize,
    /// So many values of `recent_usage_bytes`.
    pub recent: usize,
    /// Those that are gone, too.
    pub removed: bool,
}

impl Default for CgroupQuery {
    fn default() -> Self {
        Self {
            selection: Selection::default(),
            leaks: false,
            sort: Sort::default(),
            limit: 10_000,
            recent: 0,
            removed: false,
        }
    }
}

impl CgroupQuery {
    const MOST: usize = 100_000;
    const MOST_RECENT: usize = crate::model::history::SAMPLES;
    const KNOWN: [&str; 9] = [
        "glob",
        "namespace",
        "pod",
        "container",
        "leaks",
        "sort",
        "limit",
        "recent",
        "removed",
    ];

    /// # Errors
    /// What of it cannot be used.
    pub fn parse(query: &str) -> Result<Self, BadQuery> {
        let given = Parameters::parse(query, &Self::KNOWN)?;
        let sort = |value: &str| {
            let mut all = Sort::ALL.into_iter();
            let names = Sort::ALL.map(Sort::name).join(", ");
            all.find(|sort| sort.name() == value)
                .ok_or_else(|| format!("write one of {names}"))
        };
        let usual = Self::default();
        Ok(Self {
            selection: Selection::parse(&given)?,
            leaks: given.switch("leaks")?,
            sort: given.get("sort", sort)?.unwrap_or_default(),
            limit: given.number("limit", 1, Self::MOST)?.unwrap_or(usual.limit),
            recent: given
                .number("recent", 0, Self::MOST_RECENT)?
                .unwrap_or(usual.recent),
            removed: given.switch("removed")?,
        })
    }

    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = self.selection.pairs();
        pairs.push(("leaks", self.leaks.to_string()));
        pairs.push(("sort", self.sort.name().to_owned()));
        pairs.push(("limit", self.limit.to_string()));
        pairs.push(("recent", self.recent.to_string()));
        pairs.push(("removed", self.removed.to_string()));
        pairs
    }
}

/// Of `/v1/leaks`.
#[derive(Debug, Clone)]
pub struct LeakQuery {
    /// Those that only grow, too.
    pub all: bool,
    pub limit: usize,
}

impl Default for LeakQuery {
    fn default() -> Self {
        Self {
            all: false,
            limit: 100,
        }
    }
}

impl LeakQuery {
    /// Each has the processes that grew looked up.
    const MOST: usize = 200;
    const KNOWN: [&str; 2] = ["all", "limit"];

    /// # Errors
    /// What of it cannot be used.
    pub fn parse(query: &str) -> Result<Self, BadQuery> {
        let given = Parameters::parse(query, &Self::KNOWN)?;
        let usual = Self::default().limit;
        Ok(Self {
            all: given.switch("all")?,
            limit: given.number("limit", 1, Self::MOST)?.unwrap_or(usual),
        })
    }

    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        vec![
            ("all", self.all.to_string()),
            ("limit", self.limit.to_string()),
        ]
    }
}

/// Of `/v1/timelines`.
#[derive(Debug, Clone)]
pub struct TimelineQuery {
    pub selection: Selection,
    pub limit: usize,
}

impl Default for TimelineQuery {
    fn default() -> Self {
        Self {
            selection: Selection::default(),
            limit: 20,
        }
    }
}

impl TimelineQuery {
    const MOST: usize = 200;
    const KNOWN: [&str; 5] = ["glob", "namespace", "pod", "container", "limit"];

    /// # Errors
    /// What of it cannot be used.
    pub fn parse(query: &str) -> Result<Self, BadQuery> {
        let given = Parameters::parse(query, &Self::KNOWN)?;
        let usual = Self::default().limit;
        Ok(Self {
            selection: Selection::parse(&given)?,
            limit: given.number("limit", 1, Self::MOST)?.unwrap_or(usual),
        })
    }

    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = self.selection.pairs();
        pairs.push(("limit", self.limit.to_string()));
        pairs
    }
}

/// Of `/v1/incidents`.
#[derive(Debug, Clone)]
pub struct IncidentQuery {
    /// From then on.
    pub since: Option<Timestamp>,
    /// Of these kinds; all if it is empty.
    pub kinds: Vec<Kind>,
    /// Namespace and name of a pod that the charged cgroup or a victim's belongs to.
    pub pod: Option<(String, String)>,
    /// Of the path of the charged cgroup or a victim's.
    pub glob: Option<GlobMatcher>,
    pub limit: usize,
}

impl Default for IncidentQuery {
    fn default() -> Self {
        Self {
            since: None,
            kinds: Vec::new(),
            pod: None,
            glob: None,
            limit: 50,
        }
    }
}

impl IncidentQuery {
    const MOST: usize = 1000;
    const KNOWN: [&str; 5] = ["since", "kind", "limit", "pod", "glob"];

    /// # Errors
    /// What of it cannot be used.
    pub fn parse(query: &str) -> Result<Self, BadQuery> {
        let given = Parameters::parse(query, &Self::KNOWN)?;
        let since = |value: &str| {
            let example = "write a time with its zone: 2026-11-21T07:00:00Z";
            value.parse().map_err(|_| example.to_owned())
        };
        let kinds = |value: &str| value.split(',').map(kind).collect::<Result<Vec<_>, _>>();
        let pod = |value: &str| {
            let (namespace, pod) = value.split_once('/').unwrap_or_default();
            let is_whole = !namespace.is_empty() && !pod.is_empty();
            let pod = is_whole.then(|| (namespace.to_owned(), pod.to_owned()));
            pod.ok_or_else(|| "write NAMESPACE/NAME".to_owned())
        };
        let usual = Self::default().limit;
        Ok(Self {
            since: given.get("since", since)?,
            kinds: given.get("kind", kinds)?.unwrap_or_default(),
            pod: given.get("pod", pod)?,
            glob: given.get("glob", cli::glob)?,
            limit: given.number("limit", 1, Self::MOST)?.unwrap_or(usual),
        })
    }

    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let kinds: Vec<&str> = self.kinds.iter().map(|kind| kind.name()).collect();
        let pod = self.pod.as_ref();
        let glob = self.glob.as_ref().map(|glob| glob.glob().glob().to_owned());
        let all = [
            ("since", self.since.map(|since| since.to_string())),
            ("kind", (!kinds.is_empty()).then(|| kinds.join(","))),
            (
                "pod",
                pod.map(|(namespace, pod)| format!("{namespace}/{pod}")),
            ),
            ("glob", glob),
            ("limit", Some(self.limit.to_string())),
        ];
        all.into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect()
    }

    /// Whether an incident is meant.
    pub fn has(&self, incident: &Incident) -> bool {
        let charged = incident.charged.as_ref();
        let cgroups = || {
            let victims = incident.victims.iter();
            let victims = victims.flat_map(|victim| [&victim.cgroup, &victim.leaf_cgroup]);
            charged
                .map(|charged| &charged.cgroup)
                .into_iter()
                .chain(victims)
                .flatten()
        };
        let names = || {
            let victims = incident.victims.iter().map(|victim| &victim.names);
            charged
                .map(|charged| &charged.names)
                .into_iter()
                .chain(victims)
                .flatten()
        };
        self.since.is_none_or(|since| incident.time >= since)
            && (self.kinds.is_empty() || self.kinds.contains(&incident.kind))
            && self
                .glob
                .as_ref()
                .is_none_or(|glob| cgroups().any(|cgroup| glob.is_match(cgroup)))
            && self.pod.as_ref().is_none_or(|(namespace, pod)| {
                names().any(|names| {
                    names.namespace.as_ref() == Some(namespace) && names.pod.as_ref() == Some(pod)
                })
            })
    }
}

fn kind(name: &str) -> Result<Kind, String> {
    let names = Kind::ALL.map(Kind::name).join(", ");
    let mut all = Kind::ALL.into_iter();
    all.find(|kind| kind.name() == name)
        .ok_or_else(|| format!("write one or more of {names}"))
}

#[cfg(test)]
#[path = "query_tests.rs"]
mod tests;
