//! The rules and the dashboard of deploy/, as Prometheus gets them. Must not know any metric by its name.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

const RULES: [&str; 2] = ["recording.rules.yaml", "alerts.rules.yaml"];
/// What Grafana puts in place of its own variables, as short as the scene is.
const VARIABLES: [(&str, &str); 2] = [("$__rate_interval", "10s"), ("$__range", "5m")];

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// The files of rules.
pub fn files() -> Vec<PathBuf> {
    let files = RULES
        .iter()
        .map(|name| deploy().join("prometheus").join(name));
    files.collect()
}

/// What the dashboard asks, with the title of each panel; every variable stands for all.
pub fn questions() -> Result<Vec<(String, String)>> {
    let path = deploy().join("grafana/memtrace.json");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let dashboard: Value = serde_json::from_str(&text)?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut questions = Vec::new();
    for panel in list(&dashboard["panels"]) {
        for target in list(&panel["targets"]) {
            questions.push((panel["title"].clone(), target["expr"].clone()));
        }
    }
    for annotation in list(&dashboard["annotations"]["list"]) {
        if annotation["expr"].is_string() {
            questions.push((annotation["name"].clone(), annotation["expr"].clone()));
        }
    }
    let questions = questions.into_iter().map(|(title, expression)| {
        let title = title.as_str().context("no title")?.to_owned();
        let expression = expression.as_str().context("no expression")?;
        Ok((title, filled_in(expression)))
    });
    questions.collect()
}

fn filled_in(expression: &str) -> String {
    let mut text = expression.to_owned();
    for (name, value) in VARIABLES {
        text = text.replace(name, value);
    }
    // `"$node"` and the like.
    let mut parts = text.split("\"$");
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        filled.push_str("\".*\"");
        filled.push_str(part.split_once('"').map_or("", |(_, rest)| rest));
    }
    filled
}
