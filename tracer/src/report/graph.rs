//! Memory against limit over time: which points are shown, as a panel of a plot and as characters.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::{
    api::records::{MarkKind, Timeline},
    export::plot::{Mark, Onset, Panel, Times},
    incident::Incident,
    moment::Zone,
    size,
};

use super::{
    events::{self, Event},
    facts::Facts,
    history::{self, History},
};

/// Shown before the first event of interest, of the time since it.
const LEAD: f64 = 0.25;
const LEAST_LEAD: SignedDuration = SignedDuration::from_mins(5);
/// Columns and rows of the graph in characters.
const COLUMNS: usize = 64;
const ROWS: usize = 8;
/// A limit that is further above the usage than so many times is named, not drawn.
const DRAWN_LIMIT: f64 = 2.5;

/// A graph.
#[derive(Debug, Clone, Serialize)]
pub struct Graph {
    pub title: String,
    /// The first point tells the time since then.
    pub begin: Timestamp,
    /// The oldest first.
    pub points: Vec<GraphPoint>,
    /// From when on; `null`: none, or not known.
    pub limits: Vec<GraphLimit>,
    /// Since when it grows, and give or take how many seconds.
    pub onset: Option<(Timestamp, f64)>,
    /// Events in the time shown: their place in `events`, from 1 on.
    pub events: Vec<usize>,
    #[serde(skip)]
    marks: Vec<Mark>,
    #[serde(skip)]
    east_seconds: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct GraphPoint {
    pub time: Timestamp,
    /// `null`: a gap from here on.
    pub usage_bytes: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct GraphLimit {
    pub time: Timestamp,
    pub limit_bytes: Option<u64>,
}

/// The history that the agent knows, and what led up to the incident.
pub fn graphs(facts: &Facts, events: &[Event], zone: &Zone) -> Vec<Graph> {
    let mut graphs = Vec::new();
    if let Some(timeline) = facts.timeline() {
        graphs.extend(history(facts, timeline, events, zone));
    }
    let last = facts.incident().filter(|one| facts.tells(one));
    if let Some(incident) = last {
        graphs.extend(before(incident, events, zone));
    }
    graphs
}

fn history(facts: &Facts, timeline: &Timeline, events: &[Event], zone: &Zone) -> Option<Graph> {
    let interesting = events.iter().find(|event| {
        !matches!(
            event.kind,
            MarkKind::Started | MarkKind::AgentStarted | MarkKind::AgentStopped
        )
    });
    let from = facts.since.or_else(|| {
        let first = interesting?.time;
        let lead = facts
            .made
            .duration_since(first)
            .mul_f64(LEAD)
            .max(LEAST_LEAD);
        first.checked_sub(lead).ok()
    });
    let mut history = history::history(&timeline.series, &facts.incidents, from);
    // The first step is longer than what there was of it.
    history.begin = history.begin.max(Some(timeline.first_seen));
    let leak = facts.leak();
    let onset = leak.and_then(|leak| Some((leak.since?, leak.since_uncertainty_s?)));
    graph("Memory and its limit".into(), history, onset, events, zone)
}

fn before(incident: &Incident, events: &[Event], zone: &Zone) -> Option<Graph> {
    let points: Vec<GraphPoint> = incident
        .evidence
        .usage
        .iter()
        .filter_map(|sample| {
            let ago = SignedDuration::from_millis(i64::try_from(sample.before_ms).ok()?);
            Some(GraphPoint {
                time: incident.time.checked_sub(ago).ok()?,
                usage_bytes: Some(sample.usage_bytes),
            })
        })
        .collect();
    let limit = incident
        .charged
        .as_ref()
        .and_then(|charged| charged.limit_bytes);
    let limits = points.first().map(|first| GraphLimit {
        time: first.time,
        limit_bytes: limit,
    });
    let title = format!("What led up to it, until {}", zone.seconds(incident.time));
    let history = History {
        begin: None,
        points,
        limits: limits.into_iter().collect(),
    };
    graph(title, history, None, events, zone)
}

/// `None` where no line could be drawn.
fn graph(
    title: String,
    history: History,
    onset: Option<(Timestamp, f64)>,
    events: &[Event],
    zone: &Zone,
) -> Option<Graph> {
    let last = history.points.last()?.time;
    let first = history.points.first()?.time;
    if first >= last {
        return None;
    }
    let first = history.begin.map_or(first, |begin| begin.min(first));
    let mut graph = Graph {
        title,
        begin: first,
        points: history.points,
        limits: history.limits,
        onset,
        events: Vec::new(),
        marks: Vec::new(),
        east_seconds: zone.offset_seconds(last),
    };
    // An incident lies up to an interval after the last reading.
    let slack = last.duration_since(first) / 50;
    let inside = |time: Timestamp| time >= first && time.duration_since(last) <= slack;
    for (at, event) in events
        .iter()
        .enumerate()
        .filter(|(_, event)| inside(event.time))
    {
        graph.events.push(at + 1);
        graph.marks.push(Mark {
            time_ms: event.time.min(last).as_millisecond(),
            number: at + 1,
            is_kill: event.kind == MarkKind::Oom,
            hint: format!(
                "{} {}: {}",
                zone.seconds(event.time),
                events::name(event.kind),
                event.text
            ),
        });
    }
    Some(graph)
}

impl Graph {
    /// As a picture.
    pub fn panel(&self) -> (Panel, Times) {
        let (from, to) = self.ends();
        let panel = Panel {
            title: String::new(),
            subtitle: String::new(),
            from_ms: from.as_millisecond(),
            to_ms: to.as_millisecond(),
            points: self
                .points
                .iter()
                .map(|point| {
                    let bytes = point.usage_bytes.map_or(f64::NAN, |bytes| bytes as f64);
                    (point.time.as_millisecond(), bytes)
                })
                .collect(),
            longest_step_ms: Some(i64::MAX),
            floor_block_ms: None,
            limits: self
                .limits
                .iter()
                .map(|limit| {
                    let bytes = limit.limit_bytes.map(|bytes| bytes as f64);
                    (limit.time.as_millisecond(), bytes)
                })
                .collect(),
            fit: None,
            onset: self
                .onset
                .filter(|(time, _)| (from..=to).contains(time))
                .map(|(time, uncertainty)| Onset {
                    time_ms: time.as_millisecond(),
                    uncertainty_ms: (uncertainty * 1000.0) as i64,
                }),
            bands: Vec::new(),
            marks: self.marks.clone(),
        };
        (panel, Times::Offset(self.east_seconds))
    }

    /// As lines of characters, each with its newline: a column is the largest usage of its time.
    pub fn characters(&self, zone: &Zone) -> String {
        let (from, to) = self.ends();
        let span = to.duration_since(from).as_secs_f64().max(1e-3);
        let column = |time: Timestamp| {
            let share = time.duration_since(from).as_secs_f64() / span;
            ((share * COLUMNS as f64) as usize).min(COLUMNS - 1)
        };
        let usage = self.columns(column);
        let most = usage.iter().flatten().copied().max().unwrap_or(0);
        let limit = self.limits.last().and_then(|last| last.limit_bytes);
        let drawn = limit.filter(|limit| *limit as f64 <= DRAWN_LIMIT * most as f64);
        let top = most.max(drawn.unwrap_or(0)).max(1);
        let height = |bytes: u64| bytes as f64 / top as f64 * ROWS as f64;
        let limit_row = drawn.map(|limit| (height(limit).ceil() as usize).clamp(1, ROWS));
        let mut text = String::new();
        for row in (1..=ROWS).rev() {
            let label = match (limit_row == Some(row), row) {
                (true, _) => format!("limit {}", size::bytes(limit.unwrap_or(0))),
                (false, ROWS) => size::bytes(top),
                (false, 1) => "0B".into(),
                (false, _) => String::new(),
            };
            text += &format!("{label:>11} ┤");
            for bytes in &usage {
                let filled = bytes.map_or(0.0, |bytes| height(bytes) - (row - 1) as f64);
                text.push(match (filled * 8.0).round() as i64 {
                    ..=0 if limit_row == Some(row) => '┄',
                    ..=0 => ' ',
                    eighths => BLOCKS.get(eighths as usize - 1).copied().unwrap_or('█'),
                });
            }
            text = text.trim_end().to_owned() + "\n";
        }
        text += &format!("{:>11} └{}\n", "", "─".repeat(COLUMNS));
        let mut flags = vec![' '; COLUMNS];
        for mark in &self.marks {
            let Ok(time) = Timestamp::from_millisecond(mark.time_ms) else {
                continue;
            };
            let digits: Vec<char> = mark.number.to_string().chars().collect();
            let start = column(time).min(COLUMNS - digits.len().min(COLUMNS));
            // A number that has no room is in the table all the same.
            let room = flags.get_mut(start..start + digits.len());
            if let Some(room) = room.filter(|room| room.iter().all(|char| *char == ' ')) {
                room.copy_from_slice(&digits);
            }
        }
        let flags: String = flags.into_iter().collect();
        if !flags.trim().is_empty() {
            text += &format!("{:>12} {}\n", "", flags.trim_end());
        }
        let (from, to) = (zone.seconds(from), zone.seconds(to));
        let fill = COLUMNS.saturating_sub(from.len() + to.len());
        text += &format!("{:>12} {from}{}{to}\n", "", " ".repeat(fill));
        if let (Some(limit), None) = (limit, drawn) {
            text += &format!("{:>12} limit {}, far above\n", "", size::bytes(limit));
        }
        text
    }

    /// The largest usage in each column; a point tells the time since the one before.
    fn columns(&self, column: impl Fn(Timestamp) -> usize) -> [Option<u64>; COLUMNS] {
        let mut columns = [None::<u64>; COLUMNS];
        // The first column that the next point tells; `None` behind a gap: only its own.
        let mut free = Some(0);
        for point in &self.points {
            let Some(bytes) = point.usage_bytes else {
                free = None;
                continue;
            };
            let at = column(point.time);
            let from = free.map_or(at, |free: usize| free.min(at));
            for cell in columns.iter_mut().take(at + 1).skip(from) {
                *cell = (*cell).max(Some(bytes));
            }
            free = Some(at + 1);
        }
        columns
    }

    /// In a word or two for who cannot see it.
    pub fn label(&self) -> String {
        let known = self.points.iter().filter_map(|point| point.usage_bytes);
        let (first, last) = (known.clone().next(), known.clone().next_back());
        let size = |bytes: Option<u64>| bytes.map_or("?".into(), size::bytes);
        format!(
            "{}: from {} to {}, at most {}",
            self.title,
            size(first),
            size(last),
            size(known.max())
        )
    }

    fn ends(&self) -> (Timestamp, Timestamp) {
        let last = self.points.last().map(|point| point.time);
        (self.begin, last.unwrap_or(self.begin))
    }
}

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

#[cfg(test)]
#[path = "graph_tests.rs"]
mod tests;
