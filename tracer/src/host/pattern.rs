//! Patterns that choose cgroups by their paths: how they are read, and what lies near one that fits nothing.

use std::path::Path;

use globset::{Glob, GlobMatcher, GlobSetBuilder};

use super::{CgroupHierarchy, escape, walk};

/// Longest pattern, bytes: longer than any path.
const LONGEST: usize = 8192;
/// Cgroups that are looked at.
const MOST_CGROUPS: usize = 100_000;
/// Paths that are named where none fits.
const MOST_NEAR: usize = 3;
/// Shorter pieces of a pattern are near everything.
const SHORTEST_PIECE: usize = 3;
const MOST_CHARS: usize = 200;

/// A pattern on any text.
///
/// # Errors
/// It is empty, or cannot be compiled.
pub fn glob(text: &str) -> Result<GlobMatcher, String> {
    if text.is_empty() {
        return Err("no cgroup has an empty path: write '/kubepods*', or '*' for all".to_owned());
    }
    if text.len() > LONGEST {
        return Err(format!("longer than {LONGEST} bytes"));
    }
    let glob = Glob::new(text).map_err(|error| error.kind().to_string())?;
    // Compiling panics where this is an error: alternatives too deep, too many of them.
    GlobSetBuilder::new()
        .add(glob.clone())
        .build()
        .map_err(|_| "too deep or too large a pattern".to_owned())?;
    Ok(glob.compile_matcher())
}

/// A pattern on the path of a cgroup. Every path begins with `/`: one without any is of a name at any depth.
///
/// # Errors
/// As [`glob`].
pub fn cgroup_glob(text: &str) -> Result<GlobMatcher, String> {
    if text.is_empty() || text.contains('/') {
        glob(text)
    } else {
        glob(&format!("*/{text}"))
    }
}

/// What [`cgroup_glob`] was given.
pub fn as_written(glob: &GlobMatcher) -> &str {
    let glob = glob.glob().glob();
    let name = glob.strip_prefix("*/");
    name.filter(|name| !name.contains('/')).unwrap_or(glob)
}

/// Says that no cgroup fits now, how patterns work and what lies near; `None` if one does or none can be read.
pub fn unmatched(hierarchy: &CgroupHierarchy, glob: &GlobMatcher) -> Option<String> {
    let found = walk(hierarchy, MOST_CGROUPS).ok()?;
    let paths = found
        .cgroups
        .iter()
        .map(|cgroup| Path::new("/").join(&cgroup.path));
    let mut shown = Vec::new();
    for path in paths {
        if glob.is_match(&path) {
            return None;
        }
        shown.push(escape::display(
            path.as_os_str().as_encoded_bytes(),
            MOST_CHARS,
        ));
    }
    let pattern = escape::display(as_written(glob).as_bytes(), MOST_CHARS);
    let near = near(&pattern, &shown);
    let hint = match near.as_slice() {
        [] => format!("see {} for their paths", hierarchy.memory_root.display()),
        near => format!("near it: {}", near.join(", ")),
    };
    Some(format!(
        "no cgroup matches '{pattern}' now: with a '/' a pattern is of the whole path, else of a name at any depth; \
         '*' stands for any characters; {hint}"
    ))
}

/// Paths that have the longest literal piece of the pattern in them, the shortest first.
fn near<'a>(pattern: &str, paths: &'a [String]) -> Vec<&'a str> {
    let pieces = pattern.split(|c: char| "*?[]{},/\\".contains(c));
    let Some(piece) = pieces.max_by_key(|piece| piece.len()) else {
        return Vec::new();
    };
    if piece.len() < SHORTEST_PIECE {
        return Vec::new();
    }
    let piece = piece.to_lowercase();
    let has_piece = |path: &&str| path.to_lowercase().contains(&piece);
    let mut near: Vec<&str> = paths.iter().map(String::as_str).filter(has_piece).collect();
    near.sort_by_key(|path| (path.len(), *path));
    near.truncate(MOST_NEAR);
    near
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::CgroupMode;

    #[test]
    fn a_name_without_a_slash_is_found_at_any_depth() {
        let of = |pattern: &str, path: &str| cgroup_glob(pattern).unwrap().is_match(path);
        assert!(of("shop", "/shop") && of("shop", "/a/b/shop"));
        assert!(!of("shop", "/a/workshop") && !of("shop", "/shop/a"));
        assert!(of("*shop*", "/a/workshop/b") && of("shop*", "/a/shop-1"));
        assert!(of("*", "/") && of("/kubepods*", "/kubepods/a"));
        assert!(!of("/shop", "/a/shop"));
        assert!(cgroup_glob("").is_err());
    }

    #[test]
    fn a_pattern_is_told_as_it_was_written() {
        for written in ["*", "shop*", "/kubepods*", "*/a/b"] {
            assert_eq!(as_written(&cgroup_glob(written).unwrap()), written);
        }
    }

    #[test]
    fn what_fits_nothing_names_what_lies_near() {
        let paths =
            ["/", "/system.slice/Postgres.service", "/postgres", "/redis"].map(String::from);
        assert_eq!(
            near("/postgres.*", &paths),
            ["/system.slice/Postgres.service"]
        );
        assert_eq!(
            near("*/postgres", &paths),
            ["/postgres", "/system.slice/Postgres.service"]
        );
        assert!(near("*/xy*", &paths).is_empty() && near("*", &paths).is_empty());
    }

    #[test]
    fn a_pattern_that_fits_nothing_is_told_with_how_patterns_work() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("system.slice/shop.service")).unwrap();
        let hierarchy = CgroupHierarchy {
            mode: CgroupMode::V2,
            memory_root: dir.path().to_owned(),
            unified_root: None,
        };
        let told = |pattern: &str| unmatched(&hierarchy, &cgroup_glob(pattern).unwrap());
        assert_eq!(told("shop.service"), None);
        let text = told("/shop.service").unwrap();
        assert!(
            text.contains("near it: /system.slice/shop.service"),
            "{text}"
        );
    }

    #[test]
    fn a_pattern_that_cannot_be_compiled_is_an_error_and_no_panic() {
        let deep = format!("{}a{}", "{a,".repeat(300), "}".repeat(300));
        for hostile in [deep, "?".repeat(8000), "*a*".repeat(2700), "x".repeat(9000)] {
            let _ = glob(&hostile).map_err(|error| assert!(!error.is_empty()));
        }
        let deep = format!("{}a{}", "{a,".repeat(300), "}".repeat(300));
        assert!(glob(&deep).is_err());
        assert!(glob(&"x".repeat(9000)).is_err());
    }
}
