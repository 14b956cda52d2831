//! Whether memory grew in the last minutes. A verdict looks at longer times and at what is left after each
//! burst: it may be told late, and these minutes are no verdict.

use jiff::{SignedDuration, Timestamp};

use super::{facts::Facts, history};
use crate::{export::console::duration, size};

const LAST: SignedDuration = SignedDuration::from_mins(15);
/// Less is told by no trend.
const LEAST_SECONDS: f64 = 60.0;
const LEAST_READINGS: usize = 8;
/// Parts of the time, of which the lowest values must rise one by one.
const PARTS: usize = 4;
const LEAST_BYTES: u64 = 1 << 20;
/// Of the usage.
const LEAST_SHARE: f64 = 0.02;

/// Usage that rose steadily until now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trend {
    pub bytes: u64,
    pub seconds: f64,
}

impl Trend {
    /// `12.0M over the last 14m`.
    pub fn told(&self) -> String {
        let over = duration::rough(self.seconds);
        format!("{} over the last {over}", size::bytes(self.bytes))
    }
}

/// `None`: it did not, or that is not known.
pub fn trend(facts: &Facts) -> Option<Trend> {
    let details = facts.details.as_ref().filter(|known| !known.row.removed)?;
    let from = details.time.checked_sub(LAST).ok()?;
    let from = facts.since.map_or(from, |since| since.max(from));
    let history = history::history(&details.timeline.as_ref()?.series, &[], Some(from));
    // Behind the last gap.
    let mut parts = history.points.rsplit(|point| point.usage_bytes.is_none());
    let points: Vec<(f64, u64)> = parts
        .next()?
        .iter()
        .filter_map(|point| {
            let before = details.time.duration_since(point.time).as_secs_f64();
            Some((before, point.usage_bytes?))
        })
        .collect();
    let ((oldest, _), (newest, _)) = (points.first()?, points.last()?);
    let seconds = oldest - newest;
    if points.len() < LEAST_READINGS || seconds < LEAST_SECONDS || *newest > LEAST_SECONDS * 3.0 {
        return None;
    }
    let mut floors = [u64::MAX; PARTS];
    for (before, usage) in &points {
        let part = ((oldest - before) / seconds * PARTS as f64) as usize;
        let floor = floors.get_mut(part.min(PARTS - 1))?;
        *floor = (*floor).min(*usage);
    }
    let (first, last) = (floors.first()?, floors.last()?);
    let rises = floors.is_sorted_by(|before, next| before < next);
    let (begin, end) = (points.first()?.1, points.last()?.1);
    let bytes = end.checked_sub(begin)?;
    let least = LEAST_BYTES.max((end as f64 * LEAST_SHARE) as u64);
    let is_cache = anon_growth(facts, from).is_some_and(|anon| anon < bytes / 2);
    let is_steady = rises && last - first >= least / 2 && bytes >= least;
    (is_steady && !is_cache).then_some(Trend { bytes, seconds })
}

/// Of anonymous memory; `None`: not known.
fn anon_growth(facts: &Facts, from: Timestamp) -> Option<u64> {
    let series = &facts.timeline()?.series;
    let points = series.iter().flat_map(|series| &series.points);
    let known = points.filter(|point| point.time >= from && point.anon_bytes.is_some());
    let first = known.clone().min_by_key(|point| point.time)?.anon_bytes?;
    let last = known.max_by_key(|point| point.time)?.anon_bytes?;
    Some(last.saturating_sub(first))
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{MIB, live};
    use super::*;

    fn with(usage: impl Fn(usize) -> u64) -> Facts {
        let mut facts = live();
        let timeline = facts.details.as_mut().unwrap().timeline.as_mut().unwrap();
        for (at, point) in timeline.series[0].points.iter_mut().rev().enumerate() {
            point.usage_bytes = usage(at);
        }
        facts
    }

    #[test]
    fn a_steady_rise_of_the_last_minutes_is_told_with_its_time() {
        let found = trend(&live()).unwrap();
        assert_eq!(found.bytes, 15 * MIB);
        assert_eq!(found.told(), "15.0M over the last 15m");
    }

    #[test]
    fn a_rise_of_page_cache_is_none() {
        let mut facts = live();
        let timeline = facts.details.as_mut().unwrap().timeline.as_mut().unwrap();
        for point in &mut timeline.series[0].points {
            point.anon_bytes = Some(MIB);
        }
        assert_eq!(trend(&facts), None);
    }

    #[test]
    fn what_swings_stands_or_ends_is_no_rise() {
        assert_eq!(trend(&with(|_| 100 * MIB)), None);
        assert_eq!(trend(&with(|at| (100 + at as u64 % 3 * 40) * MIB)), None);
        assert_eq!(trend(&with(|at| (100 + at as u64) * MIB)), None);
        let mut removed = live();
        removed.details.as_mut().unwrap().row.removed = true;
        assert_eq!(trend(&removed), None);
        let mut unknown = live();
        unknown.details.as_mut().unwrap().timeline = None;
        assert_eq!(trend(&unknown), None);
    }
}
