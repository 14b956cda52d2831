//! Who could change a file, or put another one in its place.
//!
//! Owns the rule by which owners, modes and directories are trusted: only root and this very user may have a
//! hand in it. Must not decide what follows.

use std::{
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;
/// In such a directory nobody replaces what another one owns.
const STICKY: u32 = 0o1000;
/// As the kernel follows links.
const MOST_LINKS: usize = 40;

/// Who else could change a file or directory, as the beginning of a sentence; `None`: only root or `own` can.
/// Where a file has an ACL the bits of the group are the most that anybody in it may.
pub fn distrust(owner: u32, mode: u32, own: u32) -> Option<String> {
    if owner != 0 && owner != own {
        Some(format!("user {owner} owns"))
    } else if mode & OTHERS_WRITE != 0 {
        Some("everybody may write".to_owned())
    } else if mode & GROUP_WRITES != 0 {
        Some("a group, or who an ACL names, may write".to_owned())
    } else {
        None
    }
}

/// Why somebody else than root and `own` could put another file in the place of `path`, which need not be
/// there. All links that lead to it count.
pub fn distrusted_directory(path: &Path, own: u32) -> Option<String> {
    let unknown = |error: io::Error| Some(format!("where it lies is not known: {error}"));
    let mut at = match std::path::absolute(path) {
        Ok(at) => at,
        Err(error) => return unknown(error),
    };
    for _ in 0..MOST_LINKS {
        let parent = at.parent().map(Path::to_owned).unwrap_or_default();
        let resolved = match parent.canonicalize() {
            Ok(resolved) => resolved,
            Err(error) => return unknown(error),
        };
        let directories = parent.ancestors().chain(resolved.ancestors());
        let why = directories
            .filter(|directory| !directory.as_os_str().is_empty())
            .find_map(|directory| distrusted(directory, own));
        if why.is_some() {
            return why;
        }
        let name = at.file_name().map(PathBuf::from).unwrap_or_default();
        match std::fs::read_link(resolved.join(name)) {
            Ok(target) => at = resolved.join(target),
            Err(_) => return None,
        }
    }
    Some("too many links lead to it".to_owned())
}

fn distrusted(directory: &Path, own: u32) -> Option<String> {
    let found = match std::fs::metadata(directory) {
        Ok(found) => found,
        Err(error) => return Some(format!("{} is not known: {error}", super::shown(directory))),
    };
    let mode = match found.mode() {
        mode if mode & STICKY != 0 => mode & !(OTHERS_WRITE | GROUP_WRITES),
        mode => mode,
    };
    let why = distrust(found.uid(), mode, own)?;
    Some(format!("{why} {}", super::shown(directory)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_this_user_may_have_a_hand_in_it() {
        assert!(distrust(0, 0o644, 0).is_none());
        assert!(distrust(1000, 0o644, 1000).is_none());
        assert!(distrust(1000, 0o600, 0).is_some());
        assert!(distrust(0, 0o664, 0).is_some());
        assert!(distrust(0, 0o646, 0).is_some());
    }
}
