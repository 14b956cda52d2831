//! Which kernels can be booted, and their download from Debian into target/vm.
//! Must not touch the host's own package lists.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, Error, Result};

use super::mirror;
use crate::process::{self, progress};
use crate::workspace::Workspace;

const META_PACKAGE: &str = "linux-image-cloud-amd64";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Kernel version, and the Debian suite that has it.
const KNOWN: &[(&str, &str)] = &[
    ("5.10", "bullseye"),
    ("6.1", "bookworm"),
    ("6.12", "trixie"),
    ("7.x", "sid"),
];

/// The kernels that every change is tested on.
pub fn tested() -> Vec<Kernel> {
    KNOWN
        .iter()
        .filter(|(_, suite)| *suite != "sid")
        .map(|&(version, suite)| Kernel { version, suite })
        .collect()
}

/// A kernel that Debian ships.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    version: &'static str,
    suite: &'static str,
}

impl FromStr for Kernel {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wanted = if text == "sid" || text.starts_with("7.") {
            "7.x"
        } else {
            text
        };
        KNOWN
            .iter()
            .find(|(version, _)| *version == wanted)
            .map(|&(version, suite)| Self { version, suite })
            .with_context(|| {
                let known: Vec<_> = KNOWN.iter().map(|(version, _)| *version).collect();
                format!("no kernel {text}; known are {}", known.join(", "))
            })
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.version)
    }
}

/// A downloaded kernel.
#[derive(Debug)]
pub struct Files {
    /// What `uname -r` will say.
    pub release: String,
    /// The bootable image.
    pub image: PathBuf,
    /// The kernel's build configuration.
    pub config: String,
    /// Where files about this kernel may be written.
    pub directory: PathBuf,
}

impl Kernel {
    /// Returns the cached kernel, downloading it first when there is none.
    pub fn fetch(&self, workspace: &Workspace) -> Result<Files> {
        let directory = workspace.target().join("vm").join(self.version);
        if !directory.join("release").is_file() {
            self.download(&directory).with_context(|| {
                format!(
                    "cannot get kernel {} of Debian {}",
                    self.version, self.suite
                )
            })?;
        }
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read_to_string(&path).with_context(|| {
                format!(
                    "cannot read {}; delete {}",
                    path.display(),
                    directory.display()
                )
            })
        };
        Ok(Files {
            release: read("release")?.trim().to_owned(),
            config: read("config")?,
            image: directory.join("vmlinuz"),
            directory,
        })
    }

    fn download(&self, directory: &Path) -> Result<()> {
        let mirror = mirror::debian()?;
        progress(format!(
            "[{self}] downloading Debian {}'s kernel from {mirror}",
            self.suite
        ));
        let apt = Apt::new(&directory.join("apt"), &mirror, self.suite)?;
        process::quiet(apt.command("apt-get").args(["-q", "update"]))?;
        let depends = process::stdout(apt.command("apt-cache").args(["depends", META_PACKAGE]))?;
        let package = image_package(&depends).with_context(|| {
            format!(
                "{META_PACKAGE} of {} depends on no kernel image",
                self.suite
            )
        })?;
        let release = package.trim_start_matches("linux-image-");
        let depends = process::stdout(apt.command("apt-cache").args(["depends", package]))?;
        let packages = std::iter::once(package).chain(parts(&depends, release));
        process::quiet(
            apt.command("apt-get")
                .args(["-q", "download"])
                .args(packages),
        )?;

        let tree = apt.directory.join("tree");
        for deb in matching(&apt.directory, "linux-")? {
            process::quiet(Command::new("dpkg").arg("-x").arg(deb).arg(&tree))?;
        }
        for name in ["vmlinuz", "config"] {
            let places = [
                tree.join(format!("boot/{name}-{release}")),
                tree.join(format!("usr/lib/modules/{release}/{name}")),
            ];
            let file = places
                .iter()
                .find(|place| place.is_file())
                .with_context(|| format!("{package} has neither of {places:?}"))?;
            fs::copy(file, directory.join(name))
                .with_context(|| format!("cannot copy {}", file.display()))?;
        }
        fs::remove_dir_all(&apt.directory)
            .with_context(|| format!("cannot delete {}", apt.directory.display()))?;
        // Last, because its presence says that the rest is complete.
        fs::write(directory.join("release"), release).context("cannot write the kernel's release")
    }
}

/// Package tools that see one suite and leave the host's lists alone.
struct Apt {
    directory: PathBuf,
    options: Vec<String>,
}

impl Apt {
    fn new(directory: &Path, mirror: &str, suite: &str) -> Result<Self> {
        for child in ["lists/partial", "cache/archives/partial"] {
            let path = directory.join(child);
            fs::create_dir_all(&path)
                .with_context(|| format!("cannot create {}", path.display()))?;
        }
        let sources = directory.join("sources.list");
        let line = format!("deb [arch=amd64 signed-by={KEYRING}] {mirror} {suite} main\n");
        fs::write(&sources, line).with_context(|| format!("cannot write {}", sources.display()))?;
        let options = [
            format!("Dir::Etc::sourcelist={}", sources.display()),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("Dir::State::lists={}", directory.join("lists").display()),
            format!("Dir::Cache={}", directory.join("cache").display()),
            "Acquire::Languages=none".to_owned(),
            // The user that apt drops to may not be able to enter the checkout.
            "APT::Sandbox::User=root".to_owned(),
        ];
        Ok(Self {
            directory: directory.to_owned(),
            options: options.into(),
        })
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

/// The versioned kernel package in the output of `apt-cache depends`.
fn image_package(depends: &str) -> Option<&str> {
    depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|package| {
            package
                .strip_prefix("linux-image-")
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        })
}

/// The packages that Debian, since 2026, splits the files of a kernel image into.
fn parts<'a>(depends: &'a str, release: &str) -> impl Iterator<Item = &'a str> {
    let wanted = [
        format!("linux-binary-{release}"),
        format!("linux-base-{release}"),
    ];
    depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .filter(move |package| wanted.iter().any(|wanted| wanted == package))
}

fn matching(directory: &Path, prefix: &str) -> Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = fs::read_dir(directory)
        .with_context(|| format!("cannot list {}", directory.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
        })
        .collect();
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_name_debian_suites() {
        let suite = |text: &str| text.parse::<Kernel>().map(|kernel| kernel.suite).ok();
        assert_eq!(suite("5.10"), Some("bullseye"));
        assert_eq!(suite("6.1"), Some("bookworm"));
        assert_eq!(suite("6.12"), Some("trixie"));
        assert_eq!(suite("7.2"), Some("sid"));
        assert_eq!(suite("sid"), Some("sid"));
        assert_eq!(suite("6"), None);
        let error = "4.19".parse::<Kernel>().unwrap_err().to_string();
        assert_eq!(error, "no kernel 4.19; known are 5.10, 6.1, 6.12, 7.x");
    }

    #[test]
    fn finds_the_packages_that_an_image_is_split_into() {
        let depends = "linux-image-7.2-amd64\n |Depends: dracut\n  Depends: linux-base-7.2-amd64\n  \
                       Depends: linux-binary-7.2-amd64\n  Depends: linux-modules-7.2-amd64\n";
        let found: Vec<_> = parts(depends, "7.2-amd64").collect();
        assert_eq!(found, ["linux-base-7.2-amd64", "linux-binary-7.2-amd64"]);
        assert_eq!(parts("  Depends: linux-base\n", "6.1-amd64").count(), 0);
    }

    #[test]
    fn finds_the_versioned_package_behind_the_meta_package() {
        let depends = "linux-image-cloud-amd64\n  PreDepends: x\n  Depends: linux-image-extra\n  \
                       Depends: linux-image-6.1.0-50-cloud-amd64\n";
        assert_eq!(
            image_package(depends),
            Some("linux-image-6.1.0-50-cloud-amd64")
        );
        assert_eq!(image_package("linux-image-cloud-amd64\n"), None);
    }
}
