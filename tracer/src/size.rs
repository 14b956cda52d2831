//! Byte sizes for people: binary units, three digits.

const UNITS: [&str; 6] = ["B", "K", "M", "G", "T", "P"];

/// `1536` → `1.5K`.
pub fn bytes(bytes: u64) -> String {
    scaled(bytes as f64)
}

/// A signed rate, `+1.5M/s`; `-` when unknown, `0` when nothing moved.
pub fn rate(bytes_per_second: Option<f64>) -> String {
    match bytes_per_second {
        None => "-".into(),
        Some(rate) if rate.abs() < 1.0 => "0".into(),
        Some(rate) => {
            let sign = if rate < 0.0 { '-' } else { '+' };
            format!("{sign}{}/s", scaled(rate.abs()))
        }
    }
}

/// Events per second; `-` when unknown.
pub fn count(per_second: Option<f64>) -> String {
    match per_second {
        None => "-".into(),
        Some(rate) if rate < 1e4 => format!("{rate:.0}"),
        Some(rate) if rate < 1e7 => format!("{:.0}k", rate / 1e3),
        Some(rate) => format!("{:.0}M", rate / 1e6),
    }
}

fn scaled(mut value: f64) -> String {
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value >= 99.95 {
        format!("{value:.0}{}", UNITS[unit])
    } else {
        format!("{value:.1}{}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_keep_three_digits() {
        for (value, shown) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1.0K"),
            (1536, "1.5K"),
            (100 << 20, "100M"),
            (1000 << 20, "1.0G"),
            (u64::MAX, "16384P"),
        ] {
            assert_eq!(bytes(value), shown);
        }
    }

    #[test]
    fn an_unknown_rate_is_not_zero() {
        assert_eq!(rate(None), "-");
        assert_eq!(rate(Some(0.2)), "0");
        assert_eq!(rate(Some(-2048.0)), "-2.0K/s");
    }
}
