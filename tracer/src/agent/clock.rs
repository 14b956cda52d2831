//! One boot-time clock, mapped to wall time when an event is handled.

use std::time::{Duration, Instant, SystemTime};

use nix::time::{ClockId, clock_gettime};

use crate::{
    growth::Moment,
    host::process::{ticks, ticks_per_second},
    model::processes::Beginning,
};

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

/// Time since memtrace started. One clock for all that is compared with each other: readings, what the
/// kernel told, and when `/proc` says that a process started. A rate is over all of the time that passed.
#[derive(Debug, Clone, Copy)]
pub struct AgentClock {
    /// Of the boot-time clock.
    began: Duration,
    awake_since: Instant,
}

impl AgentClock {
    pub fn begin() -> Self {
        Self {
            began: boot_time(),
            awake_since: Instant::now(),
        }
    }

    /// Since the start, suspension included.
    pub fn elapsed(self) -> Duration {
        self.at(boot_time())
    }

    /// Since the start, without suspension: for how long something is kept for those who ask, who
    /// do not while the host sleeps either.
    pub fn awake(self) -> Duration {
        self.awake_since.elapsed()
    }

    /// The start, as `/proc/PID/stat` tells times.
    pub fn beginning(self) -> Beginning {
        Beginning {
            ticks: ticks(self.began),
            ticks_per_second: ticks_per_second(),
        }
    }

    /// A moment of the boot-time clock since the start; 0 if it was before.
    fn at(self, boot: Duration) -> Duration {
        boot.saturating_sub(self.began)
    }
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
    use memtrace_ebpf::counts::{HeapCounts, ProcessKey};

    use super::*;
    use crate::model::{processes::Processes, snapshot::ProcessSnapshot};

    #[test]
    fn what_starts_after_a_suspension_grows_from_then_on() {
        let seconds = Duration::from_secs;
        let clock = AgentClock {
            began: seconds(100),
            awake_since: Instant::now(),
        };
        let mut processes = Processes::new(seconds(5), clock.beginning());
        let key = ProcessKey {
            cgroup_id: 1,
            tgid: 7,
            padding: 0,
        };
        processes.count([(key, HeapCounts::default())].into_iter());
        // An hour of the time since then the host was asleep.
        let (start, look) = (seconds(3720), seconds(3730));
        let snapshot = ProcessSnapshot {
            tgid: 7,
            comm: None,
            cgroup_id: 1,
            rss_anon_bytes: Some(4096),
            rss_bytes: Some(4096),
            growth_bytes_per_second: None,
            minor_faults: None,
            major_faults: None,
            heap: None,
        };
        processes.looked_at(&key, clock.at(look), Some(ticks(start)), snapshot);
        let from = clock.at(seconds(3500));
        let change = processes.changes(|id| id == 1, from).next().unwrap();
        assert_eq!((change.first.anon_bytes, change.last.anon_bytes), (0, 4096));
        assert_eq!(
            change.last.at.checked_sub(change.first.at),
            Some(seconds(10))
        );
        // The clock of the agent is the one that this moment is of.
        let (before, now, after) = (
            clock.at(boot_time()),
            clock.elapsed(),
            clock.at(boot_time()),
        );
        assert!(
            before <= now && now <= after,
            "{before:?} {now:?} {after:?}"
        );
    }

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
