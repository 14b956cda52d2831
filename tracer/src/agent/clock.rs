//! One boot-time clock, mapped to wall time when an event is handled.

use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};

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
