//! What a picture shows of each series: picks signal, fit and bands. Draws nothing.

use super::{
    clock::{Clock, length, seconds},
    history::{Column, Series},
    judge::Judged,
};
use crate::{
    analysis::{Signal, Thresholds},
    export::{
        console::verdict::per_hour,
        plot::{self, Band, Fit, MOST_PANELS, Onset, Panel, Times},
    },
    size,
};

/// Blocks of a floor where no verdict names a window.
const FLOOR_BLOCKS: i64 = 120;
/// From when on, and the limit, `None` for none.
type Steps = Vec<(i64, Option<f64>)>;

/// Draws the series, the worst first; how many found no room.
pub fn draw(
    rows: &[(&Series, &Judged)],
    limit: Option<u64>,
    thresholds: &Thresholds,
    clock: Clock,
) -> (String, usize) {
    let mut order: Vec<_> = rows
        .iter()
        .filter(|(series, _)| !series.times_ms().is_empty())
        .collect();
    let left_out = order.len().saturating_sub(MOST_PANELS);
    if left_out > 0 {
        order.sort_by_key(|(_, judged)| std::cmp::Reverse(judged.worst()));
        order.truncate(MOST_PANELS);
    }
    let times = match clock {
        Clock::Wall => Times::Wall,
        Clock::Seconds => Times::Seconds,
    };
    let note = (left_out > 0)
        .then(|| format!("{left_out} more series have no room here: these are the worst"));
    let panels = order
        .into_iter()
        .map(|(series, judged)| panel(series, judged, limit, thresholds, clock));
    (plot::svg(panels, times, note.as_deref()), left_out)
}

fn panel(
    series: &Series,
    judged: &Judged,
    limit: Option<u64>,
    thresholds: &Thresholds,
    clock: Clock,
) -> Panel {
    let (given_ms, weightiest) = judged.weightiest();
    let signal = weightiest
        .signal
        .or(judged.verdict.signal)
        .unwrap_or_else(|| first_known(series));
    let times = series.times_ms().iter().enumerate();
    let points: Vec<(i64, f64)> = times
        .filter_map(|(at, time)| Some((*time, value(series, signal, at)? as f64)))
        .collect();
    let from_ms = series.times_ms().first().copied().unwrap_or_default();
    let to_ms = series.times_ms().last().copied().unwrap_or_default();
    let onset = weightiest.since.map(|since| Onset {
        time_ms: since.time_ms,
        uncertainty_ms: since.uncertainty_ms,
    });
    let floor_ms = match &weightiest.evidence {
        Some(evidence) => block_ms(evidence.ring, thresholds.time_scale),
        None => to_ms.saturating_sub(from_ms) / FLOOR_BLOCKS,
    };
    let fit = weightiest
        .rate_bytes_per_hour
        .zip(weightiest.evidence)
        .map(|(rate, evidence)| {
            let window_ms = (evidence.window_seconds * 1000.0) as i64;
            let start = onset.map_or(given_ms.saturating_sub(window_ms), |onset| onset.time_ms);
            Fit {
                from_ms: start,
                to_ms: given_ms,
                end_bytes: end(&points, floor_ms, [start, given_ms], rate.mid)
                    .unwrap_or(evidence.floor_bytes),
                bytes_per_hour: rate.mid,
            }
        });
    Panel {
        title: series.name().to_owned(),
        subtitle: subtitle(judged, signal, clock),
        from_ms,
        to_ms,
        points,
        longest_step_ms: None,
        floor_block_ms: Some(floor_ms),
        limits: limits(series, limit),
        fit,
        onset,
        bands: bands(judged, from_ms),
        marks: Vec::new(),
    }
}

/// Where a line of this slope ends that lies amid the floors of a time, as most of them see it.
fn end(
    points: &[(i64, f64)],
    block_ms: i64,
    [from_ms, to_ms]: [i64; 2],
    bytes_per_hour: f64,
) -> Option<f64> {
    let mut ends: Vec<f64> = Vec::new();
    let mut block: Option<(i64, f64)> = None;
    for (time, value) in points
        .iter()
        .filter(|(time, _)| (from_ms..=to_ms).contains(time))
    {
        let at = time.saturating_sub(from_ms) / block_ms.max(1);
        let hours = seconds(to_ms.saturating_sub(*time)) / 3600.0;
        let end = value + bytes_per_hour * hours;
        block = match block {
            Some((open, least)) if open == at => Some((open, least.min(end))),
            done => {
                ends.extend(done.map(|(_, least)| least));
                Some((at, end))
            }
        };
    }
    ends.extend(block.map(|(_, least)| least));
    let middle = ends.len() / 2;
    ends.sort_by(f64::total_cmp);
    ends.get(middle).copied()
}

/// The length of a block of this ring.
fn block_ms(ring: u8, time_scale: f64) -> i64 {
    let minutes = 6f64.powi(i32::from(ring.min(3)));
    (minutes * 60_000.0 / time_scale) as i64
}

fn subtitle(judged: &Judged, signal: Signal, clock: Clock) -> String {
    let verdict = &judged.verdict;
    let mut parts = vec![format!("{}: {}", signal.name(), verdict.state.name())];
    if judged.worst() > verdict.state {
        parts.push(format!("at worst {}", judged.worst().name()));
    }
    let (_, weightiest) = judged.weightiest();
    if let Some(rate) = weightiest.rate_bytes_per_hour {
        parts.push(per_hour(rate.mid));
    }
    if let Some(since) = weightiest.since {
        let about = length(seconds(since.uncertainty_ms));
        parts.push(format!("since {} ± {about}", clock.show(since.time_ms)));
    }
    if let Some(limit) = &verdict.time_to_limit {
        let (bytes, left) = (size::bytes(limit.limit_bytes), length(limit.seconds.mid));
        parts.push(format!("limit {bytes} in {left}"));
    }
    parts.join(", ")
}

fn first_known(series: &Series) -> Signal {
    let signals = [
        (Column::Anon, Signal::Anon),
        (Column::WorkingSet, Signal::WorkingSet),
        (Column::Usage, Signal::Usage),
        (Column::Shmem, Signal::Shmem),
        (Column::Kernel, Signal::Kernel),
        (Column::File, Signal::File),
    ];
    let known = signals.iter().find(|(column, _)| series.has(*column));
    known.map_or(Signal::Usage, |(_, signal)| *signal)
}

/// As the analysis judges it.
fn value(series: &Series, signal: Signal, at: usize) -> Option<u64> {
    let get = |column| series.get(column, at);
    match signal {
        Signal::Anon => Some(get(Column::Anon)?.saturating_add(get(Column::Swap).unwrap_or(0))),
        Signal::Shmem => get(Column::Shmem),
        Signal::Kernel => get(Column::Kernel),
        Signal::File => Some(get(Column::File)?.saturating_sub(get(Column::Shmem).unwrap_or(0))),
        Signal::WorkingSet => get(Column::WorkingSet),
        Signal::Usage => get(Column::Usage),
    }
}

/// Where the limit changes.
fn limits(series: &Series, limit: Option<u64>) -> Steps {
    let mut steps = Steps::new();
    for sample in series.samples(limit) {
        let bytes = sample
            .limit_bytes
            .filter(|bytes| *bytes > 0)
            .map(|bytes| bytes as f64);
        if steps.last().map(|(_, last)| *last) != Some(bytes) {
            steps.push((sample.time_ms, bytes));
        }
    }
    steps
}

fn bands(judged: &Judged, from_ms: i64) -> Vec<Band> {
    let changes: Vec<_> = judged
        .told
        .iter()
        .filter_map(|told| Some((told.change.time_ms, told.change.state?)))
        .collect();
    let first = changes
        .first()
        .map_or(judged.verdict.state, |(_, change)| change.from);
    let mut bands = vec![Band {
        from_ms,
        state: first,
    }];
    bands.extend(changes.iter().map(|(from_ms, change)| Band {
        from_ms: *from_ms,
        state: change.to,
    }));
    bands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fit_lies_on_the_floors_whatever_is_above_them() {
        let hour = 3_600_000;
        let points: Vec<(i64, f64)> = (0..600)
            .map(|at| {
                (
                    at * hour / 60,
                    1000.0 + at as f64 * 10.0 + (at % 10) as f64 * 500.0,
                )
            })
            .collect();
        let to_ms = 599 * hour / 60;
        let end = end(&points, hour, [0, to_ms], 600.0).unwrap();
        assert!((end - (1000.0 + 5990.0)).abs() < 1.0, "{end}");
    }

    #[test]
    fn without_points_there_is_no_end() {
        assert_eq!(end(&[], 0, [0, i64::MAX], 1.0), None);
        assert_eq!(end(&[(5, 1.0)], i64::MIN, [6, 7], f64::NAN), None);
    }
}
