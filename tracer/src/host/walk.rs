//! Lists all cgroups of the memory hierarchy.
//!
//! Owns the bounded walk over the directories. Must not open their files.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::{CgroupHierarchy, HostError};

/// A cgroup found by [`walk()`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalkedCgroup {
    /// Raw, relative to the root of the memory hierarchy; empty for the root itself.
    pub path: PathBuf,
    /// Inode of the directory: the kernel's id of the cgroup.
    pub id: u64,
}

/// What [`walk()`] found. Parents come before their children.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Walk {
    pub cgroups: Vec<WalkedCgroup>,
    /// Cgroups seen but left out for lack of room. Their descendants are neither listed nor
    /// counted, so this is a lower bound.
    pub overflow: u64,
    /// Directories that exist but could not be listed.
    pub unreadable: u64,
}

/// Of all paths together; names may have 255 bytes each.
const MOST_PATH_BYTES: usize = 16 << 20;

/// All memory cgroups, at most `most`, breadth first: under a bound the deepest are left out.
/// Cgroups that vanish meanwhile are not an error.
pub fn walk(hierarchy: &CgroupHierarchy, most: usize) -> Result<Walk, HostError> {
    let root = &hierarchy.memory_root;
    let status = fs::metadata(root).map_err(|source| HostError::read(root, source))?;
    let mut found = Walk::default();
    if most == 0 {
        found.overflow = 1;
        return Ok(found);
    }
    found.cgroups.push(WalkedCgroup {
        path: PathBuf::new(),
        id: status.ino(),
    });
    let mut parents = VecDeque::from([0]);
    let mut path_bytes = 0;
    while let Some(parent) = parents.pop_front() {
        let relative = found.cgroups[parent].path.clone();
        let listed = visit_children(&root.join(&relative), |name, id| {
            if found.cgroups.len() < most && path_bytes < MOST_PATH_BYTES {
                parents.push_back(found.cgroups.len());
                let path = relative.join(name);
                path_bytes += path.as_os_str().len();
                found.cgroups.push(WalkedCgroup { path, id });
            } else {
                found.overflow += 1;
            }
        });
        match listed {
            Ok(()) => {}
            Err(error) if is_vanished(&error) => {}
            Err(source) if parent == 0 => return Err(HostError::read(root, source)),
            Err(_) => found.unreadable += 1,
        }
    }
    Ok(found)
}

fn visit_children(directory: &Path, mut visit: impl FnMut(&Path, u64)) -> io::Result<()> {
    // kernfs keeps the link count at 2 + children (`kernfs_refresh_inode`); most cgroups are leaves
    // and a stat is far cheaper than listing their forty files. Other file systems either do the
    // same or report 1.
    if fs::symlink_metadata(directory)?.nlink() == 2 {
        return Ok(());
    }
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            visit(Path::new(&entry.file_name()), entry.ino());
        }
    }
    Ok(())
}

fn is_vanished(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;
    use crate::host::CgroupMode;

    fn hierarchy(root: &Path) -> CgroupHierarchy {
        CgroupHierarchy {
            mode: CgroupMode::V2,
            memory_root: root.to_owned(),
            unified_root: None,
        }
    }

    #[test]
    fn names_stay_raw_and_parents_come_first() {
        let root = tempfile::tempdir().unwrap();
        let odd = OsStr::from_bytes(b"new\nline sp ace\xff");
        fs::create_dir_all(root.path().join("a").join(odd).join("deep")).unwrap();
        fs::create_dir(root.path().join("b")).unwrap();
        fs::write(root.path().join("a/memory.stat"), "").unwrap();
        std::os::unix::fs::symlink("a", root.path().join("link")).unwrap();
        let found = walk(&hierarchy(root.path()), 100).unwrap();
        let paths: Vec<_> = found
            .cgroups
            .iter()
            .map(|cgroup| cgroup.path.clone())
            .collect();
        let odd = Path::new("a").join(odd);
        let mut sorted = paths.clone();
        sorted.sort();
        let expected: Vec<PathBuf> = vec![
            "".into(),
            "a".into(),
            odd.clone(),
            odd.join("deep"),
            "b".into(),
        ];
        assert_eq!(sorted, expected);
        assert_eq!(paths[0], Path::new(""));
        assert_eq!(paths[4], odd.join("deep"));
        for cgroup in &found.cgroups {
            let status = fs::metadata(root.path().join(&cgroup.path)).unwrap();
            assert_eq!(cgroup.id, status.ino());
        }
        assert_eq!((found.overflow, found.unreadable), (0, 0));
    }

    #[test]
    fn bounded_with_the_overflow_counted() {
        let root = tempfile::tempdir().unwrap();
        for index in 0..10 {
            fs::create_dir_all(root.path().join(format!("c{index}/leaf"))).unwrap();
        }
        let found = walk(&hierarchy(root.path()), 4).unwrap();
        assert_eq!((found.cgroups.len(), found.overflow), (4, 10));
        let found = walk(&hierarchy(root.path()), 21).unwrap();
        assert_eq!((found.cgroups.len(), found.overflow), (21, 0));
        assert_eq!(walk(&hierarchy(root.path()), 0).unwrap().cgroups, []);
    }

    #[test]
    fn long_names_do_not_fill_the_memory() {
        let root = tempfile::tempdir().unwrap();
        let mut deep = root.path().to_owned();
        for _ in 0..12 {
            deep.push("n".repeat(255));
        }
        fs::create_dir_all(&deep).unwrap();
        for index in 0..6000 {
            fs::create_dir(deep.join(index.to_string())).unwrap();
        }
        let found = walk(&hierarchy(root.path()), 100_000).unwrap();
        let bytes = found.cgroups.iter().map(|it| it.path.as_os_str().len());
        assert!(bytes.sum::<usize>() < MOST_PATH_BYTES + 4096);
        assert_eq!(found.cgroups.len() as u64 + found.overflow, 6013);
        assert!(found.overflow > 0);
    }

    #[test]
    fn a_missing_root_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        assert!(walk(&hierarchy(&root.path().join("none")), 4).is_err());
    }
}
