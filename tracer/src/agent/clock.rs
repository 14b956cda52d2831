//! One boot-time clock, mapped to wall time when an event is handled.

use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};

use crate::growth::Moment;

/// Readings of two clocks that are no further apart are of one moment.
const NEAR: Duration = Duration::from_micros(20);
/// Pairs of readings until the nearest is taken.
const MOST_TRIES: usize = 8;
/// `CLOCK_BOOTTIME`, which the programs stamp with. Never steps, counts suspend.
pub fn boot_time() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map(Duration::from)
        .unwrap_or_default()
}

/// Wall time of a moment of the boot-time clock, by how long ago it was: right
/// also after the wall clock was stepped.
pub fn wall_clock(boot_ns: u64) -> SystemTime {
    let (boot, wall) = both();
    let ago = boot.saturating_sub(Duration::from_nanos(boot_ns));
    wall.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// The two clocks of one moment.
pub fn both() -> (Duration, SystemTime) {
    paired(|| (boot_time(), SystemTime::now(), boot_time()))
}

/// Out of readings of one clock around the other those that are nearest to each other: between two
/// readings the thread may be held up for many milliseconds.
fn paired(mut read: impl FnMut() -> (Duration, SystemTime, Duration)) -> (Duration, SystemTime) {
    let (mut before, mut wall, after) = read();
    let mut apart = after.saturating_sub(before);
    for _ in 1..MOST_TRIES {
        if apart <= NEAR {
            break;
        }
        let (next, next_wall, after) = read();
        let gap = after.saturating_sub(next);
        if gap < apart {
            (before, wall, apart) = (next, next_wall, gap);
        }
    }
    (before + apart / 2, wall)
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
    milliseconds(boot_time())
}

/// Unix milliseconds of the moment at which the boot clock was 0.
fn wall_offset_ms() -> i64 {
    let (boot, wall) = both();
    let wall = wall
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    milliseconds(wall).saturating_sub(milliseconds(boot))
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
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

    #[test]
    fn a_thread_that_is_held_up_between_two_clocks_reads_them_again() {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let ms = Duration::from_millis;
        let us = Duration::from_micros;
        let mut readings = [
            (ms(10), wall + ms(10), ms(18)),
            (ms(20), wall + ms(27), ms(27)),
            (ms(30), wall + ms(30), ms(30) + us(2)),
        ]
        .into_iter();
        let (boot, at) = paired(|| readings.next().unwrap());
        let offset = at.duration_since(wall).unwrap().abs_diff(boot);
        assert!(offset <= us(1), "{offset:?}");
    }

    #[test]
    fn of_readings_that_are_all_held_up_the_nearest_counts() {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let ms = Duration::from_millis;
        let mut gap = 10;
        let (boot, at) = paired(|| {
            gap -= 1;
            (ms(100), wall + ms(100), ms(100 + gap))
        });
        assert_eq!((boot, at), (ms(101), wall + ms(100)));
    }
}
