//! Files below the root directory that PID 1 has: the host's, where a container shares its PIDs.
//!
//! Owns that nothing but a regular file is read, and not more of it than is asked for. Reads only.

use std::{
    fs::File,
    io::{self, Read},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::stat::Mode,
};
use thiserror::Error;

/// What PID 1 has for a root. Reading it takes the right to trace PID 1.
const FIRST_ROOT: &str = "/proc/1/root";

/// A directory that stands for `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root(PathBuf);

/// A file cannot be read; paths are those of the host.
#[derive(Debug, Error)]
pub enum FileError {
    #[error("{}: {cause}", path.display())]
    Io { path: PathBuf, cause: io::Error },
    #[error("{} is no regular file", .0.display())]
    NotRegular(PathBuf),
    #[error("{} is longer than {most} bytes", path.display())]
    TooLong { path: PathBuf, most: u64 },
    #[error("{}: {cause}", path.display())]
    Malformed {
        path: PathBuf,
        cause: serde_json::Error,
    },
}

/// Whether the last part of a path may be a symbolic link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    Followed,
    Refused,
}

/// What tells one writing of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

/// An open regular file.
#[derive(Debug)]
pub struct Opened {
    file: File,
    path: PathBuf,
    pub stamp: Stamp,
}

impl Root {
    /// The host's as far as it can be seen, else this process's own.
    pub fn of_host() -> Self {
        let first = Self::at(FIRST_ROOT);
        match first.directory() {
            Ok(_) => first,
            Err(_) => Self::at("/"),
        }
    }

    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self(directory.into())
    }

    /// Symbolic links are those of that root, absolute ones too, and none leads out of it.
    fn open(&self, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(self.directory()?, path, how)
    }

    fn directory(&self) -> Result<OwnedFd, Errno> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        open(&self.0, flags, Mode::empty())
    }

    /// Whether there is such a directory, as far as that can be seen.
    pub fn has_directory(&self, path: &Path) -> bool {
        self.open(path, OFlag::O_PATH | OFlag::O_DIRECTORY).is_ok()
    }

    /// Whether a directory may be read, if it is there.
    ///
    /// # Errors
    /// It may not.
    pub fn check_directory(&self, path: &Path) -> Result<(), FileError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NONBLOCK;
        absent(self.open(path, flags), path).map(drop)
    }

    /// Opens a regular file; `None`: there is none.
    ///
    /// # Errors
    /// It cannot be opened, or is something else.
    pub fn find(&self, path: &Path, links: Links) -> Result<Option<Opened>, FileError> {
        // A FIFO does not make it wait.
        let mut flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        flags.set(OFlag::O_NOFOLLOW, links == Links::Refused);
        let Some(opened) = absent(self.open(path, flags), path)? else {
            return Ok(None);
        };
        let file = File::from(opened);
        let metadata = file.metadata().map_err(|cause| failed(path, cause))?;
        if !metadata.is_file() {
            return Err(FileError::NotRegular(path.to_owned()));
        }
        Ok(Some(Opened {
            file,
            path: path.to_owned(),
            stamp: Stamp {
                device: metadata.dev(),
                inode: metadata.ino(),
                bytes: metadata.len(),
                changed: (metadata.ctime(), metadata.ctime_nsec()),
            },
        }))
    }
}

impl Opened {
    /// All of it.
    ///
    /// # Errors
    /// It cannot be read, or is longer than `most` bytes.
    pub fn read(self, most: u64) -> Result<Vec<u8>, FileError> {
        let mut bytes = Vec::new();
        let read = self.file.take(most + 1).read_to_end(&mut bytes);
        let read = read.map_err(|cause| failed(&self.path, cause))?;
        if read as u64 > most {
            let path = self.path;
            return Err(FileError::TooLong { path, most });
        }
        Ok(bytes)
    }
}

fn absent<T>(result: Result<T, Errno>, path: &Path) -> Result<Option<T>, FileError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(errno) => Err(failed(path, errno.into())),
    }
}

fn failed(path: &Path, cause: io::Error) -> FileError {
    FileError::Io {
        path: path.to_owned(),
        cause,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn read(root: &Root, path: &str, links: Links) -> Result<Option<Vec<u8>>, FileError> {
        let found = root.find(Path::new(path), links)?;
        found.map(|found| found.read(8)).transpose()
    }

    #[test]
    fn links_stay_within_the_root_and_only_regular_files_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let inside = |path: &str| directory.path().join(path);
        fs::create_dir_all(inside("data/docker")).unwrap();
        fs::create_dir_all(inside("var/lib")).unwrap();
        fs::write(inside("data/docker/a"), "inside").unwrap();
        fs::write(inside("long"), "123456789").unwrap();
        // Absolute, as administrators make them.
        symlink("/data/docker", inside("var/lib/docker")).unwrap();
        symlink("/etc/hostname", inside("outside")).unwrap();
        symlink("../../../../../../etc/hostname", inside("var/up")).unwrap();
        symlink("/data/docker/a", inside("link")).unwrap();
        nix::unistd::mkfifo(&inside("fifo"), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();

        let root = Root::at(directory.path());
        let found = read(&root, "/var/lib/docker/a", Links::Refused).unwrap();
        assert_eq!(found.as_deref(), Some(&b"inside"[..]));
        for absent in ["/outside", "/var/up", "/../etc/hostname", "/nothing/at/all"] {
            let found = read(&root, absent, Links::Followed).unwrap();
            assert_eq!(found, None, "{absent}");
        }
        let linked = read(&root, "/link", Links::Followed).unwrap();
        assert_eq!(linked.as_deref(), Some(&b"inside"[..]));
        let refused = read(&root, "/link", Links::Refused).unwrap_err();
        assert!(refused.to_string().starts_with("/link: "), "{refused}");
        for (path, expected) in [
            ("/fifo", "/fifo is no regular file"),
            ("/data", "/data is no regular file"),
            ("/long", "/long is longer than 8 bytes"),
        ] {
            let error = read(&root, path, Links::Refused).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn another_writing_has_another_stamp() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::at(directory.path());
        let stamp = || {
            root.find(Path::new("/a"), Links::Refused)
                .unwrap()
                .unwrap()
                .stamp
        };
        fs::write(directory.path().join("a"), "1").unwrap();
        let first = stamp();
        assert_eq!(stamp(), first);
        fs::write(directory.path().join("b"), "2").unwrap();
        fs::rename(directory.path().join("b"), directory.path().join("a")).unwrap();
        assert_ne!(stamp(), first);
    }
}
