//! How much memory this very process may use: what it keeps is sized by that.

use std::{fs, path::Path};

use super::{
    CgroupHierarchy, CgroupMode, ProcRoot,
    fields::{limit_v1, limit_v2},
    process::page_size,
};

/// The smallest limit of memtrace's own cgroup and those above it, bytes; `None` without one, and
/// where it cannot be told.
pub fn own_limit(hierarchy: &CgroupHierarchy, proc: &ProcRoot) -> Option<u64> {
    let pid = std::process::id();
    let path = proc
        .memory_cgroup(pid, hierarchy.mode, &mut Vec::new())
        .ok()??;
    limit_of(hierarchy, &path)
}

fn limit_of(hierarchy: &CgroupHierarchy, path: &Path) -> Option<u64> {
    let below = path.strip_prefix("/").ok()?;
    let v2 = hierarchy.mode == CgroupMode::V2;
    let file = if v2 {
        "memory.max"
    } else {
        "memory.limit_in_bytes"
    };
    below
        .ancestors()
        .filter_map(|cgroup| {
            let text = fs::read(hierarchy.memory_root.join(cgroup).join(file)).ok()?;
            let limit = if v2 {
                limit_v2(&text)
            } else {
                limit_v1(text.trim_ascii(), page_size())
            };
            limit?.bytes()
        })
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_above_counts() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        fs::write(root.path().join("a/memory.max"), "1048576\n").unwrap();
        fs::write(inner.join("memory.max"), "max\n").unwrap();
        let hierarchy = CgroupHierarchy {
            mode: CgroupMode::V2,
            memory_root: root.path().to_owned(),
            unified_root: None,
        };
        assert_eq!(limit_of(&hierarchy, Path::new("/a/b")), Some(1 << 20));
        assert_eq!(limit_of(&hierarchy, Path::new("/c")), None);
        assert_eq!(limit_of(&hierarchy, Path::new("/../a/b")), None);
        fs::write(inner.join("memory.max"), "4096\n").unwrap();
        assert_eq!(limit_of(&hierarchy, Path::new("/a/b")), Some(4096));
    }
}
