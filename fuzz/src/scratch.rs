//! Files for parsers that open what they read: a directory of the thread's own, below `TMPDIR`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

/// A directory in which one file has many names.
pub struct Scratch {
    directory: TempDir,
}

impl Scratch {
    /// A directory where each of `names` is the same empty file, in directories that are made as needed.
    ///
    /// # Panics
    /// `TMPDIR` cannot be written to.
    pub fn new(names: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("TMPDIR is a directory to write to");
        let scratch = Scratch { directory };
        fs::write(scratch.file(), "").expect("TMPDIR has room");
        for name in names {
            let path = scratch.path().join(name);
            let parent = path.parent().unwrap_or(scratch.path());
            fs::create_dir_all(parent).expect("TMPDIR has room");
            fs::hard_link(scratch.file(), path).expect("TMPDIR takes hard links");
        }
        scratch
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    fn file(&self) -> PathBuf {
        self.path().join("content")
    }

    /// What all the names have from now on.
    ///
    /// # Panics
    /// `TMPDIR` is full.
    pub fn fill(&self, content: &[u8]) {
        fs::write(self.file(), content).expect("TMPDIR has room");
    }
}
