//! Numbers as they stand in recordings. Owns what is a number, a gap, a time; must not know formats.

use super::history::Column;

/// The last millisecond of the year 9999, the last that RFC 3339 can write.
const LAST_MS: f64 = 253_402_300_799_999.0;

/// Why a text is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    #[error("is not a number")]
    NotANumber,
    #[error("is no size in bytes")]
    NotBytes,
    #[error("is no CPU figure")]
    NotCpu,
    #[error("is no epoch, a whole number below 2^32")]
    NotAnEpoch,
    #[error("is no time")]
    NotATime,
    #[error("is beyond the year 9999; are these milliseconds? seconds are asked for")]
    TimeTooLarge,
}

/// The number that `text` is; `None` for a gap: nothing, NaN or infinite.
///
/// # Errors
/// Anything else.
pub fn number(text: &[u8]) -> Result<Option<f64>, Wrong> {
    let text = text.trim_ascii();
    let text = str::from_utf8(text).map_err(|_| Wrong::NotANumber)?;
    if text.is_empty() {
        return Ok(None);
    }
    let number: f64 = text.parse().map_err(|_| Wrong::NotANumber)?;
    // 1e999 parses as infinite and is not meant as a gap.
    if number.is_infinite() && text.bytes().any(|byte| byte.is_ascii_digit()) {
        return Err(Wrong::NotANumber);
    }
    Ok(number.is_finite().then_some(number))
}

/// The value of a column that `number` is.
///
/// # Errors
/// A quantity that cannot be.
pub fn value(column: Column, number: f64) -> Result<u64, Wrong> {
    column.value(number).ok_or(match column {
        Column::CpuRate | Column::CpuTotal => Wrong::NotCpu,
        Column::Epoch => Wrong::NotAnEpoch,
        _ => Wrong::NotBytes,
    })
}

/// The value of a column that `text` is; `None` for a gap. A limit of `max` is none, as cgroup files
/// have it.
///
/// # Errors
/// Neither a number nor a gap, or a quantity that cannot be.
pub fn cell(column: Column, text: &[u8]) -> Result<Option<u64>, Wrong> {
    // Most cells are plain whole bytes.
    if column.is_memory() && (1..=18).contains(&text.len()) && text.iter().all(u8::is_ascii_digit) {
        let digits = text.iter().map(|digit| u64::from(digit - b'0'));
        return Ok(Some(digits.fold(0, |sum, digit| sum * 10 + digit)));
    }
    if column == Column::Limit && text.trim_ascii() == b"max" {
        return Ok(Some(0));
    }
    number(text)?
        .map(|number| value(column, number))
        .transpose()
}

/// Milliseconds of a time in seconds.
///
/// # Errors
/// No finite number, or a time beyond what can be written.
pub fn time_ms(seconds: f64) -> Result<i64, Wrong> {
    let ms = (seconds * 1000.0).round();
    if !ms.is_finite() {
        Err(Wrong::NotATime)
    } else if ms.abs() > LAST_MS {
        Err(Wrong::TimeTooLarge)
    } else {
        Ok(ms as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_no_errors() {
        for gap in ["", "  ", "NaN", "nan", "inf", "+Inf", "-Inf", "infinity"] {
            assert_eq!(cell(Column::Anon, gap.as_bytes()), Ok(None), "{gap}");
        }
    }

    #[test]
    fn numbers_in_any_notation_are_read() {
        for (text, bytes) in [
            ("0", 0),
            (" 4096 ", 4096),
            ("4096.0", 4096),
            ("1e6", 1_000_000),
            ("999999999999999999", 999_999_999_999_999_999),
            ("18446744073709549568", 18_446_744_073_709_549_568),
        ] {
            assert_eq!(
                cell(Column::Anon, text.as_bytes()),
                Ok(Some(bytes)),
                "{text}"
            );
        }
        assert_eq!(cell(Column::Limit, b"max"), Ok(Some(0)));
    }

    #[test]
    fn what_is_no_such_quantity_is_refused() {
        for text in [
            "x", "1x", "0x10", "1,5", "1e999", "\0", "12\0", "max", "--1", "١",
        ] {
            assert_eq!(
                cell(Column::Anon, text.as_bytes()),
                Err(Wrong::NotANumber),
                "{text:?}"
            );
        }
        assert_eq!(cell(Column::Anon, b"\xff\xfe"), Err(Wrong::NotANumber));
        for text in ["-1", "1e300", "18446744073709559808"] {
            assert_eq!(
                cell(Column::Anon, text.as_bytes()),
                Err(Wrong::NotBytes),
                "{text}"
            );
        }
        assert_eq!(cell(Column::CpuRate, b"-1"), Err(Wrong::NotCpu));
        assert_eq!(cell(Column::Epoch, b"1.5"), Err(Wrong::NotAnEpoch));
    }

    #[test]
    fn times_are_seconds_that_can_be_written() {
        assert_eq!(time_ms(1.0005), Ok(1001));
        assert_eq!(time_ms(-2.0), Ok(-2000));
        assert_eq!(time_ms(f64::NAN), Err(Wrong::NotATime));
        assert_eq!(time_ms(f64::INFINITY), Err(Wrong::NotATime));
        assert_eq!(time_ms(1.7e12), Err(Wrong::TimeTooLarge));
        assert_eq!(time_ms(f64::MAX), Err(Wrong::NotATime));
    }
}
