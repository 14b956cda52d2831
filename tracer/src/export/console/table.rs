//! The live table: leaks first, then the fastest growing cgroups, events as lines above it.
//!
//! Draws in place with plain ANSI sequences on a terminal; else each interval is written below the last.

use std::{
    io::{self, IsTerminal as _, Write},
    time::SystemTime,
};

use globset::GlobMatcher;

use crate::analysis::State;
use crate::growth::GrowthChange;
use crate::host::{escape::display, pattern::as_written};
use crate::incident::Incident;
use crate::model::snapshot::{CgroupSnapshot, OomKill, Snapshot};
use crate::moment::Zone;

use super::{duration, leak, size};

const CLEAR_BELOW: &str = "\x1b[J";
const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const RESET: &str = "\x1b[0m";
/// Narrower terminals do without the FAULTS/s column and show less of the top process.
const WIDE: usize = 100;
/// Narrower ones do without MAPPED.
const WIDEST: usize = 120;

/// Shown of a glob.
const MOST_GLOB_BYTES: usize = 200;

/// Widths of the columns that depend on the terminal.
#[derive(Clone, Copy)]
struct Columns {
    name: usize,
    faults: bool,
    mapped: bool,
    process: usize,
}

impl Columns {
    fn fit(width: usize) -> Self {
        let (faults, mapped) = (width >= WIDE, width >= WIDEST);
        let process = if faults { 20 } else { 12 };
        let optional = if faults { 9 } else { 0 } + if mapped { 11 } else { 0 };
        Self {
            name: width.saturating_sub(53 + optional + process).max(8),
            faults,
            mapped,
            process,
        }
    }
}

/// A table that overwrites itself, where standard output is a terminal.
#[derive(Debug)]
pub struct Table<W> {
    out: W,
    in_place: bool,
    colour: bool,
    /// The glob that cgroups are chosen by, as given.
    chosen_by: Option<String>,
    /// The last drawing, drawn again below each event.
    frame: String,
}

impl<W: Write> Table<W> {
    pub fn new(out: W, colour: bool) -> Self {
        Self {
            out,
            in_place: io::stdout().is_terminal(),
            colour,
            chosen_by: None,
            frame: String::new(),
        }
    }

    /// Says by which glob cgroups are chosen, should there be none.
    pub fn chosen_by(mut self, glob: Option<&GlobMatcher>) -> Self {
        self.choose_by(glob);
        self
    }

    /// The same of a table that is drawn already.
    pub fn choose_by(&mut self, glob: Option<&GlobMatcher>) {
        self.chosen_by = glob.map(|glob| display(as_written(glob).as_bytes(), MOST_GLOB_BYTES));
    }

    /// Draws the interval over the last one, or below it.
    pub fn interval(&mut self, snapshot: &Snapshot, width: usize, height: usize) -> io::Result<()> {
        let frame = self.frame(snapshot, width.max(8), height.max(6));
        if !self.in_place {
            self.out.write_all(frame.as_bytes())?;
            return self.out.flush();
        }
        self.erase()?;
        self.frame = frame;
        self.draw()
    }

    /// What the table is drawn on.
    pub fn out(&mut self) -> &mut W {
        &mut self.out
    }

    /// A warning or event that stays above the table.
    pub fn line(&mut self, line: &str) -> io::Result<()> {
        self.erase()?;
        writeln!(self.out, "{line}")?;
        self.draw()
    }

    /// An OOM kill in one line.
    pub fn oom_kill(&mut self, kill: &OomKill) -> io::Result<()> {
        let (red, reset) = if self.colour { (RED, RESET) } else { ("", "") };
        let victim = kill.victim_comm.as_deref().unwrap_or("?");
        let pid = kill.victim_tgid.unwrap_or(kill.victim_tid);
        let anon = kill.anon_bytes.map_or("?".into(), size::bytes);
        let line = format!(
            "{red}{} OOM kill: {victim} (pid {pid}, {anon} anonymous) in {}, triggered by {} (pid {}){reset}",
            time_of_day(kill.time),
            kill.cgroup.as_deref().unwrap_or("an unknown cgroup"),
            kill.trigger_comm,
            kill.trigger_tgid,
        );
        self.line(&line)
    }

    /// A complete incident, as a report.
    pub fn incident(&mut self, incident: &Incident, width: usize) -> io::Result<()> {
        let report = super::incident::report(incident, &Zone::utc(), self.colour, width);
        self.line(report.trim_end())
    }

    /// A change of a verdict that matters to an operator.
    pub fn leak(&mut self, change: &GrowthChange) -> io::Result<()> {
        let Some(line) = leak::line(change) else {
            return Ok(());
        };
        let (yellow, reset) = if self.colour {
            (YELLOW, RESET)
        } else {
            ("", "")
        };
        self.line(&format!(
            "{yellow}{} {line}{reset}",
            time_of_day(change.time.into())
        ))
    }

    fn draw(&mut self) -> io::Result<()> {
        self.out.write_all(self.frame.as_bytes())?;
        self.out.flush()
    }

    fn erase(&mut self) -> io::Result<()> {
        match self.frame.lines().count() {
            0 => Ok(()),
            lines => write!(self.out, "\x1b[{lines}A\r{CLEAR_BELOW}"),
        }
    }

    fn frame(&self, snapshot: &Snapshot, width: usize, height: usize) -> String {
        let (bold, reset) = if self.colour { (BOLD, RESET) } else { ("", "") };
        let columns = Columns::fit(width);
        let host = &snapshot.host;
        let total = host.mem_total_bytes.map_or("?".into(), size::bytes);
        let available = host.mem_available_bytes.map_or("?".into(), size::bytes);
        let lost: String = snapshot
            .own
            .losses
            .iter()
            .filter(|loss| loss.count > 0)
            .map(|loss| format!("  {} {}", loss.cause, loss.count))
            .collect();
        let mut frame = format!(
            "memtrace {}  {available} of {total} available  {} cgroups  own RSS {}{}\n",
            time_of_day(snapshot.time),
            snapshot.own.cgroups_tracked,
            snapshot.own.rss_bytes.map_or("?".into(), size::bytes),
            lost,
        );
        frame = cut(&frame, width) + "\n";
        let header = row(
            columns,
            &[
                "CGROUP",
                "USAGE",
                "LIMIT",
                "%",
                "GROWTH",
                "VERDICT",
                "FULL IN",
                "FAULTS/s",
                "MAPPED",
                "TOP PROCESS",
            ],
        );
        frame += &format!("{bold}{}{reset}\n", cut(&header, width));
        let mut cgroups: Vec<&CgroupSnapshot> = snapshot
            .cgroups
            .iter()
            .filter(|cgroup| !cgroup.removed)
            .collect();
        cgroups.sort_by(|a, b| {
            suspicion(b)
                .cmp(&suspicion(a))
                .then_with(|| order(b).total_cmp(&order(a)))
                .then_with(|| a.cgroup.cmp(&b.cgroup))
        });
        if let (true, Some(glob)) = (cgroups.is_empty(), &self.chosen_by) {
            let tracked = snapshot.own.cgroups_tracked;
            let note = format!("0 of {tracked} cgroups match --cgroup '{glob}'");
            frame += &format!("{}\n", cut(&note, width));
        }
        let room = height.saturating_sub(4);
        for cgroup in cgroups.iter().take(room) {
            frame += &self.cgroup(cgroup, columns, width);
        }
        if cgroups.len() > room {
            frame += &format!("… {} more\n", cgroups.len() - room);
        }
        frame
    }

    fn cgroup(&self, cgroup: &CgroupSnapshot, columns: Columns, width: usize) -> String {
        let name = cgroup.names.short();
        let name = name.unwrap_or_else(|| cgroup.cgroup.clone());
        let limit = cgroup.effective_limit.as_ref().map(|limit| limit.bytes);
        let share = match (cgroup.memory.usage_bytes, limit) {
            (Some(usage), Some(limit)) if limit > 0 => Some(usage as f64 * 100.0 / limit as f64),
            _ => None,
        };
        let top = cgroup.processes.first().map_or(String::new(), |process| {
            format!(
                "{}[{}]",
                process.comm.as_deref().unwrap_or("?"),
                process.tgid
            )
        });
        let mapped = cgroup.heap.map_or("-".into(), |_| {
            size::rate(cgroup.rates.mapped_bytes_per_second)
        });
        let line = row(
            columns,
            &[
                &shortened(&name, columns.name),
                &cgroup.memory.usage_bytes.map_or("-".into(), size::bytes),
                &limit.map_or("-".into(), size::bytes),
                &share.map_or("-".into(), |share| format!("{share:.0}%")),
                &size::rate(cgroup.rates.growth_bytes_per_second),
                cgroup.leak.map_or("-", |leak| verdict(leak.state)),
                &full_in(cgroup),
                &size::count(cgroup.rates.faults_per_second),
                &mapped,
                &shortened(&top, columns.process),
            ],
        );
        let line = cut(&line, width);
        let state = cgroup.leak.map(|leak| leak.state);
        if !self.colour {
            line + "\n"
        } else if state == Some(State::Confirmed) {
            format!("{RED}{line}{RESET}\n")
        } else if state == Some(State::Suspected) || share.is_some_and(|share| share >= 90.0) {
            format!("{YELLOW}{line}{RESET}\n")
        } else {
            line + "\n"
        }
    }
}

/// Cells in their columns.
fn row(columns: Columns, cells: &[&str; 10]) -> String {
    let [
        cgroup,
        usage,
        limit,
        share,
        growth,
        verdict,
        full_in,
        faults,
        mapped,
        process,
    ] = cells;
    let name = columns.name;
    let faults = match columns.faults {
        true => format!(" {faults:>8}"),
        false => String::new(),
    };
    let mapped = match columns.mapped {
        true => format!(" {mapped:>10}"),
        false => String::new(),
    };
    format!(
        "{cgroup:<name$} {usage:>7} {limit:>7} {share:>5} {growth:>10}  {verdict:<9} {full_in:>7}{faults}{mapped}  {process}"
    )
}

fn verdict(state: State) -> &'static str {
    match state {
        State::Unknown => "-",
        state => state.name(),
    }
}

/// Time until the limit is reached, of a leak.
fn full_in(cgroup: &CgroupSnapshot) -> String {
    let time = cgroup.leak.and_then(|leak| leak.time_to_limit);
    time.map_or_else(|| "-".into(), |time| duration::rough(time.seconds.mid))
}

/// Leaks are on top, however slow.
fn suspicion(cgroup: &CgroupSnapshot) -> Option<State> {
    let state = cgroup.leak.map(|leak| leak.state);
    state.filter(|state| state.is_leak())
}

/// Fastest growing first; the biggest of those that stand still.
fn order(cgroup: &CgroupSnapshot) -> f64 {
    let growth = cgroup.rates.growth_bytes_per_second.unwrap_or(0.0);
    let usage = cgroup.memory.usage_bytes.unwrap_or(0) as f64;
    growth + usage * 1e-9
}

/// The end of a path says more than its beginning.
fn shortened(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let tail: String = text.chars().skip(length + 1 - width).collect();
    format!("…{tail}")
}

/// A line cut to the width of the terminal, so that a drawing has as many rows as lines.
fn cut(line: &str, width: usize) -> String {
    line.trim_end().chars().take(width).collect()
}

fn time_of_day(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time)
        .map(|time| time.strftime("%H:%M:%SZ").to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::snapshot::{HostReading, MemoryReading, Rates, SelfReading};

    fn cgroup(name: &str, usage: u64, growth: f64) -> CgroupSnapshot {
        CgroupSnapshot {
            cgroup_id: 1,
            cgroup: name.into(),
            names: Default::default(),
            growers: Vec::new(),
            container: None,
            since: SystemTime::UNIX_EPOCH,
            removed: false,
            memory: MemoryReading {
                usage_bytes: Some(usage),
                ..MemoryReading::default()
            },
            effective_limit: None,
            heap: None,
            reclaim: None,
            execs: None,
            exits: None,
            oom_kills: None,
            rates: Rates {
                growth_bytes_per_second: Some(growth),
                ..Rates::default()
            },
            leak: None,
            processes: Vec::new(),
        }
    }

    fn snapshot(cgroups: Vec<CgroupSnapshot>) -> Snapshot {
        Snapshot {
            time: SystemTime::UNIX_EPOCH,
            started: SystemTime::UNIX_EPOCH,
            host: HostReading::default(),
            cgroups,
            own: SelfReading::default(),
        }
    }

    #[test]
    fn the_fastest_growing_cgroup_is_on_top_and_the_frame_fits_the_terminal() {
        let cgroups = vec![
            cgroup("/big", 1 << 40, 0.0),
            cgroup("/grows", 1, 5e6),
            cgroup("/small", 1, 0.0),
            cgroup("/last", 0, -9e9),
        ];
        let table = Table::new(Vec::new(), false);
        let frame = table.frame(&snapshot(cgroups), 80, 7);
        let lines: Vec<&str> = frame.lines().collect();
        assert_eq!(lines.len(), 6);
        assert!(lines[2].starts_with("/grows") && lines[3].starts_with("/big"));
        assert_eq!(lines[5], "… 1 more");
        assert!(
            lines.iter().all(|line| line.chars().count() <= 80),
            "{frame}"
        );
    }

    #[test]
    fn a_glob_that_no_cgroup_matches_is_told_and_one_that_some_match_is_not() {
        let glob = crate::host::pattern::glob("/x\x1b*").unwrap();
        let table = Table::new(Vec::new(), false).chosen_by(Some(&glob));
        let mut nobody = snapshot(Vec::new());
        nobody.own.cgroups_tracked = 7;
        let frame = table.frame(&nobody, 80, 7);
        let note = frame.lines().last().unwrap_or_default();
        assert!(
            note.starts_with("0 of 7 cgroups match --cgroup '/x"),
            "{frame}"
        );
        assert!(!note.contains('\x1b'), "{frame}");
        let frame = table.frame(&snapshot(vec![cgroup("/x", 1, 0.0)]), 80, 7);
        assert!(!frame.contains("match"), "{frame}");
        let all = Table::new(Vec::new(), false);
        assert!(!all.frame(&nobody, 80, 7).contains("match"));
    }

    #[test]
    fn an_event_is_written_where_the_table_was() {
        let mut out = Vec::new();
        let mut table = Table {
            in_place: true,
            ..Table::new(&mut out, false)
        };
        table
            .interval(&snapshot(vec![cgroup("/a", 1, 0.0)]), 100, 24)
            .unwrap();
        table.line("event").unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("\x1b[3A\r\x1b[Jevent\nmemtrace "), "{text:?}");
    }

    #[test]
    fn what_is_no_terminal_gets_no_sequences() {
        let mut out = Vec::new();
        let mut table = Table {
            in_place: false,
            ..Table::new(&mut out, false)
        };
        for usage in [1, 2] {
            table
                .interval(&snapshot(vec![cgroup("/a", usage, 0.0)]), 100, 24)
                .unwrap();
            table.line("event").unwrap();
        }
        let text = String::from_utf8(out).unwrap();
        assert!(!text.contains('\x1b'), "{text:?}");
        let heads = text.lines().map(|line| line.split(' ').next());
        let heads: Vec<&str> = heads.flatten().collect();
        let one = ["memtrace", "CGROUP", "/a", "event"];
        assert_eq!(heads, [one, one].concat());
    }
}
