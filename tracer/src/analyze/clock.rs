//! Times and lengths of time for people and scripts.

use jiff::Timestamp;

use super::history::Series;

/// 1980-01-01: recordings that begin before it count from a zero of their own.
const FIRST_WALL_MS: i64 = 315_532_800_000;
/// A hundred years, beyond which an estimate says nothing.
const LONGEST: f64 = 3.1536e9;

/// What the times of a recording are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// Seconds since 1970.
    Wall,
    /// Seconds since whatever.
    Seconds,
}

impl Clock {
    /// As the earliest time of all series tells.
    pub fn of(series: &[Series]) -> Clock {
        let first = series
            .iter()
            .filter_map(|series| series.times_ms().first())
            .min();
        match first {
            Some(first) if *first >= FIRST_WALL_MS => Clock::Wall,
            _ => Clock::Seconds,
        }
    }

    /// RFC 3339 in UTC; `None` where the time is not of the wall.
    pub fn rfc3339(self, time_ms: i64) -> Option<String> {
        match self {
            Clock::Wall => Timestamp::from_millisecond(time_ms)
                .ok()
                .map(|time| time.to_string()),
            Clock::Seconds => None,
        }
    }

    /// For people: RFC 3339, or the seconds as given.
    pub fn show(self, time_ms: i64) -> String {
        self.rfc3339(time_ms)
            .unwrap_or_else(|| format!("{} s", seconds(time_ms)))
    }
}

/// Seconds of so many milliseconds.
pub fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

/// `45s`, `12m`, `3h 20m`, `2d 4h`, `3y 20d`: two units at most, `>100y` beyond that.
pub fn length(seconds: f64) -> String {
    const UNITS: [(f64, &str); 5] = [
        (31_536_000.0, "y"),
        (86_400.0, "d"),
        (3600.0, "h"),
        (60.0, "m"),
        (1.0, "s"),
    ];
    if !seconds.is_finite() {
        return "?".into();
    }
    let sign = if seconds < 0.0 { "-" } else { "" };
    let seconds = seconds.abs();
    if seconds > LONGEST {
        return format!("{sign}>100y");
    }
    let first = UNITS
        .iter()
        .position(|(unit, _)| seconds >= *unit)
        .unwrap_or(UNITS.len() - 1);
    // Seconds beside minutes say nothing of an estimate.
    let last = if first == 3 {
        3
    } else {
        (first + 1).min(UNITS.len() - 1)
    };
    let smallest = UNITS.get(last).map_or(1.0, |(unit, _)| *unit);
    let mut left = (seconds / smallest).round() * smallest;
    let mut shown = String::new();
    for (unit, letter) in UNITS.iter().take(last + 1) {
        let count = (left / unit).floor();
        if count >= 1.0 {
            left -= count * unit;
            if !shown.is_empty() {
                shown.push(' ');
            }
            shown.push_str(&format!("{count:.0}{letter}"));
        }
    }
    if shown.is_empty() {
        "0s".into()
    } else {
        format!("{sign}{shown}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_two_units_at_most() {
        for (seconds, shown) in [
            (0.0, "0s"),
            (0.4, "0s"),
            (45.0, "45s"),
            (119.0, "2m"),
            (3599.0, "1h"),
            (12_000.0, "3h 20m"),
            (86_399.0, "1d"),
            (187_200.0, "2d 4h"),
            (-90.0, "-2m"),
            (1e9, "31y 259d"),
            (f64::MAX, ">100y"),
            (f64::INFINITY, "?"),
            (f64::NAN, "?"),
        ] {
            assert_eq!(length(seconds), shown, "{seconds}");
        }
    }

    #[test]
    fn times_that_are_not_of_the_wall_stay_seconds() {
        assert_eq!(
            Clock::Wall.show(1_700_000_000_500),
            "2023-11-14T22:13:20.5Z"
        );
        assert_eq!(Clock::Seconds.show(3_600_500), "3600.5 s");
        assert_eq!(Clock::Seconds.rfc3339(3_600_500), None);
        assert_eq!(
            Clock::Wall.show(i64::MAX),
            format!("{} s", seconds(i64::MAX))
        );
    }
}
