//! Takes apart the kernel's small text formats, as bytes and without allocation.
//!
//! Owns the formats (single value, flat keyed, pressure, limit). Must not know which file a text
//! came from, and must not panic: what does not parse is `None` or left out.

use crate::model::snapshot::{Limit, Pressure};

/// A decimal number with optional white space around it. Signs, garbage and values above `u64::MAX`
/// are `None`.
pub fn number(text: &[u8]) -> Option<u64> {
    let digits = text.trim_ascii();
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// The lines of `key value` files such as `memory.stat` and `/proc/vmstat`. Lines of another shape
/// are left out.
pub fn keyed_numbers(text: &[u8]) -> impl Iterator<Item = (&[u8], u64)> {
    text.split(|byte| *byte == b'\n').filter_map(|line| {
        let space = line.iter().position(|byte| *byte == b' ')?;
        Some((&line[..space], number(&line[space..])?))
    })
}

/// `memory.max` and `memory.high` of cgroup v2: bytes or `max`.
pub fn limit_v2(text: &[u8]) -> Option<Limit> {
    match text.trim_ascii() {
        b"max" => Some(Limit::Unlimited),
        value => number(value).map(Limit::Bytes),
    }
}

/// `memory.limit_in_bytes` of cgroup v1, where the largest page counter means no limit.
/// Source: `PAGE_COUNTER_MAX` in include/linux/page_counter.h (64-bit kernels).
pub fn limit_v1(text: &[u8], page_size: u64) -> Option<Limit> {
    let bytes = number(text)?;
    let largest = i64::MAX as u64 / page_size.max(1) * page_size.max(1);
    Some(if bytes >= largest {
        Limit::Unlimited
    } else {
        Limit::Bytes(bytes)
    })
}

/// `memory.pressure` and `/proc/pressure/memory`: `total=` in microseconds, given in nanoseconds.
/// Source: Documentation/accounting/psi.rst.
pub fn pressure(text: &[u8]) -> Pressure {
    let mut pressure = Pressure::default();
    for line in text.split(|byte| *byte == b'\n') {
        let mut words = line.split(|byte| *byte == b' ');
        let kind = words.next();
        let total = words
            .find_map(|word| word.strip_prefix(b"total="))
            .and_then(number)
            .and_then(|microseconds| microseconds.checked_mul(1000));
        match kind {
            Some(b"some") => pressure.some_ns = total,
            Some(b"full") => pressure.full_ns = total,
            _ => {}
        }
    }
    pressure
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Content no parser may stumble over.
    pub(crate) const GARBAGE: [&[u8]; 9] = [
        b"",
        b"\n",
        b"-1\n",
        b"99999999999999999999999\n",
        b"12x",
        b"total_rss",
        b"anon -4\nfile \nslab 99999999999999999999999\n",
        b"\xff\xfe\0\0 1\n   \n",
        b"some total=-1\nfull total=99999999999999999999\n",
    ];

    #[test]
    fn numbers() {
        assert_eq!(number(b"0\n"), Some(0));
        assert_eq!(number(b" 18446744073709551615 "), Some(u64::MAX));
        assert_eq!(number(b"18446744073709551616"), None);
        for text in [&b""[..], b" ", b"-1", b"+1", b"1 2", b"0x10", b"\xb2"] {
            assert_eq!(number(text), None, "{text:?}");
        }
    }

    #[test]
    fn keyed_lines_without_the_malformed_ones() {
        let text = b"anon 5\n\nnoval\nfile  7\nneg -1\nlast 9";
        let all: Vec<_> = keyed_numbers(text).collect();
        assert_eq!(all, [(&b"anon"[..], 5), (b"file", 7), (b"last", 9)]);
    }

    #[test]
    fn limits() {
        assert_eq!(limit_v2(b"max\n"), Some(Limit::Unlimited));
        assert_eq!(limit_v2(b"0\n"), Some(Limit::Bytes(0)));
        assert_eq!(limit_v2(b"maximum"), None);
        assert_eq!(
            limit_v1(b"9223372036854771712\n", 4096),
            Some(Limit::Unlimited)
        );
        assert_eq!(
            limit_v1(b"9223372036854710272\n", 65536),
            Some(Limit::Unlimited)
        );
        assert_eq!(
            limit_v1(b"9223372036854710272\n", 4096),
            Some(Limit::Bytes(9223372036854710272))
        );
        assert_eq!(limit_v1(b"1048576", 4096), Some(Limit::Bytes(1 << 20)));
        assert_eq!(limit_v1(b"-1", 4096), None);
        assert_eq!(limit_v1(b"5", 0), Some(Limit::Bytes(5)));
    }

    #[test]
    fn pressure_totals() {
        let text = b"some avg10=0.00 avg60=0.12 avg300=0.05 total=123456\n\
                     full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        let expected = Pressure {
            some_ns: Some(123_456_000),
            full_ns: Some(7000),
        };
        assert_eq!(pressure(text), expected);
        assert_eq!(pressure(b"some avg10=0.00\n"), Pressure::default());
    }

    #[test]
    fn garbage_yields_nothing() {
        for text in GARBAGE {
            assert_eq!(number(text), None, "{text:?}");
            assert_eq!(limit_v2(text), None, "{text:?}");
            assert_eq!(pressure(text), Pressure::default(), "{text:?}");
            keyed_numbers(text).for_each(drop);
        }
    }
}
