//! OTLP names and units as Prometheus has them, so that a scrape and an OTLP receiver that translates
//! (`UnderscoreEscapingWithSuffixes`) yield the same series.
//!
//! Source: OpenTelemetry specification, "Prometheus and OpenMetrics Compatibility";
//! prometheus/otlptranslator.

/// A metric or label name: letters, digits and `_`, no digit in front.
pub fn sanitized(name: &str) -> String {
    let mut clean = String::with_capacity(name.len() + 1);
    for c in name.chars() {
        let fits = c.is_ascii_alphanumeric() || c == '_';
        let c = if fits { c } else { '_' };
        // Runs of `_` become one.
        if c != '_' || !clean.ends_with('_') {
            clean.push(c);
        }
    }
    if clean.starts_with(|c: char| c.is_ascii_digit()) {
        clean.insert(0, '_');
    }
    clean
}

/// The name of a family of series, without `_total`.
pub fn family(name: &str, unit: &str) -> String {
    let mut family = sanitized(name);
    if let Some(unit) = suffix(unit) {
        let ends = family
            .strip_suffix(unit)
            .is_some_and(|rest| rest.ends_with('_'));
        if !ends {
            family.push('_');
            family.push_str(unit);
        }
    }
    family
}

/// What a unit (UCUM) adds; annotations in braces add nothing.
fn suffix(unit: &str) -> Option<&'static str> {
    match unit {
        "By" => Some("bytes"),
        "s" => Some("seconds"),
        "By/s" => Some("bytes_per_second"),
        "1" => Some("ratio"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_spelled_out_once() {
        for (name, unit, expected) in [
            (
                "container.memory.usage",
                "By",
                "container_memory_usage_bytes",
            ),
            (
                "memtrace.leak.rate",
                "By/s",
                "memtrace_leak_rate_bytes_per_second",
            ),
            ("memtrace.oom.kills", "{kill}", "memtrace_oom_kills"),
            ("a.seconds", "s", "a_seconds"),
            ("1.a-b..c", "", "_1_a_b_c"),
        ] {
            assert_eq!(family(name, unit), expected);
        }
    }
}
