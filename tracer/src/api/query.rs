//! What can be asked of the API: the parameters of each path, read by the server and written by the client.

use globset::GlobMatcher;
use jiff::Timestamp;

use crate::{
    host::pattern::cgroup_glob,
    identity::names::Names,
    incident::{Incident, Kind},
};

use super::parameters::{BadQuery, Parameters};

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
            glob: given.get("glob", cgroup_glob)?,
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
    /// Those that only grow, too, and parents whose growth is that of a cgroup below.
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
            glob: given.get("glob", cgroup_glob)?,
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
