//! The lock beside the prebuilt BPF object: which sources and which tools made which bytes.
//! Pure but for reading the sources; must not build.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Error, Result};
use sha2::{Digest, Sha256};

/// The package that the object is built from.
const PACKAGE: &str = "memtrace-ebpf";
/// Its dependency that only user space uses.
const USER_ONLY: &str = "aya";

/// The contents of the lock file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// SHA-256 of everything in the repository that decides the object.
    pub sources: String,
    /// First line of `rustc --version`.
    pub rustc: String,
    /// LLVM version of rustc.
    pub llvm: String,
    /// First line of `bpf-linker --version`.
    pub linker: String,
    /// SHA-256 of the object.
    pub object: String,
}

impl Lock {
    fn fields(&self) -> [(&'static str, &str); 5] {
        [
            ("sources", &self.sources),
            ("rustc", &self.rustc),
            ("llvm", &self.llvm),
            ("linker", &self.linker),
            ("object", &self.object),
        ]
    }

    /// One line for each field in which the rebuilt object's lock differs from this one.
    pub fn differences(&self, rebuilt: &Self) -> Vec<String> {
        self.fields()
            .into_iter()
            .zip(rebuilt.fields())
            .filter(|(committed, rebuilt)| committed != rebuilt)
            .map(|((name, committed), (_, rebuilt))| {
                format!("{name}: committed \"{committed}\", here \"{rebuilt}\"")
            })
            .collect()
    }
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# Written by `cargo xtask ebpf`; do not edit.")?;
        self.fields()
            .into_iter()
            .try_for_each(|(name, value)| writeln!(f, "{name} = \"{value}\""))
    }
}

impl FromStr for Lock {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let values: BTreeMap<&str, &str> = text
            .lines()
            .filter_map(|line| line.split_once(" = "))
            .map(|(name, value)| (name.trim(), value.trim().trim_matches('"')))
            .collect();
        let value = |name: &str| {
            values
                .get(name)
                .map(|value| (*value).to_owned())
                .with_context(|| format!("no line `{name} = \"…\"`"))
        };
        Ok(Self {
            sources: value("sources")?,
            rustc: value("rustc")?,
            llvm: value("llvm")?,
            linker: value("linker")?,
            object: value("object")?,
        })
    }
}

/// SHA-256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Hashes what the repository at `root` contributes to the object.
pub fn sources_hash(root: &Path) -> Result<String> {
    let mut files = BTreeMap::new();
    let manifest = PathBuf::from("tracer-ebpf/Cargo.toml");
    files.insert(name(&manifest)?, read(&root.join(&manifest))?);
    collect(root, Path::new("tracer-ebpf/src"), &mut files)?;
    let cargo_lock = String::from_utf8(read(&root.join("Cargo.lock"))?)
        .context("Cargo.lock is not UTF-8; restore it from git")?;
    let dependencies = dependencies(&cargo_lock)?;
    Ok(hash(&files, &dependencies))
}

fn hash(files: &BTreeMap<String, Vec<u8>>, dependencies: &BTreeSet<String>) -> String {
    // Lengths keep one file's end from being taken for the next one's beginning.
    let mut hasher = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hasher.update(bytes.len().to_le_bytes());
        hasher.update(bytes);
    };
    for (name, contents) in files {
        add(name.as_bytes());
        add(contents);
    }
    for dependency in dependencies {
        add(dependency.as_bytes());
    }
    hex(&hasher.finalize())
}

fn collect(root: &Path, directory: &Path, files: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
    let absolute = root.join(directory);
    let unreadable = || format!("cannot list {}", absolute.display());
    for entry in fs::read_dir(&absolute).with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        let path = directory.join(entry.file_name());
        if entry.file_type().with_context(unreadable)?.is_dir() {
            collect(root, &path, files)?;
        } else {
            files.insert(name(&path)?, read(&root.join(&path))?);
        }
    }
    Ok(())
}

fn name(path: &Path) -> Result<String> {
    let text = path
        .to_str()
        .with_context(|| format!("{} is not UTF-8", path.display()))?;
    Ok(text.to_owned())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// One block of Cargo.lock.
#[derive(Default)]
struct Package<'a> {
    name: &'a str,
    version: &'a str,
    checksum: &'a str,
    dependencies: Vec<&'a str>,
}

/// Every package that takes part in the BPF build, as "name version checksum".
fn dependencies(cargo_lock: &str) -> Result<BTreeSet<String>> {
    let packages: Vec<Package<'_>> = cargo_lock
        .split("[[package]]")
        .skip(1)
        .map(package)
        .collect();
    let root = packages
        .iter()
        .find(|package| package.name == PACKAGE)
        .with_context(|| format!("Cargo.lock has no package {PACKAGE}; run `cargo build`"))?;
    let mut reached = BTreeSet::new();
    let mut pending: Vec<&str> = root
        .dependencies
        .iter()
        .copied()
        .filter(|name| *name != USER_ONLY)
        .collect();
    while let Some(dependency) = pending.pop() {
        // Cargo adds the version only where the name alone is ambiguous.
        let (name, version) = match dependency.split_once(' ') {
            Some((name, version)) => (name, Some(version)),
            None => (dependency, None),
        };
        let package = packages
            .iter()
            .find(|p| p.name == name && version.is_none_or(|version| p.version == version))
            .with_context(|| format!("Cargo.lock names {dependency} but has no such package"))?;
        let id = format!("{} {} {}", package.name, package.version, package.checksum);
        if reached.insert(id) {
            pending.extend(&package.dependencies);
        }
    }
    Ok(reached)
}

fn package(block: &str) -> Package<'_> {
    let mut package = Package::default();
    for line in block.lines().map(str::trim) {
        let unquoted = |value: &'_ str| value.len() >= 2 && value.starts_with('"');
        match line.split_once(" = ") {
            Some(("name", value)) => package.name = value.trim_matches('"'),
            Some(("version", value)) => package.version = value.trim_matches('"'),
            Some(("checksum", value)) => package.checksum = value.trim_matches('"'),
            None if unquoted(line) => {
                package
                    .dependencies
                    .push(line.trim_end_matches(',').trim_matches('"'));
            }
            _ => {}
        }
    }
    package
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CARGO_LOCK: &str = r#"
version = 4

[[package]]
name = "memtrace-ebpf"
version = "0.1.0"
dependencies = [
 "aya",
 "aya-ebpf",
]

[[package]]
name = "aya"
version = "0.14.0"
checksum = "user"

[[package]]
name = "aya-ebpf"
version = "0.2.1"
checksum = "aa"
dependencies = [
 "syn 2.0.0",
]

[[package]]
name = "syn"
version = "1.0.0"
checksum = "old"

[[package]]
name = "syn"
version = "2.0.0"
checksum = "cc"
dependencies = [
 "aya-ebpf",
]
"#;

    fn set(items: &[&str]) -> BTreeSet<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    fn files(items: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
        items
            .iter()
            .map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec()))
            .collect()
    }

    #[test]
    fn only_packages_of_the_bpf_build_count() {
        assert_eq!(
            dependencies(CARGO_LOCK).unwrap(),
            set(&["aya-ebpf 0.2.1 aa", "syn 2.0.0 cc"])
        );
        assert!(dependencies("version = 4\n").is_err());
    }

    #[test]
    fn any_change_of_name_content_or_dependency_changes_the_hash() {
        let base = hash(&files(&[("a", "1"), ("b", "2")]), &set(&["x 1"]));
        assert_eq!(
            base,
            hash(&files(&[("b", "2"), ("a", "1")]), &set(&["x 1"]))
        );
        assert_ne!(
            base,
            hash(&files(&[("a", "1"), ("b", "3")]), &set(&["x 1"]))
        );
        assert_ne!(
            base,
            hash(&files(&[("a", "1"), ("c", "2")]), &set(&["x 1"]))
        );
        assert_ne!(
            base,
            hash(&files(&[("a", "1b"), ("", "2")]), &set(&["x 1"]))
        );
        assert_ne!(
            base,
            hash(&files(&[("a", "1"), ("b", "2")]), &set(&["x 2"]))
        );
    }

    #[test]
    fn a_lock_survives_writing_and_reading() {
        let lock = Lock {
            sources: "s".into(),
            rustc: "rustc 1.96.0 (a 2026-05-25)".into(),
            llvm: "22.1.8".into(),
            linker: "bpf-linker 0.13.0".into(),
            object: "o".into(),
        };
        assert_eq!(lock.to_string().parse::<Lock>().unwrap(), lock);
        assert!("sources = \"s\"\n".parse::<Lock>().is_err());

        let other = Lock {
            object: "p".into(),
            ..lock.clone()
        };
        assert_eq!(
            lock.differences(&other),
            ["object: committed \"o\", here \"p\""]
        );
        assert!(lock.differences(&lock).is_empty());
    }

    #[test]
    fn sha256_is_the_known_one() {
        assert_eq!(
            sha256(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
