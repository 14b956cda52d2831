//! The tables of metrics in docs/otlp.md. Must not know any metric by its name.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// Whose numbers a table has, by its heading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    Cgroup,
    OwnProcesses,
    Kubernetes,
    Verdict,
    Host,
    Agent,
}

/// One line of a table.
#[derive(Debug, Clone)]
pub struct Metric {
    /// In OpenTelemetry.
    pub name: String,
    pub section: Section,
    unit: String,
    kind: String,
    /// Label to the values that it may have; none where the table names none.
    pub labels: BTreeMap<String, Vec<String>>,
}

const HEADINGS: [(&str, Section); 6] = [
    ("The metrics of a cgroup", Section::Cgroup),
    (
        "The metrics of a cgroup's own processes",
        Section::OwnProcesses,
    ),
    ("The metrics of Kubernetes", Section::Kubernetes),
    ("The metrics of a verdict", Section::Verdict),
    ("The metrics of the host", Section::Host),
    ("The metrics of memtrace itself", Section::Agent),
];

impl Metric {
    /// All that are documented.
    pub fn all() -> Result<Vec<Self>> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/otlp.md");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut section = None;
        let mut is_table = false;
        let mut metrics = Vec::new();
        for line in text.lines() {
            if let Some(heading) = line.strip_prefix('#') {
                let heading = heading.trim_start_matches('#').trim();
                let known = HEADINGS.iter().find(|(name, _)| *name == heading);
                section = known.map(|(_, section)| *section);
            }
            let cells: Option<Vec<&str>> = line
                .strip_prefix('|')
                .and_then(|line| line.trim_end().strip_suffix('|'))
                .map(|line| line.split('|').map(str::trim).collect());
            let Some(cells) = cells else {
                is_table = false;
                continue;
            };
            if cells.first() == Some(&"metric") {
                let expected = ["metric", "unit", "kind", "attributes", "meaning"];
                ensure!(cells == expected, "columns {cells:?}");
                is_table = true;
            } else if is_table && !cells.iter().all(|cell| cell.starts_with("---")) {
                let section = section.with_context(|| format!("below no heading: {line}"))?;
                metrics.push(Self::of(section, &cells).with_context(|| line.to_owned())?);
            }
        }
        for (heading, section) in HEADINGS {
            let some = metrics.iter().any(|metric| metric.section == section);
            ensure!(some, "no table below \"{heading}\"");
        }
        Ok(metrics)
    }

    fn of(section: Section, cells: &[&str]) -> Result<Self> {
        let [name, unit, kind, attributes, _] = cells else {
            bail!("{} cells", cells.len());
        };
        let mut labels: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut last = None;
        for text in quoted(attributes) {
            if text.contains('.') {
                last = Some(labels.entry(underscored(text)).or_default());
            } else {
                let values = last.as_mut().context("a value before its attribute")?;
                values.push(text.to_owned());
            }
        }
        let first = |cell| quoted(cell).next().context("nothing in backticks");
        Ok(Self {
            name: first(name)?.to_owned(),
            section,
            unit: first(unit)?.to_owned(),
            kind: (*kind).to_owned(),
            labels,
        })
    }

    /// The kind in Prometheus.
    pub fn prometheus_kind(&self) -> Result<&'static str> {
        Ok(match self.kind.as_str() {
            "sum" => "counter",
            "up-down" | "gauge" => "gauge",
            "histogram" => "histogram",
            other => bail!("{}: kind {other}", self.name),
        })
    }

    /// The name of its family in Prometheus, by the rules below the tables.
    pub fn family(&self) -> Result<String> {
        let unit = match self.unit.as_str() {
            "By" => "_bytes",
            "s" => "_seconds",
            "By/s" => "_bytes_per_second",
            unit if unit.starts_with('{') => "",
            other => bail!("{}: unit {other}", self.name),
        };
        Ok(underscored(&self.name) + unit)
    }

    /// The names of its series.
    pub fn series(&self) -> Result<Vec<String>> {
        let family = self.family()?;
        let suffixes: &[&str] = match self.prometheus_kind()? {
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        Ok(suffixes
            .iter()
            .map(|suffix| format!("{family}{suffix}"))
            .collect())
    }
}

/// What stands in backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

fn underscored(name: &str) -> String {
    name.replace(['.', '-'], "_")
}
