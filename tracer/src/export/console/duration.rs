//! Durations for people.

/// Two units at most: `45s`, `1m59s`, `12m`, `3h20m`, `5d4h`.
pub fn rough(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..600 => format!("{minutes}m{:02}s", seconds % 60),
        600..3600 => format!("{minutes}m"),
        3600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

/// Exact where it is short: `12ms`, `3.4s`; from a minute on as [`rough`].
pub fn milliseconds(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms}ms"),
        1000..60_000 => format!("{}.{}s", ms / 1000, ms % 1000 / 100),
        _ => rough((ms / 1000) as f64),
    }
}

/// The same; `800µs` below a millisecond.
pub fn nanoseconds(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{}µs", ns / 1000),
        _ => milliseconds(ns / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_times_are_exact_and_long_ones_as_all_others() {
        for (ms, shown) in [
            (0, "0ms"),
            (999, "999ms"),
            (3_412, "3.4s"),
            (59_999, "59.9s"),
            (60_000, "1m00s"),
            (125_000, "2m05s"),
            (u64::MAX, "213503982334d14h"),
        ] {
            assert_eq!(milliseconds(ms), shown);
        }
        assert_eq!(nanoseconds(800_999), "800µs");
        assert_eq!(nanoseconds(18_000_000), "18ms");
    }

    #[test]
    fn two_units_at_most() {
        for (seconds, shown) in [
            (-1.0, "0s"),
            (59.9, "59s"),
            (119.0, "1m59s"),
            (3599.0, "59m"),
            (3660.0, "1h01m"),
            (450_000.0, "5d5h"),
            (f64::NAN, "0s"),
        ] {
            assert_eq!(rough(seconds), shown);
        }
    }
}
