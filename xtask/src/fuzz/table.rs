//! Outcomes as a table.

use std::fmt::Write as _;

use super::outcome::Outcome;

/// A line each, with a heading.
pub fn of(outcomes: &[Outcome]) -> String {
    let mut text = format!(
        "{:<12} {:>12} {:>9} {:>9} {:>7} {:>6}\n",
        "target", "runs", "coverage", "of which", "inputs", "found"
    );
    let _ = writeln!(text, "{:<12} {:>12} {:>9} {:>9}", "", "", "", "new");
    let shown = |value: Option<u64>| value.map_or("?".to_owned(), |value| value.to_string());
    for outcome in outcomes {
        let new = outcome
            .coverage
            .zip(outcome.coverage_before)
            .and_then(|(now, before)| now.checked_sub(before));
        let _ = writeln!(
            text,
            "{:<12} {:>12} {:>9} {:>9} {:>7} {:>6}",
            outcome.target,
            shown(outcome.runs),
            shown(outcome.coverage),
            shown(new),
            shown(outcome.inputs),
            outcome.findings.len()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_no_number() {
        let known = Outcome {
            target: "a".to_owned(),
            runs: Some(10),
            coverage: Some(7),
            coverage_before: Some(5),
            inputs: Some(3),
            ..Outcome::default()
        };
        let unknown = Outcome {
            target: "b".to_owned(),
            ..Outcome::default()
        };
        let text = of(&[known, unknown]);
        let cells: Vec<Vec<&str>> = text
            .lines()
            .skip(2)
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(cells[0], ["a", "10", "7", "2", "3", "0"]);
        assert_eq!(cells[1], ["b", "?", "?", "?", "?", "0"]);
    }
}
