//! What is shown of one cgroup: its last record, the span of its graph, and the curve in it.
//!
//! Pure. Owns which readings of the timeline the graph takes, and that each is drawn over its whole step: it
//! is the largest in it, and a line from one to the next would show usage that never was.

use jiff::Timestamp;

use super::scroll::Scroll;
use crate::{
    api::{
        readings::{GAP_STEPS, Reading, finest},
        records::{CgroupDetails, Mark, Timeline},
    },
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
    /// Unbroken parts, each a flight of steps.
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
    let first_seen = before(timeline.first_seen, end);
    let mut last: Option<Reading> = None;
    for reading in finest(&timeline.series) {
        let at = before(reading.time, end).min(0.0);
        if at <= -span {
            continue;
        }
        let joined = last.filter(|last| !is_gap(last, &reading));
        last = Some(reading);
        if joined.is_none() {
            curve.usage.push(Vec::new());
            curve.limit.push(Vec::new());
        }
        let alone = before(reading.begin(), end).max(first_seen).min(at);
        let begin = joined.map_or(alone, |last| before(last.time, end));
        let begin = begin.max(-span);
        let level = |value: u64| [(begin, value as f64), (at, value as f64)];
        if let Some(part) = curve.usage.last_mut() {
            part.extend(level(reading.usage_bytes));
        }
        match (reading.limit_bytes, curve.limit.last_mut()) {
            (Some(limit), Some(part)) => part.extend(level(limit)),
            _ => curve.limit.push(Vec::new()),
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

fn is_gap(last: &Reading, next: &Reading) -> bool {
    let step = last.step_seconds.max(next.step_seconds);
    before(next.time, last.time) > step * GAP_STEPS
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
            Some(usage) if at > -span => {
                let begin = (at - interval_seconds).max(-span);
                part.extend([(at, usage as f64), (begin, usage as f64)]);
            }
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
    use crate::api::records::{Point, Series};
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
        assert_eq!(whole.usage[0].len(), 2 * 60);
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
        assert_eq!(points.len(), 2 * 130);
        assert!(points.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    }

    #[test]
    fn finer_readings_are_taken_where_there_are_any_and_each_is_a_level_over_its_step() {
        let point = |second: i64, usage_bytes| Point {
            time: Timestamp::from_second(1_795_000_000 + second).unwrap(),
            usage_bytes,
            anon_bytes: None,
            effective_limit_bytes: None,
        };
        let series = |step_seconds, points| Series {
            step_seconds,
            points,
        };
        let mut opened = opened();
        let record = opened.record.as_mut().unwrap();
        record.time = Timestamp::from_second(1_795_000_000 + 240).unwrap();
        let timeline = record.timeline.as_mut().unwrap();
        let fine = vec![point(220, 1), point(230, 8), point(240, 1)];
        let minutes = vec![point(60, 2), point(120, 9), point(180, 3), point(240, 8)];
        timeline.first_seen = minutes[0].time - jiff::SignedDuration::from_secs(20);
        timeline.series = vec![series(10.0, fine), series(60.0, minutes)];
        let steps = |opened: &Details| opened.curve(None, 10.0).usage;
        let expected = [
            [(-200.0, 2.0), (-180.0, 2.0)],
            [(-180.0, 9.0), (-120.0, 9.0)],
            [(-120.0, 3.0), (-60.0, 3.0)],
            [(-60.0, 1.0), (-20.0, 1.0)],
            [(-20.0, 8.0), (-10.0, 8.0)],
            [(-10.0, 1.0), (0.0, 1.0)],
        ];
        assert_eq!(steps(&opened), [expected.concat()]);
        // A spike that only the minute saw came before the finer readings.
        let timeline = &mut opened.record.as_mut().unwrap().timeline;
        timeline.as_mut().unwrap().series[1].points[3].usage_bytes = 9;
        let curve = steps(&opened).concat();
        assert_eq!(curve[6..8], [(-60.0, 9.0), (-30.0, 9.0)]);
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
        let mebibytes = |(at, count): (f64, u64)| (at, (count * MIB) as f64);
        assert_eq!(
            curve.usage[0],
            [(0.0, 3), (-2.0, 3), (-2.0, 2), (-4.0, 2)].map(mebibytes)
        );
        assert_eq!(curve.usage[1], [(-6.0, 1), (-8.0, 1)].map(mebibytes));
    }

    #[test]
    fn an_error_keeps_what_was_told() {
        let mut opened = opened();
        opened.apply(Err("gone".into()));
        assert!(opened.record.is_some() && opened.problem.is_some());
    }
}
