//! Who gives way when there are more cgroups than places: the subtree that holds the most of them.
//!
//! Owns how many places each subtree holds. Else whoever may make cgroups could take all places, and
//! nothing made later would be seen. Pure; must not know what a cgroup holds.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
};

/// A subtree gives way only where it holds more than one in so many places, and only to one that holds less.
const CROWD: usize = 16;

/// The tree of places. Costs about 2 µs for a place given or taken.
#[derive(Debug, Default)]
pub struct Shares {
    subtrees: HashMap<PathBuf, Subtree>,
}

#[derive(Debug, Default)]
struct Subtree {
    /// Who has the place at its top.
    top: Option<u64>,
    /// With its top.
    places: usize,
    /// Those right below that hold places, by how many.
    below: BTreeSet<(usize, PathBuf)>,
}

impl Shares {
    /// Of all that have a place. Paths begin with `/`.
    pub fn of<'a>(held: impl Iterator<Item = (&'a Path, u64)>) -> Self {
        let mut shares = Self::default();
        for (path, id) in held {
            shares.give(path, id);
        }
        shares
    }

    /// A cgroup gets a place.
    pub fn give(&mut self, path: &Path, id: u64) {
        self.change(path, |places| places + 1);
        if let Some(subtree) = self.subtrees.get_mut(path) {
            subtree.top = Some(id);
        }
    }

    /// A cgroup has no place any more.
    pub fn take(&mut self, path: &Path, id: u64) {
        // Another one of the same name may have come before this one was known to be gone.
        if let Some(subtree) = self.subtrees.get_mut(path)
            && subtree.top == Some(id)
        {
            subtree.top = None;
        }
        self.change(path, |places| places.saturating_sub(1));
    }

    fn change(&mut self, path: &Path, change: fn(usize) -> usize) {
        let mut lower: Option<(&Path, usize, usize)> = None;
        for path in path.ancestors() {
            let subtree = self.subtrees.entry(path.to_owned()).or_default();
            if let Some((lower, before, after)) = lower {
                subtree.below.remove(&(before, lower.to_owned()));
                if after > 0 {
                    subtree.below.insert((after, lower.to_owned()));
                }
            }
            let before = subtree.places;
            subtree.places = change(before);
            lower = Some((path, before, subtree.places));
            if subtree.places == 0 {
                self.subtrees.remove(path);
            }
        }
    }

    /// Whose place a newcomer at `path` gets, of `most`: one in the fullest subtree beside its own, the
    /// highest such. `None`: no subtree holds so many, and more than its own.
    pub fn who_gives_way(&self, path: &Path, most: usize) -> Option<u64> {
        let mut way: Vec<&Path> = path.ancestors().collect();
        way.reverse();
        for step in way.windows(2) {
            let &[above, towards] = step else { break };
            let own = self.subtrees.get(towards).map_or(0, |own| own.places);
            let (places, fullest) = self.subtrees.get(above)?.below.last()?;
            if fullest != towards && *places > own + 1 && *places > most / CROWD {
                return self.lowest(fullest);
            }
        }
        None
    }

    /// One that has nothing below, always on the fuller side.
    fn lowest<'a>(&'a self, mut path: &'a Path) -> Option<u64> {
        loop {
            let subtree = self.subtrees.get(path)?;
            match subtree.below.last() {
                Some((_, lower)) => path = lower,
                None => return subtree.top,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 64;

    /// 10 containers in pods of two, and a user with 52 cgroups.
    fn host() -> (Shares, Vec<PathBuf>) {
        let pods = (0..10).map(|id| format!("/kubepods/pod{}/{id}", id / 2));
        let user = (0..52).map(|id| format!("/user/1000/{}/{id}", id % 3));
        let paths: Vec<PathBuf> = pods.chain(user).map(PathBuf::from).collect();
        let held = (0..).zip(&paths).map(|(id, path)| (path.as_path(), id));
        (Shares::of(held), paths)
    }

    #[test]
    fn the_fullest_subtree_gives_way_until_it_has_no_more_than_others() {
        let (mut shares, paths) = host();
        for made in 0..100 {
            let path = PathBuf::from(format!("/kubepods/new{made}/app"));
            let Some(id) = shares.who_gives_way(&path, MOST) else {
                // 10 + 21 of the pods, 52 - 21 of the user.
                assert_eq!(made, 21);
                return;
            };
            let displaced = &paths[id as usize];
            assert!(displaced.starts_with("/user/1000"), "{displaced:?}");
            shares.take(displaced, id);
            shares.give(&path, 1000 + made);
        }
        panic!("everybody gave way");
    }

    #[test]
    fn who_has_the_most_displaces_nobody() {
        let (shares, _) = host();
        for path in ["/user/1000/0/new", "/user/1000"] {
            assert_eq!(shares.who_gives_way(Path::new(path), MOST), None);
        }
        // Beside its own three subtrees it is the newcomer that has less, and so has another user.
        for path in ["/user/1000/new", "/user/1001/new"] {
            let id = shares.who_gives_way(Path::new(path), MOST);
            assert!(id.is_some_and(|id| id >= 10), "{id:?}");
        }
    }

    #[test]
    fn what_is_taken_leaves_nothing_behind() {
        let (mut shares, paths) = host();
        // Made anew before the removal of the first was told.
        shares.give(&paths[3], 77);
        shares.take(&paths[3], 3);
        assert_eq!(shares.subtrees[&paths[3]].top, Some(77));
        shares.take(&paths[3], 77);
        for (id, path) in (0..).zip(&paths).filter(|(id, _)| *id != 3) {
            shares.take(path, id);
        }
        assert!(shares.subtrees.is_empty(), "{shares:?}");
    }
}
