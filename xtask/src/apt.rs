//! Packages of any Debian suite, downloaded and unpacked into a directory.
//! Must not touch the host's own package lists, nor install anything.

mod mirror;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{self, progress};

const AMD64: &str = "amd64";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Package tools that see one suite only.
#[derive(Debug)]
pub struct Suite {
    directory: PathBuf,
    options: Vec<String>,
}

impl Suite {
    /// Downloads the package lists of a suite; `directory` is emptied and belongs to it.
    pub fn open(name: &str, directory: &Path) -> Result<Self> {
        Self::open_from(&mirror::debian()?, name, AMD64, directory)
    }

    /// The same of Debian's security archive, with the packages of another architecture.
    pub fn open_security(name: &str, architecture: &str, directory: &Path) -> Result<Self> {
        let mirror = format!("{}-security", mirror::debian()?);
        Self::open_from(&mirror, name, architecture, directory)
    }

    fn open_from(mirror: &str, name: &str, architecture: &str, directory: &Path) -> Result<Self> {
        progress(format!("downloading from Debian {name} at {mirror}"));
        remove(directory)?;
        for child in ["lists/partial", "cache/archives/partial"] {
            let path = directory.join(child);
            fs::create_dir_all(&path)
                .with_context(|| format!("cannot create {}", path.display()))?;
        }
        let sources = directory.join("sources.list");
        fs::write(&sources, source(mirror, name, architecture))
            .with_context(|| format!("cannot write {}", sources.display()))?;
        let mut options = vec![
            format!("Dir::Etc::sourcelist={}", sources.display()),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("Dir::State::lists={}", directory.join("lists").display()),
            format!("Dir::Cache={}", directory.join("cache").display()),
            "Acquire::Languages=none".to_owned(),
            // The user that apt drops to may not be able to enter the checkout.
            "APT::Sandbox::User=root".to_owned(),
        ];
        if architecture != AMD64 {
            options.push(format!("APT::Architecture={architecture}"));
            options.push(format!("APT::Architectures::={architecture}"));
            // What is installed here is of no matter to the packages of another architecture.
            options.push("Dir::State::status=/dev/null".to_owned());
        }
        let suite = Self {
            directory: directory.to_owned(),
            options,
        };
        process::quiet(suite.command("apt-get").args(["-q", "update"]))?;
        Ok(suite)
    }

    /// What `apt-cache depends` prints about a package.
    pub fn depends(&self, package: &str) -> Result<String> {
        process::stdout(self.command("apt-cache").args(["depends", package]))
    }

    /// Downloads packages without what they depend on, and gives the tree of their files.
    pub fn unpack<'a>(&self, packages: impl IntoIterator<Item = &'a str>) -> Result<PathBuf> {
        process::quiet(
            self.command("apt-get")
                .args(["-q", "download"])
                .args(packages),
        )?;
        let tree = self.directory.join("tree");
        for deb in debs(&self.directory)? {
            process::quiet(Command::new("dpkg").arg("-x").arg(deb).arg(&tree))?;
        }
        Ok(tree)
    }

    /// Deletes everything, the unpacked tree included.
    pub fn close(self) -> Result<()> {
        remove(&self.directory)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.directory).env("LC_ALL", "C");
        for option in &self.options {
            command.args(["-o", option]);
        }
        command
    }
}

fn source(mirror: &str, suite: &str, architecture: &str) -> String {
    format!("deb [arch={architecture} signed-by={KEYRING}] {mirror} {suite} main\n")
}

fn debs(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = fs::read_dir(directory)
        .with_context(|| format!("cannot list {}", directory.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .collect();
    found.sort();
    Ok(found)
}

fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot delete {}", directory.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_one_suite_of_one_mirror_with_debians_keys() {
        assert_eq!(
            source("http://mirror.example/debian", "trixie", AMD64),
            "deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] \
             http://mirror.example/debian trixie main\n"
        );
    }
}
