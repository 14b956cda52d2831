//! How many file descriptors the cgroup readers may keep open.
//!
//! Owns the arithmetic over `RLIMIT_NOFILE` and the bound on kernel memory. Must not open files.
//!
//! A kept directory costs a descriptor; a kept and read kernel file costs 4.6 KiB of kernel memory
//! besides (measured on 6.18: its `seq_file` buffer stays), hence the second bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::fields::number;
use super::process::ProcRoot;

/// Left for BPF maps, links, sockets and short-lived opens.
const RESERVED: usize = 512;
/// Without a readable limit: what POSIX systems grant at least.
const USUAL_LIMIT: usize = 1024;
/// Most usage files kept open: 9.4 MiB of kernel memory.
const MOST_FILES: usize = 2048;

/// A shared allowance of descriptors. Clones draw from the same allowance.
#[derive(Debug, Clone)]
pub struct FdBudget {
    left: Arc<Left>,
}

#[derive(Debug)]
struct Left {
    descriptors: AtomicUsize,
    files: AtomicUsize,
}

impl FdBudget {
    /// An allowance of `descriptors` in all, among them at most 2,048 for usage files.
    pub fn new(descriptors: usize) -> Self {
        let files = AtomicUsize::new(MOST_FILES);
        FdBudget {
            left: Arc::new(Left {
                descriptors: AtomicUsize::new(descriptors),
                files,
            }),
        }
    }

    /// What the soft `RLIMIT_NOFILE` of this process allows beyond 512 reserved descriptors.
    /// Source: `self/limits` of `proc`.
    pub fn from_limits(proc: &ProcRoot) -> Self {
        let text = std::fs::read(proc.path("self/limits")).unwrap_or_default();
        let limit = soft_open_files(&text).unwrap_or(USUAL_LIMIT);
        FdBudget::new(limit.saturating_sub(RESERVED))
    }

    /// Permission to keep a directory open; given back when dropped.
    pub(super) fn directory(&self) -> Option<FdPermit> {
        take(&self.left.descriptors).then(|| FdPermit {
            left: self.left.clone(),
            is_file: false,
        })
    }

    /// Permission to keep a file open; given back when dropped.
    pub(super) fn file(&self) -> Option<FdPermit> {
        if !take(&self.left.files) {
            return None;
        }
        if !take(&self.left.descriptors) {
            self.left.files.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(FdPermit {
            left: self.left.clone(),
            is_file: true,
        })
    }
}

/// One descriptor of the allowance.
#[derive(Debug)]
pub(super) struct FdPermit {
    left: Arc<Left>,
    is_file: bool,
}

impl Drop for FdPermit {
    fn drop(&mut self) {
        self.left.descriptors.fetch_add(1, Ordering::Relaxed);
        if self.is_file {
            self.left.files.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn take(from: &AtomicUsize) -> bool {
    from.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
        left.checked_sub(1)
    })
    .is_ok()
}

/// The soft limit of the line `Max open files`; `unlimited` is the largest number.
fn soft_open_files(text: &[u8]) -> Option<usize> {
    let line = text
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"Max open files"))?;
    match line
        .split(|byte| *byte == b' ')
        .find(|word| !word.is_empty())?
    {
        b"unlimited" => Some(usize::MAX),
        word => usize::try_from(number(word)?).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_bounded_and_come_back() {
        let budget = FdBudget::new(2);
        let (directory, file) = (budget.directory(), budget.clone().file());
        assert!(directory.is_some() && file.is_some());
        assert!(budget.directory().is_none() && budget.file().is_none());
        drop(file);
        assert!(budget.file().is_some());
        let budget = FdBudget::new(usize::MAX);
        let files: Vec<_> = (0..MOST_FILES).map(|_| budget.file().unwrap()).collect();
        assert!(budget.file().is_none() && budget.directory().is_some());
        drop(files);
        assert!(budget.file().is_some());
    }

    #[test]
    fn limits_file() {
        let text = b"Limit   Soft Limit  Hard Limit  Units\nMax open files            1024                 524288               files     \n";
        assert_eq!(soft_open_files(text), Some(1024));
        assert_eq!(
            soft_open_files(b"Max open files  unlimited unlimited files"),
            Some(usize::MAX)
        );
        for text in [&b""[..], b"Max open files", b"Max open files   -1"] {
            assert_eq!(soft_open_files(text), None);
        }
        assert!(
            FdBudget::from_limits(&ProcRoot::default())
                .directory()
                .is_some()
        );
    }
}
