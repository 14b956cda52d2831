//! The capabilities of this process, and what memtrace needs each for.

use std::{fs, path::Path};

/// A capability by number (include/uapi/linux/capability.h), name and purpose.
#[derive(Debug, PartialEq, Eq)]
pub struct Need {
    pub bit: u8,
    pub name: &'static str,
    pub why: &'static str,
    /// memtrace cannot run without it (`CAP_SYS_ADMIN` stands in for the first two).
    pub required: bool,
}

const SYS_ADMIN: u8 = 21;

/// What memtrace uses, most needed first.
pub const NEEDS: &[Need] = &[
    Need {
        bit: 39,
        name: "CAP_BPF",
        why: "load BPF programs and maps",
        required: true,
    },
    Need {
        bit: 38,
        name: "CAP_PERFMON",
        why: "attach tracing programs",
        required: true,
    },
    Need {
        bit: 19,
        name: "CAP_SYS_PTRACE",
        why: "read other users' processes in /proc",
        required: false,
    },
    Need {
        bit: 2,
        name: "CAP_DAC_READ_SEARCH",
        why: "read tracefs for tracepoint hooks",
        required: false,
    },
];

/// The effective set as a bit mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effective(pub u64);

impl Effective {
    /// From `status` of this process; `None` if it cannot be read.
    pub fn read(proc: &Path) -> Option<Self> {
        let status = fs::read_to_string(proc.join("self/status")).ok()?;
        Self::parse(&status)
    }

    fn parse(status: &str) -> Option<Self> {
        let hex = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(hex.trim(), 16).ok().map(Self)
    }

    /// Whether a need is met, directly or by `CAP_SYS_ADMIN` where the kernel accepts that.
    pub fn meets(self, need: &Need) -> bool {
        let has = |bit: u8| self.0 & (1 << bit) != 0;
        has(need.bit) || (need.required && has(SYS_ADMIN))
    }

    /// Needs that are not met.
    pub fn missing(self) -> impl Iterator<Item = &'static Need> {
        NEEDS.iter().filter(move |need| !self.meets(need))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_has_everything_and_a_plain_user_nothing() {
        let root = Effective::parse("Name:\tx\nCapEff:\t000001ffffffffff\n").unwrap();
        assert_eq!(root.missing().count(), 0);
        let user = Effective::parse("CapEff:\t0000000000000000\n").unwrap();
        assert_eq!(user.missing().count(), NEEDS.len());
    }

    #[test]
    fn sys_admin_stands_in_for_bpf_and_perfmon_only() {
        let names: Vec<_> = Effective(1 << SYS_ADMIN)
            .missing()
            .map(|need| need.name)
            .collect();
        assert_eq!(names, ["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"]);
    }

    #[test]
    fn garbage_is_unknown() {
        for status in ["", "CapEff:", "CapEff:\txyz"] {
            assert_eq!(Effective::parse(status), None);
        }
    }
}
