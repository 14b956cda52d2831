//! What a run of libFuzzer came to, by its log.

use std::path::PathBuf;

/// Of one target; `None` where the log does not tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    pub target: String,
    pub runs: Option<u64>,
    /// Points in the code that were reached: `cov:`.
    pub coverage: Option<u64>,
    /// Those of the committed and learned inputs alone, before any was changed.
    pub coverage_before: Option<u64>,
    /// Inputs that reach something of their own.
    pub inputs: Option<u64>,
    /// The fuzzer ended by its clock.
    pub ended_well: bool,
    /// Inputs that broke a promise, took too long or too much, in this run.
    pub findings: Vec<PathBuf>,
}

impl Outcome {
    /// Without what the log does not tell: how it ended, and the findings.
    pub fn of_log(target: &str, log: &str) -> Self {
        let after = |line: &str, key: &str| -> Option<u64> {
            let (_, rest) = line.split_once(key)?;
            let digits = rest
                .trim_start()
                .split(|c: char| !c.is_ascii_digit())
                .next();
            digits?.parse().ok()
        };
        let status = |line: &&str| line.starts_with('#') && line.contains("cov: ");
        let initial = |line: &&str| status(line) && line.contains("INITED");
        let last = log.lines().rfind(status).unwrap_or_default();
        let first = log.lines().find(initial).unwrap_or_default();
        let total = log
            .lines()
            .find_map(|line| after(line, "stat::number_of_executed_units:"));
        Outcome {
            target: target.to_owned(),
            // What crashed has no statistics: the last line that was printed is a little older.
            runs: total.or_else(|| after(last, "#")),
            coverage: after(last, "cov: "),
            coverage_before: after(first, "cov: "),
            inputs: after(last, "corp: "),
            ended_well: false,
            findings: Vec::new(),
        }
    }

    /// In a line.
    pub fn summary(&self) -> String {
        let how = match (self.findings.len(), self.ended_well) {
            (0, true) => "nothing found".to_owned(),
            (0, false) => "did not run to its end".to_owned(),
            (found, _) => format!("{found} found"),
        };
        match self.runs {
            Some(runs) => format!("{runs} runs, {how}"),
            None => how,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
INFO: Running with entropic power schedule (0xFF, 100).
#40\tINITED cov: 1100 ft: 1201 corp: 30/45Kb exec/s: 0 rss: 60Mb
#512\tNEW    cov: 1300 ft: 1501 corp: 31/46Kb lim: 4096 exec/s: 0 rss: 61Mb L: 3/9 MS: 1 EraseBytes-
#9000\tDONE   cov: 1400 ft: 1801 corp: 55/50Kb lim: 4096 exec/s: 150 rss: 80Mb
Done 9000 runs in 61 second(s)
stat::number_of_executed_units: 9001
stat::average_exec_per_sec:     147
";

    #[test]
    fn runs_and_coverage_are_those_of_the_end() {
        let outcome = Outcome::of_log("a", LOG);
        assert_eq!(outcome.runs, Some(9001));
        assert_eq!(outcome.coverage, Some(1400));
        assert_eq!(outcome.coverage_before, Some(1100));
        assert_eq!(outcome.inputs, Some(55));
    }

    #[test]
    fn a_run_that_crashed_tells_what_it_had_reached() {
        let cut = &LOG[..LOG.find("#9000").unwrap()];
        let outcome = Outcome::of_log("a", &format!("{cut}thread panicked at x\n"));
        assert_eq!((outcome.runs, outcome.coverage), (Some(512), Some(1300)));
    }

    #[test]
    fn what_a_log_does_not_tell_is_unknown() {
        let outcome = Outcome::of_log("a", "cannot start\n");
        assert_eq!(
            outcome,
            Outcome {
                target: "a".to_owned(),
                ..Outcome::default()
            }
        );
        assert_eq!(outcome.summary(), "did not run to its end");
    }
}
