//! A real Prometheus that scrapes and evaluates rules, and what a PromQL backend has stored.
//! Must not know memtrace's names.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::backend::{Server, encoded, free_port};
use crate::machine;

/// Prometheus; it ends when dropped.
#[derive(Debug)]
pub struct Prometheus {
    server: Server,
    _directory: TempDir,
}

/// A series with the samples of the last hour.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub name: String,
    /// Without the name.
    pub labels: BTreeMap<String, String>,
    pub samples: Vec<f64>,
}

/// A rule and how its last evaluation went.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    pub name: String,
    /// It records a series, where others alert.
    pub is_recording: bool,
    /// `ok`, `err`, or `unknown` before the first evaluation.
    pub health: String,
    pub last_error: Option<String>,
    /// Labels of each alert that fires.
    pub firing: Vec<BTreeMap<String, String>>,
}

impl Prometheus {
    /// Starts one that scrapes a port of this host every second, and evaluates rules as often.
    pub fn scraping(program: &Path, job: &str, port: u16, rules: &[PathBuf]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        // JSON is YAML.
        let config = json!({
            "global": {
                "scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s",
            },
            "rule_files": rules,
            "scrape_configs": [{
                "job_name": job,
                "static_configs": [{"targets": [format!("127.0.0.1:{port}")]}],
            }],
        });
        let file = directory.path().join("prometheus.yml");
        fs::write(&file, config.to_string())?;
        let log = File::create(directory.path().join("log"))?;
        let port = free_port()?;
        let mut command = Command::new(program);
        command
            .arg(format!("--config.file={}", file.display()))
            .arg("--storage.tsdb.path=data")
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .current_dir(directory.path())
            .stdout(log.try_clone()?)
            .stderr(log);
        let server = Server::start(&mut command, port).with_context(|| {
            fs::read_to_string(directory.path().join("log")).unwrap_or_default()
        })?;
        // It listens before it answers.
        machine::poll("Prometheus to be ready", Duration::from_secs(30), || {
            let (status, _) = server.request("GET", "/-/ready")?;
            Ok((status == 200).then_some(()))
        })?;
        Ok(Self {
            server,
            _directory: directory,
        })
    }

    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Kind of each family of series, as the scrape told it.
    pub fn kinds(&self) -> Result<BTreeMap<String, String>> {
        let data = data(&self.server, "/api/v1/metadata")?;
        let families = data.as_object().context("no metadata")?;
        let kinds = families.iter().map(|(family, said)| {
            let kind = said[0]["type"].as_str().context("no type")?;
            Ok((family.clone(), kind.to_owned()))
        });
        kinds.collect()
    }

    /// All rules.
    pub fn rules(&self) -> Result<Vec<Rule>> {
        let data = data(&self.server, "/api/v1/rules")?;
        let groups = data["groups"].as_array().context("no groups")?;
        let rules = groups.iter().flat_map(|group| list(&group["rules"]));
        rules.map(rule).collect()
    }
}

fn rule(rule: &Value) -> Result<Rule> {
    let text = |field: &str| rule[field].as_str().map(str::to_owned);
    let alerts = list(&rule["alerts"]);
    let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
    Ok(Rule {
        name: text("name").context("a rule without a name")?,
        is_recording: rule["type"] == "recording",
        health: text("health").unwrap_or_default(),
        last_error: text("lastError").filter(|error| !error.is_empty()),
        firing: firing.map(|alert| labels(&alert["labels"])).collect(),
    })
}

/// Series that a selector chooses, with what was stored of them in the last hour.
pub fn stored(server: &Server, selector: &str) -> Result<Vec<Series>> {
    let range = encoded(&format!("{selector}[1h]"));
    series(&data(server, &format!("/api/v1/query?query={range}"))?)
}

/// What an expression gave at each second between two times, in seconds since 1970.
pub fn evaluated(server: &Server, expression: &str, from: f64, to: f64) -> Result<Vec<Series>> {
    let expression = encoded(expression);
    let path = format!("/api/v1/query_range?query={expression}&start={from}&end={to}&step=1");
    series(&data(server, &path)?)
}

/// Names of all series that are stored.
pub fn names(server: &Server) -> Result<Vec<String>> {
    let data = data(server, "/api/v1/label/__name__/values")?;
    let names = list(&data).iter();
    Ok(names
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect())
}

fn data(server: &Server, path: &str) -> Result<Value> {
    let (_, body) = server.request("GET", path)?;
    let mut answer: Value =
        serde_json::from_str(&body).with_context(|| format!("no JSON: {body}"))?;
    ensure!(answer["status"] == "success", "{path}: {answer}");
    Ok(answer["data"].take())
}

fn series(data: &Value) -> Result<Vec<Series>> {
    let series = list(&data["result"]).iter().map(|series| {
        let mut labels = labels(&series["metric"]);
        let samples = list(&series["values"]).iter().map(|sample| {
            let value = sample[1].as_str().context("no value")?;
            Ok(value.parse()?)
        });
        Ok(Series {
            name: labels.remove("__name__").unwrap_or_default(),
            labels,
            samples: samples.collect::<Result<_>>()?,
        })
    });
    series.collect()
}

fn labels(object: &Value) -> BTreeMap<String, String> {
    let labels = object.as_object().into_iter().flatten();
    labels
        .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
