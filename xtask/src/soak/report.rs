//! The page of a soak. Must not judge.

use std::fmt::Write as _;

use anyhow::Result;

use super::Args;
use super::judge::{COUNT_SLACK, Judgement, MEMORY_SLACK};
use super::resources::Sample;

const ROWS: usize = 12;
const MIB: f64 = (1 << 20) as f64;

/// As Markdown.
pub fn page(args: &Args, place: &str, samples: &[Sample], judgement: &Judgement) -> Result<String> {
    let mut page = String::new();
    writeln!(page, "# Soak\n")?;
    writeln!(
        page,
        "`cargo xtask soak --minutes {} --per-second {}`: containers come and go beside one agent with the \
         defaults,\nbut for JSON on its output, and no API and no names of containers. One in twenty runs into its \
         limit and is killed,\none in four has four processes, the others touch 1 to 8 MiB; each lives 2 to 32 \
         seconds. The command fails when a count\nis not the kernel's, or when the median of a level rises from \
         the second quarter to the last: memory and maps by more\nthan {:.0}%, descriptors and threads by more than \
         {}.\n",
        args.minutes,
        args.per_second,
        100.0 * (MEMORY_SLACK - 1.0),
        COUNT_SLACK,
    )?;
    writeln!(page, "{place}\n")?;
    writeln!(page, "## What the agent held\n")?;
    writeln!(
        page,
        "| minute | containers made | live | cgroups followed | anonymous, MiB | files, MiB | descriptors | threads | maps, MiB | CPU, % of a core |"
    )?;
    writeln!(page, "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")?;
    let step = samples.len().div_ceil(ROWS).max(1);
    let mut last: Option<&Sample> = None;
    for sample in samples.iter().step_by(step).chain(samples.last()) {
        let cpu = last.and_then(|last| {
            let time = (sample.elapsed - last.elapsed).as_secs_f64();
            (time > 0.0).then(|| 100.0 * sample.cpu.saturating_sub(last.cpu).as_secs_f64() / time)
        });
        writeln!(
            page,
            "| {:.1} | {} | {} | {} | {:.1} | {:.1} | {} | {} | {:.2} | {} |",
            sample.elapsed.as_secs_f64() / 60.0,
            sample.made,
            sample.live,
            sample.cgroups,
            sample.anon_bytes as f64 / MIB,
            sample.file_bytes as f64 / MIB,
            sample.descriptors,
            sample.threads,
            sample.map_bytes as f64 / MIB,
            cpu.map_or("".to_owned(), |cpu| format!("{cpu:.2}")),
        )?;
        last = Some(sample);
    }
    writeln!(page, "\n| median | second quarter | last quarter | flat |")?;
    writeln!(page, "|---|---:|---:|---|")?;
    for level in &judgement.levels {
        let flat = if level.is_flat { "yes" } else { "NO" };
        writeln!(
            page,
            "| {} | {} | {} | {flat} |",
            level.what, level.before, level.after
        )?;
    }
    writeln!(page, "\n## Counts\n")?;
    writeln!(
        page,
        "| what | by the kernel, to the parent | told by memtrace | equal |"
    )?;
    writeln!(page, "|---|---:|---:|---|")?;
    for pair in &judgement.pairs {
        let equal = if pair.is_equal { "yes" } else { "NO" };
        writeln!(
            page,
            "| {} | {} | {} | {equal} |",
            pair.what, pair.expected, pair.told
        )?;
    }
    writeln!(
        page,
        "\n`oom_kill` of /proc/vmstat rose by {} meanwhile, on the whole machine.",
        judgement.kernel_kills
    )?;
    if judgement.lost.is_empty() {
        writeln!(page, "memtrace counted no loss.")?;
    } else {
        let lost: Vec<String> = judgement
            .lost
            .iter()
            .map(|(cause, count)| format!("`{cause}` {count}"))
            .collect();
        writeln!(
            page,
            "Losses that memtrace itself counted: {}.",
            lost.join(", ")
        )?;
    }
    Ok(page)
}
