//! What is shown of one cgroup: its last record, the span of its graph, and the curve in it.
//!
//! Pure. Owns which series of the timeline the graph takes.

use jiff::Timestamp;

use super::scroll::Scroll;
use crate::{
    api::records::{CgroupDetails, Mark, Point, Series, Timeline},
    model::history::History,
};

/// Spans of the graph, seconds, with their names.
const SPANS: [(f64, &str); 8] = [
    (300.0, "5 min"),
    (900.0, "15 min"),
    (3_600.0, "1 h"),
    (21_600.0, "6 h"),
    (86_400.0, "24 h"),
    (259_200.0, "3 d"),
    (604_800.0, "7 d"),
    (2_592_000.0, "30 d"),
];
/// The longest at first.
const LONGEST_FIRST: usize = 2;
/// Steps without a reading from which the curve is broken.
const GAP_STEPS: f64 = 2.5;

/// The cgroup that is looked at.
#[derive(Debug)]
pub struct Details {
    pub cgroup_id: u64,
    /// As the list named it.
    pub name: String,
    pub record: Option<Box<CgroupDetails>>,
    /// Why there is no newer record.
    pub problem: Option<String>,
    pub scroll: Scroll,
    span: usize,
}

/// What the graph shows; times in seconds before the end, 0 and below; values in bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Curve {
    /// Unbroken parts.
    pub usage: Vec<Vec<(f64, f64)>>,
    pub limit: Vec<Vec<(f64, f64)>>,
    pub marks: Vec<(f64, Mark)>,
}

impl Details {
    pub fn new(cgroup_id: u64, name: String) -> Self {
        Self {
            cgroup_id,
            name,
            record: None,
            problem: None,
            scroll: Scroll::default(),
            span: LONGEST_FIRST,
        }
    }

    /// Takes an answer; an error keeps the last record. The first chooses a span that its history fills.
    pub fn apply(&mut self, answer: Result<Box<CgroupDetails>, String>) {
        match answer {
            Ok(record) => {
                if self.record.is_none() {
                    let first_seen = record.timeline.as_ref().map(|timeline| timeline.first_seen);
                    let since = first_seen.unwrap_or(record.since);
                    let age = record.time.duration_since(since).as_secs_f64();
                    let fits = SPANS.iter().position(|(span, _)| *span >= age);
                    self.span = fits.unwrap_or(LONGEST_FIRST).min(LONGEST_FIRST);
                }
                self.record = Some(record);
                self.problem = None;
            }
            Err(problem) => self.problem = Some(problem),
        }
    }

    pub fn longer(&mut self) {
        self.span = (self.span + 1).min(SPANS.len() - 1);
    }

    pub fn shorter(&mut self) {
        self.span = self.span.saturating_sub(1);
    }

    /// Seconds, and how a person calls it.
    pub fn span(&self) -> (f64, &'static str) {
        SPANS.get(self.span).copied().unwrap_or((900.0, "15 min"))
    }

    /// The curve of the span; from the readings of the list where the agent keeps no timeline.
    pub fn curve(&self, readings: Option<&History>, interval_seconds: f64) -> Curve {
        let (span, _) = self.span();
        let Some(record) = &self.record else {
            return Curve::default();
        };
        match &record.timeline {
            Some(timeline) => of_timeline(timeline, record.time, span),
            None => of_readings(readings, interval_seconds, span),
        }
    }
}

fn before(time: Timestamp, end: Timestamp) -> f64 {
    time.duration_since(end).as_secs_f64()
}

fn of_timeline(timeline: &Timeline, end: Timestamp, span: f64) -> Curve {
    let mut curve = Curve::default();
    let (points, step) = points_of(&timeline.series, end, span);
    let mut last: Option<f64> = None;
    for point in points {
        let at = before(point.time, end).min(0.0);
        if at < -span {
            continue;
        }
        if last.is_none_or(|last| at - last > step * GAP_STEPS) {
            curve.usage.push(Vec::new());
            curve.limit.push(Vec::new());
        }
        last = Some(at);
        if let Some(part) = curve.usage.last_mut() {
            part.push((at, point.usage_bytes as f64));
        }
        let Some(limit) = point.effective_limit_bytes else {
            curve.limit.push(Vec::new());
            continue;
        };
        if let Some(part) = curve.limit.last_mut() {
            // A limit changes at once.
            if let Some((_, before)) = part.last().copied() {
                part.push((at, before));
            }
            part.push((at, limit as f64));
        }
    }
    curve.limit.retain(|part| !part.is_empty());
    curve.marks = timeline
        .marks
        .iter()
        .map(|mark| (before(mark.time, end).min(0.0), mark.clone()))
        .filter(|(at, _)| *at >= -span)
        .collect();
    curve
}

/// Points of the finest series that reaches back over the span, or as far as any, with what finer ones have
/// behind its end; and the longest step among them.
fn points_of(series: &[Series], end: Timestamp, span: f64) -> (Vec<&Point>, f64) {
    let start = |series: &Series| series.points.first().map(|point| before(point.time, end));
    let oldest = series.iter().filter_map(start).fold(0.0, f64::min);
    let wanted = oldest.max(-span);
    let reaches = |series: &&Series| {
        start(series).is_some_and(|start| start <= wanted + 2.0 * series.step_seconds)
    };
    let chosen = series
        .iter()
        .position(|it| reaches(&it))
        .or_else(|| series.iter().rposition(|it| !it.points.is_empty()));
    let Some(chosen) = chosen else {
        return (Vec::new(), 0.0);
    };
    let mut points: Vec<&Point> = Vec::new();
    let mut step: f64 = 0.0;
    for series in series.iter().take(chosen + 1).rev() {
        let last = points.last().map(|point| point.time);
        let newer = |point: &&Point| last.is_none_or(|last| point.time > last);
        points.extend(series.points.iter().filter(newer));
        step = step.max(series.step_seconds);
    }
    (points, step)
}

fn of_readings(readings: Option<&History>, interval_seconds: f64, span: f64) -> Curve {
    let mut curve = Curve::default();
    let mut part = Vec::new();
    for (at, usage) in readings
        .into_iter()
        .flat_map(History::newest_first)
        .enumerate()
    {
        let at = -(at as f64) * interval_seconds;
        match usage {
            Some(usage) if at >= -span => part.push((at, usage as f64)),
            _ => curve.usage.push(std::mem::take(&mut part)),
        }
    }
    curve.usage.push(part);
    curve.usage.retain(|part| !part.is_empty());
    curve
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::fixture::{MIB, details, leaking, time};

    fn opened() -> Details {
        let mut opened = Details::new(1, "a".into());
        opened.apply(Ok(Box::new(details(leaking(1, "/a"), 1000))));
        opened
    }

    #[test]
    fn the_curve_is_broken_where_nothing_was_read_and_cut_to_the_span() {
        let mut opened = opened();
        opened.shorter();
        opened.shorter();
        assert_eq!(opened.span().0, 300.0);
        let whole = opened.curve(None, 5.0);
        assert_eq!(whole.usage.len(), 1);
        assert_eq!(whole.usage[0].len(), 61);
        assert_eq!(whole.usage[0].last(), Some(&(0.0, (239 * MIB) as f64)));
        let timeline = opened.record.as_mut().unwrap().timeline.as_mut().unwrap();
        timeline.series[0].points.drain(80..90);
        let broken = opened.curve(None, 5.0);
        assert_eq!(broken.usage.len(), 2);
        assert_eq!(broken.limit.len(), 2);
    }

    #[test]
    fn a_young_cgroup_fills_the_graph_at_first() {
        let mut young = Details::new(1, "a".into());
        young.apply(Ok(Box::new(details(leaking(1, "/a"), 20))));
        assert_eq!(young.span().1, "5 min");
        assert_eq!(opened().span().1, "1 h");
    }

    #[test]
    fn a_long_span_takes_the_coarse_series_and_the_fine_one_behind_it() {
        let mut opened = opened();
        let timeline = opened.record.as_mut().unwrap().timeline.as_mut().unwrap();
        let coarse = (0..10).map(|at| Point {
            time: time(1000 - 119 - 60 * (10 - at)),
            usage_bytes: 1,
            anon_bytes: None,
            effective_limit_bytes: None,
        });
        timeline.series.push(Series {
            step_seconds: 300.0,
            points: coarse.collect(),
        });
        opened.longer();
        let curve = opened.curve(None, 5.0);
        let points: Vec<_> = curve.usage.concat();
        assert_eq!(points.len(), 130);
        assert!(points.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn without_a_timeline_the_readings_of_the_list_are_the_curve() {
        let mut opened = opened();
        opened.record.as_mut().unwrap().timeline = None;
        let mut history = History::default();
        for bytes in [Some(MIB), None, Some(2 * MIB), Some(3 * MIB)] {
            history.push(bytes);
        }
        let curve = opened.curve(Some(&history), 2.0);
        assert_eq!(
            curve.usage[0],
            [(0.0, 3.0 * MIB as f64), (-2.0, 2.0 * MIB as f64)]
        );
        assert_eq!(curve.usage[1], [(-6.0, MIB as f64)]);
    }

    #[test]
    fn an_error_keeps_what_was_told() {
        let mut opened = opened();
        opened.apply(Err("gone".into()));
        assert!(opened.record.is_some() && opened.problem.is_some());
    }
}
