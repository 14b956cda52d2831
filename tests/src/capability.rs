//! A command with a few capabilities and no others, as a container runtime or systemd starts it.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

/// A capability and its number. Source: `include/uapi/linux/capability.h`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capability {
    pub name: String,
    number: u32,
}

const KNOWN: &[(&str, u32)] = &[
    ("CAP_DAC_READ_SEARCH", 2),
    ("CAP_SYS_PTRACE", 19),
    ("CAP_SYS_RESOURCE", 24),
    ("CAP_PERFMON", 38),
    ("CAP_BPF", 39),
];

impl Capability {
    /// # Errors
    /// It is none of those that tests know.
    pub fn named(name: &str) -> Result<Self> {
        let found = KNOWN.iter().find(|(known, _)| *known == name);
        let (_, number) = found.with_context(|| format!("{name} is not known to the tests"))?;
        Ok(Self {
            name: name.to_owned(),
            number: *number,
        })
    }
}

/// As `CapEff` in `/proc/PID/status` has them.
pub fn mask(capabilities: &[Capability]) -> u64 {
    capabilities.iter().map(|one| 1 << one.number).sum()
}

/// Leaves the command these capabilities, and no way to gain others.
pub fn only(command: &mut Command, capabilities: &[Capability]) -> Result<()> {
    let kept = mask(capabilities);
    // SAFETY: only prctl(2), which is safe after fork.
    unsafe {
        command.pre_exec(move || {
            for number in 0..u64::BITS {
                let is_known = libc::prctl(libc::PR_CAPBSET_READ, number) >= 0;
                if is_known
                    && kept & (1 << number) == 0
                    && libc::prctl(libc::PR_CAPBSET_DROP, number) != 0
                {
                    return Err(io::Error::last_os_error());
                }
            }
            match libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
    }
    Ok(())
}
