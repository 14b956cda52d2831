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

#[cfg(test)]
mod tests {
    use super::*;

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
