//! Finds the separate debug file of a stripped ELF file, and proves that it is of the same build.
//!
//! Looks where gdb does: by build-id below `/usr/lib/debug/.build-id`, by `.gnu_debuglink` in the
//! directory of the file, its `.debug`, and below `/usr/lib/debug`; each first in the root of the
//! process, which is that of its container, then on the host. Never asks a server.

use std::{
    ffi::OsStr,
    fmt::Write as _,
    os::unix::ffi::OsStrExt as _,
    path::{Component, Path, PathBuf},
};

use object::Object as _;

use super::image::Image;
use crate::host::open_in_root::Root;

const DEBUG_DIRECTORY: &str = "/usr/lib/debug";
/// Shorter ones are no digest of anything.
const SHORTEST_BUILD_ID: usize = 8;

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    pub debug: Option<Image>,
    /// Files in the right place that are of another build, or no debug files.
    pub rejected: u64,
}

/// Roots to look in, the first first.
pub fn roots(pid: u32) -> Vec<Root> {
    let process = Root::of_process(pid).ok();
    let host = Root::at(Path::new("/")).ok();
    process.into_iter().chain(host).collect()
}

/// The debug file of `image`, which `path` leads to in the process's mount namespace.
pub fn find(image: &Image, path: &Path, roots: &[Root]) -> Found {
    let mut found = Found::default();
    let build_id = image.build_id();
    let link = image.file.gnu_debuglink().ok().flatten();
    let by_build_id = build_id.and_then(build_id_path);
    let by_link = link.and_then(|(name, _)| link_paths(name, path));
    for root in roots {
        if let Some(candidate) = &by_build_id
            && let Some(debug) = open(root, candidate, &mut found)
        {
            if debug.build_id() == build_id {
                found.debug = Some(debug);
                return found;
            }
            found.rejected += 1;
        }
        for candidate in by_link.iter().flatten() {
            let Some(debug) = open(root, candidate, &mut found) else {
                continue;
            };
            if !adds(&debug, image) {
                continue;
            }
            let same = match (build_id, debug.build_id()) {
                (Some(wanted), Some(has)) => wanted == has,
                _ => link.is_some_and(|(_, checksum)| crc32(debug.data) == checksum),
            };
            if same {
                found.debug = Some(debug);
                return found;
            }
            found.rejected += 1;
        }
    }
    found
}

/// The file that the DWARF of `debug` refers to (`.gnu_debugaltlink`), as `dwz` makes it of what
/// debug files of a package have in common.
pub fn find_supplement(debug: &Image, roots: &[Root]) -> Found {
    let mut found = Found::default();
    let Ok(Some((path, build_id))) = debug.file.gnu_debugaltlink() else {
        return found;
    };
    let path = Path::new(OsStr::from_bytes(path));
    // Relative ones start from the debug file, whose directory may itself be a link: all of them
    // end in the directory that dwz files have for their own.
    let below: PathBuf = path
        .components()
        .filter(|component| matches!(component, Component::Normal(_)))
        .collect();
    let guesses = [
        build_id_path(build_id),
        path.is_absolute().then(|| path.to_owned()),
        (!path.is_absolute()).then(|| Path::new(DEBUG_DIRECTORY).join(below)),
    ];
    for root in roots {
        for candidate in guesses.iter().flatten() {
            if let Some(supplement) = open(root, candidate, &mut found) {
                if supplement.build_id() == Some(build_id) {
                    found.debug = Some(supplement);
                    return found;
                }
                found.rejected += 1;
            }
        }
    }
    found
}

fn open(root: &Root, path: &Path, found: &mut Found) -> Option<Image> {
    let (file, _) = root.open(path, true).ok()?;
    let image = Image::open(&file);
    if image.is_err() {
        found.rejected += 1;
    }
    image.ok()
}

/// Whether `debug` has what `image` lacks: a link may lead to the file itself.
fn adds(debug: &Image, image: &Image) -> bool {
    debug.has_dwarf() || (debug.has_symbol_table() && !image.has_symbol_table())
}

/// `/usr/lib/debug/.build-id/ab/cdef….debug`
fn build_id_path(build_id: &[u8]) -> Option<PathBuf> {
    let (first, rest) = build_id.split_first()?;
    if build_id.len() < SHORTEST_BUILD_ID || build_id.len() > 64 {
        return None;
    }
    let mut path = format!("{DEBUG_DIRECTORY}/.build-id/{first:02x}/");
    for byte in rest {
        // Writing to a string does not fail.
        let _ = write!(path, "{byte:02x}");
    }
    path.push_str(".debug");
    Some(path.into())
}

/// Where a debug link of the file at `path` leads; `None` unless it is a mere file name.
fn link_paths(name: &[u8], path: &Path) -> Option<[PathBuf; 3]> {
    let name = Path::new(OsStr::from_bytes(name));
    let mut parts = name.components();
    let (Some(Component::Normal(only)), None) = (parts.next(), parts.next()) else {
        return None;
    };
    if only != name.as_os_str() {
        return None;
    }
    let directory = path.parent()?;
    let below = directory.strip_prefix("/").ok()?;
    Some([
        directory.join(name),
        directory.join(".debug").join(name),
        Path::new(DEBUG_DIRECTORY).join(below).join(name),
    ])
}

/// The checksum of debug links: CRC-32 as of zlib.
fn crc32(data: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(data);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_links_that_lead_elsewhere_are_not_followed() {
        for name in ["", "..", ".", "../x", "/etc/x", "a/b", "x/"] {
            assert_eq!(link_paths(name.as_bytes(), Path::new("/bin/x")), None);
        }
        let paths = link_paths(b"x.debug", Path::new("/usr/bin/x"));
        let wanted = [
            "/usr/bin/x.debug",
            "/usr/bin/.debug/x.debug",
            "/usr/lib/debug/usr/bin/x.debug",
        ];
        assert_eq!(paths, Some(wanted.map(PathBuf::from)));
    }

    #[test]
    fn build_ids_that_are_no_digest_name_no_file() {
        assert_eq!(build_id_path(&[1; 3]), None);
        assert_eq!(build_id_path(&[1; 65]), None);
        let path = build_id_path(&[0xab, 0x0c, 1, 2, 3, 4, 5, 6]);
        assert_eq!(
            path.as_deref(),
            Some(Path::new(
                "/usr/lib/debug/.build-id/ab/0c010203040506.debug"
            ))
        );
    }

    #[test]
    fn the_checksum_is_that_of_binutils() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
