//! What a running agent takes over of a file that changed. It reads the file; nothing else here waits.

use std::{path::PathBuf, time::Duration};

use globset::GlobMatcher;

use crate::{actions::Rule, analysis::Thresholds};

use super::{
    layers::{CommandLine, Effective, Layers},
    problem::ConfigError,
};

/// Keys that a running agent takes over.
const TAKEN_OVER: [&str; 3] = ["cgroup", "stall_after", "threshold"];

/// Reads the file again. Without `Debug`: it has secrets.
pub struct Reloader {
    line: CommandLine,
    /// As of the start, by which everything but [`TAKEN_OVER`] still runs.
    running: Vec<(String, Vec<String>)>,
    /// Of what is taken over, as of the last time.
    taken: Vec<(String, Vec<String>)>,
    rules: String,
    path: Option<PathBuf>,
}

/// What to take over.
#[derive(Debug)]
pub struct Reloaded {
    pub path: PathBuf,
    pub cgroup: Option<GlobMatcher>,
    pub stall_after: Duration,
    /// `None`: growth is not judged.
    pub thresholds: Option<Thresholds>,
    pub rules: Vec<Rule>,
    /// Keys that changed and are taken over.
    pub changed: Vec<String>,
    /// Keys that changed since the start and are not.
    pub needs_restart: Vec<String>,
}

impl Reloader {
    /// For an agent that started with these.
    pub fn new(line: CommandLine, layers: &Layers) -> Self {
        Self {
            line,
            running: values(&layers.effective),
            taken: values(&layers.effective),
            rules: format!("{:?}", layers.rules),
            path: layers.path.clone(),
        }
    }

    /// What the file says now; `None`: there is no file, and was none.
    ///
    /// # Errors
    /// It cannot be used, all as before.
    pub fn reload(&mut self) -> Result<Option<Reloaded>, ConfigError> {
        // One that is gone is told, not taken for an empty one.
        let Some(path) = self.line.path().or_else(|| self.path.clone()) else {
            return Ok(None);
        };
        let layers = self.line.with_file(path.clone()).load()?;
        self.path = Some(path.clone());
        let now = values(&layers.effective);
        let is_taken_over = |key: &str| TAKEN_OVER.contains(&key);
        let differs = |before: &[(String, Vec<String>)], wanted: bool| {
            let now = now.iter().filter(|(key, _)| is_taken_over(key) == wanted);
            now.filter(|value| !before.contains(value))
                .map(|(key, _)| key.clone())
                .collect::<Vec<_>>()
        };
        let needs_restart = differs(&self.running, false);
        let mut changed = differs(&self.taken, true);
        let rules = format!("{:?}", layers.rules);
        if rules != self.rules {
            changed.push("on_event".to_owned());
        }
        self.rules = rules;
        self.taken = now;
        Ok(Some(Reloaded {
            path,
            cgroup: layers.args.cgroup,
            stall_after: layers.args.incidents.stall_after,
            thresholds: layers.resolved.thresholds,
            rules: layers.rules,
            changed,
            needs_restart,
        }))
    }
}

fn values(effective: &[Effective]) -> Vec<(String, Vec<String>)> {
    effective
        .iter()
        .map(|effective| (effective.key.name.clone(), effective.values.clone()))
        .collect()
}

#[cfg(test)]
#[path = "reload_tests.rs"]
mod tests;
