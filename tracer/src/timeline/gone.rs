//! Histories of cgroups that are gone: what comes again under the same path, or is the same container of
//! the same pod, goes on with one. Owns how many are kept, and for how long.

use std::{collections::HashMap, sync::Arc};

use super::{history::History, table_bytes};

/// Histories kept; the longest gone goes first.
pub const MOST: usize = 512;
/// Kept after the end for 7 days.
const KEPT_MS: i64 = 7 * 86_400_000;

#[derive(Debug, Default)]
pub struct Gone {
    by_path: HashMap<Arc<str>, Box<History>>,
    by_container: HashMap<Arc<str>, Arc<str>>,
    /// Histories that there was no room for.
    pub forgotten: u64,
}

/// The path as a key. One that was cut stands for many: with the id it is of one cgroup only.
fn key(cgroup: &Arc<str>, id: u64) -> Arc<str> {
    if cgroup.ends_with('…') {
        format!("{cgroup}#{id}").into()
    } else {
        Arc::clone(cgroup)
    }
}

impl Gone {
    pub fn put(&mut self, mut history: Box<History>) {
        let key = key(&history.cgroup, history.cgroup_id);
        if let Some(container) = history.container.clone() {
            let other = self
                .by_container
                .get(&container)
                .filter(|other| **other != key);
            if let Some(other) = other.cloned()
                && let Some(former) = self.by_path.get_mut(&other)
            {
                let is_older = former.newest_ms() >= history.newest_ms();
                // An agent that crashed may leave what went on under another path where it was before, too.
                if former.first_seen_ms == history.first_seen_ms {
                    if is_older {
                        return;
                    }
                    self.by_path.remove(&other);
                } else if is_older {
                    // A container goes on with one history; what is kept must not depend on the order.
                    history.container = None;
                } else {
                    former.container = None;
                }
            }
            if history.container.is_some() {
                self.by_container.insert(container, Arc::clone(&key));
            }
        }
        let former = self.by_path.insert(key, history);
        self.forgotten += u64::from(former.is_some());
    }

    /// Whether a cgroup of that path was recorded.
    pub fn knows(&self, cgroup: &Arc<str>, id: u64) -> bool {
        self.by_path.contains_key(&key(cgroup, id))
    }

    /// The history to go on with.
    pub fn take(&mut self, cgroup: &Arc<str>, id: u64) -> Option<Box<History>> {
        self.take_key(&key(cgroup, id))
    }

    fn take_key(&mut self, key: &Arc<str>) -> Option<Box<History>> {
        let history = self.by_path.remove(key)?;
        if let Some(container) = &history.container
            && self.by_container.get(container) == Some(key)
        {
            self.by_container.remove(container);
        }
        Some(history)
    }

    /// The history of an earlier life of a container.
    pub fn take_container(&mut self, container: &str) -> Option<Box<History>> {
        let key = Arc::clone(self.by_container.get(container)?);
        self.take_key(&key)
    }

    /// Forgets the oldest and those beyond the bound.
    pub fn trim(&mut self, now_ms: i64) {
        let gone_ms = |history: &History| history.gone_ms.unwrap_or(now_ms);
        self.by_path
            .retain(|_, history| now_ms.saturating_sub(gone_ms(history)) <= KEPT_MS);
        let surplus = self.by_path.len().saturating_sub(MOST);
        if surplus > 0 {
            let mut by_age: Vec<(i64, Arc<str>)> = self
                .by_path
                .iter()
                .map(|(path, history)| (gone_ms(history), Arc::clone(path)))
                .collect();
            by_age.sort_unstable();
            for (_, path) in by_age.into_iter().take(surplus) {
                self.by_path.remove(&path);
                self.forgotten += 1;
            }
        }
        if self.by_container.len() > self.by_path.len() || surplus > 0 {
            let by_path = &self.by_path;
            self.by_container
                .retain(|_, path| by_path.contains_key(path));
        }
    }

    pub fn get(&self, cgroup: &Arc<str>, id: u64) -> Option<&History> {
        self.by_path.get(&key(cgroup, id)).map(|history| &**history)
    }

    pub fn get_mut(&mut self, cgroup: &Arc<str>, id: u64) -> Option<&mut History> {
        self.by_path
            .get_mut(&key(cgroup, id))
            .map(|history| &mut **history)
    }

    /// Bytes of its tables, without what is in them.
    pub fn table_bytes(&self) -> usize {
        let paths = table_bytes::<(Arc<str>, Box<History>)>(self.by_path.capacity());
        paths + table_bytes::<(Arc<str>, Arc<str>)>(self.by_container.capacity())
    }

    pub fn len(&self) -> usize {
        self.by_path.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &History> {
        self.by_path.values().map(|history| &**history)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut History> {
        self.by_path.values_mut().map(|history| &mut **history)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        path::Path,
        time::{Duration, SystemTime},
    };

    use super::*;
    use crate::model::cgroups::Cgroups;

    /// Path, whether it is of the one container, and when it was first seen.
    type Life = (String, bool, i64);

    fn put(lives: &[Life]) -> Vec<Life> {
        let mut gone = Gone::default();
        for (path, is_of_container, first_seen_ms) in lives {
            let mut cgroups = Cgroups::new(1, Duration::ZERO);
            assert!(cgroups.made(1, Path::new(path), SystemTime::UNIX_EPOCH));
            let mut history = History::new(cgroups.get(1).unwrap(), *first_seen_ms);
            history.container = is_of_container.then(|| "web-0/app".into());
            gone.put(Box::new(history));
        }
        let life = |history: &History| {
            let path = history.cgroup.to_string();
            (path, history.container.is_some(), history.first_seen_ms)
        };
        gone.iter().map(life).collect()
    }

    #[test]
    fn what_was_kept_once_is_kept_again_in_any_order() {
        let [a, b, c] =
            [("/a", 10), ("/b", 20), ("/c", 10)].map(|(path, at)| (path.to_owned(), true, at));
        for lives in [[&a, &b, &c], [&a, &c, &b], [&c, &b, &a], [&b, &c, &a]] {
            let kept = put(&lives.map(Clone::clone));
            assert!(kept.contains(&b), "{kept:?}");
            assert_eq!(kept.iter().filter(|life| life.1).count(), 1, "{kept:?}");
            let mut turned = kept.clone();
            for _ in 0..kept.len() {
                turned.rotate_left(1);
                assert_eq!(put(&turned).len(), kept.len(), "{turned:?}");
            }
        }
    }
}
