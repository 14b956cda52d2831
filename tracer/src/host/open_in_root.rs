//! Opens files as a process sees them, without being led out of its root.
//!
//! Owns how untrusted paths are opened: only regular files, so that no pipe blocks and no device
//! does what opening it does, without waiting for who holds a lease, and symbolic links end inside of
//! the root.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2},
    sys::stat::{FileStat, Mode, SFlag, fstat},
};

/// A root directory: that of the host, or what `/proc/PID/root` leads to.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
}

impl Root {
    /// # Errors
    /// The process is gone, or may not be looked at.
    pub fn of_process(pid: u32) -> io::Result<Root> {
        Root::at(Path::new(&format!("/proc/{pid}/root")))
    }

    /// # Errors
    /// As of `open(2)`.
    pub fn at(path: &Path) -> io::Result<Root> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = open(path, flags, Mode::empty())?;
        Ok(Root { directory })
    }

    /// Opens a regular file for reading. `follow`: whether it may be a symbolic link itself.
    ///
    /// # Errors
    /// There is none, it is something else, or it may not be read; `WouldBlock`: its owner holds a lease.
    pub fn open(&self, path: &Path, follow: bool) -> io::Result<(File, FileStat)> {
        let mut flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        if !follow {
            flags |= OFlag::O_NOFOLLOW;
        }
        let how = OpenHow::new()
            .flags(flags)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let found = match openat2(&self.directory, path, how) {
            // Before Linux 5.6, or filtered: links are not followed at the end, and those on the way
            // are the process's own risk: what is opened is only used if it is what was looked for.
            Err(Errno::ENOSYS | Errno::EPERM) => {
                let relative = path.strip_prefix("/").unwrap_or(path);
                openat(
                    &self.directory,
                    relative,
                    flags | OFlag::O_NOFOLLOW,
                    Mode::empty(),
                )
            }
            result => result,
        }?;
        let stat = fstat(&found)?;
        if SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) != SFlag::S_IFREG {
            return Err(io::Error::other("no regular file"));
        }
        let file = open_at_once(Path::new(&format!("/proc/self/fd/{}", found.as_raw_fd())))?;
        Ok((file, stat))
    }
}

/// Opens for reading. Waits for nobody: a lease (`F_SETLEASE`) would hold it up for as long as
/// `/proc/sys/fs/lease-break-time` at each file, and everybody may take one of an own file.
///
/// # Errors
/// As of `open(2)`; `WouldBlock`: there is a lease that conflicts.
pub fn open_at_once(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK);
    options.open(path)
}

#[cfg(test)]
#[path = "open_in_root_tests.rs"]
pub(crate) mod tests;
