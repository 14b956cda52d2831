//! Every distinct call path once, under a number; bounded.

use std::{collections::HashMap, sync::Arc};

use super::code::{ModuleId, Place, Root};

/// A call path, the innermost place first.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CallPath {
    pub places: Box<[Place]>,
    pub root: Root,
}

/// A call path that is known. Its number is given to another one when nothing refers to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallPathId(u32);

struct Entry {
    path: Arc<CallPath>,
    users: u32,
    /// Order in which paths lost their last user.
    idle_since: u64,
}

/// All call paths that pages refer to.
pub struct CallPaths {
    ids: HashMap<Arc<CallPath>, CallPathId>,
    entries: HashMap<CallPathId, Entry>,
    next: u32,
    clock: u64,
    most: usize,
    /// Paths that were forgotten because there were too many.
    pub evicted: u64,
}

impl CallPaths {
    pub fn new(most: usize) -> Self {
        Self {
            ids: HashMap::new(),
            entries: HashMap::new(),
            next: 0,
            clock: 0,
            most: most.max(1),
            evicted: 0,
        }
    }

    /// The number of a path, which then has one user more; with it the path that had to go for
    /// it, whose users are gone as well.
    pub fn take(&mut self, path: CallPath) -> (CallPathId, Option<CallPathId>) {
        if let Some(&id) = self.ids.get(&path) {
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.users += 1;
            }
            return (id, None);
        }
        let evicted = if self.entries.len() >= self.most {
            self.evict()
        } else {
            None
        };
        let mut id = CallPathId(self.next);
        while self.entries.contains_key(&id) {
            self.next = self.next.wrapping_add(1);
            id = CallPathId(self.next);
        }
        self.next = self.next.wrapping_add(1);
        self.clock += 1;
        let path = Arc::new(path);
        self.ids.insert(path.clone(), id);
        self.entries.insert(
            id,
            Entry {
                path,
                users: 1,
                idle_since: self.clock,
            },
        );
        (id, evicted)
    }

    /// One user less.
    pub fn release(&mut self, id: CallPathId) {
        self.clock += 1;
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.users = entry.users.saturating_sub(1);
            entry.idle_since = self.clock;
        }
    }

    pub fn get(&self, id: CallPathId) -> Option<Arc<CallPath>> {
        self.entries.get(&id).map(|entry| entry.path.clone())
    }

    /// Forgets all that nobody uses.
    pub fn sweep(&mut self) {
        let ids = &mut self.ids;
        self.entries.retain(|_, entry| {
            if entry.users == 0 {
                ids.remove(&entry.path);
            }
            entry.users > 0
        });
    }

    /// The files that they lead through, again for each place.
    pub fn modules(&self) -> impl Iterator<Item = ModuleId> {
        let places = self.entries.values().flat_map(|entry| &entry.path.places);
        places.filter_map(|place| match place {
            Place::File { module, .. } => Some(*module),
            Place::Anonymous { .. } => None,
        })
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The path that is idle the longest, or else the oldest.
    fn evict(&mut self) -> Option<CallPathId> {
        let (&id, _) = self
            .entries
            .iter()
            .min_by_key(|(_, entry)| (entry.users > 0, entry.idle_since))?;
        let entry = self.entries.remove(&id)?;
        self.ids.remove(&entry.path);
        if entry.users == 0 {
            return None;
        }
        self.evicted += 1;
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(address: u64) -> CallPath {
        CallPath {
            places: Box::new([Place::Anonymous { pid: 1, address }]),
            root: Root::Reached,
        }
    }

    #[test]
    fn equal_paths_have_one_number() {
        let mut paths = CallPaths::new(10);
        let (first, _) = paths.take(path(1));
        let (again, _) = paths.take(path(1));
        let (other, _) = paths.take(path(2));
        assert_eq!(first, again);
        assert_ne!(first, other);
        assert_eq!(*paths.get(other).unwrap(), path(2));
    }

    #[test]
    fn paths_without_users_go_first_and_are_no_loss() {
        let mut paths = CallPaths::new(2);
        let (kept, _) = paths.take(path(1));
        let (idle, _) = paths.take(path(2));
        paths.release(idle);
        assert_eq!(paths.take(path(3)).1, None);
        assert!(paths.get(kept).is_some() && paths.get(idle).is_none());
        assert_eq!(paths.evicted, 0);
    }

    #[test]
    fn the_oldest_goes_and_is_counted_when_all_are_used() {
        let mut paths = CallPaths::new(2);
        let (oldest, _) = paths.take(path(1));
        paths.take(path(2));
        assert_eq!(paths.take(path(3)).1, Some(oldest));
        assert_eq!((paths.evicted, paths.len()), (1, 2));
    }

    #[test]
    fn sweeping_leaves_what_is_used() {
        let mut paths = CallPaths::new(10);
        let (kept, _) = paths.take(path(1));
        let (idle, _) = paths.take(path(2));
        paths.release(idle);
        paths.sweep();
        assert_eq!(paths.len(), 1);
        assert!(paths.get(kept).is_some());
    }
}
