//! Directories of inputs. Must not run anything.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Of one committed corpus; `fuzz/tests/corpus.rs` allows a little more.
const MOST_FILES: usize = 600;
const MOST_BYTES: u64 = 1 << 20;

/// The targets: each has a corpus.
pub fn names(corpora: &Path) -> Result<Vec<String>> {
    let directories = entries(corpora)?;
    let name = |path: &PathBuf| Some(path.file_name()?.to_str()?.to_owned());
    Ok(directories.iter().filter_map(name).collect())
}

/// Paths of the inputs, in order.
pub fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    Ok(entries(directory)?
        .into_iter()
        .filter(|path| path.is_file())
        .collect())
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = || format!("cannot read {}", directory.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).with_context(unreadable)? {
        paths.push(entry.with_context(unreadable)?.path());
    }
    paths.sort();
    Ok(paths)
}

/// Copies the inputs.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    for path in files(from)? {
        let copy = to.join(path.file_name().unwrap_or_default());
        fs::copy(&path, &copy).with_context(|| format!("cannot write {}", copy.display()))?;
    }
    Ok(())
}

/// Adds inputs of `found` to `committed`, the small ones first, as far as there is room.
pub fn add(committed: &Path, found: &Path) -> Result<()> {
    let size = |path: &PathBuf| fs::metadata(path).map_or(u64::MAX, |file| file.len());
    let known = files(committed)?;
    let mut bytes: u64 = known.iter().map(size).sum();
    let mut count = known.len();
    let mut inputs = files(found)?;
    inputs.sort_by_key(|path| (size(path), path.clone()));
    for path in inputs {
        let to = committed.join(path.file_name().unwrap_or_default());
        if to.exists() {
            continue;
        }
        bytes = bytes.saturating_add(size(&path));
        count += 1;
        if bytes > MOST_BYTES || count > MOST_FILES {
            break;
        }
        fs::copy(&path, &to).with_context(|| format!("cannot write {}", to.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_inputs_the_small_ones_are_added_and_the_old_ones_stay() {
        let place = std::env::temp_dir().join(format!("xtask-corpus-{}", std::process::id()));
        let (committed, found) = (place.join("committed"), place.join("found"));
        fs::create_dir_all(&committed).unwrap();
        fs::create_dir_all(&found).unwrap();
        fs::write(committed.join("old"), vec![0; 1000]).unwrap();
        for number in 0..MOST_FILES {
            fs::write(found.join(format!("small{number:04}")), "xx").unwrap();
        }
        fs::write(found.join("a-large"), vec![0; 2 << 20]).unwrap();
        add(&committed, &found).unwrap();
        let kept = files(&committed).unwrap();
        assert_eq!(kept.len(), MOST_FILES);
        assert!(kept.contains(&committed.join("old")));
        assert!(!kept.contains(&committed.join("a-large")));
        fs::remove_dir_all(&place).unwrap();
    }
}
