//! Which kernels can be booted, and their download from Debian into target/vm.
//! Must not boot them.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Error, Result};

use crate::apt::Suite;
use crate::process::progress;
use crate::workspace::Workspace;

const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// Kernel version, and the Debian suite that has it.
const KNOWN: &[(&str, &str)] = &[
    ("5.10", "bullseye"),
    ("6.1", "bookworm"),
    ("6.12", "trixie"),
    ("7.x", "sid"),
];

/// The kernels that every change is tested on, the oldest first.
pub fn tested() -> Vec<Kernel> {
    all().filter(|kernel| kernel.suite != "sid").collect()
}

/// The oldest that memtrace supports.
pub fn oldest() -> Kernel {
    let (version, suite) = KNOWN[0];
    Kernel { version, suite }
}

/// All that can be booted, the oldest first.
pub fn all() -> impl Iterator<Item = Kernel> {
    KNOWN
        .iter()
        .map(|&(version, suite)| Kernel { version, suite })
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
        progress(format!("[{self}] downloading the kernel"));
        let suite = Suite::open(self.suite, &directory.join("apt"))?;
        let depends = suite.depends(META_PACKAGE)?;
        let package = image_package(&depends).with_context(|| {
            format!(
                "{META_PACKAGE} of {} depends on no kernel image",
                self.suite
            )
        })?;
        let release = package.trim_start_matches("linux-image-");
        let depends = suite.depends(package)?;
        let tree = suite.unpack(std::iter::once(package).chain(parts(&depends, release)))?;
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
        suite.close()?;
        // Last, because its presence says that the rest is complete.
        fs::write(directory.join("release"), release).context("cannot write the kernel's release")
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
