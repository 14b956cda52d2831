//! Moments as people write and read them: how long ago or a time, in the zone of the host or UTC.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use crate::cli;

/// A moment as an option gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    Ago(Duration),
    Time(Timestamp),
}

impl Moment {
    /// The time that it is; the earliest there is where that lies before it.
    pub fn at(self, now: Timestamp) -> Timestamp {
        match self {
            Moment::Time(time) => time,
            Moment::Ago(ago) => SignedDuration::try_from(ago)
                .ok()
                .and_then(|ago| now.checked_sub(ago).ok())
                .unwrap_or(Timestamp::MIN),
        }
    }
}

/// `30m`, `2h`, `7d`, `2026-11-21T07:00:00Z`.
///
/// # Errors
/// What to write instead.
pub fn parse(text: &str) -> Result<Moment, String> {
    if let Ok(time) = text.parse() {
        return Ok(Moment::Time(time));
    }
    cli::duration(text).map(Moment::Ago).map_err(|_| {
        "write how long ago (30m, 2h, 7d) or a time with its zone (2026-11-21T07:00:00Z)".into()
    })
}

/// In which zone times are shown.
#[derive(Debug, Clone)]
pub struct Zone(TimeZone);

impl Zone {
    /// UTC if that is asked for, else the zone of this host (`TZ`, `/etc/localtime`); UTC where that
    /// is not known.
    pub fn choose(utc: bool) -> Self {
        if utc {
            Self::utc()
        } else {
            Self(TimeZone::system())
        }
    }

    pub fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// RFC 3339 to the second: `2026-11-21T08:42:26+01:00`, `…Z` in UTC.
    pub fn seconds(&self, time: Timestamp) -> String {
        self.bare(time) + &self.offset(time)
    }

    /// The same with microseconds.
    pub fn microseconds(&self, time: Timestamp) -> String {
        self.show(time, "%Y-%m-%dT%H:%M:%S%.6f") + &self.offset(time)
    }

    /// To the second without the zone: beside a time that names it.
    pub fn bare(&self, time: Timestamp) -> String {
        self.show(time, "%Y-%m-%dT%H:%M:%S")
    }

    fn offset(&self, time: Timestamp) -> String {
        match self.0 == TimeZone::UTC {
            true => "Z".into(),
            false => self.show(time, "%:z"),
        }
    }

    fn show(&self, time: Timestamp, format: &str) -> String {
        time.to_zoned(self.0.clone()).strftime(format).to_string()
    }

    /// Seconds to add to UTC at that time.
    pub fn offset_seconds(&self, time: Timestamp) -> i32 {
        self.0.to_offset(time).seconds()
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// An hour east of UTC, two in summer.
    pub fn central_europe() -> Zone {
        Zone(TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap())
    }

    #[test]
    fn a_moment_is_so_long_ago_or_a_time_with_its_zone() {
        let now: Timestamp = "2026-11-21T07:00:00Z".parse().unwrap();
        for (text, time) in [
            ("30s", "2026-11-21T06:59:30Z"),
            ("2h", "2026-11-21T05:00:00Z"),
            ("7d", "2026-11-14T07:00:00Z"),
            ("2026-11-21T08:00:00+02:00", "2026-11-21T06:00:00Z"),
        ] {
            assert_eq!(parse(text).unwrap().at(now).to_string(), time, "{text}");
        }
        for wrong in ["yesterday", "5", "", "2026-11-21T07:00:00", "-1h"] {
            assert!(parse(wrong).unwrap_err().contains("30m"), "{wrong}");
        }
        assert_eq!(Moment::Ago(Duration::MAX).at(now), Timestamp::MIN);
    }

    #[test]
    fn a_time_names_its_offset() {
        let time: Timestamp = "2026-11-21T07:42:26.9Z".parse().unwrap();
        assert_eq!(Zone::utc().seconds(time), "2026-11-21T07:42:26Z");
        let zone = central_europe();
        assert_eq!(zone.seconds(time), "2026-11-21T08:42:26+01:00");
        assert_eq!(zone.microseconds(time), "2026-11-21T08:42:26.900000+01:00");
        assert_eq!(
            Zone::utc().microseconds(time),
            "2026-11-21T07:42:26.900000Z"
        );
        assert_eq!(zone.bare(time), "2026-11-21T08:42:26");
        assert_eq!(zone.offset_seconds(time), 3600);
        let summer: Timestamp = "2026-07-01T00:00:00Z".parse().unwrap();
        assert_eq!(zone.seconds(summer), "2026-07-01T02:00:00+02:00");
    }
}
