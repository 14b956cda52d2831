//! One boot-time clock, mapped to wall time when an event is handled.

use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};

use crate::growth::Moment;

/// `CLOCK_BOOTTIME`, which the programs stamp with. Never steps, counts suspend.
pub fn boot_time() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map(Duration::from)
        .unwrap_or_default()
}

/// Wall time of a moment of the boot-time clock, by how long ago it was: right
/// also after the wall clock was stepped.
pub fn wall_clock(boot_ns: u64) -> SystemTime {
    let ago = boot_time().saturating_sub(Duration::from_nanos(boot_ns));
    SystemTime::now()
        .checked_sub(ago)
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// The clock of what is kept: Unix milliseconds that never step within a boot.
#[derive(Debug, Clone, Copy)]
pub struct SampleClock {
    /// What makes Unix milliseconds of the boot clock, as of the first agent of this boot.
    offset_ms: i64,
}

impl SampleClock {
    /// Of the first agent of this boot.
    pub fn begin() -> Self {
        Self {
            offset_ms: wall_offset_ms(),
        }
    }

    /// As an earlier agent of this boot began it.
    pub fn of_boot(offset_ms: i64) -> Self {
        Self { offset_ms }
    }

    /// Less the boot clock, milliseconds.
    pub fn offset_ms(self) -> i64 {
        self.offset_ms
    }

    /// A moment of the boot clock, milliseconds.
    pub fn at_boot_ms(self, boot_ms: i64) -> i64 {
        boot_ms.saturating_add(self.offset_ms)
    }

    pub fn now(self) -> Moment {
        Moment {
            sample_ms: self.at_boot_ms(boot_ms()),
            to_unix_ms: wall_offset_ms().saturating_sub(self.offset_ms),
        }
    }
}

fn boot_ms() -> i64 {
    i64::try_from(boot_time().as_millis()).unwrap_or(i64::MAX)
}

/// Unix milliseconds of the moment at which the boot clock was 0.
fn wall_offset_ms() -> i64 {
    let wall = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(wall.as_millis())
        .unwrap_or(i64::MAX)
        .saturating_sub(boot_ms())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_ago_is_a_moment_ago_on_the_wall_too() {
        let boot = boot_time() - Duration::from_secs(2);
        let wall = wall_clock(boot.as_nanos() as u64);
        let ago = SystemTime::now().duration_since(wall).unwrap();
        assert!(
            ago >= Duration::from_secs(2) && ago < Duration::from_secs(3),
            "{ago:?}"
        );
    }
}
