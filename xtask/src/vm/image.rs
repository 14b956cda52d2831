//! Builds the initramfs: busybox, our init, the programs of this host and their libraries.
//! Must not know kernels.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::process::{self, progress};

const BUSYBOX: &str = "/bin/busybox";
const INIT: &str = include_str!("init.sh");
const DIRECTORIES: &[&str] = &[
    "bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var/lib", "var/log",
];
const ETC: &[(&str, &str)] = &[
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
    ("etc/group", "root:x:0:\n"),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    // A container runtime copies it.
    ("etc/resolv.conf", ""),
];

/// An initramfs under construction, or packed.
#[derive(Debug)]
pub struct Image {
    tree: PathBuf,
    archive: PathBuf,
    libraries: BTreeSet<PathBuf>,
}

impl Image {
    /// Starts an image in `directory`, which it owns.
    pub fn new(directory: &Path) -> Result<Self> {
        let image = Self {
            tree: directory.join("tree"),
            archive: directory.join("initramfs.gz"),
            libraries: BTreeSet::new(),
        };
        if image.tree.exists() {
            fs::remove_dir_all(&image.tree)
                .with_context(|| format!("cannot delete {}", image.tree.display()))?;
        }
        for child in DIRECTORIES {
            let path = image.tree.join(child);
            fs::create_dir_all(&path)
                .with_context(|| format!("cannot create {}", path.display()))?;
        }
        for (name, contents) in ETC {
            image.write(name, contents, 0o644)?;
        }
        image.write("init", INIT, 0o755)?;
        copy(Path::new(BUSYBOX), &image.tree.join("bin/busybox"))?;
        Ok(image)
    }

    /// Copies a program into /bin, with the libraries it needs at the paths they have here.
    pub fn add_program(&mut self, program: &Path, name: Option<&str>) -> Result<()> {
        let name = match name {
            Some(name) => name.as_ref(),
            None => program
                .file_name()
                .with_context(|| format!("{} is not a file", program.display()))?,
        };
        let inside = self.tree.join("bin").join(name);
        copy(program, &inside)?;
        // A debug build of the tests is mostly DWARF, which the machine would unpack into memory.
        let strip = Command::new("strip")
            .arg("--strip-debug")
            .arg(&inside)
            .output();
        if !strip.is_ok_and(|output| output.status.success()) {
            progress(format!(
                "{} is not an ELF file; copied as it is",
                program.display()
            ));
        }
        for library in libraries(program)? {
            if self.libraries.insert(library.clone()) {
                let inside = library.strip_prefix("/").unwrap_or(&library);
                copy(&library, &self.tree.join(inside))?;
            }
        }
        Ok(())
    }

    /// Sets the shell text that init runs once everything is mounted.
    pub fn set_command(&self, command: &str) -> Result<()> {
        self.write("command", &format!("{command}\n"), 0o755)
    }

    /// Packs the tree.
    pub fn pack(&self) -> Result<()> {
        let archive = fs::File::create(&self.archive)
            .with_context(|| format!("cannot create {}", self.archive.display()))?;
        let mut command = Command::new("sh");
        command
            .args(["-c", "find . | cpio --quiet -o -H newc -R 0:0 | gzip -1"])
            .current_dir(&self.tree)
            .stdout(Stdio::from(archive));
        process::check(&mut command).context("cannot pack the initramfs")
    }

    /// The packed file.
    pub fn archive(&self) -> &Path {
        &self.archive
    }

    fn write(&self, name: &str, contents: &str, mode: u32) -> Result<()> {
        let path = self.tree.join(name);
        fs::write(&path, contents)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
    }
    fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd")
        .arg(program)
        .env("LC_ALL", "C")
        // Cargo's compiler libraries are not the program's.
        .env_remove("LD_LIBRARY_PATH")
        .output()
        .context("cannot start ldd; is libc-bin installed?")?;
    // A static program makes ldd fail, and needs nothing.
    if !output.status.success() {
        return Ok(Vec::new());
    }
    let listing = String::from_utf8_lossy(&output.stdout);
    if let Some(line) = listing.lines().find(|line| line.contains("not found")) {
        bail!(
            "{} lacks a library on this host: {}",
            program.display(),
            line.trim()
        );
    }
    Ok(paths(&listing))
}

/// The absolute paths in the output of ldd, the program interpreter among them.
fn paths(listing: &str) -> Vec<PathBuf> {
    listing
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_libraries_and_the_interpreter() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffe)\n\
                       \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(
            paths(listing),
            [
                Path::new("/lib/x86_64-linux-gnu/libc.so.6"),
                Path::new("/lib64/ld-linux-x86-64.so.2")
            ]
        );
        assert!(paths("\tstatically linked\n").is_empty());
    }
}
