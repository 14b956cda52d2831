//! A small program of this crate's sources, compiled by a compiler of this machine as tests want it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::machine;

/// A directory with a program, gone when dropped.
#[derive(Debug)]
pub struct Compiled {
    directory: TempDir,
}

impl Compiled {
    /// Runs `compiler`, a program and its arguments, beside `sources`, files by name and text. `None` and
    /// a message where the compiler is not installed.
    pub fn make(compiler: &[&str], sources: &[(&str, &str)]) -> Result<Option<Self>> {
        let (tool, arguments) = compiler.split_first().context("no compiler")?;
        if machine::in_path(tool).is_none() {
            machine::skip(&format!("no {tool}"));
            return Ok(None);
        }
        let made = Self {
            directory: tempfile::tempdir()?,
        };
        for (name, text) in sources {
            let path = made.path(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        made.run(tool, arguments)?;
        Ok(Some(made))
    }

    /// Runs a tool there.
    pub fn run(&self, tool: &str, arguments: &[&str]) -> Result<()> {
        let output = Command::new(tool)
            .args(arguments)
            .current_dir(self.directory())
            // Go wants a place for its cache.
            .env("GOCACHE", self.path("cache"))
            .env("GOFLAGS", "-mod=mod")
            .env("GO111MODULE", "off")
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {tool}"))?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{tool} {arguments:?}: {errors}");
        Ok(())
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A command for a program there.
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.path(name));
        command.current_dir(self.directory());
        command
    }
}
