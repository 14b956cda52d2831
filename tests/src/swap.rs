//! Swap space for one test, off when dropped: a file on a host, a disk in a test machine.

use std::env;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::machine::{self, MIB, PAGE};

const SIZE: u64 = 128 * MIB;

#[derive(Debug)]
pub struct Swap {
    path: PathBuf,
    _directory: Option<TempDir>,
}

impl Swap {
    /// `None`, with a message, where there can be none.
    pub fn on() -> Result<Option<Self>> {
        let swap = match env::var_os("MEMTRACE_SWAP_DEVICE") {
            Some(device) => Self {
                path: device.into(),
                _directory: None,
            },
            None => {
                let directory = tempfile::tempdir()?;
                if machine::is_memory_only(directory.path())? {
                    machine::skip("neither a disk for swap nor a file system on one");
                    return Ok(None);
                }
                let path = directory.path().join("swap");
                write_zeros(&path)?;
                Self {
                    path,
                    _directory: Some(directory),
                }
            }
        };
        write_header(&swap.path)?;
        let path = c_path(&swap.path)?;
        // SAFETY: a NUL-terminated path.
        let status = unsafe { libc::swapon(path.as_ptr(), 0) };
        if status != 0 {
            let error = io::Error::last_os_error();
            machine::skip(&format!("no swap on {}: {error}", swap.path.display()));
            return Ok(None);
        }
        Ok(Some(swap))
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        let Ok(path) = c_path(&self.path) else {
            return;
        };
        // SAFETY: a NUL-terminated path.
        if unsafe { libc::swapoff(path.as_ptr()) } == 0 {
            return;
        }
        let error = io::Error::last_os_error();
        // What was never on is no swap area for the kernel.
        if error.raw_os_error() != Some(libc::EINVAL) {
            eprintln!("swap stays on at {}: {error}", self.path.display());
        }
    }
}

fn c_path(path: &Path) -> Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// Without holes, as the kernel wants it.
fn write_zeros(path: &Path) -> Result<()> {
    let mut file = File::create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    let chunk = vec![0; MIB as usize];
    for _ in 0..SIZE / MIB {
        file.write_all(&chunk)?;
    }
    Ok(file.sync_all()?)
}

/// Source: include/linux/swap.h, union swap_header.
fn write_header(path: &Path) -> Result<()> {
    let mut file = File::options()
        .write(true)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    let size = file.seek(SeekFrom::End(0))?;
    ensure!(size >= SIZE, "{} is too small: {size}", path.display());
    let mut header = vec![0; PAGE as usize];
    header[1024..1028].copy_from_slice(&1u32.to_ne_bytes());
    let last_page = u32::try_from(SIZE / PAGE - 1)?;
    header[1028..1032].copy_from_slice(&last_page.to_ne_bytes());
    let magic = b"SWAPSPACE2";
    let end = header.len();
    header[end - magic.len()..].copy_from_slice(magic);
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&header)?;
    Ok(file.sync_all()?)
}
