//! Analyses of cgroups that are gone: what starts again takes the same path, or is the same container of
//! the same pod, and its leak goes on. Owns how many are kept, and for how long.

use std::{collections::HashMap, path::PathBuf};

use crate::analysis::Analyzer;

use super::judged::Told;

/// Analyses kept of cgroups that are gone; the longest gone goes first.
const MOST: usize = 512;
/// One that was gone for longer comes as a new one: a day.
const KEPT_MS: i64 = 86_400_000;

/// The analysis of a cgroup that is gone, or was judged by an earlier agent.
#[derive(Debug)]
pub struct Ancestor {
    pub analyzer: Analyzer,
    pub told: Told,
    /// How long the cgroup lived.
    pub life_ms: i64,
    /// Known: the cgroup may still live.
    pub cgroup_id: Option<u64>,
    /// Pod and container, where it was one: the path changes with each of its lives.
    pub container: Option<String>,
}

/// All of them, by the path they had.
#[derive(Debug, Default)]
pub struct Lineage {
    gone: HashMap<PathBuf, (i64, Ancestor)>,
    by_container: HashMap<String, PathBuf>,
}

impl Lineage {
    /// Keeps an analysis since `now_ms`.
    pub fn retire(&mut self, path: PathBuf, ancestor: Ancestor, now_ms: i64) {
        if let Some(container) = &ancestor.container {
            self.by_container.insert(container.clone(), path.clone());
        }
        self.gone.insert(path, (now_ms, ancestor));
    }

    /// The analysis of an earlier life of a container.
    pub fn take_container(&mut self, container: &str) -> Option<Ancestor> {
        let path = self.by_container.remove(container)?;
        let (_, ancestor) = self.gone.get(&path)?;
        if ancestor.container.as_deref() != Some(container) {
            return None;
        }
        self.take(&path)
    }

    pub fn analyzers_mut(&mut self) -> impl Iterator<Item = &mut Analyzer> {
        self.gone.values_mut().map(|(_, gone)| &mut gone.analyzer)
    }

    /// Whether a cgroup of that path was judged.
    pub fn knows(&self, path: &PathBuf) -> bool {
        self.gone.contains_key(path)
    }

    /// The analysis to go on with.
    pub fn take(&mut self, path: &PathBuf) -> Option<Ancestor> {
        let (_, ancestor) = self.gone.remove(path)?;
        if let Some(container) = &ancestor.container
            && self.by_container.get(container) == Some(path)
        {
            self.by_container.remove(container);
        }
        Some(ancestor)
    }

    /// Forgets the oldest and those beyond the bound.
    pub fn trim(&mut self, now_ms: i64) {
        self.gone
            .retain(|_, (since_ms, _)| now_ms.saturating_sub(*since_ms) <= KEPT_MS);
        let surplus = self.gone.len().saturating_sub(MOST);
        if surplus > 0 {
            let mut by_age: Vec<(i64, PathBuf)> = self
                .gone
                .iter()
                .map(|(path, (since_ms, _))| (*since_ms, path.clone()))
                .collect();
            by_age.sort_unstable();
            for (_, path) in by_age.into_iter().take(surplus) {
                self.gone.remove(&path);
            }
        }
        let gone = &self.gone;
        self.by_container.retain(|_, path| gone.contains_key(path));
    }

    pub fn iter(&self) -> impl Iterator<Item = (&PathBuf, &Ancestor)> {
        self.gone
            .iter()
            .map(|(path, (_, ancestor))| (path, ancestor))
    }
}
