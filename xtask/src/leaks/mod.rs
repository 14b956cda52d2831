//! `cargo xtask leaks`: how well leaks are told from healthy growth, by memtrace's analysis and by the
//! rules that people use today, on simulated containers of which the truth is known.
//! Must not contain an analysis of its own.

#[cfg(feature = "analyzer")]
mod analyzer;
mod baselines;
mod class;
mod detector;
mod draw;
mod evaluation;
mod life;
mod minutes;
mod report;
mod score;
mod series;
mod shapes;
mod table;
mod targets;

use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

use crate::bench::machine::today;
use crate::process::{self, progress};
use crate::workspace::Workspace;
use class::Class;
use detector::Detector;
use evaluation::{Evaluation, Plan};
use series::Conditions;

/// Thresholds may be tuned on seeds below this one; results are told from seeds above it.
const FIRST_EVALUATION_SEED: u64 = 40_000;

/// Arguments of `cargo xtask leaks`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Seeds per class; those below 40000 are for design, and never for a document
    #[arg(long, value_name = "FROM..TO", default_value = "40000..40040")]
    seeds: Seeds,
    /// Only these classes, separated by commas
    #[arg(long, value_enum, value_delimiter = ',')]
    classes: Vec<Class>,
    /// Harsher parameters than the analysis was designed on
    #[arg(long)]
    shift: bool,
    /// Only the first five of the seeds
    #[arg(long)]
    quick: bool,
    /// Leave the baselines out
    #[arg(long, conflicts_with = "out")]
    no_baselines: bool,
    /// Judge with this threshold of the analysis instead of its default; may be repeated
    #[arg(long, value_name = "NAME=VALUE", conflicts_with = "out")]
    set: Vec<Setting>,
    /// Write the document here: method, and results under usual and shifted parameters
    #[arg(long, value_name = "FILE", conflicts_with_all = ["classes", "shift", "quick"])]
    out: Option<PathBuf>,
}

/// A threshold of the analysis and its value.
#[derive(Debug, Clone, PartialEq)]
struct Setting {
    name: String,
    value: f64,
}

impl FromStr for Setting {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, value) = text.split_once('=').context("expected NAME=VALUE")?;
        Ok(Self {
            name: name.to_owned(),
            value: value
                .parse()
                .with_context(|| format!("{value:?} is not a number"))?,
        })
    }
}

/// A range of seeds that is either for design or for evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seeds(Range<u64>);

impl FromStr for Seeds {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (start, end) = text
            .split_once("..")
            .context("expected two numbers with two dots between them, as in 40000..40040")?;
        let number = |digits: &str| {
            digits
                .parse()
                .with_context(|| format!("{digits:?} is not a whole number"))
        };
        let seeds: Range<u64> = number(start)?..number(end)?;
        if seeds.is_empty() {
            bail!("{text} contains no seed");
        }
        if seeds.start < FIRST_EVALUATION_SEED && seeds.end > FIRST_EVALUATION_SEED {
            bail!(
                "{text} mixes seeds for design, below {FIRST_EVALUATION_SEED}, with those for evaluation"
            );
        }
        Ok(Self(seeds))
    }
}

impl Seeds {
    fn for_design(&self) -> bool {
        self.0.start < FIRST_EVALUATION_SEED
    }

    fn first(&self, count: u64) -> Range<u64> {
        self.0.start..self.0.end.min(self.0.start.saturating_add(count))
    }
}

/// Evaluates and prints, or writes the document.
pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    if args.out.is_some() && args.seeds.for_design() {
        bail!("a document needs seeds from {FIRST_EVALUATION_SEED} on: those below are for design");
    }
    if cfg!(debug_assertions) || !cfg!(feature = "analyzer") {
        return run_optimised(workspace);
    }
    let detectors = detectors(args)?;
    if let Some(path) = &args.out {
        let half = (args.seeds.0.end - args.seeds.0.start).div_ceil(2);
        let evaluations = [
            evaluate(args.seeds.0.clone(), &[], Conditions::Usual, &detectors),
            evaluate(args.seeds.first(half), &[], Conditions::Shifted, &detectors),
        ];
        let commit = workspace.commit().unwrap_or_else(|| "unknown".to_owned());
        let made = format!(
            "{}, commit {commit}. The same seeds give the same figures again.",
            today()?
        );
        std::fs::write(path, report::document(&made, &evaluations))
            .with_context(|| format!("cannot write {}", path.display()))?;
        progress(format!("wrote {}", path.display()));
        return Ok(());
    }
    let seeds = args.seeds.first(if args.quick { 5 } else { u64::MAX });
    let conditions = if args.shift {
        Conditions::Shifted
    } else {
        Conditions::Usual
    };
    let mut text = String::new();
    report::section(
        &mut text,
        &evaluate(seeds, &args.classes, conditions, &detectors),
    );
    if args.seeds.for_design() {
        text.push_str(
            "\nThese seeds are for design: the figures flatter whatever was tuned on them.\n",
        );
    }
    println!("{}", text.trim_start());
    Ok(())
}

/// Starts this command again, as a release build that contains the analysis. Without the feature xtask
/// does not depend on memtrace, so that it can rebuild what memtrace contains.
fn run_optimised(workspace: &Workspace) -> Result<()> {
    let mut command = workspace.cargo();
    // Paths in the arguments are meant from here.
    command.current_dir(std::env::current_dir().context("the current directory is gone")?);
    command.args(["run", "--quiet", "--release", "--package", "xtask"]);
    command.args(["--features", "analyzer", "--manifest-path"]);
    command.arg(workspace.root().join("Cargo.toml")).arg("--");
    command.args(std::env::args_os().skip(1));
    process::check(&mut command)
}

fn evaluate(
    seeds: Range<u64>,
    classes: &[Class],
    conditions: Conditions,
    detectors: &[Box<dyn Detector>],
) -> Evaluation {
    let mut classes = if classes.is_empty() {
        Class::all()
    } else {
        classes
    }
    .to_vec();
    classes.sort_unstable();
    classes.dedup();
    let plan = Plan {
        classes,
        seeds,
        conditions,
    };
    let evaluation = Evaluation::run(plan, detectors);
    progress(format!(
        "{} series in {:.1} s",
        evaluation.series(),
        evaluation.elapsed.as_secs_f64()
    ));
    evaluation
}

fn detectors(args: &Args) -> Result<Vec<Box<dyn Detector>>> {
    let mut detectors = Vec::new();
    if !args.no_baselines {
        detectors = baselines::all();
    }
    detectors.extend(analysis(&args.set)?);
    Ok(detectors)
}

#[cfg(feature = "analyzer")]
fn analysis(settings: &[Setting]) -> Result<Option<Box<dyn Detector>>> {
    Ok(Some(Box::new(analyzer::Ours::new(settings)?)))
}

#[cfg(not(feature = "analyzer"))]
fn analysis(settings: &[Setting]) -> Result<Option<Box<dyn Detector>>> {
    if let Some(Setting { name, value }) = settings.first() {
        bail!("nothing to set {name} to {value} in: built without the analysis");
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_for_design_or_for_evaluation() {
        assert!(
            "0..40000"
                .parse::<Seeds>()
                .is_ok_and(|seeds| seeds.for_design())
        );
        assert!(
            "40000..40040"
                .parse::<Seeds>()
                .is_ok_and(|seeds| !seeds.for_design())
        );
        for wrong in ["39999..40001", "7..7", "9..3", "40000", "a..b", "-1..5", ""] {
            assert!(wrong.parse::<Seeds>().is_err(), "{wrong}");
        }
    }
}
