//! What the running kernel offers: release, BTF, tracepoints, functions, tracefs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::{
    btf::{Btf, BtfError, Param},
    fields::Offsets,
    gfp::GfpNames,
};

/// The facts cannot be had, so nothing can be loaded.
#[derive(Debug, Error)]
pub enum SupportError {
    #[error(
        "no kernel type information at {path}: {source}\n\
         memtrace needs a kernel built with CONFIG_DEBUG_INFO_BTF=y, and /sys mounted"
    )]
    NoBtf {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the kernel type information at {path} is not readable: {source}")]
    BadBtf { path: PathBuf, source: BtfError },
}

/// Facts about the running kernel that hooks depend on.
#[derive(Debug, Clone, Default)]
pub struct Support {
    /// `uname -r`.
    pub release: String,
    pub offsets: Offsets,
    /// Tracepoints asked about that exist, with their parameters.
    pub tracepoints: Vec<(String, Vec<Param>)>,
    /// Functions asked about that BTF describes.
    pub functions: Vec<String>,
    /// BTF reduced to the tracepoints and functions asked about; ids are the kernel's.
    pub attach_types: Vec<u8>,
    /// Where tracefs is mounted; `None` if it is not.
    pub tracefs: Option<PathBuf>,
    /// Names of the gfp bits; `None` without tracefs.
    pub gfp: Option<GfpNames>,
    /// Whether this kernel was built with kprobes.
    pub kprobes: bool,
    /// `none`, `integrity` or `confidentiality`; `None` where the kernel has no lockdown.
    pub lockdown: Option<String>,
    /// Whether tracefs has `syscalls:sys_exit_*`.
    pub syscall_tracepoints: bool,
}

impl Support {
    /// Reads the facts below `root` (normally `/`).
    pub fn read(
        root: &Path,
        tracepoints: &[&str],
        functions: &[String],
    ) -> Result<Self, SupportError> {
        let path = root.join("sys/kernel/btf/vmlinux");
        let bytes = fs::read(&path).map_err(|source| SupportError::NoBtf {
            path: path.clone(),
            source,
        })?;
        let btf = Btf::parse(&bytes).map_err(|source| SupportError::BadBtf { path, source })?;
        let tracefs = ["sys/kernel/tracing", "sys/kernel/debug/tracing"]
            .into_iter()
            .map(|path| root.join(path))
            .find(|path| path.join("events").is_dir());
        let syscall_tracepoints = tracefs
            .as_deref()
            .is_some_and(|tracefs| tracefs.join("events/syscalls/sys_exit_mmap/id").exists());
        let attach_names: Vec<String> = tracepoints
            .iter()
            .map(|name| format!("btf_trace_{name}"))
            .chain(functions.iter().cloned())
            .collect();
        Ok(Self {
            attach_types: btf.only(&attach_names),
            gfp: tracefs
                .as_deref()
                .and_then(|tracefs| GfpNames::read(tracefs, &|name| btf.enumerator(name))),
            release: release(root),
            offsets: Offsets::resolve(&btf),
            tracepoints: tracepoints
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), btf.tracepoint_params(name)?)))
                .collect(),
            functions: functions
                .iter()
                .filter(|name| btf.has_function(name))
                .cloned()
                .collect(),
            tracefs,
            kprobes: root.join("sys/bus/event_source/devices/kprobe").is_dir(),
            lockdown: lockdown(root),
            syscall_tracepoints,
        })
    }
}

fn release(root: &Path) -> String {
    fs::read_to_string(root.join("proc/sys/kernel/osrelease"))
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

fn lockdown(root: &Path) -> Option<String> {
    let text = fs::read_to_string(root.join("sys/kernel/security/lockdown")).ok()?;
    let chosen = text.split('[').nth(1)?.split(']').next()?;
    Some(chosen.to_owned())
}

/// The kernel function behind a system call on this architecture.
pub fn syscall_function(name: &str) -> String {
    let prefix = if cfg!(target_arch = "aarch64") {
        "__arm64_sys_"
    } else {
        "__x64_sys_"
    };
    format!("{prefix}{name}")
}
