//! Directories of inputs. Must not run anything.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Of one committed corpus; `fuzz/tests/corpus.rs` allows a little more.
const MOST_FILES: usize = 200;
const MOST_BYTES: u64 = 300 << 10;

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

/// Puts the inputs of `few` in place of those of `committed`; of too many the small ones.
pub fn replace(committed: &Path, few: &Path) -> Result<()> {
    let size = |path: &PathBuf| fs::metadata(path).map_or(u64::MAX, |file| file.len());
    let mut inputs = files(few)?;
    inputs.sort_by_key(|path| (size(path), path.clone()));
    let mut left = MOST_BYTES;
    inputs.truncate(MOST_FILES);
    inputs.retain(|path| {
        let fits = size(path) <= left;
        left -= if fits { size(path) } else { 0 };
        fits
    });
    for path in files(committed)? {
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    for path in inputs {
        let to = committed.join(path.file_name().unwrap_or_default());
        fs::copy(&path, &to).with_context(|| format!("cannot write {}", to.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_inputs_the_small_ones_are_kept() {
        let place = std::env::temp_dir().join(format!("xtask-corpus-{}", std::process::id()));
        let (committed, few) = (place.join("committed"), place.join("few"));
        fs::create_dir_all(&committed).unwrap();
        fs::create_dir_all(&few).unwrap();
        fs::write(committed.join("old"), "x").unwrap();
        for number in 0..MOST_FILES {
            fs::write(few.join(format!("small{number:04}")), "xx").unwrap();
        }
        fs::write(few.join("a-large"), vec![0; 1 << 20]).unwrap();
        replace(&committed, &few).unwrap();
        let kept = files(&committed).unwrap();
        assert_eq!(kept.len(), MOST_FILES);
        assert!(
            kept.iter()
                .all(|path| path.to_string_lossy().contains("small"))
        );
        fs::remove_dir_all(&place).unwrap();
    }
}
