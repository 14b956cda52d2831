//! One cgroup: its history as a graph, below it what it holds, who grows, which code, and what happened.

use ratatui::{
    Frame,
    layout::Rect,
    style::Style,
    text::{Line, Span},
};

use super::{
    cells, graph,
    look::{Look, Role},
};
use crate::{
    analysis::State,
    api::records::{CgroupDetails, CgroupRow},
    export::console::{duration, leak, verdict},
    size,
    top::{app::App, sort, text},
};

const UNKNOWN: &str = "-";
const LABEL: usize = 10;
/// Marks in the list, the newest first.
const MOST_MARKS: usize = 200;

/// Draws it; tells the details how many lines there are and how many have room.
pub fn draw(frame: &mut Frame<'_>, area: Rect, app: &mut App, look: Look) {
    let interval = app
        .agent
        .as_ref()
        .map_or(1.0, |agent| agent.interval_seconds);
    let Some(details) = &mut app.details else {
        return;
    };
    let width = usize::from(area.width);
    let mut lines = Lines {
        lines: Vec::new(),
        look,
        width,
    };
    if let Some(problem) = &details.problem {
        lines.note(problem, Role::Bad);
    }
    let Some(record) = &details.record else {
        if details.problem.is_none() {
            lines.note("asking the agent…", Role::Dim);
        }
        lines.draw(frame, area, 0);
        return;
    };
    lines.record(record);
    let curve = details.curve(app.rows.history(details.cgroup_id), interval);
    let graph_height = (area.height * 2 / 5).clamp(6, 18).min(area.height);
    let (above, below) = (
        Rect {
            height: graph_height,
            ..area
        },
        Rect {
            y: area.y + graph_height,
            height: area.height - graph_height,
            ..area
        },
    );
    graph::draw(frame, above, &curve, details.span(), look);
    details
        .scroll
        .fit(lines.lines.len(), usize::from(below.height));
    let has_more = details.scroll.has_more();
    lines.draw(frame, below, details.scroll.at());
    if has_more && below.height > 0 {
        let more = Line::styled("↓ more", look.style(Role::Key));
        let (x, y) = (below.right().saturating_sub(6), below.bottom() - 1);
        frame.buffer_mut().set_line(x, y, &more, 6);
    }
}

struct Lines {
    lines: Vec<Line<'static>>,
    look: Look,
    width: usize,
}

impl Lines {
    fn draw(&self, frame: &mut Frame<'_>, area: Rect, from: usize) {
        for (place, line) in area.rows().zip(self.lines.iter().skip(from)) {
            frame
                .buffer_mut()
                .set_line(place.x, place.y, line, place.width);
        }
    }

    fn section(&mut self, title: &str) {
        self.lines.push(Line::default());
        let style = self.look.style(Role::Title);
        self.lines.push(Line::styled(title.to_owned(), style));
    }

    fn line(&mut self, text_of: &str, role: Role) {
        let line = text::fit(text_of, self.width);
        self.lines.push(Line::styled(line, self.look.style(role)));
    }

    /// Text, wrapped.
    fn note(&mut self, note: &str, role: Role) {
        for line in text::wrapped(note, self.width, 0) {
            self.line(&line, role);
        }
    }

    /// Text after the column of labels, wrapped; without a label it goes on with the one above.
    fn prose(&mut self, label: &str, prose: &str, role: Role) {
        let room = self.width.saturating_sub(LABEL);
        for (at, line) in text::wrapped(prose, room, 0).into_iter().enumerate() {
            let label = if at == 0 { label } else { "" };
            self.lines.push(Line::from(vec![
                Span::styled(text::left(label, LABEL), self.look.style(Role::Dim)),
                Span::styled(line, self.look.style(role)),
            ]));
        }
    }

    /// Names and numbers, as many in a line as there is room for.
    fn numbers(&mut self, label: &str, numbers: &[(&str, String)]) {
        let mut line = text::left(label, LABEL);
        let mut spans = vec![Span::styled(line.clone(), self.look.style(Role::Dim))];
        for (name, value) in numbers {
            let columns = text::width(&line) + name.len() + value.len() + 3;
            if columns > self.width && spans.len() > 1 {
                self.lines.push(Line::from(std::mem::take(&mut spans)));
                line = " ".repeat(LABEL);
                spans.push(Span::raw(line.clone()));
            }
            let name = format!("{name} ");
            let value = format!("{value}  ");
            line += &name;
            line += &value;
            spans.push(Span::styled(name, self.look.style(Role::Dim)));
            spans.push(Span::styled(value, Style::new()));
        }
        self.lines.push(Line::from(spans));
    }

    fn record(&mut self, record: &CgroupDetails) {
        self.memory(record);
        self.verdict(record);
        self.processes(record);
        self.stacks(record);
        self.marks(record);
        self.names(record);
    }

    fn memory(&mut self, record: &CgroupDetails) {
        let row = &record.row;
        let used = format!("{}{}", bytes(row.usage_bytes), limit(row));
        self.prose("usage", &used, cells::share_role(sort::share(row)));
        self.numbers(
            "memory",
            &[
                ("anon", bytes(row.anon_bytes)),
                ("file", bytes(record.file_bytes)),
                ("shmem", bytes(record.shmem_bytes)),
                ("kernel", bytes(record.kernel_bytes)),
                ("swap", bytes(record.swap_bytes)),
                ("peak", bytes(record.peak_bytes)),
                ("working set", bytes(row.working_set_bytes)),
                ("memory.high", bytes(record.high_bytes)),
            ],
        );
        self.numbers(
            "activity",
            &[
                ("growth", size::rate(row.growth_bytes_per_second)),
                ("faults/s", size::count(row.faults_per_second)),
                ("major/s", size::count(row.major_faults_per_second)),
                ("reclaim stall", cells::percent(row.reclaim_stall_ratio)),
                ("PSI some", cells::percent(row.pressure_some_ratio)),
                ("full", cells::percent(row.pressure_full_ratio)),
                (
                    "OOM kills",
                    row.oom_kills
                        .map_or(UNKNOWN.into(), |kills| kills.to_string()),
                ),
            ],
        );
    }

    fn verdict(&mut self, record: &CgroupDetails) {
        self.section("Verdict");
        let Some(change) = &record.leak else {
            let state = record.row.leak.as_ref().map(|leak| leak.state);
            let told = match state {
                Some(state) => state.name(),
                None => "growth is not judged here",
            };
            self.prose("state", told, state.map_or(Role::Dim, role));
            return;
        };
        let since = change.state_since.map_or(String::new(), |since| {
            format!(" since {}", since.strftime("%Y-%m-%d %H:%M:%SZ"))
        });
        let state = format!("{}{since}", change.state.name());
        self.prose("state", &state, role(change.state));
        if change.rate_bytes_per_hour.is_some() {
            self.prose("growth", &leak::growth(change), Role::Plain);
        }
        if let Some(near) = &change.near_limit {
            let role = if near.near {
                Role::Warning
            } else {
                Role::Plain
            };
            self.prose("limit", &verdict::nearness(near), role);
        }
        if let Some(evidence) = &change.evidence {
            self.prose("evidence", &verdict::evidence(evidence), Role::Plain);
        }
        for (label, weighed) in verdict::weighed_by_outcome(&change.considered) {
            for (at, one) in weighed.iter().enumerate() {
                self.prose(if at == 0 { label } else { "" }, one, Role::Plain);
            }
        }
    }

    fn processes(&mut self, record: &CgroupDetails) {
        self.section("Processes, the fastest growing first");
        if record.processes.is_empty() {
            self.line("none was seen to grow", Role::Dim);
            return;
        }
        let titles = format!(
            "{:>8} {:>8} {:>8} {:>11}  COMMAND",
            "PID", "RSS", "ANON", "GROWTH"
        );
        self.line(&titles, Role::Dim);
        for process in &record.processes {
            let line = format!(
                "{:>8} {:>8} {:>8} {:>11}  {}",
                process.pid,
                bytes(process.rss_bytes),
                bytes(process.rss_anon_bytes),
                size::rate(process.growth_bytes_per_second),
                process.comm.as_deref().unwrap_or("?"),
            );
            self.line(&line, Role::Plain);
        }
    }

    fn stacks(&mut self, record: &CgroupDetails) {
        self.section("Code that holds anonymous memory, the first suspect first");
        let Some(stacks) = &record.stacks else {
            self.line("pages are not sampled here", Role::Dim);
            return;
        };
        if stacks.is_empty() {
            self.line("nothing was sampled yet", Role::Dim);
        }
        for stack in stacks {
            let grown = format!(
                "{}{}",
                if stack.growth_bytes < 0 { '-' } else { '+' },
                size::bytes(stack.growth_bytes.unsigned_abs())
            );
            let told = format!(
                "{} ±{} resident, grew {grown} ±{}, in {} ({})",
                size::bytes(stack.resident_bytes),
                size::bytes(stack.error_bytes),
                size::bytes(stack.growth_error_bytes),
                stack.process.comm,
                stack.process.pid,
            );
            self.line(&told, Role::Plain);
            for line in text::wrapped(&stack.line(), self.width.saturating_sub(4), 2) {
                self.line(&format!("    {line}"), Role::Curve);
            }
        }
    }

    fn marks(&mut self, record: &CgroupDetails) {
        self.section("What happened, the newest first");
        let Some(timeline) = &record.timeline else {
            self.line("no timeline is kept here", Role::Dim);
            return;
        };
        for mark in timeline.marks.iter().rev().take(MOST_MARKS) {
            let (letter, role) = graph::letter(mark.kind);
            let time = mark.time.strftime("%m-%d %H:%M:%SZ");
            let indent = 18;
            let room = self.width.saturating_sub(indent);
            for (at, line) in text::wrapped(&mark.text, room, 0).into_iter().enumerate() {
                let before = match at {
                    0 => format!("{letter} {time} "),
                    _ => String::new(),
                };
                self.lines.push(Line::from(vec![
                    Span::styled(text::left(&before, indent), self.look.style(role)),
                    Span::raw(line),
                ]));
            }
        }
        let older = timeline.marks.len().saturating_sub(MOST_MARKS) as u64;
        let older = older.saturating_add(timeline.marks_left_out);
        if older > 0 {
            self.line(&format!("{older} older ones are not told"), Role::Dim);
        } else if timeline.marks.is_empty() {
            self.line("nothing so far", Role::Dim);
        }
    }

    fn names(&mut self, record: &CgroupDetails) {
        self.section("Names");
        self.prose("cgroup", &record.row.cgroup, Role::Plain);
        if let Some(names) = &record.names {
            let workload = names.workload.as_ref().map(|workload| {
                let kind = names.workload_kind.as_deref().unwrap_or("workload");
                format!("{kind} {workload}")
            });
            let told = [
                ("pod", names.short()),
                ("workload", workload),
                ("image", names.image.clone()),
                ("container", names.container_id.clone()),
                ("unit", names.systemd_unit.clone()),
            ];
            for (label, value) in told {
                if let Some(value) = value {
                    self.prose(label, &value, Role::Plain);
                }
            }
        }
        let since = record.since.strftime("%Y-%m-%d %H:%M:%SZ").to_string();
        let age = record.time.duration_since(record.since).as_secs_f64();
        let seen = format!("since {since}, {}", duration::rough(age));
        self.prose("counted", &seen, Role::Plain);
    }
}

fn bytes(bytes: Option<u64>) -> String {
    bytes.map_or(UNKNOWN.into(), size::bytes)
}

fn role(state: State) -> Role {
    match state {
        State::Confirmed => Role::Bad,
        State::Suspected => Role::Warning,
        _ => Role::Plain,
    }
}

/// Of which limit how much is used, and whose that is.
fn limit(row: &CgroupRow) -> String {
    let Some(limit) = row.effective_limit_bytes else {
        return ", limit unknown".into();
    };
    let whose = match &row.effective_limit_cgroup {
        Some(owner) if *owner == row.cgroup => "its own limit".to_owned(),
        Some(owner) => format!("the limit of {owner}"),
        None if row.limit_bytes == Some(limit) => "its own limit".to_owned(),
        None => "the machine's memory".to_owned(),
    };
    let share =
        sort::share(row).map_or(String::new(), |share| format!("{:.0}% of ", share * 100.0));
    format!(": {share}{}, {whose}", size::bytes(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_label_goes_on_below_the_one_above() {
        let mut lines = Lines {
            lines: Vec::new(),
            look: Look { colour: false },
            width: 30,
        };
        lines.prose("possible", "one", Role::Plain);
        lines.prose("", "two words that are wrapped here", Role::Plain);
        let told: Vec<String> = lines.lines.iter().map(ToString::to_string).collect();
        let expected = [
            "possible  one",
            "          two words that are",
            "          wrapped here",
        ];
        assert_eq!(told, expected);
    }
}
