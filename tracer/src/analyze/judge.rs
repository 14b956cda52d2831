//! Runs the analysis over series and keeps what it said. Must not read or print.

use std::{
    num::NonZero,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::history::Series;
use crate::analysis::{Analyzer, Change, Signal, State, Thresholds, Verdict};

/// A recording has so many moments at which a verdict on a leak is kept.
const LEAKS_KEPT: i64 = 200;

/// A change, and the verdict as it was then.
#[derive(Debug, Clone)]
pub struct Told {
    pub change: Change,
    pub verdict: Verdict,
}

/// What was said of a series.
#[derive(Debug, Clone, Default)]
pub struct Judged {
    /// In order of time.
    pub told: Vec<Told>,
    /// Time of the last sample.
    pub time_ms: i64,
    /// As of the last sample.
    pub verdict: Verdict,
    /// The last verdict that told of a leak, and about when that was: it goes on being refined long
    /// after the change that was told.
    pub last_leak: Option<(i64, Verdict)>,
    /// Of each signal, as of the last sample.
    pub signals: Vec<(Signal, State)>,
}

impl Judged {
    /// The worst state that it ever had.
    pub fn worst(&self) -> State {
        let told = self.told.iter().flat_map(|told| {
            let to = told.change.state.map(|change| change.to);
            to.into_iter().chain([told.verdict.state])
        });
        told.chain([self.verdict.state]).max().unwrap_or_default()
    }

    /// The verdict that a picture of the growth rests on, and when it was given: the last that told of
    /// a leak, else the final one.
    pub fn weightiest(&self) -> (i64, &Verdict) {
        let told = self
            .told
            .iter()
            .rev()
            .map(|told| (told.change.time_ms, &told.verdict));
        let leak = self
            .last_leak
            .iter()
            .map(|(time_ms, verdict)| (*time_ms, verdict));
        [(self.time_ms, &self.verdict)]
            .into_iter()
            .chain(leak)
            .chain(told)
            .find(|(_, verdict)| verdict.state.is_leak() && verdict.rate_bytes_per_hour.is_some())
            .unwrap_or((self.time_ms, &self.verdict))
    }
}

/// Judges one series. `limit` holds where none was recorded.
pub fn judge(series: &Series, limit: Option<u64>, thresholds: &Arc<Thresholds>) -> Judged {
    let mut analyzer = Analyzer::new(Arc::clone(thresholds));
    let mut judged = Judged::default();
    let times = series.times_ms();
    let (first, last) = (times.first().copied(), times.last().copied());
    let span = last
        .unwrap_or_default()
        .saturating_sub(first.unwrap_or_default());
    let mut keep_from = i64::MIN;
    for sample in series.samples(limit) {
        if let Some(change) = analyzer.push(&sample) {
            judged.told.push(Told {
                change,
                verdict: analyzer.verdict().clone(),
            });
        }
        if sample.time_ms >= keep_from && analyzer.verdict().state.is_leak() {
            judged.last_leak = Some((sample.time_ms, analyzer.verdict().clone()));
            keep_from = sample.time_ms.saturating_add(span / LEAKS_KEPT);
        }
    }
    judged.time_ms = last.unwrap_or_default();
    judged.verdict = analyzer.verdict().clone();
    judged.signals = analyzer.signals().collect();
    judged
}

/// Judges all series, as many at a time as there are processors; the results in their order.
pub fn judge_all(
    series: &[Series],
    limit: Option<u64>,
    thresholds: &Arc<Thresholds>,
) -> Vec<Judged> {
    let workers = thread::available_parallelism()
        .map_or(1, NonZero::get)
        .min(series.len());
    if workers < 2 {
        return series
            .iter()
            .map(|series| judge(series, limit, thresholds))
            .collect();
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let at = next.fetch_add(1, Ordering::Relaxed)
            && let Some(series) = series.get(at)
        {
            done.push((at, judge(series, limit, thresholds)));
        }
        done
    };
    let mut judged: Vec<(usize, Judged)> = thread::scope(|scope| {
        let threads: Vec<_> = (1..workers).map(|_| scope.spawn(work)).collect();
        let mut all = work();
        for thread in threads {
            match thread.join() {
                Ok(done) => all.extend(done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all
    });
    judged.sort_by_key(|(at, _)| *at);
    judged.into_iter().map(|(_, judged)| judged).collect()
}
