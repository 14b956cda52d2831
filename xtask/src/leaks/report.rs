//! Writes an evaluation as Markdown, for the terminal and for docs/leaks.md; numbers from the run only.
//! Must not judge: see `score` and `targets`.

use std::fmt::Write as _;

use super::class::Class;
use super::detector::{CONFIRMED, SUSPECTED};
use super::evaluation::{Evaluation, Plan};
use super::score::{STAGES, Score};
use super::series::Conditions;
use super::table::Table;
use super::targets::{self, Goal, Measured, Standing};

const INTRODUCTION: &str = "\
# Leak detection, measured

Made by `cargo xtask leaks --out docs/leaks.md`, which writes this file; every number is from the run
named here, except the column *floor*.

## Method

Each series is a simulated container (`xtask/src/leaks/`): anonymous, kernel and file memory, CPU and
restarts, a sample each 10 seconds for 7 days, from a class and a seed. 16 classes are healthy and 11
leak; of a leak it is known when it starts, how fast it is and when it runs into the limit, upon which
the container is killed and starts anew. Half of the healthy containers have a limit within 4% to 35% of
their peak. *Shifted* series come from harsher parameters: more noise, longer garbage collection, more
memory per request, and for one in three a CPU figure that says nothing about the load. Thresholds may
be tuned on seeds below 40000 only; this file is written from others only.

memtrace reads each sample; the baselines get the last sample of each minute and see the limit, but
neither CPU nor restarts. They are implemented after their descriptions with the thresholds that people
use, not tuned.

- *Recall*: leaks with an alarm between onset and the first OOM kill (or the end), without
  `leak_slow_1MBh`, which is counted as *slow*. *Healthy*: healthy series with an alarm at any time.
  *Precision*: of the series with one or the other, the share that leak.
- *False alarms*: alarms that start where nothing leaks, per container-week; alarms at most an hour
  apart count once.
- *Delay*: hours from onset to alarm, median. *Lead*: share of the time from onset to OOM that was left
  at the alarm, median.
- *Onset error*, *rate* and *time to limit* are those told when the leak was confirmed, the last also
  half, three quarters and nine tenths of the way from there to the OOM. *Coverage*: how often the truth
  lies in the interval told. Rates are judged where the leak has one rate.

It is a simulation, by authors who also wrote the analysis, and its mix of classes is adversarial: it
shows the ranking, and where each rule breaks; a real fleet is different.
";

/// The whole document; `made` says when and of what.
pub fn document(made: &str, evaluations: &[Evaluation]) -> String {
    let mut text = format!("{INTRODUCTION}\n{made}\n");
    for evaluation in evaluations {
        section(&mut text, evaluation);
    }
    text
}

/// The results of one evaluation.
pub fn section(text: &mut String, evaluation: &Evaluation) {
    let Plan {
        seeds, conditions, ..
    } = &evaluation.plan;
    let title = match conditions {
        Conditions::Usual => "Results",
        Conditions::Shifted => "Results, shifted",
    };
    let _ = writeln!(
        text,
        "\n## {title}\n\n{} series, seeds {}..{}.\n",
        evaluation.series(),
        seeds.start,
        seeds.end,
    );
    text.push_str(&overall(evaluation).to_string());
    let confirmed = evaluation.position(CONFIRMED);
    let suspected = evaluation.position(SUSPECTED);
    if let (Some(confirmed), Some(suspected)) = (confirmed, suspected) {
        let _ = writeln!(
            text,
            "\n### Targets\n\n{}",
            target_table(evaluation, confirmed, suspected)
        );
        let _ = writeln!(
            text,
            "### Estimates\n\n{}",
            estimate_table(evaluation, confirmed)
        );
        let _ = write!(
            text,
            "### memtrace by class\n\n{}",
            own_classes(evaluation, confirmed, suspected)
        );
    }
    by_class(text, evaluation);
}

fn overall(evaluation: &Evaluation) -> Table {
    let mut table = Table::new([
        "detector",
        "#",
        "precision",
        "recall",
        "healthy",
        "false alarms / week",
        "delay h",
        "lead",
        "slow",
    ]);
    for (index, name) in evaluation.names.iter().enumerate() {
        let score = evaluation.score(index);
        let (found, slow) = score.slow;
        table.row([
            (*name).to_owned(),
            (index + 1).to_string(),
            figure(score.precision, 3),
            figure(score.recall, 3),
            figure(score.healthy_alarmed, 3),
            figure(score.false_alarms_per_week, 2),
            figure(score.delay_h, 1),
            figure(score.lead, 2),
            format!("{found}/{slow}"),
        ]);
    }
    table
}

fn target_table(evaluation: &Evaluation, confirmed: usize, suspected: usize) -> Table {
    let class = |class| evaluation.class_score(confirmed, class);
    let measured = Measured {
        confirmed: &evaluation.score(confirmed),
        suspected: &evaluation.score(suspected),
        cache_linear: class(Class::CacheLinear).healthy_alarmed,
        leak_step: class(Class::LeakStep).recall,
    };
    let mut table = Table::new(["target", "goal", "floor", "measured", ""]);
    for target in targets::targets(&measured) {
        let goal = match target.goal {
            Goal::AtLeast(goal) => format!("≥ {goal:.2}"),
            Goal::AtMost(goal) => format!("≤ {goal:.2}"),
        };
        let standing = match target.standing() {
            Standing::Met => "met",
            Standing::Missed => "**missed**",
            Standing::BelowFloor => "**missed, worse than the floor**",
            Standing::Unknown => "not measured",
        };
        let measured = figure(target.measured, 3);
        table.row([
            target.name.clone(),
            goal,
            format!("{:.3}", target.floor),
            measured,
            standing.to_owned(),
        ]);
    }
    table
}

fn estimate_table(evaluation: &Evaluation, confirmed: usize) -> Table {
    let told = evaluation.score(confirmed).estimates;
    let mut table = Table::new([
        "estimate",
        "n",
        "median error",
        "within 30% or 20 min",
        "coverage",
    ]);
    let absent = || figure(None, 0);
    let hours = |hours: Option<f64>| format!("{} h", figure(hours, 2));
    table.row([
        "onset".to_owned(),
        absent(),
        hours(told.onset_error_h),
        absent(),
        absent(),
    ]);
    table.row([
        "onset of leaks that started later".to_owned(),
        absent(),
        hours(told.later_onset_error_h),
        absent(),
        absent(),
    ]);
    let coverage = figure(told.rate_coverage, 2);
    table.row([
        "rate".to_owned(),
        absent(),
        percent(told.rate_error),
        absent(),
        coverage,
    ]);
    for (stage, time) in STAGES.iter().zip(told.to_limit) {
        table.row([
            format!("time to limit {}", targets::way(*stage)),
            format!("{} of {}", time.estimates, time.due),
            percent(time.error),
            figure(time.close, 2),
            figure(time.coverage, 2),
        ]);
    }
    table
}

fn own_classes(evaluation: &Evaluation, confirmed: usize, suspected: usize) -> String {
    let mut healthy = Table::new(["class", "confirmed", "suspected", "false confirmations"]);
    let mut leaking = Table::new([
        "class",
        "confirmed",
        "suspected",
        "before onset",
        "delay h",
        "lead",
        "lead of suspicion",
        "onset error h",
        "rate error",
        "rate coverage",
        "time to limit error",
    ]);
    for class in &evaluation.plan.classes {
        let sure = evaluation.class_score(confirmed, *class);
        let maybe = evaluation.class_score(suspected, *class);
        if !class.leaks() {
            healthy.row([
                class.name(),
                figure(sure.healthy_alarmed, 2),
                figure(maybe.healthy_alarmed, 2),
                sure.false_alarms.to_string(),
            ]);
            continue;
        }
        let told = &sure.estimates;
        leaking.row([
            class.name(),
            figure(found(&sure), 2),
            figure(found(&maybe), 2),
            sure.false_alarms.to_string(),
            figure(sure.delay_h, 1),
            figure(sure.lead, 2),
            figure(maybe.lead, 2),
            figure(told.onset_error_h, 2),
            percent(told.rate_error),
            figure(told.rate_coverage, 2),
            percent(told.to_limit[0].error),
        ]);
    }
    format!("{healthy}\n{leaking}")
}

/// Every detector on every class, detectors by their number.
fn by_class(text: &mut String, evaluation: &Evaluation) {
    let matrix = |leaking: bool, value: fn(&Score) -> String| {
        let numbers = (1..=evaluation.names.len()).map(|number| number.to_string());
        let mut table = Table::new(std::iter::once("class".to_owned()).chain(numbers));
        let classes = evaluation.plan.classes.iter();
        for class in classes.filter(|class| class.leaks() == leaking) {
            let values = (0..evaluation.names.len())
                .map(|judgement| value(&evaluation.class_score(judgement, *class)));
            table.row(std::iter::once(class.name()).chain(values));
        }
        table
    };
    let _ = write!(
        text,
        "\n### All detectors by class\n\n\
         Detectors by their number in the first table. Share of the healthy series alarmed:\n\n{}\n\
         Recall:\n\n{}\n\
         Lead, median of the leaks found:\n\n{}\n\
         False alarms before the onset, per leaking series:\n\n{}",
        matrix(false, |score| figure(score.healthy_alarmed, 2)),
        matrix(true, |score| figure(found(score), 2)),
        matrix(true, |score| figure(score.lead, 2)),
        matrix(true, |score| {
            let series = score.leaks + score.slow.1;
            figure(
                (series > 0).then(|| score.false_alarms as f64 / series as f64),
                1,
            )
        }),
    );
}

/// Recall of a class, be it the slow one.
fn found(score: &Score) -> Option<f64> {
    let (found, slow) = score.slow;
    score
        .recall
        .or((slow > 0).then(|| found as f64 / slow as f64))
}

fn figure(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.decimals$}"))
}

fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{:.1}%", value * 100.0))
}
