//! What is stored, held against what is documented. Must not start or change anything.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use memtrace_tests::machine::skip;
use memtrace_tests::prometheus::Series;

use super::documented::{Metric, Section};
use super::scene::{self, Level, Outcome, Place};

/// Always 1, with all that is known of a cgroup; of a scrape only.
pub const INFO: &str = "memtrace_cgroup_info";
/// What stays 0 in the scene although it is measured.
const MAY_BE_ZERO: [&str; 7] = [
    "memtrace.agent.losses",
    "memtrace.memory.sock",
    "memtrace.swap.usage",
    "memtrace.memory.slab",
    "memtrace.pressure.memory.time",
    "system.paging.usage",
    "memtrace.host.oom.kills",
];
/// How the series came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Prometheus,
    VictoriaMetrics,
}

/// What is documented and was not stored as it is documented.
pub fn missing_or_wrong(
    outcome: &Outcome,
    series: &[Series],
    backend: Backend,
) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for metric in Metric::all()? {
        let names = metric.series()?;
        for level in levels(metric.section, backend) {
            let place = outcome.places.iter().find(|place| place.level == *level);
            for name in &names {
                let found = series.iter().filter(|series| {
                    series.name == *name
                        && level_of(series) == *level
                        && place.is_none_or(|place| is_of(series, place))
                });
                let found: Vec<&Series> = found.collect();
                if found.is_empty() && !is_needed(metric.section, *level) {
                    continue;
                }
                if found.is_empty() {
                    match absence(outcome, &metric, place) {
                        Some(reason) => skip(&format!("{name} of the {level:?}: {reason}")),
                        None => {
                            problems.push(format!("{backend:?} has no {name} of the {level:?}"))
                        }
                    }
                    continue;
                }
                let wrong = found.iter().map(|series| {
                    labels_are_right(outcome, &metric, series, place, backend)
                        .with_context(|| format!("{backend:?}: {name} of the {level:?}"))
                });
                problems.extend(wrong.filter_map(|it| it.err().map(|it| format!("{it:#}"))));
                let values = || found.iter().flat_map(|series| &series.samples);
                if !values().all(|value| value.is_finite() && *value >= 0.0) {
                    problems.push(format!("{name} of the {level:?} is no amount: {found:?}"));
                }
                let must_rise =
                    *level != Level::Pod && !MAY_BE_ZERO.contains(&metric.name.as_str());
                if must_rise && !values().any(|value| *value > 0.0) {
                    problems.push(format!("{backend:?}: {name} of the {level:?} stayed 0"));
                }
            }
        }
    }
    if let Some(path) = &outcome.swapped {
        let swapped = series.iter().any(|series| {
            series.name == "memtrace_swap_usage_bytes"
                && series.labels.get("memtrace_cgroup_path") == Some(path)
                && series.samples.iter().any(|value| *value > 0.0)
        });
        if !swapped {
            problems.push(format!("{backend:?}: nothing swapped out of {path}"));
        }
    }
    Ok(problems)
}

/// Whom a table is about. What memtrace says of itself is on the host's series in a scrape.
fn levels(section: Section, backend: Backend) -> &'static [Level] {
    match section {
        Section::Cgroup | Section::OwnProcesses | Section::Verdict => {
            &[Level::Service, Level::Pod, Level::Container]
        }
        Section::Kubernetes => &[Level::Container],
        Section::Agent if backend == Backend::VictoriaMetrics => &[Level::Agent],
        Section::Host | Section::Agent => &[Level::Host],
    }
}

/// A pod has no processes of its own, and a leak is one of its containers'.
fn is_needed(section: Section, level: Level) -> bool {
    level != Level::Pod || section == Section::Cgroup
}

/// Why a metric that is documented need not be there.
fn absence(outcome: &Outcome, metric: &Metric, place: Option<&Place>) -> Option<String> {
    let lacks = place.map_or(&outcome.lacks, |place| &place.lacks);
    let lack = lacks.iter().find(|(name, _)| *name == metric.name);
    lack.map(|(_, reason)| reason.clone())
}

fn labels_are_right(
    outcome: &Outcome,
    metric: &Metric,
    series: &Series,
    place: Option<&Place>,
    backend: Backend,
) -> Result<()> {
    let expected = resource(outcome, place, backend);
    for (label, value) in &expected {
        let told = series.labels.get(*label);
        ensure!(told == Some(value), "{label} is {told:?}, not {value}");
    }
    let instance = series.labels.get("service_instance_id");
    if let (Some(instance), Some(place)) = (instance, place)
        && place.level != Level::Container
    {
        let ends = instance.ends_with(&format!(":{}", place.path));
        ensure!(ends, "service_instance_id is {instance}");
    }
    // By OTLP each series has the whole Resource, and so has one of the host in a scrape.
    let has_whole = backend == Backend::VictoriaMetrics || place.is_none();
    let is_resource =
        |label: &str| expected.contains_key(label) || has_whole && is_of_resource(label);
    let own = series
        .labels
        .keys()
        .filter(|label| !is_resource(label) && *label != "le");
    let own: BTreeSet<&String> = own.collect();
    let documented: BTreeSet<&String> = metric.labels.keys().collect();
    ensure!(
        own == documented,
        "attributes {own:?}, documented {documented:?}"
    );
    for (label, values) in &metric.labels {
        let Some(told) = series.labels.get(label) else {
            continue;
        };
        let fits = values.is_empty() || values.contains(told);
        ensure!(fits, "{label} is {told}, documented are {values:?}");
    }
    Ok(())
}

/// Labels that say whose series it is.
fn resource(
    outcome: &Outcome,
    place: Option<&Place>,
    backend: Backend,
) -> BTreeMap<&'static str, String> {
    let level = place.map(|place| place.level);
    let mut labels = BTreeMap::from([("k8s_node_name", scene::NODE.to_owned())]);
    if let Some(place) = place {
        labels.insert("memtrace_cgroup_path", place.path.clone());
        labels.insert("memtrace_cgroup_id", place.id.to_string());
    }
    if let Some(Level::Pod | Level::Container) = level {
        labels.insert("k8s_namespace_name", scene::NAMESPACE.to_owned());
        labels.insert("k8s_pod_name", scene::POD.to_owned());
    }
    if level == Some(Level::Container) {
        labels.insert("k8s_container_name", scene::CONTAINER.to_owned());
        labels.insert("container_id", outcome.container_id.clone());
    }
    match backend {
        Backend::Prometheus => {
            labels.insert("job", scene::JOB.to_owned());
            labels.insert("instance", outcome.scraped.clone());
        }
        Backend::VictoriaMetrics if level == Some(Level::Container) => {
            let (namespace, pod, name) = (scene::NAMESPACE, scene::POD, scene::CONTAINER);
            labels.insert("service_name", scene::DEPLOYMENT.to_owned());
            labels.insert("service_namespace", namespace.to_owned());
            labels.insert("service_instance_id", format!("{namespace}.{pod}.{name}"));
            labels.insert("service_version", scene::VERSION.to_owned());
            labels.insert("k8s_deployment_name", scene::DEPLOYMENT.to_owned());
        }
        Backend::VictoriaMetrics => {
            labels.insert("service_name", "memtrace".to_owned());
        }
    }
    labels
}

/// Whether a label comes from a Resource and is no attribute of a point.
fn is_of_resource(label: &str) -> bool {
    let mut prefixes = ["service_", "host_", "k8s_", "container_", "memtrace_pod_"].iter();
    prefixes.any(|prefix| label.starts_with(prefix))
}

/// Whose series it is.
pub fn level_of(series: &Series) -> Level {
    let has = |label: &str| series.labels.contains_key(label);
    let instance = series.labels.get("service_instance_id");
    if has("k8s_container_name") {
        Level::Container
    } else if has("k8s_pod_name") {
        Level::Pod
    } else if has("memtrace_cgroup_path") {
        Level::Service
    } else if instance.is_some_and(|instance| instance.ends_with(":agent")) {
        Level::Agent
    } else {
        Level::Host
    }
}

/// Whether it is of that very cgroup.
pub fn is_of(series: &Series, place: &Place) -> bool {
    series.labels.get("memtrace_cgroup_path") == Some(&place.path)
}

/// Names of series that are stored and not documented.
pub fn undocumented(names: &[String]) -> Result<Vec<String>> {
    let mut known = BTreeSet::from([INFO.to_owned()]);
    for metric in Metric::all()? {
        known.extend(metric.series()?);
    }
    let of_prometheus = |name: &str| {
        // Its own, and what rules make.
        name == "up"
            || name.starts_with("scrape_")
            || name.starts_with("ALERTS")
            || name.contains(':')
    };
    let strange = names
        .iter()
        .filter(|name| !known.contains(*name) && !of_prometheus(name));
    Ok(strange
        .map(|name| format!("{name} is not documented"))
        .collect())
}
