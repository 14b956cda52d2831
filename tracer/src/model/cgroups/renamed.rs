//! Cgroups with another path than before: cgroup v1 lets them be renamed (`cgroup1_rename`), with all that are below.

use std::path::{Path, PathBuf};

use super::Cgroups;

impl Cgroups {
    /// A cgroup was found at a path. `true` if it is known, and was at another one.
    pub fn found_at(&mut self, id: u64, path: &Path) -> bool {
        let path = absolute(path);
        let Some(cgroup) = self.by_id.get_mut(&id) else {
            return false;
        };
        if cgroup.path == path || cgroup.removed_at.is_some() {
            return false;
        }
        let before = cgroup.moved(path.clone());
        if self.by_path.get(&before) == Some(&id) {
            self.by_path.remove(&before);
        }
        if let Some(shares) = &mut self.shares {
            shares.take(&before, id);
            shares.give(&path, id);
        }
        self.by_path.insert(path, id);
        self.limits_changed = true;
        self.tree_changed = true;
        self.unnamed.push(id);
        true
    }

    /// Whether a cgroup came to where another is still held to be, since the last call.
    pub fn take_path_taken(&mut self) -> bool {
        std::mem::take(&mut self.path_taken)
    }
}

pub(super) fn absolute(path: &Path) -> PathBuf {
    if path.is_absolute() {
        path.to_owned()
    } else {
        Path::new("/").join(path)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn made(cgroups: &mut Cgroups, id: u64, path: &str) {
        assert!(cgroups.made(id, Path::new(path), SystemTime::UNIX_EPOCH));
    }

    #[test]
    fn one_that_was_renamed_leaves_its_path_to_the_next() {
        let mut cgroups = Cgroups::new(8, Duration::from_secs(10));
        made(&mut cgroups, 1, "/");
        made(&mut cgroups, 2, "/a");
        made(&mut cgroups, 3, "/a/kid");
        assert!(!cgroups.take_path_taken());
        made(&mut cgroups, 4, "/a");
        assert!(cgroups.take_path_taken() && !cgroups.take_path_taken());
        cgroups.take_unnamed();

        assert!(cgroups.found_at(2, Path::new("b")));
        assert!(cgroups.found_at(3, Path::new("b/kid")));
        assert!(!cgroups.found_at(4, Path::new("a")));

        let id_of = |path: &str| cgroups.id_of(Path::new(path));
        assert_eq!(
            [id_of("/a"), id_of("/b"), id_of("/b/kid")],
            [Some(4), Some(2), Some(3)]
        );
        assert_eq!(id_of("/a/kid"), None);
        assert_eq!(&*cgroups.get(2).unwrap().display, "/b");
        assert!(cgroups.is_known_above(2, 3) && !cgroups.is_known_above(4, 3));
        assert_eq!(cgroups.take_unnamed(), [2, 3]);
    }
}
