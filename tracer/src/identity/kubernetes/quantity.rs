//! Kubernetes quantities (`128Mi`, `1.5G`, `1e9`) as bytes, exactly.
//!
//! Source: `k8s.io/apimachinery/pkg/api/resource`, the grammar in the comment on `Quantity`.

use super::object::Quantity;

/// Bytes, a fraction of one rounded up as the kubelet's `Quantity.Value()` does. `None`: negative, larger
/// than 64 bits, or no quantity.
pub(super) fn bytes(quantity: &Quantity) -> Option<u64> {
    match quantity {
        Quantity::Text(text) => parse(text),
        Quantity::Number(number) => parse(&number.to_string()),
    }
}

fn parse(text: &str) -> Option<u64> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, suffix) = text.split_at(end.unwrap_or(text.len()));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let mut mantissa: u128 = 0;
    for digit in whole.chars().chain(fraction.chars()) {
        mantissa = mantissa
            .checked_mul(10)?
            .checked_add(digit.to_digit(10)?.into())?;
    }
    let (twos, tens) = scale(suffix)?;
    let tens = tens.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let scaled = mantissa.checked_mul(1u128.checked_shl(twos)?)?;
    if scaled == 0 {
        return Some(0);
    }
    let power = 10u128.checked_pow(tens.unsigned_abs());
    let value = match (tens < 0, power) {
        (false, power) => scaled.checked_mul(power?)?,
        (true, Some(power)) => scaled.div_ceil(power),
        // Less than one.
        (true, None) => 1,
    };
    u64::try_from(value).ok()
}

/// Powers of two and of ten that a suffix stands for.
fn scale(suffix: &str) -> Option<(u32, i32)> {
    Some(match suffix {
        "" => (0, 0),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            (0, exponent.parse().ok()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suffix_of_the_grammar_is_read_exactly() {
        let cases = [
            ("0", 0),
            ("128974848", 128_974_848),
            ("129e6", 129_000_000),
            ("1E3", 1_000),
            ("1e+3", 1_000),
            ("129M", 129_000_000),
            ("128974848000m", 128_974_848),
            ("123Mi", 123 << 20),
            ("1Ki", 1024),
            ("1k", 1000),
            ("1.5Gi", 3 << 29),
            (".5Gi", 1 << 29),
            ("1.Gi", 1 << 30),
            ("0.1Gi", 107_374_183),
            ("2T", 2_000_000_000_000),
            ("1P", 1_000_000_000_000_000),
            ("1E", 1_000_000_000_000_000_000),
            ("3Ti", 3 << 40),
            ("3Pi", 3 << 50),
            ("15Ei", 15 << 60),
            ("18446744073709551615", u64::MAX),
            ("100m", 1),
            ("1n", 1),
            ("2000000u", 2),
            ("5e-1", 1),
            ("1e-60", 1),
            ("0e99", 0),
            ("+5", 5),
            ("1.000000000000000000000000000000000000", 1),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_unknown_and_never_zero() {
        let cases = [
            "",
            ".",
            "-1",
            "-1Mi",
            "Mi",
            "1 Mi",
            "1mi",
            "1KI",
            "1KiB",
            "1.2.3",
            "0x10",
            "1e",
            "1e2Mi",
            "nan",
            "16Ei",
            "18446744073709551616",
            "1e99",
            "1e2147483648",
            "٣Mi",
        ];
        for text in cases {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_number_is_a_quantity_too() {
        let number: Quantity = serde_json::from_str("1048576").unwrap();
        assert_eq!(bytes(&number), Some(1 << 20));
    }
}
