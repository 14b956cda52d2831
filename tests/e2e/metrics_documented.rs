//! Every metric of docs/otlp.md is asked back from a real Prometheus, which scrapes, and from
//! VictoriaMetrics, which gets OTLP: with name, unit, kind, attributes and who it is about. So a metric
//! that is documented and does not come, or comes and is not documented, fails here by its name; one
//! that this machine cannot have is told as skipped, with the reason.
//!
//! `MEMTRACE_PROMETHEUS` and `MEMTRACE_VICTORIAMETRICS` name the programs.

mod cgroups;
mod checked;
mod documented;
mod lacking;
mod rules;
mod scene;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use cgroups::{LIMIT, REQUEST, RESTARTS};
use checked::{Backend, INFO, is_of, level_of, missing_or_wrong, undocumented};
use documented::Metric;
use scene::{Level, outcome};

/// Panels of trouble that is not in the scene: stalls of more than 1 % of five minutes, losses.
const CALM: [&str; 2] = ["Stalls at the limit", "Losses, by cause"];

#[test]
fn every_documented_metric_is_scraped_by_prometheus_with_its_labels() -> Result<()> {
    let Some(outcome) = outcome()? else {
        return Ok(());
    };
    let Some(scraped) = &outcome.prometheus else {
        return Ok(());
    };
    let mut problems = missing_or_wrong(outcome, &scraped.series, Backend::Prometheus)?;
    problems.extend(undocumented(&scraped.names)?);
    let kinds: BTreeMap<_, _> = scraped.kinds.iter().cloned().collect();
    ensure!(kinds.len() > 30, "kinds of some metrics only: {kinds:?}");
    for metric in Metric::all()? {
        let (family, kind) = (metric.family()?, metric.prometheus_kind()?);
        // Of a counter Prometheus knows the family with its suffix or without, by the format it asked for.
        let told = kinds
            .get(&family)
            .or_else(|| kinds.get(&format!("{family}_total")));
        if told.is_some_and(|told| told != kind) {
            problems.push(format!("{family}: told as {told:?}, documented as {kind}"));
        }
    }
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}

#[test]
fn who_a_container_is_joins_its_series_in_prometheus() -> Result<()> {
    let Some(scraped) = outcome()?.and_then(|outcome| outcome.prometheus.as_ref()) else {
        return Ok(());
    };
    let info = |level: Level| {
        let mut series = scraped.series.iter().filter(|series| series.name == INFO);
        series
            .find(|series| level_of(series) == level)
            .with_context(|| format!("no {INFO} of a {level:?}"))
    };
    let container = info(Level::Container)?;
    for (label, value) in [
        ("k8s_deployment_name", scene::DEPLOYMENT),
        ("k8s_namespace_name", scene::NAMESPACE),
        ("container_image_name", "registry.example.com/cart"),
        ("container_runtime_name", "containerd"),
    ] {
        let told = container.labels.get(label).map(String::as_str);
        assert_eq!(told, Some(value), "{label} of {container:?}");
    }
    ensure!(info(Level::Pod)?.labels.contains_key("k8s_pod_uid"));
    info(Level::Service)?;
    Ok(())
}

#[test]
fn every_documented_metric_comes_to_victoriametrics_by_otlp_with_its_resource() -> Result<()> {
    let Some(outcome) = outcome()? else {
        return Ok(());
    };
    let Some((series, names)) = &outcome.victoria_metrics else {
        return Ok(());
    };
    let mut problems = missing_or_wrong(outcome, series, Backend::VictoriaMetrics)?;
    problems.extend(undocumented(names)?);
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}

#[test]
fn rules_and_dashboard_get_along_with_what_was_scraped() -> Result<()> {
    let Some(outcome) = outcome()? else {
        return Ok(());
    };
    let Some(scraped) = &outcome.prometheus else {
        return Ok(());
    };
    let mut problems = Vec::new();
    ensure!(!scraped.rules.is_empty(), "no rules");
    for rule in &scraped.rules {
        if rule.health != "ok" || rule.last_error.is_some() {
            problems.push(format!("{rule:?}"));
        }
        let gave = || scraped.names.contains(&rule.name);
        if rule.is_recording && !gave() {
            problems.push(format!("{} gave no series", rule.name));
        }
    }
    let lacking: Vec<String> = Metric::all()?
        .iter()
        .filter(|metric| outcome.lacks.iter().any(|(name, _)| *name == metric.name))
        .map(Metric::family)
        .collect::<Result<_>>()?;
    for (title, expression, series) in &scraped.answers {
        println!("{series} series of \"{title}\": {expression}");
        let may_be_empty =
            CALM.contains(&title.as_str()) || lacking.iter().any(|name| expression.contains(name));
        if *series == 0 && !may_be_empty {
            problems.push(format!("dashboard: nothing for \"{title}\": {expression}"));
        }
    }
    ensure!(problems.is_empty(), "{}", problems.join("\n"));

    let mut rules = scraped.rules.iter();
    let kill = rules.find(|rule| rule.name == "MemtraceOomKill");
    let firing = &kill.context("no alert of OOM kills")?.firing;
    let of_container = |labels: &&BTreeMap<String, String>| {
        let is = |label: &str, value: &str| labels.get(label).is_some_and(|it| it == value);
        is("k8s_namespace_name", scene::NAMESPACE)
            && is("k8s_pod_name", scene::POD)
            && is("k8s_container_name", scene::CONTAINER)
            && is("k8s_node_name", scene::NODE)
    };
    ensure!(
        firing.iter().any(|labels| of_container(&labels)),
        "{firing:?}"
    );
    Ok(())
}

#[test]
fn what_the_scene_settles_has_that_value_in_each_backend() -> Result<()> {
    let Some(outcome) = outcome()? else {
        return Ok(());
    };
    let scraped = outcome.prometheus.as_ref().map(|scraped| &scraped.series);
    let sent = outcome.victoria_metrics.as_ref().map(|(series, _)| series);
    for (name, level, value) in [
        ("memtrace_memory_limit_bytes", Level::Service, LIMIT),
        ("memtrace_memory_limit_bytes", Level::Pod, 2 * LIMIT),
        ("memtrace_memory_limit_bytes", Level::Container, LIMIT),
        (
            "memtrace_memory_effective_limit_bytes",
            Level::Container,
            LIMIT,
        ),
        (
            "k8s_container_memory_limit_desired_bytes",
            Level::Container,
            LIMIT,
        ),
        (
            "k8s_container_memory_limit_current_bytes",
            Level::Container,
            LIMIT,
        ),
        (
            "k8s_container_memory_request_desired_bytes",
            Level::Container,
            REQUEST,
        ),
        (
            "k8s_container_memory_request_current_bytes",
            Level::Container,
            REQUEST,
        ),
        ("k8s_container_restart_count", Level::Container, RESTARTS),
        ("memtrace_oom_kills_total", Level::Service, 1),
        ("memtrace_oom_kills_total", Level::Container, 1),
        ("memtrace_memory_near_limit", Level::Container, 1),
    ] {
        let place = outcome.places.iter().find(|place| place.level == level);
        let place = place.context("no such place")?;
        for series in scraped.into_iter().chain(sent) {
            let found = series.iter().filter(|series| {
                series.name == name && level_of(series) == level && is_of(series, place)
            });
            let samples = found.flat_map(|series| series.samples.iter().copied());
            let most = samples.fold(f64::NEG_INFINITY, f64::max);
            assert_eq!(most, value as f64, "{name} of the {level:?}");
        }
    }
    Ok(())
}
